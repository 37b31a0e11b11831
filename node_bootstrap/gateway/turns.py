"""Which group's turn it is to take up a new revision: pure, no clock, no network, no process.

A group that serves is first taken from the router, then lets its old revision go. One does so at a
time, while all others are at work and can answer without it; what fails to come back stops the
round, with the others still serving what they ran.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from node_bootstrap.gateway import membership as rules

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from node_bootstrap.gateway.membership import GroupView, Life, Membership, Proof


@dataclass(frozen=True)
class Turn:
    """A group that leaves the router, so that `to` may take over from its present life."""

    group: str
    life: Life
    to: str


@dataclass(frozen=True)
class Moment:
    """All that is judged at once; groups that have their turn are `leaving`.

    routed: groups that requests are sent to: the router follows the membership in seconds.
    """

    views: Sequence[GroupView]
    proofs: Mapping[tuple[str, str], Proof]
    membership: Membership
    now: float
    silence_seconds: float
    routed: Collection[str]

    def usable(self, role: str | None = None) -> list[GroupView]:
        """Groups that answer, by their own word, of a role or of all."""
        groups = (g for g in self.views if role in (None, g.role))
        return [g for g in groups if not rules.unusable(g, self.now, self.silence_seconds)]


def still_due(turns: Sequence[Turn], views: Sequence[GroupView]) -> tuple[Turn, ...]:
    """Turns whose group still waits to leave that life for that revision."""
    waiting = {(g.name, g.life, g.wants) for g in views}
    return tuple(turn for turn in turns if (turn.group, turn.life, turn.to) in waiting)


def leaving(views: Sequence[GroupView], names: Collection[str]) -> list[GroupView]:
    """The groups, those that are named with the fault that they are about to change."""
    return [
        replace(group, fault=f"ends what it has begun, then takes up revision {group.wants}")
        if group.name in names and not group.fault
        else group
        for group in views
    ]


def begun(turns: Sequence[Turn], moment: Moment) -> tuple[Turn, ...]:
    """Turns that begin now, beside those that go on.

    Groups that nobody is served by go at once. Of those that serve one goes, and only while every
    other is where it belongs, and service goes on without it, or could not in any case: a group
    that is the only one of its role.
    """
    busy = {turn.group for turn in turns}
    waiting = [g for g in moment.usable() if g.wants and g.name not in busy]
    inside = _inside(moment.membership)
    idle = [g for g in waiting if g.name not in inside]
    if idle and (moment.membership.serving or not _untried(moment)):
        return tuple(map(_turn, idle))
    if (
        turns
        or not inside <= set(moment.routed)
        or any(_amiss(group, moment) for group in moment.views)
    ):
        return ()
    for group in sorted(waiting, key=lambda g: _place(g, moment)):
        alone = [g.name for g in moment.views if g.role == group.role] == [group.name]
        if alone or _serves_without(group.name, moment):
            return (_turn(group),)
    return ()


def _place(group: GroupView, moment: Moment) -> tuple[bool, bool, str]:
    """Who comes first: whoever is awaited; prefill before decode, which may have to follow it."""
    return (not _awaited(group, moment), group.role == "decode", group.name)


def _turn(group: GroupView) -> Turn:
    return Turn(group.name, group.life or rules.Life("", 0), group.wants)


def _inside(membership: Membership) -> set[str]:
    return {*membership.serve, *membership.prefill, *membership.decode}


def _amiss(group: GroupView, moment: Moment) -> bool:
    """Whether a group is not where it belongs, so that nobody else may leave."""
    if rules.unusable(group, moment.now, moment.silence_seconds):
        return True
    if group.role == "serve":
        return False
    peers = moment.usable("decode" if group.role == "prefill" else "prefill")
    tries = [(peer, _proof(group, peer, moment)) for peer in peers]
    if group.name in _inside(moment.membership) or any(p and p.ok for _, p in tries):
        return False
    # Of another revision than its peers, it may have to wait for one that follows it.
    return any(
        not peer.wants or (proof is None and not _must_restart(group, peer, moment))
        for peer, proof in tries
    )


def _awaited(group: GroupView, moment: Moment) -> bool:
    """Whether a group that has changed already finds nobody to work with before this one does."""
    inside = _inside(moment.membership)
    return any(
        other.role not in ("serve", group.role) and not other.wants and other.name not in inside
        for other in moment.usable()
    )


def _untried(moment: Moment) -> bool:
    """Whether the first completion through a pair is still on its way."""
    return any(
        _proof(prefill, decode, moment) is None and not _must_restart(prefill, decode, moment)
        for prefill in moment.usable("prefill")
        for decode in moment.usable("decode")
    )


def _proof(one: GroupView, other: GroupView, moment: Moment) -> Proof | None:
    """The trial of a pair in the present lives of both; None where there was none."""
    prefill, decode = (one, other) if one.role == "prefill" else (other, one)
    proof = moment.proofs.get((prefill.name, decode.name))
    return proof if proof and rules.of_these_lives(prefill, decode, proof) else None


def _must_restart(one: GroupView, other: GroupView, moment: Moment) -> bool:
    """Whether a pair isn't even tried before its decode group has started anew."""
    prefill, decode = (one, other) if one.role == "prefill" else (other, one)
    proof = moment.proofs.get((prefill.name, decode.name))
    return rules.met_an_earlier_life(prefill, decode, proof)


def _serves_without(name: str, moment: Moment) -> bool:
    left = leaving(moment.views, (name,))
    return rules.decide(left, moment.proofs, moment.now, moment.silence_seconds).serving
