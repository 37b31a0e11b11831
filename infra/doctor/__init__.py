"""From what a stack's nodes say to the few causes that matter."""
