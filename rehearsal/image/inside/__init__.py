"""Scripts that the vLLM runtime's Python runs; nothing here is imported."""
