"""Whether the nodes of one group may be replaced: not before the others serve without it. Pure.

Then the gateway lets go of the group, and its nodes end once it works for nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from infra.readiness import Deployment, Failed, Waiting, judge
from node_bootstrap.leaving import SCHEMA, Leaving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from node_bootstrap.status import GatewayReport, GroupReport, Status


@dataclass(frozen=True)
class Turn:
    """A group whose nodes are about to end. peers: the other groups of its role.

    earlier: what the groups that had their turn before it must report by now; it has no gateway.
    gateway: the node that routes to them all. primary: of the group.
    """

    group: str
    peers: tuple[str, ...]
    earlier: Deployment
    gateway: str
    primary: str


@dataclass(frozen=True)
class May:
    """The others serve, or the group serves nobody."""


def decide(turn: Turn, statuses: Mapping[str, Status]) -> May | Waiting | Failed:
    """Whether the turn may begin.

    Args:
        turn: whose it is.
        statuses: node -> its last status; of the gateway and of the groups before.
    """
    verdict = judge(turn.earlier, statuses)
    if isinstance(verdict, Failed):
        return verdict
    report = _routing(turn, statuses)
    routed = {group.name for group in report.groups if group.routed} if report else set()
    if turn.group not in routed and not isinstance(verdict, Waiting):
        return May()
    waiting = dict(verdict.phases) if isinstance(verdict, Waiting) else {}
    able = routed | (set(_in_good_pairs(report)) if report else set())
    waiting |= {peer: "does not serve" for peer in turn.peers if peer not in able}
    return Waiting(waiting) if waiting else May()


Hold = Literal["routed", "busy", "free"]


def hold(turn: Turn, statuses: Mapping[str, Status]) -> Hold:
    """What the gateway still has of a group: requests come to it, it ends some, or neither.

    A gateway that isn't heard, or that doesn't know the group, sends it nothing.
    """
    report = _routing(turn, statuses)
    group = next((g for g in report.groups if g.name == turn.group), None) if report else None
    if group is None:
        return "free"
    if group.routed:
        return "routed"
    return "free" if group.drained or not _answers(turn, statuses) else "busy"


def _answers(turn: Turn, statuses: Mapping[str, Status]) -> bool:
    group = _group(turn, statuses)
    return group is not None and group.phase == "ready"


def _routing(turn: Turn, statuses: Mapping[str, Status]) -> GatewayReport | None:
    status = statuses.get(turn.gateway)
    return status.gateway if status else None


def _group(turn: Turn, statuses: Mapping[str, Status]) -> GroupReport | None:
    status = statuses.get(turn.primary)
    return status.group if status else None


def leaving(turn: Turn, statuses: Mapping[str, Status], until: float) -> Leaving | None:
    """What the gateway is to be told; None where nobody else could answer, or there is no life."""
    group = _group(turn, statuses)
    restarts = group.restarts if group else ()
    if not turn.peers or not restarts:
        return None
    return Leaving(SCHEMA, {turn.group: restarts[-1].noticed_at}, until)


def _in_good_pairs(report: GatewayReport) -> Iterator[str]:
    """Groups that a completion went through in their present lives, whether routed to or not."""
    lives = {g.name: f"{g.name} {g.revision}/{g.generation}" for g in report.groups}
    for pair in report.pairs:
        names = [side.partition(" ")[0] for side in (pair.prefill, pair.decode)]
        if pair.ok and [lives.get(name) for name in names] == [pair.prefill, pair.decode]:
            yield from names
