"""A short measured transfer between the nodes of a group, before its vLLM starts."""
