"""`findmnt`: what is mounted where, with its size and room."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("findmnt", "--json", "--bytes", "-o", "TARGET,SOURCE,FSTYPE,OPTIONS,SIZE,AVAIL")


@dataclass(frozen=True)
class Mount:
    """One mount. A file system that the kernel turned read-only after an error has `ro`."""

    target: str
    source: str
    fstype: str
    read_only: bool
    size_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Mounts:
    """Those of block devices."""

    mounts: tuple[Mount, ...]

    def at(self, target: str) -> Mount | None:
        """The last mount at a folder: it hides those before it."""
        return next((m for m in reversed(self.mounts) if m.target == target), None)


def parse(output: str) -> Mounts | Unknown:
    """The tree of findmnt."""
    try:
        tree = json.loads(output)["filesystems"]
    except (ValueError, KeyError, TypeError):
        return Unknown(f"findmnt wrote no JSON of file systems: {first_line(output)}")
    return Mounts(tuple(_mount(m) for m in _flat(tree) if str(m.get("source")).startswith("/dev/")))


def _flat(tree: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for mount in tree for part in [mount, *_flat(mount.get("children") or [])]]


def _mount(m: dict[str, Any]) -> Mount:
    options = str(m.get("options") or "").split(",")
    return Mount(
        m["target"],
        m["source"],
        str(m.get("fstype")),
        "ro" in options,
        int(m.get("size") or 0),
        int(m.get("avail") or 0),
    )
