"""What the machine image of the rehearsal holds: root file system, vLLM for CPU, a tiny model."""
