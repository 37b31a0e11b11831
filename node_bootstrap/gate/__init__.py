"""The hardware gate: what is seen of a node, rules over it, and one action that follows."""
