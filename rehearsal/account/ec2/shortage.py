"""What EC2 refuses for want of room: quotas of the account, capacity of AWS. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rehearsal.account.ec2.errors import Refusal
from rehearsal.account.ec2.facts import World
from rehearsal.account.ec2.launch import LaunchRequest


def shortages(request: LaunchRequest, world: World, zone: str) -> Iterator[Refusal]:
    """Quotas first, as EC2 answers; then what AWS has left in the zone of the launch."""
    room, kind = world.room, request.instance_type
    asked = request.count * _vcpus(world.instance_types[kind])
    if request.market != "capacity-block" and room.vcpus is not None and asked > room.vcpus:
        if request.market == "spot":
            yield Refusal("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        yield vcpu_limit(room.vcpus)
    new = request.count * sum(not i.interface_id for i in request.interfaces)
    if room.interfaces is not None and new > room.interfaces:
        yield interface_limit()
    if not request.reservation_id and room.capacity is not None and request.count > room.capacity:
        others = world.zones_of_type.get(kind, frozenset()) - {zone}
        yield no_capacity(kind, zone, others)


def _vcpus(kind: Mapping[str, Any]) -> int:
    return int((kind.get("VCpuInfo") or {}).get("DefaultVCpus", 0))


def vcpu_limit(left: float) -> Refusal:
    """The vCPU quota of an instance family is used up; left: vCPUs that may still be started."""
    return Refusal(
        "VcpuLimitExceeded",
        "You have requested more vCPU capacity than your current vCPU limit allows for the "
        f"instance bucket that the specified instance type belongs to ({max(left, 0):.0f} left). "
        "Please visit http://aws.amazon.com/contact-us/ec2-request to request an adjustment to "
        "this limit.",
    )


def interface_limit() -> Refusal:
    """The region's quota of network interfaces is used up."""
    return Refusal(
        "NetworkInterfaceLimitExceeded",
        "You have reached the limit on the number of network interfaces that you can create.",
    )


def no_capacity(instance_type: str, zone: str, others: Iterable[str]) -> Refusal:
    """AWS has no more of a type in a zone; others: zones that offer it too."""
    elsewhere = ", ".join(sorted(others))
    choosing = f" or choosing {elsewhere}" if elsewhere else ""
    return Refusal(
        "InsufficientInstanceCapacity",
        f"We currently do not have sufficient {instance_type} capacity in the Availability Zone "
        f"you requested ({zone}). Our system will be working on provisioning additional capacity. "
        f"You can currently get {instance_type} capacity by not specifying an Availability Zone "
        f"in your request{choosing}.",
    )


def address_limit() -> Refusal:
    """The region's quota of Elastic IPs is used up."""
    return Refusal("AddressLimitExceeded", "The maximum number of addresses has been reached.")


def vpc_limit() -> Refusal:
    """The region's quota of VPCs is used up."""
    return Refusal("VpcLimitExceeded", "The maximum number of VPCs has been reached.")
