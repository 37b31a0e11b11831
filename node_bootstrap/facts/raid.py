"""`/proc/mdstat`: the software RAID arrays of the kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("cat", "/proc/mdstat")
_ARRAY = re.compile(r"(?m)^(md\S+) : (\S+) (?:\([^)]*\) )?(?:(raid\d+|linear) )?(.*)$")


@dataclass(frozen=True)
class Array:
    """One array. failed: members marked (F)."""

    name: str
    active: bool
    level: str
    members: tuple[str, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True)
class Arrays:
    """All arrays, in the kernel's order."""

    arrays: tuple[Array, ...]


def parse(output: str) -> Arrays | Unknown:
    """Lines of `md0 : active raid0 nvme1n1[0] …`."""
    if not output.startswith("Personalities"):
        return Unknown(f"/proc/mdstat is not understood: {first_line(output)}")
    found = []
    for match in _ARRAY.finditer(output):
        members = re.findall(r"(\S+?)\[\d+\](\(F\))?", match[4])
        found.append(
            Array(
                match[1],
                match[2] == "active",
                match[3] or "",
                tuple(sorted(name for name, _ in members)),
                tuple(sorted(name for name, failed in members if failed)),
            )
        )
    return Arrays(tuple(found))
