"""What the nodes' statuses say about a deployment: ready, still on its way, or failed and why.

Pure: `infra.wait` reads the statuses, this judges them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from infra.render import transfer_words
from node_bootstrap.status import GroupReport, PairReport, Status

HOPELESS_GENERATIONS = 3
"""So many starts of one revision without a single answer: it will not come by waiting."""
HOPELESS_TRIALS = 6
"""So many trials of a pair in a row, both groups ready: seconds apart, half a minute at least."""


@dataclass(frozen=True)
class ExpectedNode:
    """One node as it was made by this update."""

    instance_id: str
    private_ip: str
    revision: str
    archive_sha256: str


@dataclass(frozen=True)
class ExpectedGroup:
    """One replica of a group: its nodes, the primary first, and its data-parallel ranks.

    expert_parallel_size: ranks that share the experts; 1 where every rank holds them all.
    """

    nodes: tuple[str, ...]
    revision: str
    ranks: int
    expert_parallel_size: int


@dataclass(frozen=True)
class ExpectedGateway:
    """The node that is the endpoint of all groups."""

    node: str


@dataclass(frozen=True)
class Deployment:
    """What was asked for: the content of `deployment.json`.

    failed_at: seconds since the epoch when an `up` before this one ended without an answer. Whoever
    goes back to settings that were proven once asks for something new by it: nodes have changed in
    between, and have to answer again.
    """

    schema: int
    stack: str
    region: str
    bucket: str
    endpoint: str
    model: str
    vllm_version: str
    nodes: dict[str, ExpectedNode]
    groups: dict[str, ExpectedGroup]
    gateway: ExpectedGateway | None = None
    failed_at: float | None = None


@dataclass(frozen=True)
class Waiting:
    """Not yet: one phrase per node that says what it is at.

    queued: groups that serve what they ran before, until their turn comes.
    """

    phases: dict[str, str]
    queued: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ready:
    """Every rank of every group has answered, with the revision that was asked for."""


@dataclass(frozen=True)
class Failed:
    """It will not come by waiting: one sentence per reason, and logs that show it.

    queued: groups that serve what they ran before, and go on so.
    """

    reasons: tuple[str, ...]
    log_tails: dict[str, str]
    queued: tuple[str, ...] = ()


def judge(deployment: Deployment, statuses: Mapping[str, Status]) -> Waiting | Ready | Failed:
    """Compare what the nodes report with what was asked for.

    Args:
        deployment: what was asked for.
        statuses: node -> its last status; a node that never reported is missing.
    """
    current = {
        name: status
        for name, status in statuses.items()
        if name in deployment.nodes and status.instance_id == deployment.nodes[name].instance_id
    }
    reasons = [
        *_node_faults(deployment, current),
        *_group_faults(deployment, current),
        *_pair_faults(deployment, current),
    ]
    if reasons:
        tails = {n: s.fault.log_tail for n, s in current.items() if s.fault and s.fault.log_tail}
        return Failed(tuple(reasons), tails, _queued(deployment, current))
    phases = {name: _node_phase(name, deployment, current) for name in deployment.nodes}
    for group in deployment.groups.values():
        if _queues(group, current):
            phases |= dict.fromkeys(group.nodes, "serves, until its turn comes")
        first = group.nodes[0]
        phases[first] = phases[first] or _group_phase(group, deployment, current)
    if deployment.gateway is not None:
        gate = deployment.gateway.node
        phases[gate] = phases[gate] or _gateway_phase(deployment, current[gate], current)
    waiting = {name: phase for name, phase in phases.items() if phase}
    return Waiting(waiting, _queued(deployment, current)) if waiting else Ready()


def _node_faults(deployment: Deployment, current: Mapping[str, Status]) -> list[str]:
    """Nodes that need a person."""
    return [
        f"{name} ({status.instance_id}) failed: "
        f"{status.fault.what if status.fault else 'the node gave no reason'}"
        for name, status in current.items()
        if name in deployment.nodes and status.phase == "failed"
    ]


def _group_faults(deployment: Deployment, current: Mapping[str, Status]) -> list[str]:
    faults = []
    for name, group in deployment.groups.items():
        report = _report(group, current)
        if report is None or report.phase == "ready":
            continue
        faults += _transfer_faults(name, group, deployment, report)
        starts = [r for r in report.restarts if r.revision == group.revision]
        if len(starts) >= HOPELESS_GENERATIONS and not any(r.ready_at for r in starts):
            causes = "; ".join(f"{r.generation}: {r.cause}" for r in starts[-HOPELESS_GENERATIONS:])
            faults.append(
                f"{name} was started {len(starts)} times with revision {group.revision} and never "
                f"answered (generation: why it was begun): {causes}"
            )
    return faults


def _transfer_faults(
    name: str, group: ExpectedGroup, deployment: Deployment, report: GroupReport
) -> list[str]:
    """A transfer between the group's nodes, as they are now, that keeps it from starting."""
    measured, heard = report.transfer, {m.name: m.instance_id for m in report.members}
    if measured is None or not measured.required or not measured.faults:
        return []
    if any(heard.get(n) != deployment.nodes[n].instance_id for n in group.nodes[1:]):
        return []  # it was between earlier instances
    return [f"{name}: the transfer between its nodes: {fault}" for fault in measured.faults]


