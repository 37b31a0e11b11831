"""`/proc/driver/nvidia/version`: the driver's kernel module as it is loaded."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("cat", "/proc/driver/nvidia/version")
_NVRM = re.compile(r"NVRM version: NVIDIA UNIX (?P<kind>.*?)\s+(?P<version>\d+\.\d[\d.]*)\s")


@dataclass(frozen=True)
class Driver:
    """open_module: the open kernel module, which DMA-BUF (GPUDirect over EFA) needs."""

    version: str
    open_module: bool


def parse(output: str) -> Driver | Unknown:
    """The line of NVRM."""
    match = _NVRM.search(output)
    if match is None:
        return Unknown(f"the driver's version is not understood: {first_line(output)}")
    return Driver(match["version"], "Open Kernel Module" in match["kind"])
