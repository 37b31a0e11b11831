"""`lslocks`: who holds the lock of the package manager."""

from __future__ import annotations

import json
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("lslocks", "--json", "--notruncate", "-o", "COMMAND,PID,PATH,MODE")
_PATHS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock")


@dataclass(frozen=True)
class Holder:
    """One process with one lock."""

    command: str
    pid: int
    path: str


@dataclass(frozen=True)
class AptLock:
    """Nobody, or whom an installation has to wait for."""

    holders: tuple[Holder, ...]


def parse(output: str) -> AptLock | Unknown:
    """The list of locks; no output at all is how lslocks says that there are none."""
    if not output.strip():
        return AptLock(())
    try:
        locks = json.loads(output)["locks"]
    except (ValueError, KeyError, TypeError):
        return Unknown(f"lslocks wrote no JSON of locks: {first_line(output)}")
    held = (lock for lock in locks if lock.get("path") in _PATHS)
    return AptLock(tuple(Holder(x["command"], int(x["pid"]), x["path"]) for x in held))
