"""What a plan costs per hour and per day, with the day of the prices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra import catalog

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.catalog.instances import InstanceType
    from infra.plan.gateway import GatewayPlan
    from infra.plan.request import Request


@dataclass(frozen=True)
class CostLine:
    """One kind of instance; `usd_per_hour` is None where no price is known."""

    what: str
    instance_type: str
    count: int
    usd_per_hour_each: float | None

    @property
    def usd_per_hour(self) -> float | None:
        """All instances of the line together."""
        each = self.usd_per_hour_each
        return None if each is None else round(each * self.count, 6)


@dataclass(frozen=True)
class Cost:
    """On-demand cost of the instances alone: no disks, traffic or endpoints.

    `usd_per_hour` and `usd_per_day` are None when a price is missing; `unpriced` names those types
    and `known_usd_per_hour` adds up the others.
    """

    usd_per_hour: float | None
    usd_per_day: float | None
    known_usd_per_hour: float
    unpriced: tuple[str, ...]
    price_region: str | None
    price_date: str | None
    lines: tuple[CostLine, ...]


def cost(nodes: Mapping[str, tuple[InstanceType, int]]) -> Cost:
    """Add up the nodes of a plan.

    Args:
        nodes: what the instances are for (a group's name, `gateway`) → their type and number.
    """
    lines = tuple(_line(what, kind, count) for what, (kind, count) in nodes.items())
    known = round(sum(line.usd_per_hour or 0.0 for line in lines), 6)
    unpriced = tuple(
        dict.fromkeys(line.instance_type for line in lines if line.usd_per_hour is None)
    )
    prices = [kind.price for kind, _ in nodes.values() if kind.price]
    total = None if unpriced else known
    return Cost(
        usd_per_hour=total,
        usd_per_day=None if total is None else round(total * 24, 2),
        known_usd_per_hour=known,
        unpriced=unpriced,
        price_region=prices[0].region if prices else None,
        price_date=min((price.date for price in prices), default=None),
        lines=lines,
    )


def _line(what: str, kind: InstanceType, count: int) -> CostLine:
    each = kind.price.usd_per_hour if kind.price else None
    return CostLine(what, kind.name, count, each)


def instances(request: Request, gate: GatewayPlan | None) -> Mapping[str, tuple[InstanceType, int]]:
    """What `cost` is asked about: each group's instances and the gateway's."""
    found = {
        group.name: (catalog.instance_type(group.instance_type), group.nodes * group.replicas)
        for group in request.groups
    }
    if gate is not None:
        found[gate.node] = (catalog.instance_type(gate.instance_type), 1)
    return found
