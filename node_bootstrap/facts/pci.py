"""`lspci -Dnn -PP`: GPUs and EFA devices on the PCI bus, and how near they are to one another.

It needs no driver: a GPU that nvidia-smi does not show but that is here has a driver's trouble;
one that is not here either is gone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("lspci", "-Dnn", "-PP")
_LINE = re.compile(
    r"^(?P<path>[0-9a-f:./]+) (?P<kind>.+?) \[(?P<cls>[0-9a-f]{4})\]: .*"
    r"\[(?P<vendor>[0-9a-f]{4}):(?P<device>[0-9a-f]{4})\](?P<rest>.*)$"
)
Kind = Literal["gpu", "nvswitch", "efa", "nvme"]


@dataclass(frozen=True)
class PciDevice:
    """One device. path: bridges from the root complex down to it. id: vendor:device."""

    kind: Kind
    address: str
    path: tuple[str, ...]
    id: str
    revision: str


@dataclass(frozen=True)
class Pci:
    """The devices that matter here, in the order of the bus."""

    devices: tuple[PciDevice, ...]

    def of(self, kind: Kind) -> tuple[PciDevice, ...]:
        """Those of one kind."""
        return tuple(d for d in self.devices if d.kind == kind)


def parse(output: str) -> Pci | Unknown:
    """Lines of lspci; other devices than ours are passed over."""
    lines = [line for line in output.splitlines() if line.strip()]
    matches = [m for line in lines if (m := _LINE.match(line))]
    if not matches:
        return Unknown(f"lspci is not understood: {first_line(output)}")
    return Pci(tuple(d for m in matches if (d := _device(m))))


def bridges_shared(one: PciDevice, other: PciDevice) -> int:
    """How many bridges two devices have in common: the more, the nearer; 0: over the CPU."""
    shared = 0
    for a, b in zip(one.path[:-1], other.path[:-1], strict=False):
        if a != b:
            break
        shared += 1
    return shared


def _device(match: re.Match[str]) -> PciDevice | None:
    kind = _kind(match["cls"], match["vendor"], match["device"])
    if kind is None:
        return None
    domain, _, rest = match["path"].partition(":")
    path = tuple(f"{domain}:{part}" for part in rest.split("/"))
    revision = re.search(r"\(rev ([0-9a-f]+)\)", match["rest"])
    name = f"{match['vendor']}:{match['device']}"
    return PciDevice(kind, path[-1], path, name, revision[1] if revision else "")


def _kind(cls: str, vendor: str, device: str) -> Kind | None:
    if vendor == "10de":
        return {"0302": "gpu", "0300": "gpu", "0680": "nvswitch"}.get(cls)  # pyright: ignore[reportReturnType] - a Literal's values
    if vendor == "1d0f" and device.startswith("efa"):
        return "efa"
    return "nvme" if cls == "0108" else None
