"""What EC2 refuses to launch, with EC2's own codes. Pure: a request and the facts it names.

Each rule yields the refusals it finds; EC2 answers with one error, so the first one counts.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rehearsal.account.ec2.errors import Refusal
from rehearsal.account.ec2.facts import SubnetFacts, World
from rehearsal.account.ec2.image_refusals import image_refusals
from rehearsal.account.ec2.launch import InterfaceRequest, LaunchRequest
from rehearsal.account.ec2.placement_refusals import placement_refusals
from rehearsal.account.ec2.shortage import shortages

USER_DATA_BYTES = 16 * 1024
"""EC2's limit on user data, counted before base64."""
EFA = ("efa", "efa-only")


Rule = Callable[[LaunchRequest, World], Iterator[Refusal]]


def check_launch(request: LaunchRequest, world: World) -> Refusal | None:
    """The error with which EC2 would answer this launch, or None where it would launch."""
    return next((refusal for rule in RULES for refusal in rule(request, world)), None)


def _parameters(request: LaunchRequest, world: World) -> Iterator[Refusal]:
    if not request.image_id:
        yield Refusal("MissingParameter", "The request must contain the parameter ImageId")
    elif world.image_state != "available":
        yield Refusal(
            "InvalidAMIID.Unavailable",
            f"The image id '[{request.image_id}]' is {world.image_state}: no instance can be "
            "launched from it",
        )
    elif request.image_id not in world.images:
        yield Refusal(
            "InvalidAMIID.NotFound", f"The image id '[{request.image_id}]' does not exist"
        )
    if request.instance_type not in world.instance_types:
        yield Refusal(
            "InvalidParameterValue",
            f"Invalid value '{request.instance_type}' for InstanceType.",
        )
    if request.key_name and request.key_name not in world.keys:
        yield Refusal(
            "InvalidKeyPair.NotFound", f"The key pair '{request.key_name}' does not exist"
        )


