"""`nvidia-smi nvlink --status`: the NVLink links of each GPU and their speed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("nvidia-smi", "nvlink", "--status")


@dataclass(frozen=True)
class Links:
    """Of one GPU. gb_per_second: the slowest active link's, 0 where none is active."""

    gpu: int
    active: int
    inactive: int
    gb_per_second: float


@dataclass(frozen=True)
class NvLink:
    """All GPUs by index."""

    gpus: tuple[Links, ...]


def parse(output: str) -> NvLink | Unknown:
    """One block a GPU; a GPU without NVLink has a block without links."""
    blocks = re.split(r"(?m)^GPU (\d+):", output)[1:]
    if not blocks:
        return Unknown(f"nvidia-smi nvlink is not understood: {first_line(output)}")
    pairs = zip(blocks[::2], blocks[1::2], strict=True)
    return NvLink(tuple(_links(int(index), block) for index, block in pairs))


def _links(index: int, block: str) -> Links:
    speeds = [float(s) for s in re.findall(r"Link \d+: ([\d.]+) GB/s", block)]
    inactive = len(re.findall(r"Link \d+: <?inactive>?", block))
    return Links(index, len(speeds), inactive, min(speeds, default=0.0))
