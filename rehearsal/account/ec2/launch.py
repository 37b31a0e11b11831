"""What a RunInstances call asks for, after its launch template was merged in. Pure."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

InterfaceType = Literal["interface", "efa", "efa-only"]
EMPTY: tuple[Any, ...] = ("", None, [], {})
DEFAULT_INSTANCE_TYPE = "m1.small"
"""What EC2 launches when neither request nor template names a type."""


def merge(template: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """The launch template's data with the request's own values over it.

    Empty values of the request do not count: Terraform sends `Placement.AvailabilityZone=''`
    where its configuration says nothing. Lists are replaced whole, as EC2 does, except
    TagSpecifications, which EC2 merges by resource type and key.
    """
    merged = {k: v for k, v in template.items() if v not in EMPTY}
    for key, value in request.items():
        if value in EMPTY:
            continue
        below = merged.get(key)
        if key == "TagSpecifications":
            merged[key] = [*(below or []), *value]
        elif isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


@dataclass(frozen=True)
class InterfaceRequest:
    """One network interface of a launch. card and device: network card and device index."""

    card: int
    device: int
    kind: InterfaceType
    interface_id: str | None
    subnet_id: str | None
    groups: tuple[str, ...]
    private_ip: str | None
    public_ip: bool | None
    delete_on_termination: bool
    description: str
    has_addresses: bool
    """An IP field of any kind was given (EC2 refuses that for efa-only)."""
    has_tracking: bool = False
    """Connection tracking was specified (EC2 refuses that for efa-only)."""


@dataclass(frozen=True)
class LaunchRequest:
    """A merged RunInstances request."""

    image_id: str | None
    instance_type: str
    count: int
    interfaces: tuple[InterfaceRequest, ...]
    interfaces_given: bool
    """False: the single interface was made from the instance-level subnet and groups."""
    subnet_id: str | None
    groups: tuple[str, ...]
    group_names: tuple[str, ...]
    user_data: bytes | None
    user_data_valid: bool
    zone: str | None
    tenancy: str
    placement_group: str | None
    profile_name: str | None
    profile_arn: str | None
    reservation_id: str | None
    capacity: Mapping[str, Any]
    market: str | None
    key_name: str | None
    metadata_options: Mapping[str, Any]
    shutdown_behavior: Literal["stop", "terminate"]
    disable_api_termination: bool
    disable_api_stop: bool
    ebs_optimized: bool
    monitoring: bool
    block_devices: tuple[Mapping[str, Any], ...]
    tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """resource type -> key -> value."""


def tags_by_resource(specifications: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """TagSpecifications as resource type -> key -> value; later ones win."""
    tags: dict[str, dict[str, str]] = {}
    for specification in specifications:
        kind = tags.setdefault(str(specification.get("ResourceType", "")), {})
        kind.update({t["Key"]: t.get("Value", "") for t in specification.get("Tags") or []})
    return tags


def decode_user_data(encoded: object) -> tuple[bytes | None, bool]:
    """User data as the raw bytes (gzip stays gzip), and whether the base64 was valid."""
    if encoded in EMPTY:
        return None, True
    try:
        return base64.b64decode(str(encoded), validate=True), True
    except ValueError:  # not base64, or not even ASCII
        return None, False


def _interface(spec: Mapping[str, Any]) -> InterfaceRequest:
    secondary = spec.get("PrivateIpAddresses") or []
    primary = next((a.get("PrivateIpAddress") for a in secondary if a.get("Primary")), None)
    address = spec.get("PrivateIpAddress") or primary
    counts = ("SecondaryPrivateIpAddressCount", "Ipv6AddressCount", "Ipv4PrefixCount")
    lists = ("Ipv6Addresses", "Ipv4Prefixes", "Ipv6Prefixes")
    return InterfaceRequest(
        card=int(spec.get("NetworkCardIndex") or 0),
        device=int(spec.get("DeviceIndex") or 0),
        kind=cast("InterfaceType", spec.get("InterfaceType") or "interface"),
        interface_id=spec.get("NetworkInterfaceId") or None,
        subnet_id=spec.get("SubnetId") or None,
        groups=tuple(spec.get("Groups") or ()),
        private_ip=address or None,
        public_ip=spec.get("AssociatePublicIpAddress"),
        # EC2's default: made with the instance, gone with it; made beforehand, kept.
        delete_on_termination=bool(
            spec.get("DeleteOnTermination", not spec.get("NetworkInterfaceId"))
        ),
        description=spec.get("Description") or "",
        has_addresses=bool(address or secondary or any(spec.get(k) for k in (*counts, *lists))),
        has_tracking=bool(spec.get("ConnectionTrackingSpecification")),
    )


def _implied_interface(merged: Mapping[str, Any]) -> InterfaceRequest:
    return _interface(
        {
            "SubnetId": merged.get("SubnetId"),
            "Groups": merged.get("SecurityGroupIds"),
            "PrivateIpAddress": merged.get("PrivateIpAddress"),
            "Description": "Primary network interface",
        }
    )


def parse(merged: Mapping[str, Any]) -> LaunchRequest:
    """A merged request in the wire's words as a LaunchRequest; checks nothing."""
    specs: Sequence[Mapping[str, Any]] = merged.get("NetworkInterfaces") or []
    placement = merged.get("Placement") or {}
    profile = merged.get("IamInstanceProfile") or {}
    capacity = merged.get("CapacityReservationSpecification") or {}
    target = capacity.get("CapacityReservationTarget") or {}
    user_data, valid = decode_user_data(merged.get("UserData"))
    behavior = merged.get("InstanceInitiatedShutdownBehavior") or "stop"
    return LaunchRequest(
        image_id=merged.get("ImageId"),
        instance_type=merged.get("InstanceType") or DEFAULT_INSTANCE_TYPE,
        count=int(merged.get("MaxCount") or merged.get("MinCount") or 1),
        interfaces=tuple(_interface(s) for s in specs) or (_implied_interface(merged),),
        interfaces_given=bool(specs),
        subnet_id=merged.get("SubnetId"),
        groups=tuple(merged.get("SecurityGroupIds") or ()),
        group_names=tuple(merged.get("SecurityGroups") or ()),
        user_data=user_data,
        user_data_valid=valid,
        zone=placement.get("AvailabilityZone"),
        tenancy=placement.get("Tenancy") or "default",
        placement_group=placement.get("GroupName"),
        profile_name=profile.get("Name"),
        profile_arn=profile.get("Arn"),
        reservation_id=target.get("CapacityReservationId"),
        capacity=capacity,
        market=(merged.get("InstanceMarketOptions") or {}).get("MarketType"),
        key_name=merged.get("KeyName"),
        metadata_options=dict(merged.get("MetadataOptions") or {}),
        shutdown_behavior="terminate" if behavior == "terminate" else "stop",
        disable_api_termination=bool(merged.get("DisableApiTermination")),
        disable_api_stop=bool(merged.get("DisableApiStop")),
        ebs_optimized=bool(merged.get("EbsOptimized")),
        monitoring=bool((merged.get("Monitoring") or {}).get("Enabled")),
        block_devices=tuple(merged.get("BlockDeviceMappings") or ()),
        tags=tags_by_resource(merged.get("TagSpecifications") or ()),
    )
