"""The facts that a launch request names, read from the region's EC2 and IAM."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES
from moto.iam.models import iam_backends

from rehearsal.account.ec2 import limits
from rehearsal.account.ec2.facts import InterfaceFacts, ReservationFacts, SubnetFacts, World
from rehearsal.account.ec2.models import Image

if TYPE_CHECKING:
    from rehearsal.account.ec2.backend import Backend
    from rehearsal.account.ec2.launch import LaunchRequest
    from rehearsal.account.ec2.models import CapacityReservation


def world_for(request: LaunchRequest, backend: Backend) -> World:
    """What exists of the things that this request names."""
    interfaces = {
        i: backend.enis[i]
        for i in (r.interface_id for r in request.interfaces)
        if i is not None and i in backend.enis
    }
    wanted = {r.subnet_id for r in request.interfaces}
    wanted |= {i.subnet_id for i in interfaces.values()}
    groups = {g for r in request.interfaces for g in r.groups}
    kind = request.instance_type
    reservation = backend.capacity_reservations.get(request.reservation_id or "")
    image = backend.amis.get(request.image_id or "")
    subnets = {s: facts for s in wanted if s and (facts := subnet_facts(backend, s))}
    zone = next((facts.zone for facts in subnets.values()), request.zone)
    return World(
        images=frozenset(i for i in backend.amis if i == request.image_id),
        image_state=_state_of_image(request.image_id or "", backend),
        instance_types={kind: INSTANCE_TYPES[kind]} if kind in INSTANCE_TYPES else {},
        zones_of_type={kind: zones_of(kind, backend.region_name)},
        subnets=subnets,
        groups={
            g: str(found.vpc_id) for g in groups if (found := backend.get_security_group_from_id(g))
        },
        interfaces={
            i: InterfaceFacts(e.subnet_id, e.interface_type, e.status == "in-use")
            for i, e in interfaces.items()
        },
        placement_groups=frozenset(backend.placement_groups),
        reservations={reservation.id: reservation_facts(reservation)} if reservation else {},
        profiles=_profiles(request, backend),
        keys=frozenset(backend.key_pairs),
        architecture=image.architecture if isinstance(image, Image) else None,
        root=(str(image.root_device_name), image.root_gib) if isinstance(image, Image) else None,
        placement_zones=_zones_of_group(backend, request.placement_group),
        room=limits.room(backend, kind, zone, spot=request.market == "spot"),
    )


def _state_of_image(image_id: str, backend: Backend) -> str:
    if image_id in backend.deleted_amis:
        return "deregistered"
    return str(backend.amis[image_id].state) if image_id in backend.amis else "available"


def _zones_of_group(backend: Backend, name: str | None) -> frozenset[str]:
    """Where a cluster placement group is: all of it is in one zone."""
    group = backend.placement_groups.get(name or "")
    if group is None or group.strategy != "cluster":
        return frozenset()
    held = {
        r.availability_zone
        for r in backend.capacity_reservations.values()
        if r.state == "active" and (r.placement_group_arn or "").endswith(f"/{name}")
    }
    running = {
        str(i.placement.zone)
        for i in backend.instances()
        if i.placement.group_name == name and i.state != "terminated"
    }
    return frozenset(held | running)


def zones_of(instance_type: str, region: str) -> frozenset[str]:
    """The zones that offer an instance type; empty where the data does not know."""
    offerings = INSTANCE_TYPE_OFFERINGS.get("availability-zone", {}).get(region, [])
    return frozenset(o["Location"] for o in offerings if o["InstanceType"] == instance_type)


def subnet_facts(backend: Backend, subnet_id: str) -> SubnetFacts | None:
    """A subnet's facts, or None where there is no such subnet."""
    for by_id in backend.subnets.values():
        if subnet_id in by_id:
            subnet = by_id[subnet_id]
            pool = backend.pool(subnet)
            return SubnetFacts(
                subnet.vpc_id, subnet.availability_zone, subnet.cidr_block, pool.free, pool.taken
            )
    return None


def reservation_facts(reservation: CapacityReservation) -> ReservationFacts:
    """A capacity reservation's facts; the placement group by name."""
    arn = reservation.placement_group_arn
    return ReservationFacts(
        instance_type=reservation.instance_type,
        zone=reservation.availability_zone,
        state=reservation.state,
        available=reservation.available_instance_count,
        placement_group=arn.split("/")[-1] if arn else None,
        kind=reservation.reservation_type,
    )


def _profiles(request: LaunchRequest, backend: Backend) -> frozenset[str]:
    iam = iam_backends[backend.account_id][backend.partition]
    known = {p.name for p in iam.instance_profiles.values()}
    known |= {p.arn for p in iam.instance_profiles.values()}
    return frozenset(known & {str(request.profile_name), str(request.profile_arn)})
