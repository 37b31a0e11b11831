"""`nv-fabricmanager --version`: it must be of the driver's version exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("nv-fabricmanager", "--version")


@dataclass(frozen=True)
class FabricManager:
    """The installed version."""

    version: str


def parse(output: str) -> FabricManager | Unknown:
    """The version in its sentence."""
    match = re.search(r"Fabric Manager version is\s*:?\s*(\d+\.\d[\d.]*)", output)
    if match is None:
        return Unknown(f"nv-fabricmanager is not understood: {first_line(output)}")
    return FabricManager(match[1])
