"""What a step is, and how one is run: check, apply only what is missing, verify."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from node_bootstrap.runner import CommandError
from node_bootstrap.status import NodePhase, Outcome, StepReport

if TYPE_CHECKING:
    from collections.abc import Callable

Frequency = Literal["once", "boot", "change"]
"""once: for the life of the disk. boot: once a boot. change: looked at on every pass."""


def key_of(wanted: object) -> str:
    """Digest (16 hex digits) of what a step is to bring about, from its dataclass' own words."""
    return hashlib.sha256(repr(wanted).encode()).hexdigest()[:16]


class StepError(Exception):
    """A step can't be done: what is wrong and what to do about it, in one message."""


@dataclass(frozen=True)
class Check:
    """Whether a step finds its work done, and what it found, in one sentence."""

    done: bool
    detail: str


class Step(Protocol):
    """One concern of the way from bare to ready. Safe to run again after any interruption."""

    @property
    def name(self) -> str:
        """In reports."""
        ...

    @property
    def phase(self) -> NodePhase:
        """The node's phase while it runs."""
        ...

    @property
    def frequency(self) -> Frequency:
        """When it is due."""
        ...

    @property
    def timeout_seconds(self) -> float:
        """For so long it may take."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the steps that must be done before it."""
        ...

    @property
    def key(self) -> str:
        """Digest of what it was asked to do; another one makes the step due again."""
        ...

    def check(self) -> Check:
        """Look, change nothing, be done in under a second when there is nothing to do."""
        ...

    def apply(self, deadline: float) -> None:
        """Do what is missing.

        Raises:
            StepError: it can't be done, or not until the deadline (monotonic seconds).
            CommandError: a command failed.
        """
        ...


@dataclass(frozen=True)
class Marks:
    """When steps were last done: reads and writes one mark a step."""

    read: Callable[[str], str]
    write: Callable[[str, str], None]
    boot_id: str

    def mark(self, step: Step) -> str:
        """The mark of a step that is done now."""
        boot = self.boot_id if step.frequency == "boot" else ""
        return f"{step.key} {boot}".strip()


def run_step(step: Step, marks: Marks) -> StepReport:
    """Run one step; never raises for what a step may meet, the report says FAILED instead."""
    began, began_at = time.monotonic(), time.time()
    outcome, detail = _attempt(step, marks, began + step.timeout_seconds)
    return StepReport(step.name, outcome, round(time.monotonic() - began, 3), detail, began_at)


def _attempt(step: Step, marks: Marks, deadline: float) -> tuple[Outcome, str]:
    try:
        if step.frequency != "change" and marks.read(step.name) == marks.mark(step):
            return "SKIPPED", f"done before ({step.frequency})"
        found = step.check()
        outcome: Outcome = "NOCHANGE"
        if not found.done:
            step.apply(deadline)
            outcome, found = "CHANGED", step.check()
            if not found.done:
                return "FAILED", f"applied, but still: {found.detail}"
        marks.write(step.name, marks.mark(step))
    except (StepError, CommandError) as error:
        return "FAILED", str(error)
    except OSError as error:
        return "FAILED", f"{error.strerror or error}: {error.filename or ''}".rstrip(": ")
    return outcome, found.detail
