"""What the runs of a bench measured, with the spread over their seeds. Pure."""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.bench.asked import Load, Target
from node_bootstrap import jsondata

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA = 1
VALUES = {
    "ttft_p50_ms": "p50_ttft_ms",
    "ttft_p95_ms": "p95_ttft_ms",
    "ttft_p99_ms": "p99_ttft_ms",
    "itl_p50_ms": "p50_itl_ms",
    "itl_p95_ms": "p95_itl_ms",
    "itl_p99_ms": "p99_itl_ms",
    "e2e_p50_ms": "p50_e2el_ms",
    "e2e_p99_ms": "p99_e2el_ms",
    "requests_per_second": "request_throughput",
    "output_tokens_per_second": "output_throughput",
}
"""What is kept of a run -> what vLLM calls it."""


class ResultError(Exception):
    """A result file that isn't one: the message says which and why."""


@dataclass(frozen=True)
class Run:
    """One run. failed: requests without a whole answer. values: see VALUES."""

    rate: float
    seed: int
    completed: int
    failed: int
    seconds: float
    values: dict[str, float]


@dataclass(frozen=True)
class Spread:
    """A value over the seeds of one rate."""

    median: float
    least: float
    most: float


@dataclass(frozen=True)
class Row:
    """All seeds of one rate."""

    rate: float
    completed: int
    failed: int
    values: dict[str, Spread]


@dataclass(frozen=True)
class Bench:
    """All runs of one bench, as its file keeps them. caveat: what the figures don't say."""

    label: str
    target: Target
    load: Load
    began: float
    caveat: str
    runs: tuple[Run, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row per rate, rising."""
        return tuple(_row(rate, self.runs) for rate in sorted({run.rate for run in self.runs}))


def read_run(text: str, rate: float, seed: int) -> Run:
    """One run from the file that vLLM wrote.

    Raises:
        ResultError: it isn't one.
    """
    try:
        found = json.loads(text)
        completed = int(found["completed"])
        # Without a single answer there is nothing to take percentiles of.
        values = (
            {ours: float(found[theirs]) for ours, theirs in VALUES.items()} if completed else {}
        )
        return Run(
            rate, seed, completed, int(found.get("failed", 0)), float(found["duration"]), values
        )
    except (ValueError, LookupError, TypeError) as error:
        raise ResultError(f"vLLM's result of rate {rate:g}, seed {seed}: {error!r}") from error


def to_json(bench: Bench) -> str:
    """The bench as a file: its runs, and the spread of each rate."""
    rows = [dataclasses.asdict(row) for row in bench.rows]
    document = {"schema": SCHEMA, "bench": dataclasses.asdict(bench), "rows": rows}
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def from_json(text: str, name: str) -> Bench:
    """A bench from its file; name: of the file, for the error.

    Raises:
        ResultError: it isn't one.
    """
    try:
        return jsondata.from_json(Bench, json.dumps(json.loads(text)["bench"]))
    except (ValueError, LookupError, TypeError) as error:
        raise ResultError(f"{name} is no result of `moe bench`: {error}") from error


def _row(rate: float, runs: Iterable[Run]) -> Row:
    mine = [run for run in runs if run.rate == rate]
    answered = [run.values for run in mine if run.values]
    spreads = {
        name: Spread(statistics.median(found), min(found), max(found))
        for name in VALUES
        if (found := [values[name] for values in answered])
    }
    return Row(rate, sum(r.completed for r in mine), sum(r.failed for r in mine), spreads)
