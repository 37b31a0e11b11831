"""`ibv_devinfo`: RDMA devices with the state of their port."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("ibv_devinfo",)


@dataclass(frozen=True)
class RdmaDevice:
    """One device. transport: `unspecified (4)` for EFA. state: PORT_ACTIVE when it is up."""

    name: str
    transport: str
    firmware: str
    vendor: str
    state: str


@dataclass(frozen=True)
class RdmaDevices:
    """In the order of the tool."""

    devices: tuple[RdmaDevice, ...]

    @property
    def efa(self) -> tuple[RdmaDevice, ...]:
        """Those of Amazon (vendor 0x1d0f)."""
        return tuple(d for d in self.devices if d.vendor == "0x1d0f")


def parse(output: str) -> RdmaDevices | Unknown:
    """One block a device."""
    if "No IB devices found" in output:
        return RdmaDevices(())
    blocks = re.split(r"(?m)^hca_id:\s*", output)[1:]
    if not blocks:
        return Unknown(f"ibv_devinfo is not understood: {first_line(output)}")
    return RdmaDevices(tuple(_device(block) for block in blocks))


def _device(block: str) -> RdmaDevice:
    def field(name: str) -> str:
        match = re.search(rf"(?m)^\s*{name}:\s*(.+?)\s*$", block)
        return match[1] if match else ""

    state = field("state").split(" ")[0]
    return RdmaDevice(
        block.split(maxsplit=1)[0], field("transport"), field("fw_ver"), field("vendor_id"), state
    )
