"""`uname -r`: the running kernel."""

from __future__ import annotations

from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line, version

COMMAND = ("uname", "-r")


@dataclass(frozen=True)
class Kernel:
    """release: as it names itself. numbers: for comparing."""

    release: str
    numbers: tuple[int, ...]


def parse(output: str) -> Kernel | Unknown:
    """The release."""
    numbers = version(output)
    if len(numbers) < 2:
        return Unknown(f"the kernel's release is not understood: {first_line(output)}")
    return Kernel(output.strip(), numbers)
