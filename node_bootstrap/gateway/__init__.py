"""What runs on the gateway beside the agent: the router, the front, and what they are told."""
