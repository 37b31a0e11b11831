"""Tests that share the stack `rehearsal`, brought up once for all of them."""
