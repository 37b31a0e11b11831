"""The primary's hands and ears: feeds the group's machine, does what it says, asks the ranks."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from node_bootstrap import durable
from node_bootstrap.agent import group as machine
from node_bootstrap.agent import group_report, persisted
from node_bootstrap.agent.events import (
    Event,
    Heard,
    Left,
    Measured,
    Ordered,
    Plan,
    Prepared,
    Probed,
    Tick,
)
from node_bootstrap.agent.group import Group
from node_bootstrap.agent.identity import Identity, now
from node_bootstrap.agent.probe import Prober, Target
from node_bootstrap.agent.protocol import (
    Action,
    Directive,
    Heartbeat,
    LeaveOrder,
    Measure,
    RestartOrder,
    RoleView,
    StartRole,
)
from node_bootstrap.transfer import measurer

if TYPE_CHECKING:
    from node_bootstrap.agent.desk import Desk
    from node_bootstrap.assignment import Assignment
    from node_bootstrap.places import Places
    from node_bootstrap.status import EngineMetrics, Fault, GroupReport

log = logging.getLogger(__name__)


def plan_of(assignment: Assignment) -> Plan:
    """What an assignment asks of the whole group."""
    primary, wanted = assignment.primary.name, assignment.transfer
    return Plan(
        revision=assignment.revision,
        primary=primary,
        members=tuple(m.name for m in assignment.members if m.name != primary),
        ranks=assignment.ranks,
        start_seconds=assignment.limits.start_seconds,
        silence_seconds=assignment.limits.silence_seconds,
        transfer=measurer.subject(assignment),
        transfer_required=wanted is not None and wanted.mode == "require",
        transfer_seconds=wanted.limit_seconds if wanted is not None else 0.0,
    )


class Primary:
    """One group, held by this node."""

    def __init__(
        self,
        assignment: Assignment,
        desk: Desk,
        places: Places,
        identity: Identity,
    ) -> None:
        """Take up the group where the last agent left it."""
        self._assignment = assignment
        self._desk = desk
        self._supervisor = desk.supervisor
        self._path = places.state / "group.json"
        self._identity = identity
        self._lock = threading.Lock()
        self._prober: Prober | None = None
        self.role = desk.supervisor.view()
        saved = durable.load(self._path, persisted.GroupRecord)
        if saved is None:
            self._group = machine.new(plan_of(assignment), now(), instance=identity.instance_id)
        else:
            self._group = persisted.restore(
                saved, identity.boot_id, self.role, now(), identity.instance_id
            )
        self._saved = saved

    @property
    def fault(self) -> Fault | None:
        """The group's last fault."""
        return self._group.fault

    def assign(self, assignment: Assignment) -> None:
        """A new assignment came; its members may make themselves heard."""
        self._assignment = assignment

    def prepared(self, assignment: Assignment) -> None:
        """This node's own steps are done for an assignment."""
        able = self._desk.able()
        self._feed(Prepared(plan_of(assignment), able, assignment.takes_turns))

    def hear(self, beat: Heartbeat) -> Directive | None:
        """Take a heartbeat; None when the sender is no member."""
        known = {*plan_of(self._assignment).members, *self._group.plan.members}
        if beat.name not in known:
            return None
        self._feed(Heard(beat))
        return machine.directive(self._group)

    def order(self, order: RestartOrder | LeaveOrder) -> None:
        """End the life that the order names, where it is still this group's."""
        if isinstance(order, LeaveOrder):
            self._feed(Left(order.pair, order.to))
        else:
            self._feed(Ordered(order.pair, order.cause, order.measure))

    def tick(self) -> None:
        """Look at the role, decide, act. Called a few times a second from one thread."""
        role = self._look()
        for action in self._feed(Tick(role)):
            self._act(action)
            role = self._look()
            self._feed(Tick(role))
        self._keep_measuring()
        self._keep_probing(role)

    def report(self) -> GroupReport:
        """The group for the status document."""
        made = group_report.report(self._group, now())
        return replace(made, kv_fault=self._desk.kv_fault())

    def metrics(self) -> EngineMetrics | None:
        """Of the engines, as far as they had to be asked in this life."""
        return self._prober.metrics() if self._prober is not None else None

    def waiting_for(self) -> tuple[str, ...]:
        """Why the group has not been started yet."""
        return machine.waiting_for(self._group, now())

    def close(self) -> None:
        """Stop asking; the role goes on."""
        if self._prober is not None:
            self._prober.stop()

    def _look(self) -> RoleView:
        role = self._supervisor.view()
        if role.ended(role.started) and self.role.runs(role.started):
            role = replace(role, log_tail=self._desk.read_tail())
        elif role == replace(self.role, log_tail=""):
            role = self.role
        self.role = role
        return role

    def _feed(self, event: Event) -> tuple[Action, ...]:
        with self._lock:
            before = self._group
            moment = now()
            self._group, actions = machine.advance(before, event, moment)
            record = persisted.record(self._group, self._identity.boot_id)
            if record != self._saved:  # before anybody acts on it
                durable.save(self._path, record)
                self._saved = record
            _tell_changes(before, self._group)
            return actions

    def _act(self, action: Action) -> None:
        if isinstance(action, StartRole):
            log.info("generation %d: starting vLLM", action.pair.generation)
            self._desk.use_backend(action.backend, action.backend_why)
            self._supervisor.start(action.pair)
        elif isinstance(action, Measure):
            self._desk.measure(action.token)
        else:
            log.info("stopping vLLM: %s", action.why)
            self._supervisor.stop()

    def _keep_measuring(self) -> None:
        going = self._group.measuring
        if going is None:
            self._desk.measure("")
            return
        token, outcome = self._desk.measured()
        if going.own is None and token == going.token:
            self._feed(Measured(token, outcome))

    def _keep_probing(self, role: RoleView) -> None:
        pair = self._group.pair
        wanted = self._group.started and role.runs(pair)
        if self._prober is not None and (not wanted or self._prober.target.pair != pair):
            self._prober.stop()
            self._prober = None
        if wanted and self._prober is None:
            self._prober = Prober(self._target(), self._heard_rank, lambda: self._group.ready)

    def _heard_rank(self, result: Probed) -> None:
        self._feed(result)

    def _target(self) -> Target:
        a = self._assignment
        return Target(
            pair=self._group.pair,
            host=a.hardware.private_ip,
            port=a.api_port,
            api_key=self._desk.secret("VLLM_API_KEY"),
            model=a.probe.model,
            prompt=a.probe.prompt,
            ranks=self._group.plan.ranks,
            interval_seconds=a.probe.interval_seconds,
            timeout_seconds=a.probe.timeout_seconds,
            apis=a.apis,
        )


def _tell_changes(before: Group, after: Group) -> None:
    if after.generation != before.generation:
        log.warning("generation %d: %s", after.generation, after.restarts[-1].cause)
    if after.ready and not before.ready:
        log.info("generation %d is ready: every rank answered", after.generation)
