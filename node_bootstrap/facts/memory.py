"""`/proc/meminfo`: the memory that the kernel counts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("cat", "/proc/meminfo")


@dataclass(frozen=True)
class Memory:
    """total_gib: a little less than the type is said to have."""

    total_gib: float


def parse(output: str) -> Memory | Unknown:
    """The line MemTotal, in KiB."""
    match = re.search(r"(?m)^MemTotal:\s*(\d+) kB", output)
    if match is None:
        return Unknown(f"/proc/meminfo has no MemTotal: {first_line(output)}")
    return Memory(round(int(match[1]) / 2**20, 2))
