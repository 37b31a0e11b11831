"""What `moe status` shows, made from what lies in the stack's bucket. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from infra.readiness import Deployment
from infra.spent import Launch, Spent, spent
from node_bootstrap.assignment import Assignment
from node_bootstrap.status import (
    BackendReport,
    GatewayReport,
    PairReport,
    Restart,
    Status,
    TransferReport,
)

SILENT_SECONDS = 45.0
"""Three of a node's usual reports missed: it is not known what it does now."""


@dataclass(frozen=True)
class NodeLine:
    """One node: what it was told, what it says, how long ago."""

    name: str
    group: str
    position: str
    phase: str
    running: bool
    instance_id: str
    revision: str
    wanted_revision: str
    generation: int
    step_seconds: dict[str, float]
    experts: dict[str, str]
    age_seconds: float | None
    fault: str
    fault_log_tail: str
    ends_in_seconds: float | None = None


@dataclass(frozen=True)
class GroupLine:
    """One group as its primary holds it.

    transfer: measured between its nodes. backend: for all2all, where it needs a library.
    pairs: of the gateway: prefill and decode groups that a completion was tried through.
    """

    name: str
    phase: str
    since_seconds: float | None
    revision: str
    generation: int
    members: dict[str, str]
    last_restart: Restart | None
    transfer: TransferReport | None = None
    backend: BackendReport | None = None
    pairs: tuple[PairReport, ...] = ()


@dataclass(frozen=True)
class Bar:
    """One phase of a node on its way to the first token, in seconds since the node's boot.

    to_seconds: None while it goes on.
    """

    node: str
    phase: str
    from_seconds: float
    to_seconds: float | None


@dataclass(frozen=True)
class Report:
    """The whole stack. ready: every group is ready with the revision that it was told.

    ends_in_seconds: until the first node ends by itself; None where none does, negative where one
    did. spent: None where the instances may not be listed.
    block_ends_in_seconds: until AWS ends the nodes with their Capacity Block; None where they are
    in none, or it can't be told.
    """

    stack: str
    bucket: str
    endpoint: str
    proven: bool
    ready: bool
    nodes: tuple[NodeLine, ...]
    groups: tuple[GroupLine, ...]
    ends_in_seconds: float | None = None
    spent: Spent | None = None
    block_ends_in_seconds: float | None = None
    timeline: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class Contents:
    """What was read from the bucket. proven: `record.json` is about this `deployment.json`.

    launches: the living instances; None where they could not be listed.
    block_ends_at: when AWS ends nodes with their Capacity Block, in seconds since the epoch.
    """

    stack: str
    bucket: str
    assignments: Mapping[str, Assignment]
    statuses: Mapping[str, Status]
    deployment: Deployment | None
    proven: bool
    launches: tuple[Launch, ...] | None = None
    block_ends_at: float | None = None


def build(contents: Contents, now: float) -> Report:
    """Make the report. now: seconds since the epoch."""
    nodes = tuple(
        _node(assignment, contents.statuses.get(name), now)
        for name, assignment in sorted(contents.assignments.items())
    )
    primaries = [a for a in contents.assignments.values() if a.position == "primary"]
    groups = tuple(
        _group(primary, contents.statuses.get(primary.node), now)
        for primary in sorted(primaries, key=lambda a: a.group)
    )
    wanted = {primary.group: primary.revision for primary in primaries}
    return Report(
        stack=contents.stack,
        bucket=contents.bucket,
        endpoint=contents.deployment.endpoint if contents.deployment else "",
        proven=contents.proven,
        ready=bool(groups)
        and all(g.phase == "ready" and g.revision == wanted[g.name] for g in groups),
        nodes=nodes,
        groups=groups,
        ends_in_seconds=min(
            (n.ends_in_seconds for n in nodes if n.ends_in_seconds is not None), default=None
        ),
        spent=None if contents.launches is None else spent(contents.launches, now),
        block_ends_in_seconds=(
            None if contents.block_ends_at is None else round(contents.block_ends_at - now, 1)
        ),
        timeline=timeline(contents),
    )


