"""The group as its primary holds it, as a pure machine: no clock, no network, no process.

A generation is assembled (every member stopped, prepared for the revision, and told so), started
(the primary's vLLM first, the members as soon as its process exists) and becomes ready when every
rank has answered. Any fault begins the next generation: everybody stops, then again. vLLM itself
neither notices a dead headless node nor lets one rejoin, so nothing less than that works.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from node_bootstrap.agent import group_backend, group_faults, group_transfer
from node_bootstrap.agent.events import (
    Backend,
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
from node_bootstrap.agent.group_transfer import Measuring
from node_bootstrap.agent.protocol import (
    Action,
    Directive,
    Heartbeat,
    Measure,
    Now,
    Pair,
    RoleView,
    StartRole,
    StopRole,
)
from node_bootstrap.status import (
    Fault,
    GroupPhase,
    ProbeReport,
    Restart,
    TransferReport,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

BACKOFF_SECONDS = (0.0, 0.0, 5.0, 10.0, 20.0, 40.0, 60.0)
"""Wait before a start, by how many generations in a row never became ready."""
RESTARTS_KEPT = 20
STALL_SECONDS = 2.0
"""A tick later than this: this agent itself stood still, and can't blame others for silence."""


@dataclass(frozen=True)
class MemberView:
    """One member as last heard; `ran`: its role was seen running in this generation."""

    heard_at: float
    heard_epoch: float = 0.0
    beat: Heartbeat | None = None
    ran: bool = False


@dataclass(frozen=True)
class Group:
    """All that the primary knows.

    plan: what this generation runs. prepared: what the primary's steps are done for.
    started: assembled, its roles may run. bound: (instance id, boot id) of each member then.
    streak: generations in a row that never became ready.
    ordered: why the gateway wants this generation to end.
    instance: of the primary. able: the backend that the primary can run itself.
    backend: that all run in this generation, agreed when it was started.
    transfer: what was measured last. measuring: of the measurement that goes on.
    asks: a new revision waits for the gateway's leave. leave: the revision that has it.
    """

    plan: Plan
    generation: int
    since: float
    restarts: tuple[Restart, ...]
    prepared: Plan | None = None
    started: bool = False
    started_at: float = 0.0
    ready: bool = False
    not_before: float = 0.0
    streak: int = 0
    ticked_at: float | None = None
    role: RoleView = field(default_factory=RoleView)
    members: Mapping[str, MemberView] = field(default_factory=dict)
    bound: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    answers: Mapping[int, ProbeReport] = field(default_factory=dict)
    probe_error: str = ""
    ordered: str = ""
    asks: bool = False
    leave: str = ""
    fault: Fault | None = None
    instance: str = ""
    able: Backend = field(default_factory=Backend)
    backend: Backend = field(default_factory=Backend)
    transfer: TransferReport | None = None
    measuring: Measuring | None = None
    measure_after: float = 0.0

    @property
    def pair(self) -> Pair:
        """The pair of this generation."""
        return Pair(self.plan.revision, self.generation)


def new(plan: Plan, now: Now, cause: str = "first start", instance: str = "") -> Group:
    """A group that nothing is known of yet."""
    first = Restart(1, plan.revision, cause, now.epoch)
    return Group(plan=plan, generation=1, since=now.epoch, restarts=(first,), instance=instance)


def advance(group: Group, event: Event, now: Now) -> tuple[Group, tuple[Action, ...]]:
    """Take one event; the new state and what to do now (levels: a lost action comes again)."""
    before = phase(group, now)
    group = _review(_take(group, event, now), now)
    if phase(group, now) != before:
        group = replace(group, since=now.epoch)
    return group, _actions(group)


def directive(group: Group) -> Directive:
    """What members are told: they follow once the primary's own vLLM process exists."""
    run = group.started and group.role.runs(group.pair)
    token = group.measuring.token if group.measuring else ""
    agreed = group.backend if group.started else Backend()
    return Directive(
        group.plan.revision, group.generation, run, agreed.name, agreed.why, measure=token
    )


