"""`lsblk`: disks, what is on them and where they are mounted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("lsblk", "--json", "--bytes", "-o", "NAME,TYPE,SIZE,MODEL,FSTYPE,MOUNTPOINTS")
INSTANCE_STORE = "Amazon EC2 NVMe Instance Storage"
"""How EC2's local disks call themselves; EBS volumes are `Amazon Elastic Block Store`."""


@dataclass(frozen=True)
class Disk:
    """One disk. used: what lies on it (partitions, volumes, a file system), empty when it is bare.

    mounts: of it and of all that lies on it.
    """

    name: str
    model: str
    size_bytes: int
    used: tuple[str, ...]
    mounts: tuple[str, ...]

    @property
    def instance_store(self) -> bool:
        """Whether it is local to the host, and empty again after a stop."""
        return self.model == INSTANCE_STORE


@dataclass(frozen=True)
class Disks:
    """All disks; loop devices, CD drives and compressed memory are left out."""

    disks: tuple[Disk, ...]


def parse(output: str) -> Disks | Unknown:
    """The tree of lsblk."""
    try:
        devices = json.loads(output)["blockdevices"]
    except (ValueError, KeyError, TypeError):
        return Unknown(f"lsblk wrote no JSON of block devices: {first_line(output)}")
    disks = (d for d in devices if d.get("type") == "disk" and int(d.get("size") or 0) > 0)
    return Disks(tuple(_disk(d) for d in disks))


def _disk(device: dict[str, Any]) -> Disk:
    used, mounts = [], []
    for part in _tree(device):
        if part is not device:
            used.append(f"{part.get('type')} {part.get('name')}")
        if part.get("fstype"):
            used.append(str(part["fstype"]))
        listed = part.get("mountpoints") or [part.get("mountpoint")]
        mounts += [m for m in listed if m]
    return Disk(
        str(device.get("name")),
        str(device.get("model") or "").strip(),
        int(device["size"]),
        tuple(dict.fromkeys(used)),
        tuple(dict.fromkeys(mounts)),
    )


def _tree(device: dict[str, Any]) -> list[dict[str, Any]]:
    children = device.get("children") or []
    return [device, *(part for child in children for part in _tree(child))]
