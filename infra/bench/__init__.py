"""Load on an endpoint: `vllm bench serve`, run for several rates and seeds, and what came out."""
