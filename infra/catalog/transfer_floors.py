"""Floors of the measured transfer between two nodes, by instance type."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from typing import Any

from infra.catalog.instances import InstanceType

COLLECTIVES = ("all_reduce", "all_to_all")
DRAM, VRAM = "nixl_dram", "nixl_vram"
ITEMS = (*COLLECTIVES, DRAM, VRAM)


def transfer_floor(instance: InstanceType, item: str) -> float | None:
    """GB/s (10^9 bytes) below which the bytes go a wrong way; None where no figure is known."""
    facts = _facts()
    if instance.family not in facts["families"] or not instance.efa_gbps:
        return None
    node = instance.efa_gbps / 8
    whole = node if item in COLLECTIVES else node / max(1, instance.gpu_count)
    return round(whole * facts["share"][item], 2)


@functools.cache
def _facts() -> dict[str, Any]:
    return tomllib.loads((resources.files("infra.catalog") / "transfer_floors.toml").read_text())
