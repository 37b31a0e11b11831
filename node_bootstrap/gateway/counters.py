"""vLLM's counters of KV transfers by rank, from `/metrics`, and what they prove. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMES = {
    "vllm:nixl_bytes_transferred_count": "transfers",
    "vllm:nixl_bytes_transferred_sum": "bytes_moved",
    "vllm:nixl_num_failed_transfers_total": "failed_transfers",
    "vllm:external_prefix_cache_hits_total": "cached_tokens",
}
"""Prometheus name -> what it is called here. The histogram's count is the number of transfers."""
_SAMPLE = re.compile(
    r'^(?P<name>vllm:\w+)\{(?:[^}]*,)?engine="(?P<engine>\d+)"[^}]*\} (?P<value>\S+)$', re.MULTILINE
)


@dataclass(frozen=True)
class Counters:
    """Rank -> counter (a value of NAMES) -> its value."""

    by_rank: Mapping[int, Mapping[str, float]]

    def since(self, before: Counters) -> Counters:
        """What was added since; an engine that restarted meanwhile counts from zero."""
        grown = {}
        for rank, values in self.by_rank.items():
            old = before.by_rank.get(rank, {})
            restarted = any(value < old.get(name, 0.0) for name, value in values.items())
            grown[rank] = {
                name: value - (0.0 if restarted else old.get(name, 0.0))
                for name, value in values.items()
            }
        return Counters(grown)

    def total(self, name: str) -> int:
        """One counter over all ranks."""
        return int(sum(values.get(name, 0.0) for values in self.by_rank.values()))

    def of(self, rank: int, name: str) -> float:
        """One counter of one rank; 0 where the rank tells none."""
        return self.by_rank.get(rank, {}).get(name, 0.0)


def parse(metrics: str) -> Counters:
    """Read a `/metrics` page; several API processes of a node are added up."""
    found: dict[int, dict[str, float]] = {}
    for sample in _SAMPLE.finditer(metrics):
        if (name := NAMES.get(sample["name"])) is not None:
            values = found.setdefault(int(sample["engine"]), {})
            values[name] = values.get(name, 0.0) + float(sample["value"])
    return Counters(found)


def moved(grown: Counters, decode: str, ranks: Sequence[tuple[int, int]]) -> str:
    """Why the counters don't show that KV moved for these completions; empty where they do.

    Args:
        grown: what the decode group's counters grew by.
        decode: its name.
        ranks: (prefill, decode) of each completion.
    """
    for rank in sorted({rank for _, rank in ranks}):
        wanted = sum(1 for _, taker in ranks if taker == rank)
        transfers, size = grown.of(rank, "transfers"), grown.of(rank, "bytes_moved")
        if transfers < wanted or not size:
            return (
                f"{decode}: rank {rank} answered {wanted} times with KV of the prefill group and "
                f"counted {transfers:g} transfers of {size:g} bytes: it computed the prompt itself"
            )
        if not grown.of(rank, "cached_tokens"):
            return f"{decode}: rank {rank} took blocks and used none of their tokens"
    return ""
