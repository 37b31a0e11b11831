"""Tests that share the stack `rehearsal-pd`, brought up once for all of them."""
