"""Keeps the node on its assignment and its group on one generation."""
