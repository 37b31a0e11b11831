"""How much of the model a node must load, and how long that takes by source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from infra.plan.memory_weights import Sharding, weights

if TYPE_CHECKING:
    from infra.catalog import InstanceType, ModelShape

GIB = 2**30
Basis = Literal["measured", "bound", "arithmetic"]
_PLACEMENT_GROUP_INTERNET_GBPS = 5.0
"""What a node of a cluster placement group gets from the internet, EC2's limit."""
_STREAMER_SHARE = 0.75
"""Of the line: run-ai streamer on g5.12xlarge (40 Gbit/s) reached 3.51 GiB/s."""
_GP3_DEFAULT_MB, _GP3_MOST_MB = 125.0, 1000.0
_S5CMD_GB = 4.3
"""GB/s that s5cmd reached on a 40 Gbit/s line; a faster line was not measured."""


@dataclass(frozen=True)
class LoadTime:
    """One way to the weights. gib_per_second: of one node, all of the model. basis: how known."""

    source: str
    gib_per_second: float
    seconds: float
    basis: Basis


@dataclass(frozen=True)
class WeightsPlan:
    """The checkpoint's size and the time one node needs for all of it, fastest first."""

    size_gib: float
    load_times: tuple[LoadTime, ...]


def checkpoint_bytes(model: ModelShape) -> int:
    """Size of the files: every weight once, as the checkpoint stores it."""
    held = weights(model, Sharding(1, 1, expert_parallel=False, num_redundant_experts=None))
    return held.total


def weights_plan(size_bytes: int, instance: InstanceType) -> WeightsPlan | None:
    """The times of one node of a type; None where the size isn't known."""
    if not size_bytes:
        return None
    size = size_bytes / GIB
    line = instance.ena_gbps * 1e9 / 8 / GIB
    ways: list[tuple[str, float, Basis]] = [
        ("S3 to GPU (run-ai streamer)", line * _STREAMER_SHARE, "bound"),
        ("S3 to disk (s5cmd)", min(line, _S5CMD_GB * 1e9 / GIB), "measured"),
        ("EBS gp3, 1000 MB/s", _GP3_MOST_MB * 1e6 / GIB, "measured"),
        ("EBS gp3, 125 MB/s (the default)", _GP3_DEFAULT_MB * 1e6 / GIB, "arithmetic"),
        (
            "Hugging Face",
            min(line, _PLACEMENT_GROUP_INTERNET_GBPS * 1e9 / 8 / GIB),
            "bound",
        ),
    ]
    times = [LoadTime(s, round(rate, 3), round(size / rate, 1), basis) for s, rate, basis in ways]
    return WeightsPlan(round(size, 3), tuple(sorted(times, key=lambda t: (t.seconds, t.source))))
