"""How steps are run: when they are due, in which order, and what a failure stops."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from node_bootstrap.steps.base import Check, Marks, StepError, run_step
from node_bootstrap.steps.bring import bring


@dataclass
class Work:
    """A step whose work is a flag."""

    name: str = "work"
    phase: str = "software"
    frequency: str = "change"
    timeout_seconds: float = 5
    needs: tuple = ()
    key: str = "k"
    done: bool = False
    error: Exception | None = None
    helps: bool = True
    checks: int = 0
    meet: threading.Barrier | None = None
    order: list = field(default_factory=list)

    def check(self):
        self.checks += 1
        return Check(self.done, "done" if self.done else "missing")

    def apply(self, deadline):  # noqa: ARG002 - part of a step
        self.order.append(self.name)
        if self.meet:
            self.meet.wait(5)
        if self.error:
            raise self.error
        self.done = self.helps


def marks(boot="b1", store=None):
    store = {} if store is None else store
    return Marks(lambda name: store.get(name, ""), store.__setitem__, boot)


def test_missing_work_is_done_and_then_found_done():
    step = Work()
    assert run_step(step, marks()).outcome == "CHANGED"
    assert run_step(step, marks()).outcome == "NOCHANGE"


def test_a_step_that_could_not_do_its_work_fails_with_the_reason():
    report = run_step(Work(error=StepError("no disk: add one")), marks())
    assert (report.outcome, report.detail) == ("FAILED", "no disk: add one")


def test_a_step_whose_work_did_not_help_fails():
    report = run_step(Work(helps=False), marks())
    assert (report.outcome, report.detail) == ("FAILED", "applied, but still: missing")


def test_a_full_disk_is_a_failure_of_the_step_not_of_the_agent():
    report = run_step(Work(error=OSError(28, "No space left on device", "/var/x")), marks())
    assert report.detail == "No space left on device: /var/x"


def test_a_step_of_each_boot_is_skipped_until_the_next_boot():
    store, step = {}, Work(frequency="boot", done=True)
    assert run_step(step, marks("b1", store)).outcome == "NOCHANGE"
    assert run_step(step, marks("b1", store)).outcome == "SKIPPED"
    assert run_step(step, marks("b2", store)).outcome == "NOCHANGE"


def test_another_key_makes_a_step_due_again():
    store, step = {}, Work(frequency="once", done=True)
    run_step(step, marks(store=store))
    assert run_step(step, marks("b2", store)).outcome == "SKIPPED"
    step.key = "other"
    assert run_step(step, marks("b2", store)).outcome == "NOCHANGE"


def test_a_failed_step_is_due_again():
    store, step = {}, Work(frequency="once", error=StepError("not yet"))
    run_step(step, marks(store=store))
    step.error = None
    assert run_step(step, marks(store=store)).outcome == "CHANGED"


def test_steps_that_do_not_need_one_another_run_side_by_side():
    meet = threading.Barrier(2)
    steps = [Work("a", meet=meet), Work("b", meet=meet)]
    assert [r.outcome for r in bring(steps, marks(), lambda *_: None)] == ["CHANGED", "CHANGED"]


def test_a_step_waits_for_those_it_needs():
    order = []
    steps = [Work("a", order=order), Work("b", needs=("a",), order=order)]
    bring(steps, marks(), lambda *_: None)
    assert order == ["a", "b"]


def test_a_failure_keeps_only_those_that_need_it_from_running():
    steps = [Work("a", error=StepError("x")), Work("b", needs=("a",)), Work("c")]
    reports = bring(steps, marks(), lambda *_: None)
    assert [(r.name, r.outcome) for r in reports] == [("a", "FAILED"), ("c", "CHANGED")]


def test_the_phase_is_that_of_the_first_unfinished_step():
    seen = []
    steps = [Work("a", phase="hardware"), Work("b", phase="weights", needs=("a",))]
    bring(steps, marks(), lambda phase, reports: seen.append((phase, len(reports))))
    assert seen == [("hardware", 0), ("weights", 1)]


def test_the_seconds_of_a_step_are_reported():
    step = Work()
    step.check = lambda: (time.sleep(0.05), Check(done=True, detail=""))[1]
    assert 0.05 <= run_step(step, marks()).seconds < 20