def phase(group: Group, now: Now) -> GroupPhase:
    """Where this generation stands."""
    if group.started:
        return "ready" if group.ready else "starting"
    if group.role.state != "absent" or any(
        group_faults.fresh(group, view, now)
        and view.beat is not None
        and view.beat.phase == "running"
        for view in group.members.values()
    ):
        return "stopping"
    if group.measuring is not None:
        return "measuring"
    return "backing-off" if now.mono < group.not_before else "gathering"


def waiting_for(group: Group, now: Now) -> tuple[str, ...]:
    """Why this generation has not been started yet, one sentence each; empty when it has."""
    if group.started:
        return ()
    return _incomplete(group, now) or group_transfer.waiting_for(group)


def _incomplete(group: Group, now: Now) -> tuple[str, ...]:
    """What the group lacks to be whole and stopped."""
    reasons = []
    if group.prepared is None:
        reasons.append(f"{group.plan.primary} is not prepared yet")
    if group.role.state != "absent":
        reasons.append(f"{group.plan.primary} still runs its vLLM")
    if now.mono < group.not_before:
        reasons.append(f"waits {group.not_before - now.mono:.0f} s before the next try")
    reasons.extend(
        f"{name} {reason}"
        for name in group.plan.members
        if (reason := group_faults.missing(group, name, now))
    )
    return tuple(reasons)


def _take(group: Group, event: Event, now: Now) -> Group:  # noqa: PLR0911 - a list of rules
    match event:
        case Tick(role):
            return _tick(group, role, now)
        case Heard(beat):
            return _hear(group, beat, now)
        case Prepared(plan, able, asks):
            return replace(group, prepared=plan, able=able, asks=asks)
        case Measured(token, made):
            return group_transfer.take(group, token, made, now)
        case Probed(pair) | Ordered(pair) | Left(pair) if not group.started or pair != group.pair:
            return group
        case Probed(_, rank, None, error):
            return replace(group, probe_error=f"rank {rank} did not answer: {error}")
        case Probed(_, rank, answer):
            return replace(group, answers={**group.answers, rank: answer}, probe_error="")
        case Ordered(_, cause, measure):
            known = None if measure else group.transfer
            return replace(group, ordered=cause, transfer=known)
        case Left(_, revision):
            return replace(group, leave=revision)


def _tick(group: Group, role: RoleView, now: Now) -> Group:
    members = group.members
    late = 0.0 if group.ticked_at is None else now.mono - group.ticked_at
    if late > STALL_SECONDS:
        members = {k: replace(v, heard_at=v.heard_at + late) for k, v in members.items()}
    return replace(group, role=role, members=members, ticked_at=now.mono)


def _hear(group: Group, beat: Heartbeat, now: Now) -> Group:
    view = group.members.get(beat.name, MemberView(now.mono))
    last = view.beat
    if (
        last is not None
        and last.boot_id == beat.boot_id
        and (last.agent_started, last.sequence) >= (beat.agent_started, beat.sequence)
    ):
        return group
    running = beat.phase == "running" and beat.started == group.pair
    view = MemberView(now.mono, now.epoch, beat, ran=view.ran or running)
    return replace(group, members={**group.members, beat.name: view})


def _review(group: Group, now: Now) -> Group:
    if group.started:
        new_revision = _may_switch(group) and _switch(group, now)
        cause = "new revision" if new_revision else group_faults.fault(group, now)
        if cause:
            group = _begin(group, now, cause, blameless=new_revision)
        elif not group.ready and len(group.answers) == group.plan.ranks:
            group = _become_ready(group, now)
    if not group.started:
        group = _follow_prepared(group, now)
        group = _outrun(group)
        whole = not _incomplete(group, now)
        group = group_transfer.review(group, now, whole=whole)
        if whole and not group_transfer.waiting_for(group):
            group = _start(group, now)
    return group


def wants(group: Group, now: Now) -> str:
    """The revision that waits for the gateway's leave to take over; empty where none does."""
    waits = group.started and not _may_switch(group)
    return group.prepared.revision if group.prepared and waits and _switch(group, now) else ""


