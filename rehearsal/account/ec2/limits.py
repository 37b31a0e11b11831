"""What the account may have and what AWS has: quotas, and instances that are left in a zone.

Both are told from outside (`/_rehearsal/limits`); what is used is counted from what exists, so
nothing has to be booked in and out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from rehearsal.account.ec2.facts import Room

if TYPE_CHECKING:
    from rehearsal.account.ec2.backend import Backend
    from rehearsal.account.ec2.models import CapacityReservation, Instance


@dataclass(frozen=True)
class Quota:
    """A quota of Service Quotas. value: the account's, where nobody set another one."""

    service: str
    code: str
    name: str
    value: float


_MANY_VCPUS = 1_000_000.0
"""AWS starts accounts with 0 vCPUs of P types: a rehearsal of any size must fit, so the account
is one that was granted more, until a test or a person sets the real figure."""

QUOTAS = {
    quota.code: quota
    for quota in (
        Quota("ec2", "L-1216C47A", "Running On-Demand Standard instances", _MANY_VCPUS),
        Quota("ec2", "L-DB2E81BA", "Running On-Demand G and VT instances", _MANY_VCPUS),
        Quota("ec2", "L-417A185B", "Running On-Demand P instances", _MANY_VCPUS),
        Quota("ec2", "L-34B43A08", "All Standard Spot Instance Requests", _MANY_VCPUS),
        Quota("ec2", "L-3819A6DF", "All G and VT Spot Instance Requests", _MANY_VCPUS),
        Quota("ec2", "L-7212CCBC", "All P Spot Instance Requests", _MANY_VCPUS),
        Quota("ec2", "L-0263D0A3", "EC2-VPC Elastic IPs", 5.0),
        # AWS grants 5,000 and more on request: 256 nodes with 33 interfaces need 8,448.
        Quota("vpc", "L-DF5E4CA3", "Network interfaces per Region", 50_000.0),
        Quota("vpc", "L-F678F1CE", "VPCs per Region", 100.0),
    )
}
INTERFACES, ELASTIC_IPS, VPCS = "L-DF5E4CA3", "L-0263D0A3", "L-F678F1CE"
_BUCKETS = {
    ("p", False): "L-417A185B",
    ("p", True): "L-7212CCBC",
    ("g", False): "L-DB2E81BA",
    ("g", True): "L-3819A6DF",
    ("standard", False): "L-1216C47A",
    ("standard", True): "L-34B43A08",
}
_STANDARD = frozenset({*"acdhimrtz", "im", "is"})


def bucket(instance_type: str, *, spot: bool) -> str | None:
    """The code of the vCPU quota that an instance type counts against; None where it has none."""
    letters = re.match("[a-z]*", instance_type)
    family = letters[0] if letters else ""
    kind = "g" if family == "vt" else "standard" if family in _STANDARD else family
    return _BUCKETS.get((kind, spot))


@dataclass
class Limits:
    """One region's limits. Pickled with the region.

    quotas: code -> value, of those that were set. capacity: (instance type, zone) -> instances
    that AWS has for this account in all; a pair that is absent never runs out.
    """

    quotas: dict[str, float] = field(default_factory=dict)
    capacity: dict[tuple[str, str], int] = field(default_factory=dict)

    def quota(self, code: str) -> float:
        """The account's value of a quota."""
        return self.quotas.get(code, QUOTAS[code].value)


def room(backend: Backend, instance_type: str, zone: str | None, *, spot: bool) -> Room:
    """What is left in a region for a type, in a zone where that is known."""
    limits = backend.limits
    live = [i for i in backend.instances() if i.state not in ("terminated", "stopped")]
    code = bucket(instance_type, spot=spot)
    used = sum(vcpus(i.instance_type) for i in live if _bucket_of(i) == code)
    return Room(
        vcpus=None if code is None else limits.quota(code) - used,
        capacity=free_capacity(
            limits.capacity, instance_type, zone, live, backend.capacity_reservations
        ),
        interfaces=limits.quota(INTERFACES) - len(backend.enis),
    )


def free_capacity(
    capacity: Mapping[tuple[str, str], int],
    instance_type: str,
    zone: str | None,
    live: Iterable[Instance],
    reservations: Mapping[str, CapacityReservation],
) -> int | None:
    """Instances that AWS can still start of a type in a zone; None: no bound was set.

    A reservation takes its whole count for as long as it is active, used or not.
    """
    total = capacity.get((instance_type, zone or ""))
    if total is None:
        return None
    active = {r.id for r in reservations.values() if r.state == "active"}
    reserved = sum(
        r.total_instance_count
        for r in reservations.values()
        if r.id in active and (r.instance_type, r.availability_zone) == (instance_type, zone)
    )
    outside = sum(
        i.instance_type == instance_type
        and i.placement.zone == zone
        and (i.capacity_reservation_id or "") not in active
        for i in live
    )
    return total - reserved - outside


def vcpus(instance_type: str) -> int:
    """Default vCPUs of an instance type, as quotas count them; 0 for an unknown one."""
    kind = INSTANCE_TYPES.get(instance_type) or {}
    return int((kind.get("VCpuInfo") or {}).get("DefaultVCpus", 0))


def _bucket_of(instance: Instance) -> str | None:
    return bucket(instance.instance_type, spot=instance.instance_lifecycle == "spot")


def parse_limits(given: Mapping[str, Any]) -> tuple[Limits | None, str]:
    """Limits in the form of `shown_limits`, or None and what is wrong with them. Pure."""
    unknown = sorted(set(given.get("quotas") or {}) - set(QUOTAS))
    if unknown:
        return None, f"Unknown quotas: {', '.join(unknown)}; known: {', '.join(QUOTAS)}."
    try:
        quotas = {code: float(value) for code, value in (given.get("quotas") or {}).items()}
        capacity = {
            (str(row["instance_type"]), str(row["zone"])): int(row["instances"])
            for row in given.get("capacity") or []
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        row = '{"instance_type", "zone", "instances"}'
        return None, (
            f'Expected {{"region", "quotas": {{code: value}}, "capacity": [{row}]}}: {error!r}'
        )
    return Limits(quotas, capacity), ""


def shown_limits(region: str, limits: Limits) -> dict[str, Any]:
    """What is set in a region, in the form that `parse_limits` takes."""
    return {
        "region": region,
        "quotas": dict(sorted(limits.quotas.items())),
        "capacity": [
            {"instance_type": kind, "zone": zone, "instances": count}
            for (kind, zone), count in sorted(limits.capacity.items())
        ],
    }
