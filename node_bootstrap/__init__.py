"""What runs on a node: brings it to its assignment and keeps its group on one generation."""
