"""Carries out a launch that nothing speaks against: interfaces, instances, volumes."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

from moto.core.types import Base64EncodedString
from moto.ec2.models.instances import Reservation
from moto.ec2.utils import random_reservation_id

from rehearsal.account.ec2.errors import refuse
from rehearsal.account.ec2.launch import InterfaceRequest, LaunchRequest, merge, parse
from rehearsal.account.ec2.models import Image, Instance, NetworkInterface
from rehearsal.account.ec2.refusals import check_launch
from rehearsal.account.ec2.world import world_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rehearsal.account.ec2.backend import Backend

NOT_MADE = ("Client.InvalidParameterValue: launch refused", "Client.InvalidParameterValue")


def with_template(
    backend: Backend, params: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The request with its launch template merged in, and the tags that EC2 adds for it."""
    specifier = params.get("LaunchTemplate")
    if not specifier:
        return merge({}, params), {}
    version = backend.template_version(specifier)
    tags = {
        "aws:ec2launchtemplate:id": version.template.id,
        "aws:ec2launchtemplate:version": str(version.number),
    }
    return merge(version.data, params), tags


def with_defaults(backend: Backend, merged: dict[str, Any]) -> dict[str, Any]:
    """As EC2, put a launch that names no subnet into the default subnet of its zone."""
    specs = merged.get("NetworkInterfaces") or []
    if merged.get("SubnetId") or any(
        s.get("SubnetId") or s.get("NetworkInterfaceId") for s in specs
    ):
        if merged.get("SecurityGroups"):
            merged["SecurityGroupIds"] = [
                *(merged.get("SecurityGroupIds") or []),
                *_ids_of(backend, merged["SecurityGroups"]),
            ]
        return merged
    zone = (merged.get("Placement") or {}).get("AvailabilityZone")
    subnets = backend.get_default_subnets()
    subnet = subnets.get(zone) if zone else next(iter(subnets.values()), None)
    if subnet is None:
        raise refuse(
            "MissingInput", "No subnets found for the default VPC. Please specify a subnet."
        )
    if specs:
        return {**merged, "NetworkInterfaces": [{**s, "SubnetId": subnet.id} for s in specs]}
    return {**merged, "SubnetId": subnet.id}


def _ids_of(backend: Backend, names: list[str]) -> list[str]:
    groups = [(n, backend.get_security_group_by_name_or_id(n)) for n in names]
    missing = [n for n, g in groups if g is None]
    if missing:
        raise refuse("InvalidGroup.NotFound", f"The security group '{missing[0]}' does not exist")
    return [g.id for _, g in groups if g is not None]


