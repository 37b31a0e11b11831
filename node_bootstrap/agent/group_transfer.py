"""The measured transfer in a group's life: when one is due, who ended it, what came of it. Pure.

It is measured while every role is stopped, once for the same instances and software: a group that
starts again for another reason does not measure again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from node_bootstrap.status import Fault, TransferReport
from node_bootstrap.transfer.judge import Outcome

if TYPE_CHECKING:
    from node_bootstrap.agent.group import Group
    from node_bootstrap.agent.protocol import Heartbeat, Now

RETRY_SECONDS = 60.0
"""Between measurements that went wrong, where the group may not start without one."""
OTHERS_SECONDS = 10.0
"""For so long the others' word is waited for, once one of all has told its own."""
LATE_SECONDS = 45.0
"""Beyond the limit of the measurement itself: the agents start and end it."""


@dataclass(frozen=True)
class Measuring:
    """A measured transfer that goes on, since (monotonic seconds).

    own: what came of it on the primary. told_at: when the first node told what came of it.
    """

    token: str
    since: float
    own: Outcome | None = None
    told_at: float | None = None


def key(group: Group) -> str:
    """What a measurement is about: the instances and their software."""
    told = [f"{beat.name}={beat.instance_id}" for beat in _beats(group)]
    text = "\n".join([group.plan.transfer, group.instance, *told])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def due(group: Group) -> bool:
    """Whether the group may not start before it has measured."""
    known = group.transfer
    if not group.plan.transfer:
        return False
    if known is None or known.key != key(group):
        return True
    return group.plan.transfer_required and bool(known.faults)


def waiting_for(group: Group) -> tuple[str, ...]:
    """What of it keeps the group from starting, one sentence each."""
    if not due(group):
        return ()
    if group.transfer is not None and group.transfer.faults:
        return tuple(f"the transfer between its nodes: {f}" for f in group.transfer.faults)
    return ("the transfer between its nodes is being measured",)


def take(group: Group, token: str, made: Outcome, now: Now) -> Group:
    """The primary's own part is done."""
    going = group.measuring
    if going is None or going.token != token:
        return group
    told_at = now.mono if going.told_at is None else going.told_at
    return replace(group, measuring=replace(going, own=made, told_at=told_at))


def review(group: Group, now: Now, *, whole: bool) -> Group:
    """Begin one that is due, give up one whose group is no longer whole, end one that is done."""
    if whole and group.transfer is not None and group.transfer.key != key(group):
        # Of other instances or other software: it says nothing of these.
        group = replace(group, transfer=None, measure_after=0.0)
    if not whole or not due(group):
        return replace(group, measuring=None)
    going = group.measuring
    if going is None:
        if now.mono < group.measure_after:
            return group
        token = f"{group.generation}-{now.epoch:.3f}"
        return replace(group, measuring=Measuring(token, now.mono))
    told = [beat for beat in _beats(group) if beat.measured == going.token]
    if told and going.told_at is None:
        going = replace(going, told_at=now.mono)
        group = replace(group, measuring=going)
    everybody = going.own is not None and len(told) == len(group.plan.members)
    late = going.told_at is not None and now.mono - going.told_at > OTHERS_SECONDS
    limit = group.plan.transfer_seconds + LATE_SECONDS
    if everybody or late or now.mono - going.since > limit:
        return _end(group, going, now)
    return group


def _end(group: Group, going: Measuring, now: Now) -> Group:
    own = going.own or Outcome()
    nics = [own.nics, *(beat.transfer_nics for beat in _beats(group))]
    faults = tuple(_faults(group, going))
    report = TransferReport(
        key=key(group),
        at=now.epoch,
        seconds=own.seconds or round(now.mono - going.since, 1),
        required=group.plan.transfer_required,
        items=own.items,
        network=own.network,
        nics=min((n for n in nics if n is not None), default=None),
        faults=faults,
    )
    ended = replace(group, transfer=report, measuring=None)
    if not faults or not group.plan.transfer_required:
        return ended
    what = f"the transfer between the nodes is not as planned: {'; '.join(faults)}"
    fault = Fault(now.epoch, what, group.generation)
    return replace(ended, fault=fault, measure_after=now.mono + RETRY_SECONDS)


def _faults(group: Group, going: Measuring) -> Iterator[str]:
    if going.own is None:
        yield f"{group.plan.primary}: the measurement was not done"
    else:
        yield from (f"{group.plan.primary}: {fault}" for fault in going.own.faults)
    for beat in _beats(group):
        if beat.measured != going.token:
            yield f"{beat.name}: the measurement was not done"
        else:
            yield from (f"{beat.name}: {fault}" for fault in beat.transfer_faults)


def _beats(group: Group) -> Iterator[Heartbeat]:
    """Of the members, as the plan orders them."""
    for name in group.plan.members:
        view = group.members.get(name)
        if view is not None and view.beat is not None:
            yield view.beat
