"""What a node is, read from what its tools print: one module a fact, each a pure parser.

A module has COMMAND, what to run, and `parse`, its output to a frozen value. What a parser does
not understand is an `Unknown` with the reason, never a value that looks healthy.
"""
