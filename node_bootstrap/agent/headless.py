"""A headless member's hands and ears: tells its primary how it is, does what it is told."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from node_bootstrap.agent import client
from node_bootstrap.agent.identity import Identity, now
from node_bootstrap.agent.member import Member
from node_bootstrap.agent.protocol import Action, Heartbeat, Measure, RoleView, StartRole
from node_bootstrap.status import Fault

if TYPE_CHECKING:
    from node_bootstrap.agent.desk import Desk
    from node_bootstrap.assignment import Assignment

log = logging.getLogger(__name__)

RUNNING_SECONDS = 1.0
WAITING_SECONDS = 0.3
"""Between heartbeats: a member that waits to be started loses less time by asking more often."""
TAIL_CHARACTERS = 6000


class Headless:
    """This node as a member of a group that another node holds."""

    def __init__(
        self,
        assignment: Assignment,
        desk: Desk,
        identity: Identity,
    ) -> None:
        """Take up what runs, and begin to send heartbeats."""
        self._assignment = assignment
        self._desk = desk
        self._supervisor = desk.supervisor
        self._identity = identity
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._end = threading.Event()
        self._sequence = 0
        self._agent_started = time.monotonic()
        self._unheard = ""
        self._tail = ""
        self.fault: Fault | None = None
        self.role = desk.supervisor.view()
        silence = assignment.limits.silence_seconds
        self._member = Member(silence).observe(self.role).resume(time.monotonic())
        threading.Thread(target=self._beat_on, name="heartbeat", daemon=True).start()

    def assign(self, assignment: Assignment) -> None:
        """A new assignment came: its primary is the one to hear."""
        self._assignment = assignment

    def prepared(self, assignment: Assignment) -> None:
        """This node's steps are done for an assignment."""
        with self._lock:
            self._member = self._member.prepare(assignment.revision)
        self._wake.set()

    def tick(self) -> None:
        """Look at the role and act. Called a few times a second, and at every directive."""
        with self._lock:
            self._look()
            if not self._member.measures(time.monotonic()):
                self._desk.measure("")
            for action in self._member.actions(time.monotonic()):
                self._act(action)
                self._look()

    def waiting_for(self) -> tuple[str, ...]:
        """What keeps this member from running."""
        return (self._unheard,) if self._unheard else ()

    def close(self) -> None:
        """Send no more heartbeats; the role goes on."""
        self._end.set()
        self._wake.set()

    def _look(self) -> None:
        before, phase = self.role, self._member.phase()
        self.role = self._supervisor.view()
        self._member = self._member.observe(self.role)
        if self.role.ended(self.role.started) and before.runs(self.role.started):
            self._note_end(self.role)
        if self._member.phase() != phase:
            self._wake.set()

    def _note_end(self, role: RoleView) -> None:
        self._tail = self._desk.read_tail()[-TAIL_CHARACTERS:]
        if role.started is not None and self._member.wanted(time.monotonic()) == role.started:
            what = f"{self._assignment.node}: its vLLM ended {role.detail}".rstrip()
            self.fault = Fault(now().epoch, what, role.started.generation, self._tail)
            log.warning("%s", what)

    def _act(self, action: Action) -> None:
        if isinstance(action, StartRole):
            log.info("generation %d: starting vLLM", action.pair.generation)
            self._tail = ""
            self._desk.use_backend(action.backend, action.backend_why)
            self._supervisor.start(action.pair)
        elif isinstance(action, Measure):
            self._desk.measure(action.token)
        else:
            log.info("stopping vLLM: %s", action.why)
            self._supervisor.stop()

    def _beat_on(self) -> None:
        while not self._end.is_set():
            self._wake.clear()
            try:
                self._beat()
            except Exception:  # a member that falls silent takes its group down
                log.exception("a heartbeat could not be made")
            waiting = self.role.state == "absent"
            self._wake.wait(WAITING_SECONDS if waiting else RUNNING_SECONDS)

    def _beat(self) -> None:
        token = self._desk.token()
        if not token:
            return
        a = self._assignment
        beat, sent_at = self._heartbeat(), time.monotonic()
        limit = min(2.0, a.limits.silence_seconds / 2)
        try:
            directive = client.send(
                beat, a.primary.address, a.agent_port, token, timeout_seconds=limit
            )
        except client.UnheardError as error:
            if not self._unheard:
                log.warning("the primary was not heard: %s", error)
            self._unheard = f"the primary was not heard: {error}"
            if error.status == client.UNAUTHORIZED:
                self._desk.refresh_token()
            return
        self._unheard = ""
        with self._lock:
            known = self._member.directive
            self._member = self._member.hear(directive, sent_at)
            self.tick()
        if known != directive:
            self._wake.set()  # the primary waits to hear that this was heard

    def _heartbeat(self) -> Heartbeat:
        with self._lock:
            member = self._member
            self._sequence += 1
            phase = member.phase()
            detail = self._desk.why_unprepared() if phase == "preparing" else member.role.detail
            able, (measured, outcome) = self._desk.able(), self._desk.measured()
            return Heartbeat(
                name=self._assignment.node,
                instance_id=self._identity.instance_id,
                boot_id=self._identity.boot_id,
                agent_started=self._agent_started,
                sequence=self._sequence,
                phase=phase,
                revision=member.prepared,
                started=member.role.started,
                acknowledged=member.directive.generation if member.directive else 0,
                detail=detail[:500],
                log_tail=self._tail if phase == "failed" else "",
                kv_fault=self._desk.kv_fault(),
                backend=able.name,
                backend_why=able.why[:500],
                measured=measured,
                transfer_faults=outcome.faults,
                transfer_nics=outcome.nics,
            )
