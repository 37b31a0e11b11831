"""`chronyc tracking`: whether the clock follows a time source, and how far off it is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("chronyc", "-n", "tracking")


@dataclass(frozen=True)
class Clock:
    """source: address of the time source, empty where there is none. offset_seconds: absolute."""

    source: str
    offset_seconds: float
    synchronized: bool


def parse(output: str) -> Clock | Unknown:
    """Lines of `Name : value`."""
    pairs = (line.split(":", 1) for line in output.splitlines() if ":" in line)
    values = {name.strip(): value.strip() for name, value in pairs}
    offset = re.match(r"(\d+\.\d+) seconds", values.get("System time", ""))
    if "Leap status" not in values or offset is None:
        return Unknown(f"chronyc is not understood: {first_line(output)}")
    source = re.search(r"\((.*)\)", values.get("Reference ID", ""))
    followed = values["Leap status"] != "Not synchronised"
    return Clock(source[1] if source else "", float(offset[1]), followed)
