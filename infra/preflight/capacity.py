"""Whether the zone has the types, and whether the reservation is what the stack needs."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from infra import reservations
from infra.preflight.aws import Aws, is_own
from infra.preflight.check import Check, always
from infra.preflight.result import Verdict, failed, passed, warned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from infra.preflight.asked import Asked

SOON = dt.timedelta(hours=24)
"""An end within so long is warned about: who starts a stack now may not know of it."""


def _offered(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    query = {
        "LocationType": "availability-zone",
        "Filters": [{"Name": "instance-type", "Values": list(asked.types)}],
    }
    pages = aws.pages("describe_instance_type_offerings", "InstanceTypeOfferings", **query)
    offered = {(item["InstanceType"], item["Location"]) for item in pages}
    yield judge_offered(asked.types, offered, _zone(aws, asked), aws.region)


def _zone(aws: Aws, asked: Asked) -> str | None:
    """The zone that the settings bind the stack to: by name, subnet, or reservation."""
    bound = _bound(aws, asked)
    if bound is not None or asked.subnet_id is not None or not asked.named_capacity:
        return bound
    found = aws.reservation(asked.capacity_id)  # its own check says so where there is none
    return found["AvailabilityZone"] if found else None


def _bound(aws: Aws, asked: Asked) -> str | None:
    """Where the nodes go, wherever the reservation is; None where they follow it."""
    if asked.zone is not None or asked.subnet_id is None:
        return asked.zone
    subnet = aws.subnet(asked.subnet_id)  # its own check says so where there is none
    return subnet["AvailabilityZone"] if subnet else None


def judge_offered(
    types: Iterable[str], offered: set[tuple[str, str]], zone: str | None, region: str
) -> Verdict:
    """Whether one zone offers every type of the stack; zone: the one that the stack is bound to."""
    zones = {kind: sorted(z for k, z in offered if k == kind) for kind in types}
    told = "; ".join(f"{kind}: {', '.join(found) or 'none'}" for kind, found in zones.items())
    common = set.intersection(*map(set, zones.values()))
    if zone is None and common:
        return passed(f"all types are offered in {', '.join(sorted(common))}")
    if zone in common:
        return passed(f"{zone} offers {', '.join(zones)}")
    if zone is None:
        return failed(
            f"no zone of {region} offers all types of the stack ({told})",
            "take another instance type or another aws:region",
        )
    lacking = ", ".join(kind for kind, found in zones.items() if zone not in found)
    remedy = f"take {', '.join(sorted(common))}" if common else "take another type or region"
    return failed(f"{zone} does not offer {lacking} ({told})", remedy)


def _reservation(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    found = aws.reservation(asked.capacity_id)
    if found is None:
        yield failed(
            f"{aws.region} has no capacity reservation {asked.capacity_id}",
            "set capacity.id to one of this account and region",
        )
        return
    own = 0
    for reservation in aws.pages("describe_instances", "Reservations", Filters=_RUNNING):
        for instance in reservation["Instances"]:
            held = instance.get("CapacityReservationId") == asked.capacity_id
            own += held and is_own(instance, asked.stack)
    yield judge_reservation(found, own, asked, dt.datetime.now(dt.UTC), _bound(aws, asked))


_RUNNING = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]


def judge_reservation(
    found: Mapping[str, Any], own: int, asked: Asked, now: dt.datetime, zone: str | None
) -> Verdict:
    """Whether a reservation or Capacity Block can take the stack's nodes.

    Args:
        found: one of the answer of DescribeCapacityReservations.
        own: instances of this very stack that run in it already.
        asked: the stack.
        now: the present.
        zone: where the nodes go; None where they follow the reservation.
    """
    faults = [
        *_wrong_kind(found, asked),
        *_wrong_place(found, asked, zone),
        *_too_little(found, own, asked),
    ]
    end = found.get("EndDate")
    block = found.get("ReservationType") == "capacity-block"
    last = end - reservations.LEAD if end and block else end
    name = "Capacity Block" if block else "reservation"
    what = f"{name} {asked.capacity_id}"
    if last and last <= now:
        faults.append(f"it ended at {end:%Y-%m-%d %H:%M} UTC")
    if faults:
        return failed(f"{what}: {'; '.join(faults)}", "set capacity.id to one that fits")
    free = found["AvailableInstanceCount"] + own
    text = f"{what} is active in {found['AvailabilityZone']}, {free} x {found['InstanceType']} free"
    if last is None:
        return passed(text)
    text += f", nodes end at {last:%Y-%m-%d %H:%M} UTC"
    ttl = dt.timedelta(seconds=asked.ttl_seconds) if asked.ttl_seconds else SOON
    if last - now < ttl:
        return warned(f"{text}: in {_hours(last - now)}", "know that the stack ends then")
    return passed(text)


def _wrong_kind(found: Mapping[str, Any], asked: Asked) -> Iterator[str]:
    block = found.get("ReservationType") == "capacity-block"
    if block != (asked.capacity_kind == "capacity-block"):
        right = "capacity-block" if block else "reservation"
        yield f"it is of the kind that the settings call {right}"
    if found["State"] != "active":
        begins = found.get("StartDate")
        when = f", it begins at {begins:%Y-%m-%d %H:%M} UTC" if begins and block else ""
        yield f"its state is {found['State']}{when}"


def _wrong_place(found: Mapping[str, Any], asked: Asked, zone: str | None) -> Iterator[str]:
    if zone is not None and zone != found["AvailabilityZone"]:
        who = "network.zone is" if asked.zone else f"{asked.subnet_id} is in"
        yield f"it is in {found['AvailabilityZone']}, {who} {zone}"
    # EC2 gives what is reserved in a placement group to launches into that group alone.
    group = str(found.get("PlacementGroupArn") or "").rpartition("/")[2] or None
    if group != asked.placement_group:
        place = f"the placement group {group}" if group else "no placement group"
        yield f"it is in {place}, capacity.placement_group is {asked.placement_group or 'not set'}"


def _too_little(found: Mapping[str, Any], own: int, asked: Asked) -> Iterator[str]:
    kind = found["InstanceType"]
    others = sorted(set(asked.reserved_nodes) - {kind})
    if others:
        yield f"it holds {kind}, the stack asks for {', '.join(others)}"
    needed = asked.reserved_nodes.get(kind, 0)
    free = found["AvailableInstanceCount"] + own
    if free < needed:
        yield f"{free} of its {found['TotalInstanceCount']} are free, the stack needs {needed}"


def _hours(span: dt.timedelta) -> str:
    return f"{span.total_seconds() / 3600:.1f} h"


CHECKS = (
    Check(
        "PREFLIGHT_TYPE_OFFERED",
        "moe-serving:network.zone",
        "One zone offers every instance type of the stack.",
        (
            "ec2:DescribeInstanceTypeOfferings",
            "ec2:DescribeSubnets",
            "ec2:DescribeCapacityReservations",
        ),
        always,
        _offered,
    ),
    Check(
        "PREFLIGHT_RESERVATION",
        "moe-serving:capacity.id",
        "The reservation is active, of the right type, zone and group, and has enough free.",
        ("ec2:DescribeCapacityReservations", "ec2:DescribeInstances", "ec2:DescribeSubnets"),
        lambda asked: asked.capacity_kind == "reservation" and asked.capacity_id is not None,
        _reservation,
    ),
    Check(
        "PREFLIGHT_CAPACITY_BLOCK",
        "moe-serving:capacity.id",
        "The Capacity Block is active, fits, and its end is known.",
        ("ec2:DescribeCapacityReservations", "ec2:DescribeInstances", "ec2:DescribeSubnets"),
        lambda asked: asked.capacity_kind == "capacity-block" and asked.capacity_id is not None,
        _reservation,
    ),
)
