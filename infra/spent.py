"""What a stack's nodes have cost since they were launched: on-demand prices of the catalog."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from infra import catalog
from infra.names import NODE_TAG, STACK_TAG

BILLED = ("pending", "running")


@dataclass(frozen=True)
class Launch:
    """One living instance. launched_at: seconds since the epoch. reservation: that it runs in."""

    node: str
    instance_type: str
    launched_at: float
    lifecycle: str = "on-demand"
    reservation: str | None = None


@dataclass(frozen=True)
class Spent:
    """Instances alone: no disks, traffic or endpoints, and none that ended before.

    usd, usd_per_hour: of those with a price; `unpriced` names the other types.
    hours: since the first of them was launched. at_most: spot or prepaid capacity is among them.
    """

    usd: float
    usd_per_hour: float
    hours: float
    unpriced: tuple[str, ...]
    at_most: bool


def launches(ec2: Any, stack: str) -> tuple[Launch, ...]:
    """The stack's living instances. botocore's ClientError where they may not be listed."""
    filters = [
        {"Name": f"tag:{STACK_TAG}", "Values": [stack]},
        {"Name": "instance-state-name", "Values": list(BILLED)},
    ]
    pages = ec2.get_paginator("describe_instances").paginate(Filters=filters)
    return tuple(
        Launch(
            _tag(instance, NODE_TAG),
            instance["InstanceType"],
            _epoch(instance["LaunchTime"]),
            instance.get("InstanceLifecycle") or "on-demand",
            instance.get("CapacityReservationId"),
        )
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    )


def spent(launched: Iterable[Launch], now: float) -> Spent:
    """Add up hours times price. now: seconds since the epoch."""
    living = tuple(launched)
    usd = per_hour = 0.0
    unpriced = []
    for launch in living:
        price = _price(launch.instance_type)
        if price is None:
            unpriced.append(launch.instance_type)
            continue
        per_hour += price
        usd += price * max(0.0, now - launch.launched_at) / 3600
    first = min((launch.launched_at for launch in living), default=now)
    return Spent(
        usd=round(usd, 4),
        usd_per_hour=round(per_hour, 6),
        hours=round(max(0.0, now - first) / 3600, 4),
        unpriced=tuple(dict.fromkeys(unpriced)),
        at_most=any(launch.lifecycle != "on-demand" for launch in living),
    )


def sentence(found: Spent) -> str:
    """For a person: what it has cost, at which rate, since when."""
    if not found.usd_per_hour and not found.unpriced:
        return "no instance is billed"
    most = "at most " if found.at_most else ""
    text = f"{most}${found.usd:.2f} in {found.hours:.1f} h, ${found.usd_per_hour:.2f} an hour"
    if found.unpriced:
        text += f", without {', '.join(found.unpriced)} (no price known)"
    return text


def _price(instance_type: str) -> float | None:
    if instance_type not in catalog.instance_types():
        return None
    price = catalog.instance_type(instance_type).price
    return price.usd_per_hour if price else None


def _tag(instance: dict[str, Any], key: str) -> str:
    return next((t["Value"] for t in instance.get("Tags", ()) if t["Key"] == key), "")


def _epoch(moment: dt.datetime) -> float:
    return moment.timestamp()
