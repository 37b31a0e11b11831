"""What a vLLM that goes on serving shows of trouble: lines of its log, a few of its metrics. Pure.

`moe doctor` knows what they mean: the expressions and names are those of its symptoms. A role that
ended has the end of its log in the fault instead.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from node_bootstrap.status import EngineMetrics, Sign

if TYPE_CHECKING:
    from collections.abc import Iterable

LINES: dict[str, tuple[str, ...]] = {
    "WARMUP_SLOW": (
        r"DeepGEMM warmup.*(?:[5-9]\d\d|\d{4,}) ?s",
        r"torch\.compile takes (?:[3-9]\d\d|\d{4,})",
    ),
    "LOAD_IMBALANCE": (r"balancedness=0\.[0-5]",),
    "EPLB_STALLS": (
        r"(?i:eplb.{0,80}(?:timed out|stalled|hangs))",
        r"rearrange.{0,80}timed out",
    ),
    "KV_EXHAUSTED": (r"is preempted by", r"Preempted \d+ requests", r"KV cache is full"),
    "KV_TRANSFER_FAILED": (
        r"NIXL transfer failed",
        r"KV (?:load|transfer) failed",
        r"nixlBackendError",
    ),
    "KV_EXPIRED": (r"Releasing expired KV blocks",),
}
"""Symptom -> its expressions."""
METRICS = frozenset(
    {
        "vllm:kv_cache_usage_perc",
        "vllm:num_requests_waiting",
        "vllm:nixl_num_failed_transfers",
        "vllm:nixl_num_kv_expired_reqs",
    }
)
LINE_CHARACTERS = 240
_ANY = re.compile("|".join(p for patterns in LINES.values() for p in patterns))


def lines(log: str, before: tuple[Sign, ...], at: float) -> tuple[Sign, ...]:
    """The last line of each symptom; one that was there before keeps its time.

    Args:
        log: the end of vLLM's log: what is no longer in it stays as it was.
        before: what an earlier look in the same life found.
        at: now, in seconds since the epoch.
    """
    shown = [line.strip()[:LINE_CHARACTERS] for line in log.splitlines() if _ANY.search(line)]
    known, found = {sign.symptom: sign for sign in before}, []
    for symptom, patterns in LINES.items():
        last = next((s for s in reversed(shown) if any(re.search(p, s) for p in patterns)), None)
        old = known.get(symptom)
        if last is not None and (old is None or old.line != last):
            old = Sign(symptom, last, at)
        if old is not None:
            found.append(old)
    return tuple(found)


def largest(page: str) -> dict[str, float]:
    """Of Prometheus' text: the largest value of each metric, over engines and other labels."""
    found: dict[str, float] = {}
    for match in re.finditer(r"(?m)^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})? (\S+)", page):
        try:
            value = float(match[2])
        except ValueError:
            continue
        if math.isfinite(value):
            name = match[1].removesuffix("_total")
            found[name] = max(value, found.get(name, value))
    return found


def metrics(page: str, at: float) -> EngineMetrics:
    """Those of a `/metrics` page that can be a symptom."""
    return EngineMetrics(at, {n: v for n, v in largest(page).items() if n in METRICS})


def together(pages: Iterable[EngineMetrics]) -> EngineMetrics | None:
    """Of several APIs of one group: the largest values, at the last time; None without any."""
    held = sorted(pages, key=lambda page: page.at)
    if not held:
        return None
    names = {name for page in held for name in page.largest}
    most = {n: max(page.largest[n] for page in held if n in page.largest) for n in names}
    return EngineMetrics(held[-1].at, most)
