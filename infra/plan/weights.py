"""How much of the model a node must load, and how long that takes by source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoadTime:
    """One way to the weights. gib_per_second: of one node. basis: measured, or a bound."""

    source: str
    gib_per_second: float
    seconds: float
    basis: str


@dataclass(frozen=True)
class WeightsPlan:
    """The checkpoint's size and the time one node needs for all of it."""

    size_gib: float
    load_times: tuple[LoadTime, ...]
