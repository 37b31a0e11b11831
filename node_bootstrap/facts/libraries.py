"""`ldconfig -p`: the shared libraries that programs of this machine find."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("ldconfig", "-p")
WATCHED = (
    "libfabric.so.1",
    "libhwloc.so.15",
    "libnuma.so.1",
    "libibverbs.so.1",
    "libgdrapi.so.2",
    "libnccl.so.2",
    "libnccl-net-ofi.so",
    "libcudart.so.12",
    "libcudart.so.13",
    "libcuda.so.1",
)
"""What NIXL's LIBFABRIC plugin, NCCL's way to EFA and DeepEP need from the system."""


@dataclass(frozen=True)
class Libraries:
    """Path of each watched library that is found, the one a program would load."""

    found: dict[str, str]

    def missing(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of `names` that are not found."""
        return tuple(name for name in names if name not in self.found)


def parse(output: str) -> Libraries | Unknown:
    """Lines of `name (libc6,x86-64) => path`; of two the first one is loaded."""
    lines = re.findall(r"(?m)^\s+(\S+) \(([^)]*)\) => (\S+)$", output)
    if not lines:
        return Unknown(f"ldconfig -p is not understood: {first_line(output)}")
    found: dict[str, str] = {}
    for name, kind, path in lines:
        if name in WATCHED and ("x86-64" in kind or "AArch64" in kind):
            found.setdefault(name, path)
    return Libraries(dict(sorted(found.items())))