def _may_switch(group: Group) -> bool:
    """Whether nobody is served by this life, or the gateway has sent everybody elsewhere."""
    plan = group.prepared
    return not (group.asks and group.ready) or (plan is not None and group.leave == plan.revision)


def _switch(group: Group, now: Now) -> bool:
    """Whether a new revision could take over: only once every member of it is prepared.

    Until then the old one goes on serving: a revision that can't be prepared never takes it down.
    """
    plan = group.prepared
    if plan is None or plan == group.plan:
        return False
    views = [group.members.get(name) for name in plan.members]
    return all(
        view is not None
        and view.beat is not None
        and group_faults.fresh(group, view, now)
        and view.beat.revision == plan.revision
        for view in views
    )


def _begin(group: Group, now: Now, cause: str, *, blameless: bool) -> Group:
    """The next generation. blameless: a new revision asks for it, not a fault."""
    plan = group.prepared if blameless and group.prepared is not None else group.plan
    streak = 0 if blameless or group.ready else group.streak + 1
    tail = group.role.log_tail if group.role.ended(group.pair) else _tail_of_members(group)
    fault = None if blameless else Fault(now.epoch, cause, group.generation, tail)
    generation = group.generation + 1
    restart = Restart(generation, plan.revision, cause, now.epoch)
    wait = BACKOFF_SECONDS[min(streak, len(BACKOFF_SECONDS) - 1)]
    return replace(
        group,
        plan=plan,
        generation=generation,
        started=False,
        ready=False,
        streak=streak,
        not_before=now.mono + wait,
        answers={},
        bound={},
        probe_error="",
        ordered="",
        leave="",
        members={k: replace(v, ran=False) for k, v in group.members.items()},
        restarts=(*group.restarts, restart)[-RESTARTS_KEPT:],
        fault=fault or group.fault,
    )


def _tail_of_members(group: Group) -> str:
    beats = [v.beat for v in group.members.values() if v.beat is not None]
    return next((b.log_tail for b in beats if b.phase == "failed" and b.log_tail), "")


def _become_ready(group: Group, now: Now) -> Group:
    last = replace(group.restarts[-1], ready_at=now.epoch)
    return replace(group, ready=True, streak=0, restarts=(*group.restarts[:-1], last))


def _follow_prepared(group: Group, now: Now) -> Group:
    plan = group.prepared
    if plan is None or plan == group.plan:
        return group
    last = group.restarts[-1]
    if plan.revision != group.plan.revision:
        cause = f"{last.cause}; then a new revision"
        last = replace(last, revision=plan.revision, cause=cause)
    return replace(
        group, plan=plan, streak=0, not_before=now.mono, restarts=(*group.restarts[:-1], last)
    )


def _outrun(group: Group) -> Group:
    """A primary on a new disk knows no generation: it takes a later one than any member ran."""
    beats = [view.beat for view in group.members.values() if view.beat is not None]
    ran = [beat.started.generation for beat in beats if beat.started is not None]
    if group.role.started is not None:
        ran.append(group.role.started.generation)
    generation = max([group.generation, *(g + 1 for g in ran)])
    if generation == group.generation:
        return group
    last = replace(group.restarts[-1], generation=generation)
    return replace(group, generation=generation, restarts=(*group.restarts[:-1], last))


def _start(group: Group, now: Now) -> Group:
    bound = {}
    for name in group.plan.members:
        beat = group.members[name].beat
        if beat is not None:
            bound[name] = (beat.instance_id, beat.boot_id)
    agreed = group_backend.agree(group)
    return replace(group, started=True, started_at=now.mono, bound=bound, backend=agreed)


def _actions(group: Group) -> tuple[Action, ...]:
    wanted = group.pair if group.started else None
    if group.role.state == "running" and group.role.started != wanted:
        return (StopRole(f"generation {group.generation}: {group.restarts[-1].cause}"),)
    if wanted and group.role.state == "absent" and group.role.started != wanted:
        return (StartRole(wanted, group.backend.name, group.backend.why),)
    if group.measuring is not None and group.measuring.own is None:
        return (Measure(group.measuring.token),)
    return ()