def _user_data(request: LaunchRequest, _: World) -> Iterator[Refusal]:
    if not request.user_data_valid:
        yield Refusal("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
    if request.user_data and len(request.user_data) > USER_DATA_BYTES:
        yield Refusal("InvalidParameterValue", f"User data is limited to {USER_DATA_BYTES} bytes")


def _combinations(request: LaunchRequest, _: World) -> Iterator[Refusal]:
    if request.interfaces_given:
        if request.subnet_id:
            yield Refusal(
                "InvalidParameterCombination",
                "Network interfaces and an instance-level subnet ID may not be specified "
                "on the same request",
            )
        if request.groups or request.group_names:
            yield Refusal(
                "InvalidParameterCombination",
                "Network interfaces and an instance-level security groups may not be specified "
                "on the same request",
            )
    fixed = any(i.interface_id or i.private_ip for i in request.interfaces)
    if fixed and request.count > 1:
        yield Refusal(
            "InvalidParameterCombination",
            "A network interface or private IP address that is named can be used by one "
            f"instance only, but {request.count} were asked for.",
        )


def _profile(request: LaunchRequest, world: World) -> Iterator[Refusal]:
    for value, parameter, what in (
        (request.profile_name, "iamInstanceProfile.name", "IAM Instance Profile name"),
        (request.profile_arn, "iamInstanceProfile.arn", "IAM Instance Profile ARN"),
    ):
        if value and value not in world.profiles:
            yield Refusal(
                "InvalidParameterValue",
                f"Value ({value}) for parameter {parameter} is invalid. Invalid {what}",
            )


def _references(request: LaunchRequest, world: World) -> Iterator[Refusal]:
    for interface in request.interfaces:
        if interface.interface_id and interface.interface_id not in world.interfaces:
            yield Refusal(
                "InvalidNetworkInterfaceID.NotFound",
                f"The networkInterface ID '{interface.interface_id}' does not exist",
            )
        if interface.subnet_id and interface.subnet_id not in world.subnets:
            yield Refusal(
                "InvalidSubnetID.NotFound",
                f"The subnet ID '{interface.subnet_id}' does not exist",
            )
        for group in interface.groups:
            if group not in world.groups:
                yield Refusal(
                    "InvalidGroup.NotFound", f"The security group '{group}' does not exist"
                )
    if request.placement_group and request.placement_group not in world.placement_groups:
        yield Refusal(
            "InvalidPlacementGroup.Unknown",
            f"The Placement Group '{request.placement_group}' is unknown.",
        )


def _subnet_of(interface: InterfaceRequest, world: World) -> SubnetFacts | None:
    if interface.interface_id:
        facts = world.interfaces.get(interface.interface_id)
        return world.subnets.get(facts.subnet_id) if facts else None
    return world.subnets.get(interface.subnet_id or "")


def _network(request: LaunchRequest, world: World) -> Iterator[Refusal]:
    subnets = [s for i in request.interfaces if (s := _subnet_of(i, world))]
    if len({s.vpc_id for s in subnets}) > 1 or len({s.zone for s in subnets}) > 1:
        yield Refusal(
            "InvalidParameterCombination",
            "All network interfaces of an instance must be in one VPC and Availability Zone.",
        )
    for interface in request.interfaces:
        subnet = _subnet_of(interface, world)
        for group in interface.groups:
            vpc = world.groups.get(group)
            if subnet and vpc and vpc != subnet.vpc_id:
                yield Refusal(
                    "InvalidParameter",
                    f"Security group {group} and subnet {interface.subnet_id} "
                    "belong to different networks.",
                )
    if subnets and request.zone and request.zone != subnets[0].zone:
        yield Refusal(
            "InvalidParameterValue",
            f"The availability zone '{request.zone}' does not match the subnet's zone "
            f"'{subnets[0].zone}'.",
        )
    zones = world.zones_of_type.get(request.instance_type, frozenset())
    if subnets and zones and subnets[0].zone not in zones:
        yield Refusal(
            "Unsupported",
            f"Your requested instance type ({request.instance_type}) is not supported in your "
            f"requested Availability Zone ({subnets[0].zone}). Please retry your request by "
            f"choosing {', '.join(sorted(zones))}.",
        )


def _addresses(request: LaunchRequest, world: World) -> Iterator[Refusal]:
    asked = Counter(i.private_ip for i in request.interfaces if i.private_ip)
    for address, times in asked.items():
        if times > 1:
            yield Refusal("InvalidIPAddress.InUse", f"Address {address} is in use.")
    needed: Counter[str] = Counter()
    for interface in request.interfaces:
        subnet = _subnet_of(interface, world)
        if interface.interface_id or not subnet or interface.kind == "efa-only":
            continue
        if interface.private_ip:
            yield from address_refusals(interface.private_ip, subnet)
        else:
            needed[interface.subnet_id or ""] += request.count
    for subnet_id, count in needed.items():
        if count > world.subnets[subnet_id].free:
            yield exhausted(subnet_id)


def address_refusals(address: str, subnet: SubnetFacts) -> Iterator[Refusal]:
    """Why a private address can't be had in a subnet: outside, reserved, or in use."""
    network = ipaddress.ip_network(subnet.cidr)
    ip = ipaddress.ip_address(address)
    if ip not in network:
        yield Refusal(
            "InvalidParameterValue", "Address does not fall within the subnet's address range"
        )
    elif int(ip) - int(network.network_address) < 4 or ip == network.broadcast_address:
        yield Refusal(
            "InvalidParameterValue", f"Address {address} is in subnet's reserved address range"
        )
    elif subnet.taken(address):
        yield Refusal("InvalidIPAddress.InUse", f"Address {address} is in use.")


def exhausted(subnet_id: str) -> Refusal:
    """No address is left in a subnet."""
    return Refusal(
        "InsufficientFreeAddressesInSubnet",
        f"Insufficient Free Addresses in subnet '{subnet_id}'.",
    )


def _cards(request: LaunchRequest, world: World) -> Iterator[Refusal]:
    info = world.instance_types[request.instance_type].get("NetworkInfo") or {}
    cards = {c["NetworkCardIndex"]: c for c in info.get("NetworkCards") or []}
    efas: Counter[int] = Counter()
    per_card: Counter[int] = Counter()
    seen: set[tuple[int, int]] = set()
    for interface in request.interfaces:
        card = cards.get(interface.card)
        if card is None and (cards or interface.card):
            yield Refusal(
                "InvalidParameterValue",
                f"Network card index {interface.card} exceeds the limit for "
                f"{request.instance_type}",
            )
            continue
        if (interface.card, interface.device) in seen:
            yield Refusal(
                "InvalidParameterValue",
                "Each network interface requires a unique device index.",
            )
        seen.add((interface.card, interface.device))
        per_card[interface.card] += 1
        kind = kind_of(interface, world)
        efas[interface.card] += kind in EFA
        used = (per_card[interface.card], efas[interface.card])
        yield from _card_limits(interface, kind, request.instance_type, world, used)
    if (0, 0) not in seen:
        yield Refusal(
            "InvalidParameterCombination",
            "The primary network interface (network card 0, device index 0) is missing.",
        )


def _card_limits(
    interface: InterfaceRequest, kind: str, name: str, world: World, used: tuple[int, int]
) -> Iterator[Refusal]:
    """What a card refuses. name: instance type; used: interfaces and EFAs on the card so far."""
    interfaces, efas = used
    network = world.instance_types[name].get("NetworkInfo") or {}
    cards = {c["NetworkCardIndex"]: c for c in network.get("NetworkCards") or []}
    card: Mapping[str, Any] = cards.get(interface.card) or {}
    if kind in EFA:
        if not network.get("EfaSupported"):
            yield Refusal("UnsupportedOperation", f"EFA interfaces are not supported on {name}")
        elif kind not in card.get("InterfaceTypes", EFA):
            yield Refusal(
                "AttachmentLimitExceeded",
                f"EFA attachments limit exceeded: Network Card {interface.card} "
                f"(requested: 1, limit: 0) of instance type {name}.",
            )
        elif efas > 1:
            yield Refusal(
                "AttachmentLimitExceeded",
                f"EFA attachments limit exceeded: Network Card {interface.card} "
                f"(requested: {efas}, limit: 1) of instance type {name}.",
            )
    if kind == "efa-only" and (interface.card, interface.device) == (0, 0):
        yield Refusal(
            "InvalidParameterValue",
            "The primary network interface cannot be an EFA-only network interface.",
        )
    limit = card.get("MaximumNetworkInterfaces")
    if limit and interfaces > limit:
        yield Refusal(
            "AttachmentLimitExceeded",
            f"Interface count {interfaces} exceeds the limit for {name}: "
            f"network card {interface.card} takes {limit}.",
        )


def kind_of(interface: InterfaceRequest, world: World) -> str:
    """The interface's type: that of the interface made beforehand where one is named."""
    if interface.interface_id and interface.interface_id in world.interfaces:
        return world.interfaces[interface.interface_id].kind
    return interface.kind


def _interfaces(request: LaunchRequest, world: World) -> Iterator[Refusal]:
    named: Counter[str] = Counter(i.interface_id for i in request.interfaces if i.interface_id)
    for interface in request.interfaces:
        if interface.interface_id and (
            world.interfaces[interface.interface_id].in_use or named[interface.interface_id] > 1
        ):
            yield Refusal(
                "InvalidNetworkInterface.InUse", f"Interface: [{interface.interface_id}] in use."
            )
        if interface.kind == "efa-only" and interface.public_ip is not None:
            yield Refusal(
                "InvalidParameterValue",
                "The associatePublicIpAddress parameter cannot be specified for an EFA-only "
                "network interface.",
            )
        if interface.kind == "efa-only" and interface.has_tracking:
            yield Refusal(
                "InvalidParameterValue",
                "Connection tracking cannot be specified for an EFA-only network interface.",
            )
        if interface.kind == "efa-only" and interface.has_addresses:
            yield Refusal(
                "InvalidParameterValue",
                "IP addresses cannot be assigned to an EFA-only network interface.",
            )
    if len(request.interfaces) > 1 and any(i.public_ip for i in request.interfaces):
        yield Refusal(
            "InvalidParameterCombination",
            "The associatePublicIPAddress parameter cannot be specified when launching with "
            "multiple network interfaces.",
        )
    if any(i.interface_id and i.public_ip for i in request.interfaces):
        yield Refusal(
            "InvalidParameterCombination",
            "The associatePublicIPAddress parameter cannot be specified for a network "
            "interface with an ID.",
        )


def _capacity(request: LaunchRequest, world: World) -> Iterator[Refusal]:
    if request.market == "capacity-block":
        if request.placement_group:
            yield Refusal(
                "InvalidParameterCombination",
                "A placement group cannot be used with a Capacity Block.",
            )
        if request.tenancy != "default":
            yield Refusal(
                "InvalidParameterCombination",
                f"Tenancy '{request.tenancy}' cannot be used with a Capacity Block.",
            )
        if not request.reservation_id:
            yield Refusal(
                "InvalidParameterCombination",
                "MarketType 'capacity-block' requires a CapacityReservationTarget.",
            )
    if not request.reservation_id:
        return
    reservation = world.reservations.get(request.reservation_id)
    if reservation is None or reservation.state == "cancelled":
        yield Refusal(
            "InvalidCapacityReservationId.NotFound",
            f"The capacity reservation '{request.reservation_id}' does not exist.",
        )
        return
    zone = next((s.zone for i in request.interfaces if (s := _subnet_of(i, world))), request.zone)
    fits = (
        reservation.state == "active"
        and reservation.instance_type == request.instance_type
        and reservation.zone == zone
        and reservation.available >= request.count
        and (request.market == "capacity-block") == (reservation.kind == "capacity-block")
        and reservation.placement_group in (None, request.placement_group)
    )
    if not fits:
        yield Refusal(
            "ReservationCapacityExceeded",
            "The requested reservation does not have sufficient compatible and available "
            "capacity for this request.",
        )


def _room(request: LaunchRequest, world: World) -> Iterator[Refusal]:
    zone = next((s.zone for i in request.interfaces if (s := _subnet_of(i, world))), "")
    yield from placement_refusals(request, world, zone)
    yield from shortages(request, world, zone)


RULES: tuple[Rule, ...] = (
    _parameters,
    image_refusals,
    _user_data,
    _combinations,
    _profile,
    _references,
    _cards,
    _interfaces,
    _network,
    _addresses,
    _capacity,
    _room,
)
