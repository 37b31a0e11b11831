"""Keeps the node on its assignment: reads it, brings a new archive, runs the steps, tries again.

It works in a thread of its own, so that hours of weights never keep a heartbeat waiting.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from node_bootstrap import durable, runner
from node_bootstrap.agent.store import Store, StoreError
from node_bootstrap.assignment import Assignment
from node_bootstrap.status import Found, NodePhase, StepReport
from node_bootstrap.steps.base import Marks, Step, StepError
from node_bootstrap.steps.bring import bring

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from node_bootstrap.places import Places

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
RETRY_SECONDS = (2.0, 4.0, 8.0, 15.0, 30.0)
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Progress:
    """How far the node is.

    prepared: the assignment that all steps are done for. fault: why the node can't go on;
    faulted_at: since when (seconds since the epoch). leave: a new archive is in place, or the
    node changed its part in the group: the agent must start anew.
    """

    phase: NodePhase = "bootstrap"
    assignment: Assignment | None = None
    prepared: Assignment | None = None
    steps: tuple[StepReport, ...] = ()
    found: Found = Found()  # noqa: RUF009 - frozen, so sharing it is safe
    fault: str = ""
    faulted_at: float = 0.0
    leave: str = ""


@dataclass(frozen=True)
class Tools:
    """What the preparer works with; made in its thread, because boto3 takes its time."""

    store: Store
    steps: Callable[[Assignment], Sequence[Step]]
    look: Callable[[Assignment], Found]
    versions: Callable[[Assignment], dict[str, str]]


class Preparer:
    """See the module. `progress` may be read from any thread."""

    def __init__(
        self,
        places: Places,
        boot_id: str,
        archive_sha256: str,
        make_tools: Callable[[], Tools],
        tell: Callable[[], None],
    ) -> None:
        """Take up the last assignment; nothing is read until `start`.

        tell: called when there is something new to act on.
        """
        self._tell = tell
        self._places = places
        self._archive = archive_sha256
        self._make_tools = make_tools
        self._marks = _marks(places, boot_id)
        self._parameters = _load_parameters(places)
        self._refresh = threading.Event()
        self._wake = threading.Event()
        self._end = threading.Event()
        self._failures = 0
        self._retry_at = 0.0
        self._unreadable_since: float | None = None
        saved = durable.load(places.state / "assignment.json", Assignment)
        self.progress = Progress(assignment=saved)

    def start(self) -> None:
        """Begin to work."""
        threading.Thread(target=self._work, name="preparer", daemon=True).start()

    def close(self) -> None:
        """Take up nothing new."""
        self._end.set()
        self._wake.set()

    def parameter(self, name: str) -> str:
        """Value of an SSM parameter as last read; empty when it never was."""
        return self._parameters.get(name, "")

    def secrets(self) -> tuple[str, ...]:
        """All secret values that this node knows."""
        return tuple(self._parameters.values())

    def refresh_token(self) -> None:
        """The token was not accepted: read it again."""
        self._refresh.set()
        self._wake.set()

    def read_parameters(self, names: Sequence[str], store: Store) -> Mapping[str, str]:
        """Read SSM parameters and remember them. StepError when one can't be read."""
        values = store.parameters(names)
        merged = self._parameters | dict(values)
        if merged != self._parameters:
            text = json.dumps(merged, sort_keys=True)
            durable.write(_parameters_path(self._places), text.encode(), mode=0o600)
            self._parameters = merged
        return values

    def _work(self) -> None:
        tools: Tools | None = None
        while not self._end.is_set():
            try:
                tools = tools or self._make_tools()
                self._round(tools)
                self._tell()
            except StoreError as error:
                self._unreadable(str(error))
            except (StepError, runner.CommandError, OSError) as error:
                self._fail(str(error))
            except Exception as error:  # the node must come back once the cause is mended
                log.exception("unexpected")
                self._fail(f"unexpected: {error!r}")
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()

    def _round(self, tools: Tools) -> None:
        new = tools.store.new_assignment()
        self._unreadable_since = None
        if new is not None:
            self._take(new)
        assignment = self.progress.assignment
        if assignment is None or self.progress.leave:
            return
        if self._refresh.is_set():
            self._refresh.clear()
            self.read_parameters([assignment.agent_token_parameter], tools.store)
        if time.monotonic() < self._retry_at:
            return
        if self._archive and assignment.archive.sha256 != self._archive:
            self._bring_archive(assignment)
        elif self.progress.prepared != assignment:
            self._prepare(assignment, tools)
        elif self.progress.fault:  # the bucket could not be read for a while
            phase = _end_of(assignment)
            self.progress = replace(self.progress, phase=phase, fault="", faulted_at=0.0)

    def _take(self, new: Assignment) -> None:
        old = self.progress.assignment
        self._failures, self._retry_at = 0, 0.0
        durable.save(self._places.state / "assignment.json", new)
        leave = ""
        if old is not None and _part(old) != _part(new):
            leave = "this node's part in its group changed"
        self.progress = replace(self.progress, assignment=new, leave=leave)
        log.info("assignment of revision %s", new.revision)

    def _bring_archive(self, assignment: Assignment) -> None:
        wanted = assignment.archive.sha256
        log.info("fetching the bootstrap archive %s", wanted[:12])
        command = [sys.executable, str(self._places.fetcher), "--strict"]
        try:
            runner.run(command, timeout_seconds=300)
        except runner.CommandError as error:
            reason = error.stderr.strip().splitlines()[-1:] or [str(error)]
            self._fail(f"the new bootstrap archive can't be used, the old one goes on: {reason[0]}")
            return
        self.progress = replace(self.progress, leave=f"archive {wanted[:12]} is in place")

    def _prepare(self, assignment: Assignment, tools: Tools) -> None:
        token = assignment.agent_token_parameter  # a node without a group has none
        self.read_parameters([token] if token else [], tools.store)
        found = tools.look(assignment)
        self.progress = replace(self.progress, found=found)
        reports = bring(tools.steps(assignment), self._marks, self._watch)
        failed = [r for r in reports if r.outcome == "FAILED"]
        self.progress = replace(self.progress, steps=reports)
        for report in reports:
            log.info("%s: %s, %.2f s, %s", *_words(report))
        if failed:
            self._fail("\n".join(f"step {r.name}: {r.detail}" for r in failed))
            return
        self._failures = 0
        phase = _end_of(assignment)
        self.progress = replace(
            self.progress, phase=phase, prepared=assignment, fault="", faulted_at=0.0
        )
        self._tell()
        # Only for the report: the role need not wait for an interpreter to start and list.
        found = replace(found, distributions=tools.versions(assignment))
        self.progress = replace(self.progress, found=found)

    def _watch(self, phase: NodePhase, reports: tuple[StepReport, ...]) -> None:
        # A failed node shows its fault until the retry has got past it.
        if not self.progress.fault:
            self.progress = replace(self.progress, phase=phase, steps=reports)

    def _unreadable(self, reason: str) -> None:
        """The bucket can't be read: a prepared node bears that for a while, it works on."""
        self._unreadable_since = self._unreadable_since or time.monotonic()
        patient = time.monotonic() - self._unreadable_since < PATIENCE_SECONDS
        if self.progress.prepared is None or not patient:
            self._fail(reason)

    def _fail(self, reason: str) -> None:
        wait = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
        self._failures += 1
        self._retry_at = time.monotonic() + wait
        if reason != self.progress.fault:
            log.error("%s", reason)
        since = self.progress.faulted_at or time.time()
        self.progress = replace(self.progress, phase="failed", fault=reason, faulted_at=since)


def _end_of(assignment: Assignment) -> NodePhase:
    """The phase of a node whose steps are done."""
    return "image" if assignment.target == "image" else "role"


def _part(assignment: Assignment) -> tuple[object, ...]:
    """What an agent can't change while it runs."""
    a = assignment
    return (a.node, a.position, a.agent_port, a.hardware.private_ip)


def _words(report: StepReport) -> tuple[str, str, float, str]:
    return report.name, report.outcome, report.seconds, report.detail


def _parameters_path(places: Places) -> Path:
    return places.state / "parameters.json"


def _load_parameters(places: Places) -> dict[str, str]:
    """An agent that only restarts must not wait for SSM before it lets its members in."""
    try:
        return json.loads(_parameters_path(places).read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _marks(places: Places, boot_id: str) -> Marks:
    folder = places.state / "steps"

    def read(name: str) -> str:
        path = folder / name
        return path.read_text() if path.exists() else ""

    def write(name: str, mark: str) -> None:
        if read(name) != mark:
            durable.write(folder / name, mark.encode())

    return Marks(read, write, boot_id)
