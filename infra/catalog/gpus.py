"""What a CUDA program finds on the GPUs of an instance type."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.catalog.instances import InstanceType

_DRIVER_KEEPS_MIB = 479


@dataclass(frozen=True)
class Gpu:
    """One GPU as CUDA reports it: `total_mib` is the total of cudaMemGetInfo."""

    name: str
    total_mib: int
    sms: int
    capability: tuple[int, int]

    @property
    def total_gib(self) -> float:
        """Total memory in GiB, the base of `--gpu-memory-utilization`."""
        return self.total_mib / 1024


def gpu_of(instance: InstanceType) -> Gpu:
    """The GPU of an instance type; LookupError for a CPU type.

    A GPU that the catalog has no measurement of is taken as EC2 states it, less what the driver
    keeps, with the smallest SM count (it only sizes a sampler buffer).
    """
    if instance.gpus is None:
        raise LookupError(f"{instance.name} has no GPU")
    key = f"{instance.gpus.name}-{instance.gpus.memory_mib}"
    known = _gpus().get(key)
    total = instance.gpus.memory_mib - _DRIVER_KEEPS_MIB
    return known or Gpu(instance.gpus.name, total, 58, (8, 9))


@functools.cache
def _gpus() -> dict[str, Gpu]:
    text = (resources.files(__package__ or "infra.catalog") / "gpus.toml").read_text()
    found = {}
    for key, row in tomllib.loads(text)["gpu"].items():
        major, minor = row["capability"].split(".")
        name = key.rpartition("-")[0]
        found[key] = Gpu(name, row["total_mib"], row["sms"], (int(major), int(minor)))
    return found
