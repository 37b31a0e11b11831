"""What will be built, computed before anything is: pure Python, no AWS, no clock, no randomness."""
