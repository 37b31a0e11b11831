"""One pass over all steps: each as soon as those it needs are done, side by side where it may."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from node_bootstrap.status import NodePhase, StepReport
from node_bootstrap.steps.base import Marks, Step, run_step

Watcher = Callable[[NodePhase, tuple[StepReport, ...]], None]


def bring(steps: Sequence[Step], marks: Marks, watch: Watcher) -> tuple[StepReport, ...]:
    """Run the steps; a failed one keeps those that need it from running, and only those.

    Args:
        steps: in the order of their reports; `needs` may name only earlier ones.
        marks: when they were last done.
        watch: told at each start and end: the phase of the first unfinished step, the reports.
    """
    reports: dict[str, StepReport] = {}
    running: dict[Future[StepReport], Step] = {}
    started: set[str] = set()

    def due(step: Step) -> bool:
        done = {n for n, r in reports.items() if r.outcome != "FAILED"}
        return step.name not in started and done.issuperset(step.needs)

    with ThreadPoolExecutor(max_workers=max(1, len(steps))) as pool:
        while True:
            for step in filter(due, steps):
                started.add(step.name)
                running[pool.submit(run_step, step, marks)] = step
            if not running:
                return _ordered(steps, reports)
            unfinished = next(s for s in steps if s.name not in reports)
            watch(unfinished.phase, _ordered(steps, reports))
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                reports[running.pop(future).name] = future.result()


def _ordered(steps: Sequence[Step], reports: dict[str, StepReport]) -> tuple[StepReport, ...]:
    return tuple(reports[s.name] for s in steps if s.name in reports)
