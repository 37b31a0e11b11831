"""The group as its primary holds it, as a pure machine: no clock, no network, no process.

A generation is assembled (every member stopped, prepared for the revision, and told so), started
(the primary's vLLM first, the members as soon as its process exists) and becomes ready when every
rank has answered. Any fault begins the next generation: everybody stops, then again. vLLM itself
neither notices a dead headless node nor lets one rejoin, so nothing less than that works.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from node_bootstrap.agent.events import (
    Event,
    Heard,
    Ordered,
    Plan,
    Prepared,
    Probed,
    Tick,
)
from node_bootstrap.agent.protocol import (
    Action,
    Directive,
    Heartbeat,
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
    fault: Fault | None = None

    @property
    def pair(self) -> Pair:
        """The pair of this generation."""
        return Pair(self.plan.revision, self.generation)


def new(plan: Plan, now: Now, cause: str = "first start") -> Group:
    """A group that nothing is known of yet."""
    first = Restart(1, plan.revision, cause, now.epoch)
    return Group(plan=plan, generation=1, since=now.epoch, restarts=(first,))


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
    return Directive(group.plan.revision, group.generation, run)


def phase(group: Group, now: Now) -> GroupPhase:
    """Where this generation stands."""
    if group.started:
        return "ready" if group.ready else "starting"
    if group.role.state != "absent" or any(
        fresh(group, view, now) and view.beat is not None and view.beat.phase == "running"
        for view in group.members.values()
    ):
        return "stopping"
    return "backing-off" if now.mono < group.not_before else "gathering"


def waiting_for(group: Group, now: Now) -> tuple[str, ...]:
    """Why this generation has not been started yet, one sentence each; empty when it has."""
    if group.started:
        return ()
    reasons = []
    if group.prepared is None:
        reasons.append(f"{group.plan.primary} is not prepared yet")
    if group.role.state != "absent":
        reasons.append(f"{group.plan.primary} still runs its vLLM")
    if now.mono < group.not_before:
        reasons.append(f"waits {group.not_before - now.mono:.0f} s before the next try")
    reasons.extend(
        f"{name} {reason}" for name in group.plan.members if (reason := _missing(group, name, now))
    )
    return tuple(reasons)


def _take(group: Group, event: Event, now: Now) -> Group:  # noqa: PLR0911 - a list of rules
    match event:
        case Tick(role):
            return _tick(group, role, now)
        case Heard(beat):
            return _hear(group, beat, now)
        case Prepared(plan):
            return replace(group, prepared=plan)
        case Probed(pair) | Ordered(pair) if not group.started or pair != group.pair:
            return group
        case Probed(_, rank, None, error):
            return replace(group, probe_error=f"rank {rank} did not answer: {error}")
        case Probed(_, rank, answer):
            return replace(group, answers={**group.answers, rank: answer}, probe_error="")
        case Ordered(_, cause):
            return replace(group, ordered=cause)


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
        new_revision = _switch(group, now)
        cause = "new revision" if new_revision else _fault(group, now)
        if cause:
            group = _begin(group, now, cause, blameless=new_revision)
        elif not group.ready and len(group.answers) == group.plan.ranks:
            group = _become_ready(group, now)
    if not group.started:
        group = _follow_prepared(group, now)
        group = _outrun(group)
        if not waiting_for(group, now):
            group = _start(group, now)
    return group


def _switch(group: Group, now: Now) -> bool:
    """Whether a new revision takes over: only once every member of it is prepared.

    Until then the old one goes on serving: a revision that can't be prepared never takes it down.
    """
    plan = group.prepared
    if plan is None or plan == group.plan:
        return False
    views = [group.members.get(name) for name in plan.members]
    return all(
        view is not None
        and view.beat is not None
        and fresh(group, view, now)
        and view.beat.revision == plan.revision
        for view in views
    )


def _fault(group: Group, now: Now) -> str:
    if group.ordered:
        return group.ordered
    if group.role.ended(group.pair):
        return f"{group.plan.primary}: its vLLM ended {group.role.detail}".rstrip()
    for name in group.plan.members:
        if cause := _member_fault(group, name, now):
            return f"{name} {cause}"
    if group.ready and group.probe_error:
        return group.probe_error
    waited = now.mono - group.started_at
    if not group.ready and waited > group.plan.start_seconds:
        silent = [r for r in range(group.plan.ranks) if r not in group.answers]
        last = f" (last: {group.probe_error})" if group.probe_error else ""
        return f"not ready after {waited:.0f} s: no answer of ranks {silent}{last}"
    return ""


def _member_fault(group: Group, name: str, now: Now) -> str:  # noqa: PLR0911 - a list of rules
    view = group.members.get(name)
    if view is None:
        return "was never heard"
    if not fresh(group, view, now):
        return f"has been silent for {now.mono - view.heard_at:.1f} s"
    beat = view.beat
    if beat is None:  # not heard since this agent restarted
        return ""
    bound = group.bound.get(name)
    if bound is not None and bound[0] != beat.instance_id:
        return f"is another instance ({beat.instance_id} instead of {bound[0]})"
    if bound is not None and bound[1] != beat.boot_id:
        return "was rebooted"
    if beat.started is not None and beat.started.generation > group.generation:
        return f"was already at generation {beat.started.generation}"
    if beat.phase == "failed" and beat.acknowledged == group.generation:
        return f"failed: its vLLM ended {beat.detail}".rstrip()
    if view.ran and beat.phase != "running":
        return f"no longer runs its vLLM {beat.detail}".rstrip()
    return ""


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
    return replace(group, started=True, started_at=now.mono, bound=bound)


def _missing(group: Group, name: str, now: Now) -> str:  # noqa: PLR0911 - a list of rules
    """What a member lacks before the group can start; empty when it lacks nothing."""
    view = group.members.get(name)
    if view is None or view.beat is None:
        return "has not been heard yet"
    if not fresh(group, view, now):
        return f"has been silent for {now.mono - view.heard_at:.0f} s"
    if view.beat.phase == "running":
        return "still runs its vLLM"
    if view.beat.phase == "preparing":
        return f"is not prepared yet {view.beat.detail}".rstrip()
    if view.beat.revision != group.plan.revision:
        return f"is prepared for revision {view.beat.revision}, not {group.plan.revision}"
    # Without this, an answer still on its way could start the member for the generation before.
    if view.beat.acknowledged != group.generation:
        return f"does not know of generation {group.generation} yet"
    return ""


def _actions(group: Group) -> tuple[Action, ...]:
    wanted = group.pair if group.started else None
    if group.role.state == "running" and group.role.started != wanted:
        return (StopRole(f"generation {group.generation}: {group.restarts[-1].cause}"),)
    if wanted and group.role.state == "absent" and group.role.started != wanted:
        return (StartRole(wanted),)
    return ()


def fresh(group: Group, view: MemberView, now: Now) -> bool:
    """Whether a member was heard within the silence that is allowed."""
    return now.mono - view.heard_at <= group.plan.silence_seconds
