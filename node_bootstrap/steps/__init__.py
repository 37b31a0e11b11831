"""Bring a node from bare to ready: each step checks, applies and verifies; safe to run again."""
