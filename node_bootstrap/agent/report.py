"""What the node tells of itself: the status document in the bucket and on disk, and metrics."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from node_bootstrap import durable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from node_bootstrap.status import Status

log = logging.getLogger(__name__)

SHORTEST_SECONDS = 1.0
LONGEST_SECONDS = 15.0


def essence(status: Status) -> Status:
    """The status without what changes at every look: equal essences are no news."""
    group = status.group
    if group is not None:
        group = replace(
            group,
            members=tuple(replace(m, heard_at=0.0) for m in group.members),
            waiting_for=(),
            probes=tuple(replace(p, seconds=0.0, at=0.0) for p in group.probes),
        )
    return replace(status, updated_at=0.0, group=group, signs=(), metrics=None)


class Reporter:
    """Writes the status on change, at most once a second, and now and then without change."""

    def __init__(self, put: Callable[[Status], None], path: Path) -> None:
        """Begin; `put` writes to the bucket and may be slow or fail; `path`: the copy on disk."""
        self._put = put
        self._path = path
        self._status: Status | None = None
        self._news = threading.Event()
        self._failed = False
        self._end = False
        self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)
        self._thread.start()

    def submit(self, status: Status) -> None:
        """Take the status of this moment."""
        before, self._status = self._status, status
        if before is None or essence(before) != essence(status):
            self._news.set()

    def close(self, seconds: float) -> None:
        """Write what is not written yet, for so long at most."""
        self._end = True
        self._news.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        while True:
            self._news.wait(LONGEST_SECONDS)
            self._news.clear()
            ending = self._end  # before the status is taken, so that the last one is written
            if self._status is not None:
                self._write(self._status)
            if ending:
                return
            time.sleep(SHORTEST_SECONDS)

    def _write(self, status: Status) -> None:
        try:
            durable.save(self._path, status)
            self._put(status)
            self._failed = False
        except Exception as error:  # noqa: BLE001 - a report must not end; tried again within 15 s
            if not self._failed:
                log.error("the status could not be written: %s", error)  # noqa: TRY400 - one line is enough
            self._failed = True


class StatusCollector(Collector):
    """The status as Prometheus metrics, made at each scrape."""

    def __init__(self, status: Callable[[], Status]) -> None:
        """`status`: the node at this moment."""
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """All metrics of the agent."""
        status = self._status()
        yield _one("moe_node_phase", "1 for the phase of the node", ["phase"], {status.phase: 1})
        yield _one(
            "moe_step_seconds",
            "Seconds that a step of the last pass took",
            ["step"],
            {s.name: s.seconds for s in status.steps},
        )
        running = GaugeMetricFamily("moe_role_running", "1 while this node's vLLM runs")
        running.add_metric([], float(status.running))
        yield running
        group = status.group
        if group is None:
            return
        yield _one("moe_group_phase", "1 for the phase of the group", ["phase"], {group.phase: 1})
        generation = GaugeMetricFamily("moe_group_generation", "Generation of the group")
        generation.add_metric([], group.generation)
        yield generation
        restarts = GaugeMetricFamily("moe_group_restarts", "Restarts that are remembered")
        restarts.add_metric([], len(group.restarts) - 1)
        yield restarts
        yield _one(
            "moe_probe_seconds",
            "Seconds of the last one-token completion",
            ["rank"],
            {str(p.rank): p.seconds for p in group.probes},
        )


def _one(name: str, text: str, labels: list[str], values: dict[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for label, value in values.items():
        family.add_metric([label], value)
    return family