def _queued(deployment: Deployment, current: Mapping[str, Status]) -> tuple[str, ...]:
    return tuple(n for n, group in deployment.groups.items() if _queues(group, current))


def _queues(group: ExpectedGroup, current: Mapping[str, Status]) -> bool:
    """Whether a group is prepared for what was asked for and waits for the gateway's leave."""
    status = current.get(group.nodes[0])
    report = status.group if status else None
    return report is not None and report.phase == "ready" and report.wants == group.revision


def _pair_faults(deployment: Deployment, current: Mapping[str, Status]) -> list[str]:
    """Pairs of the present revisions through which no KV moves, however often it is tried."""
    gate = current.get(deployment.gateway.node) if deployment.gateway else None
    if gate is None or gate.gateway is None:
        return []
    asked = {name: group.revision for name, group in deployment.groups.items()}
    return [
        f"{transfer_words.pair_name(pair)}: {transfer_words.tried(pair)}"
        for pair in gate.gateway.pairs
        if pair.failures >= HOPELESS_TRIALS and all(map(asked.items().__contains__, _lives(pair)))
    ]


def _lives(pair: PairReport) -> list[tuple[str, str]]:
    """(group, revision) of both sides."""
    sides = (side.partition(" ") for side in (pair.prefill, pair.decode))
    return [(name, life.rpartition("/")[0]) for name, _, life in sides]


def _report(group: ExpectedGroup, current: Mapping[str, Status]) -> GroupReport | None:
    """The primary's report, if it is about the revision that was asked for."""
    status = current.get(group.nodes[0])
    report = status.group if status else None
    return report if report and report.revision == group.revision else None


def _node_phase(name: str, deployment: Deployment, current: Mapping[str, Status]) -> str:
    """What a node is at, empty once it holds what was asked for."""
    if name not in current:
        return "booting"
    status, asked = current[name], deployment.nodes[name]
    if status.archive_sha256 != asked.archive_sha256:
        fault = f" (last fault: {status.fault.what})" if status.fault else ""
        return f"fetching the bootstrap archive{fault}"
    if status.revision != asked.revision:
        if status.doing:
            return f"{status.phase}, {status.doing}"
        return f"{status.phase}, not yet at revision {asked.revision}"
    return "" if status.phase == "role" else status.phase


def _group_phase(
    group: ExpectedGroup, deployment: Deployment, current: Mapping[str, Status]
) -> str:
    """What a group is at, empty once every rank answered on the instances that were made."""
    report = _report(group, current)
    if report is None:
        return f"group not yet at revision {group.revision}"
    if report.phase != "ready":
        return f"group {report.phase}, generation {report.generation}"
    # The report names the members that the primary hears of; the primary speaks for itself.
    heard = {member.name: member.instance_id for member in report.members}
    strange = [n for n in group.nodes[1:] if heard.get(n) != deployment.nodes[n].instance_id]
    if strange:
        return f"group holds earlier instances of {', '.join(strange)}"
    answered = {probe.rank for probe in report.probes}
    missing = sorted(set(range(group.ranks)) - answered)
    if missing:
        return f"no answer yet from rank {', '.join(map(str, missing))}"
    if group.expert_parallel_size > 1:
        silent = [n for n in group.nodes if n in current and not current[n].found.experts]
        return f"experts not yet told by {', '.join(silent)}" if silent else ""
    return ""


def _gateway_phase(deployment: Deployment, status: Status, current: Mapping[str, Status]) -> str:
    """What the gateway is at, empty once a completion came through it with every group in."""
    report = status.gateway
    if report is None:
        return "gateway starting"
    seen = {group.name: group for group in report.groups}
    for name, asked in deployment.groups.items():
        group = seen.get(name)
        if group is None or group.revision != asked.revision:
            return f"gateway does not know {name} at revision {asked.revision} yet"
        if not group.routed:
            return f"gateway keeps {name} out: {group.why or 'no reason told yet'}"
    if not report.serving:
        return f"gateway does not answer yet: {report.why}"
    # What moves KV unnamed might move it over TCP.
    paired = {name for pair in report.pairs for name, _ in _lives(pair)} & set(deployment.groups)
    nodes = [node for name in sorted(paired) for node in deployment.groups[name].nodes]
    silent = [n for n in nodes if n in current and not current[n].found.kv_transport]
    if not silent:
        return ""
    return (
        f"what carries KV is not told yet by the log of {', '.join(silent)} "
        "(NIXL_LOG_LEVEL and UCX_LOG_LEVEL must let INFO through)"
    )
