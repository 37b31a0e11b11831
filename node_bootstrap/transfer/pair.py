"""A measured transfer between a prefill and a decode node: what the gateway orders of both.

The same measurement as between the nodes of a group, of NIXL alone: the two nodes stand where a
group's members would.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from node_bootstrap.assignment import Assignment, Member, Transfer
from node_bootstrap.transfer.judge import Outcome
from node_bootstrap.transfer.measurer import Measurer


@dataclass(frozen=True)
class MeasureOrder:
    """Take part in the measurement `token`, unless it has begun or is done here.

    token: empty: take part in none, only tell. nodes, addresses: both nodes; at the first one's
    they meet.
    """

    token: str = ""
    transfer: Transfer | None = None
    nodes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasureReport:
    """Which instance this is, the last measurement that is done here, and what came of it.

    ready: its steps are done, so that it can take part.
    """

    instance_id: str
    ready: bool
    token: str = ""
    outcome: Outcome = Outcome()  # noqa: RUF009 - frozen, so sharing it is safe


def take_part(
    measurer: Measurer,
    prepared: Assignment | None,
    interface: str,
    order: MeasureOrder,
    instance_id: str,
) -> MeasureReport:
    """Begin what was ordered, and tell what is done. prepared: None before the steps are done."""
    if prepared is not None and order.token and prepared.node in order.nodes:
        measurer.start(as_group(prepared, order), order.token, interface)
    return MeasureReport(instance_id, prepared is not None, *measurer.last)


def as_group(assignment: Assignment, order: MeasureOrder) -> Assignment:
    """The node's assignment with the pair in the place of its group."""
    places = zip(order.nodes, order.addresses, strict=False)
    members = tuple(
        Member(name, address, "headless" if place else "primary", place, 1)
        for place, (name, address) in enumerate(places)
    )
    return replace(assignment, transfer=order.transfer, members=members)