def digest_of(params: Mapping[str, Any]) -> str:
    """Digest of a request's parameters, to tell a repeated call from a different one."""
    text = json.dumps(params, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def repeated(backend: Backend, token: str | None, digest: str) -> Reservation | None:
    """The reservation that an earlier call with this client token made.

    Raises:
        EC2ClientError: IdempotentParameterMismatch, the token was used for another request.
    """
    if not token or token not in backend.client_tokens:
        return None
    earlier, reservation_id = backend.client_tokens[token]
    if earlier != digest:
        raise refuse(
            "IdempotentParameterMismatch",
            "The request uses the same client token as a previous, but non-identical request.",
        )
    return backend.reservations.get(reservation_id)


def prepare(backend: Backend, params: Mapping[str, Any]) -> tuple[LaunchRequest, dict[str, str]]:
    """The launch that the parameters ask for, checked, and the tags that EC2 adds.

    Raises:
        EC2ClientError: the first of EC2's reasons to refuse it.
    """
    merged, template_tags = with_template(backend, params)
    request = parse(with_defaults(backend, merged))
    refusal = check_launch(request, world_for(request, backend))
    if refusal:
        raise refusal.error()
    return request, template_tags


def carry_out(
    backend: Backend, request: LaunchRequest, template_tags: Mapping[str, str], *, boots: bool
) -> Reservation:
    """Make the instances of a checked launch; they are pending afterwards."""
    reservation = Reservation(random_reservation_id(), owner_id=backend.account_id)
    backend.reservations[reservation.id] = reservation
    tags = {**request.tags.get("instance", {}), **template_tags}
    try:
        for index in range(request.count):
            _one(backend, request, reservation, index, tags=tags).boots = boots
    except Exception:
        for instance in reservation.instances:
            if isinstance(instance, Instance):
                release(backend, instance, *NOT_MADE)
        del backend.reservations[reservation.id]
        backend.by_id.clear()
        raise
    if request.reservation_id:
        reserved = backend.capacity_reservations[request.reservation_id]
        reserved.available_instance_count -= request.count
    return reservation


def _one(
    backend: Backend,
    request: LaunchRequest,
    reservation: Reservation,
    index: int,
    *,
    tags: Mapping[str, str],
) -> Instance:
    instance = _instance(backend, request, index)
    backend.show(reservation, instance)
    instance.add_tags(dict(tags))
    _placement(instance, request)
    _volumes(backend, instance, request)
    if request.profile_name or request.profile_arn:
        backend.associate_iam_instance_profile(
            instance.id, request.profile_name, request.profile_arn
        )
    return instance


def _instance(backend: Backend, request: LaunchRequest, index: int) -> Instance:
    interfaces = [
        (
            _interface(backend, request, wanted),
            wanted.card,
            wanted.device,
            wanted.delete_on_termination,
        )
        for wanted in request.interfaces
    ]
    primary = next(e for e, card, device, _ in interfaces if (card, device) == (0, 0))
    encoded = request.user_data and base64.b64encode(request.user_data).decode()
    instance = Instance(
        backend,
        str(request.image_id),
        Base64EncodedString(encoded) if encoded else None,
        [],
        nics=[],
        instance_type=request.instance_type,
        region_name=backend.region_name,
        subnet_id=primary.subnet_id,
        key_name=request.key_name,
        ebs_optimized=request.ebs_optimized,
        monitoring_state="enabled" if request.monitoring else "disabled",
        ami_launch_index=index,
        disable_api_termination=request.disable_api_termination,
        disable_api_stop=request.disable_api_stop,
        instance_initiated_shutdown_behavior=request.shutdown_behavior,
        metadata_options=dict(request.metadata_options),
        associate_public_ip=False,
        lifecycle=request.market,
    )
    instance.attach_all(interfaces)
    instance.go("pending")
    return instance


def _interface(
    backend: Backend, request: LaunchRequest, wanted: InterfaceRequest
) -> NetworkInterface:
    if wanted.interface_id:
        return backend.get_network_interface(wanted.interface_id)
    subnet = backend.get_subnet(str(wanted.subnet_id))
    single = len(request.interfaces) == 1
    public = (
        wanted.public_ip
        if wanted.public_ip is not None
        else (single and bool(subnet.map_public_ip_on_launch))
    )
    return backend.create_network_interface(
        subnet,
        wanted.private_ip,
        group_ids=list(wanted.groups),
        description=wanted.description,
        tags=dict(request.tags.get("network-interface", {})),
        interface_type=wanted.kind,
        public_ip_auto_assign=public and wanted.kind != "efa-only",
    )


def _placement(instance: Instance, request: LaunchRequest) -> None:
    instance.placement.group_name = request.placement_group or ""
    instance.placement.tenancy = request.tenancy
    instance.instance_lifecycle = request.market
    instance.capacity_reservation_id = request.reservation_id
    instance.capacity_reservation_specification = dict(request.capacity) or {
        "CapacityReservationPreference": "open"
    }


def _volumes(backend: Backend, instance: Instance, request: LaunchRequest) -> None:
    image = backend.amis[str(request.image_id)]
    root_gib = image.root_gib if isinstance(image, Image) else 8
    devices: dict[str, dict[str, Any]] = {
        str(instance.root_device_name): {
            "VolumeSize": root_gib,
            "VolumeType": "gp3",
            # A volume of an encrypted snapshot is encrypted, asked for or not.
            "Encrypted": image.ebs_snapshot.encrypted,
        }
    }
    for mapping in request.block_devices:
        name = str(mapping.get("DeviceName"))
        if "NoDevice" in mapping:
            devices.pop(name, None)
        elif mapping.get("Ebs"):
            devices[name] = {**devices.get(name, {}), **mapping["Ebs"]}
    for name, ebs in devices.items():
        volume = backend.create_volume(
            size=ebs.get("VolumeSize"),  # pyright: ignore[reportArgumentType]  None with a snapshot
            zone_name=str(instance.placement.zone),
            snapshot_id=ebs.get("SnapshotId"),
            encrypted=bool(ebs.get("Encrypted", False)),
            kms_key_id=ebs.get("KmsKeyId"),
            volume_type=ebs.get("VolumeType"),
            iops=ebs.get("Iops"),
            throughput=ebs.get("Throughput"),
        )
        volume.add_tags(dict(request.tags.get("volume", {})))
        backend.attach_volume(volume.id, instance.id, name, ebs.get("DeleteOnTermination", True))


def release(backend: Backend, instance: Instance, reason: str, code: str) -> None:
    """The end: interfaces detached or deleted, volumes deleted, reservation given back.

    reason and code: EC2's StateReason.
    """
    for interface in list(instance.nics.values()):
        delete = interface.delete_on_termination
        instance.detach_eni(interface)
        if delete:
            backend.delete_network_interface(interface.id)
    instance.teardown_defaults()
    association = backend.iam_instance_profile_associations.get(instance.id)
    if association:
        backend.disassociate_iam_instance_profile(association.association_id)
    reservation = backend.capacity_reservations.get(instance.capacity_reservation_id or "")
    if reservation and reservation.state == "active":
        reservation.available_instance_count += 1
    instance.go("terminated", reason, code)