def _node(told: Assignment, status: Status | None, now: float) -> NodeLine:
    age = now - status.updated_at if status else None
    return NodeLine(
        name=told.node,
        group=told.group,
        position=told.position,
        phase=_phase(status, age),
        running=bool(status and status.running),
        instance_id=status.instance_id if status else "",
        revision=status.revision if status else "",
        wanted_revision=told.revision,
        generation=status.generation if status else 0,
        step_seconds={step.name: step.seconds for step in status.steps} if status else {},
        experts={str(e.ep_rank): f"{len(e.local)} of {e.total}" for e in status.found.experts}
        if status
        else {},
        age_seconds=round(age, 1) if age is not None else None,
        fault=status.fault.what if status and status.fault else "",
        fault_log_tail=status.fault.log_tail if status and status.fault else "",
        ends_in_seconds=round(status.ends_at - now, 1) if status and status.ends_at else None,
    )


def timeline(contents: Contents) -> tuple[Bar, ...]:
    """From power-on to ready, node by node: boot, each step of the first pass, vLLM's start."""
    bars = []
    for name, told in sorted(contents.assignments.items()):
        status = contents.statuses.get(name)
        if status is not None and status.booted_at:
            bars += _bars(status, _start(told.group, contents, status.booted_at))
    return tuple(bars)


def _bars(status: Status, start: Restart | None) -> Iterator[Bar]:
    zero, node = status.booted_at, status.node

    def since(at: float) -> float:
        return round(at - zero, 1)

    # Until a pass is done it is the one under way.
    first = status.boot or status
    if first.agent_started_at:
        yield Bar(node, "boot", 0.0, since(first.agent_started_at))
    for step in first.steps:
        if step.began_at:
            began = since(step.began_at)
            yield Bar(node, step.name, began, round(began + step.seconds, 1))
    if start is not None and start.noticed_at > zero:
        ready = None if start.ready_at is None else since(start.ready_at)
        yield Bar(node, f"vLLM, generation {start.generation}", since(start.noticed_at), ready)


def _start(group: str, contents: Contents, booted_at: float) -> Restart | None:
    """The group's first start since then that got ready; the last one where none did yet."""
    for name, told in contents.assignments.items():
        status = contents.statuses.get(name)
        if told.group == group and status and status.group and status.group.restarts:
            starts = status.group.restarts
            ready = (r for r in starts if r.ready_at is not None and r.noticed_at > booted_at)
            return next(ready, starts[-1])
    return None


def _phase(status: Status | None, age: float | None) -> str:
    if status is None or age is None:
        return "not heard of"
    if status.doing and age <= SILENT_SECONDS:
        return f"{status.phase}: {status.doing}"
    return status.phase if age <= SILENT_SECONDS else f"silent (was: {status.phase})"


def _group(primary: Assignment, status: Status | None, now: float) -> GroupLine:
    if status is not None and status.gateway is not None:
        return _gateway(status, status.gateway, now)
    report = status.group if status else None
    if status is None or report is None:
        return GroupLine(primary.group, "not heard of", None, "", 0, {}, None)
    return GroupLine(
        name=primary.group,
        phase=_heard(report.phase, status, now),
        since_seconds=round(now - report.since, 1),
        revision=report.revision,
        generation=report.generation,
        members={member.name: member.phase for member in report.members},
        last_restart=report.restarts[-1] if report.restarts else None,
        transfer=report.transfer,
        backend=status.backend,
    )


def _gateway(status: Status, report: GatewayReport, now: float) -> GroupLine:
    """The gateway, whose members are the groups: each in its router, or out for a reason."""
    return GroupLine(
        name=status.node,
        phase=_heard("ready" if report.serving else f"not ready: {report.why}", status, now),
        since_seconds=round(now - report.since, 1),
        revision=status.revision,
        generation=status.generation,
        members={g.name: "routed" if g.routed else f"out: {g.why}" for g in report.groups},
        last_restart=None,
        pairs=report.pairs,
    )


def _heard(phase: str, status: Status, now: float) -> str:
    """The phase, unless it is too long ago that the node told it."""
    return f"silent (was: {phase})" if now - status.updated_at > SILENT_SECONDS else phase
