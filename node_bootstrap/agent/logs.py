"""What vLLM says of itself in its log: its experts and its all-to-all backend. Pure parsers."""

from __future__ import annotations

import re

from node_bootstrap.status import Experts

_EXPERTS = re.compile(
    r"\[EP Rank (?P<rank>\d+)/(?P<size>\d+)\].*?"
    r"Local/global number of experts: (?P<local>\d+)/(?P<total>\d+)\."
    r"(?:.*?index map: (?P<map>[\d>,\- ]+))?"
)
_ALL2ALL = re.compile(
    r"Using (?P<manager>\w+?)All2AllManager|"
    r"Using (?P<backend>[\w-]+) all2all (?:manager|backend)"
)
_MANAGERS = {
    "AgRs": "allgather_reducescatter",
    "Naive": "naive",
    "PPLX": "pplx",
    "DeepEPHT": "deepep_high_throughput",
    "DeepEPLL": "deepep_low_latency",
    "DeepEPV2": "deepep_v2",
    "NixlEP": "nixl_ep",
}
"""vLLM's class names -> values of --all2all-backend."""
BACKENDS = frozenset(_MANAGERS.values())


def experts(log: str) -> tuple[Experts, ...]:
    """The experts of each rank that logged here, one entry a rank, by rank.

    A line without the index map gives an empty `local`.
    """
    found = {}
    for match in _EXPERTS.finditer(log):
        pairs = re.findall(r"\d+->(\d+)", match["map"] or "")
        rank = int(match["rank"])
        found[rank] = Experts(
            ep_rank=rank,
            ep_size=int(match["size"]),
            local=tuple(int(g) for g in pairs),
            total=int(match["total"]),
        )
    return tuple(found[rank] for rank in sorted(found))


def all2all_backend(log: str) -> str | None:
    """The backend in effect by vLLM's own words; None when it said nothing of it.

    A manager class that is not known is given by its name.
    """
    last = None
    for match in _ALL2ALL.finditer(log):
        last = _MANAGERS.get(match["manager"] or "", match["manager"] or match["backend"])
    return last


def redact(text: str, secrets: tuple[str, ...]) -> str:
    """The text with every secret made unreadable."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return text
