"""Huge pages of `/proc/meminfo`: those that the kernel has set apart."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("grep", "Huge", "/proc/meminfo")


@dataclass(frozen=True)
class HugePages:
    """total: set apart. free: of these. size_kib: of one."""

    total: int
    free: int
    size_kib: int


def parse(output: str) -> HugePages | Unknown:
    """Lines of `Name: value`."""
    found = dict(re.findall(r"^(\w+):\s*(\d+)", output, re.MULTILINE))
    try:
        return HugePages(
            int(found["HugePages_Total"]), int(found["HugePages_Free"]), int(found["Hugepagesize"])
        )
    except KeyError as missing:
        return Unknown(f"/proc/meminfo has no {missing.args[0]}: {first_line(output)}")
