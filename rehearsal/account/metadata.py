"""What an instance may read about itself at 169.254.169.254."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from moto.core.utils import utcnow
from moto.iam.models import InstanceProfile, iam_backends
from moto.sts.models import sts_backends

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from rehearsal.account.ec2.backend import Backend
    from rehearsal.account.ec2.models import Instance

CREDENTIAL_SECONDS = 6 * 3600
RENEW_SECONDS = 15 * 60
"""EC2 has new credentials ready before the old ones end; so do we."""


@dataclass(frozen=True)
class InterfaceFacts:
    """One network interface as the metadata service shows it."""

    mac: str
    interface_id: str
    device: int
    address: str | None
    groups: Mapping[str, str]
    """Security group id -> name."""
    subnet_id: str
    subnet_cidr: str
    vpc_id: str
    vpc_cidr: str


@dataclass(frozen=True)
class InstanceFacts:
    """What the metadata tree of one instance is made from."""

    instance_id: str
    account: str
    region: str
    zone: str
    zone_id: str
    image_id: str
    instance_type: str
    architecture: str
    private_ip: str
    hostname: str
    launch_index: int
    pending_time: str
    reservation_id: str
    interfaces: tuple[InterfaceFacts, ...]
    primary_mac: str
    placement_group: str = ""
    profile_arn: str | None = None
    profile_id: str | None = None
    role: str | None = None
    user_data: bytes | None = None
    tags: Mapping[str, str] | None = None
    """None: InstanceMetadataTags is disabled."""
    credentials: Callable[[], str] = field(default=lambda: "")


def tree_of(facts: InstanceFacts) -> dict[str, Any]:
    """The tree below `/latest/`. Pure, but for the leaf that mints credentials when read."""
    tree: dict[str, Any] = {
        "meta-data": _meta_data(facts),
        "dynamic": {"instance-identity": {"document": json.dumps(_identity(facts), indent=2)}},
    }
    if facts.user_data is not None:
        tree["user-data"] = facts.user_data
    return tree


def _meta_data(facts: InstanceFacts) -> dict[str, Any]:
    primary = next(i for i in facts.interfaces if i.mac == facts.primary_mac)
    placement = {
        "availability-zone": facts.zone,
        "availability-zone-id": facts.zone_id,
        "region": facts.region,
    }
    if facts.placement_group:
        placement["group-name"] = facts.placement_group
    data: dict[str, Any] = {
        "ami-id": facts.image_id,
        "ami-launch-index": str(facts.launch_index),
        "ami-manifest-path": "(unknown)",
        "block-device-mapping": {"ami": "/dev/xvda", "root": "/dev/xvda"},
        "hostname": facts.hostname,
        "instance-action": "none",
        "instance-id": facts.instance_id,
        "instance-life-cycle": "on-demand",
        "instance-type": facts.instance_type,
        "local-hostname": facts.hostname,
        "local-ipv4": facts.private_ip,
        "mac": facts.primary_mac,
        "network": {
            "interfaces": {"macs": {i.mac: _interface(i, facts) for i in facts.interfaces}}
        },
        "placement": placement,
        "profile": "default-hvm",
        "reservation-id": facts.reservation_id,
        "security-groups": "\n".join(primary.groups.values()),
        "services": {"domain": "amazonaws.com", "partition": "aws"},
    }
    if facts.role:
        data["iam"] = {
            "info": json.dumps(
                {
                    "Code": "Success",
                    "LastUpdated": facts.pending_time,
                    "InstanceProfileArn": facts.profile_arn,
                    "InstanceProfileId": facts.profile_id,
                },
                indent=2,
            ),
            "security-credentials": {facts.role: facts.credentials},
        }
    if facts.tags is not None:
        data["tags"] = {"instance": dict(facts.tags)}
    return data


def _interface(interface: InterfaceFacts, facts: InstanceFacts) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "device-number": str(interface.device),
        "interface-id": interface.interface_id,
        "mac": interface.mac,
        "owner-id": facts.account,
        "security-group-ids": "\n".join(interface.groups),
        "security-groups": "\n".join(interface.groups.values()),
        "subnet-id": interface.subnet_id,
        "subnet-ipv4-cidr-block": interface.subnet_cidr,
        "vpc-id": interface.vpc_id,
        "vpc-ipv4-cidr-block": interface.vpc_cidr,
        "vpc-ipv4-cidr-blocks": interface.vpc_cidr,
    }
    if interface.address:
        shown["local-ipv4s"] = interface.address
        shown["local-hostname"] = facts.hostname
    return shown


def _identity(facts: InstanceFacts) -> dict[str, Any]:
    return {
        "accountId": facts.account,
        "architecture": facts.architecture,
        "availabilityZone": facts.zone,
        "imageId": facts.image_id,
        "instanceId": facts.instance_id,
        "instanceType": facts.instance_type,
        "pendingTime": facts.pending_time,
        "privateIp": facts.private_ip,
        "region": facts.region,
        "version": "2017-09-30",
    }


class Metadata:
    """The MetadataSource that the machine is given."""

    def __init__(
        self,
        lock: AbstractContextManager[Any],
        backends: Callable[[], list[Backend]],
        changed: Callable[[], None],
    ) -> None:
        self._lock = lock
        self._backends = backends
        self._changed = changed

    def tree(self, vpc_id: str, address: str) -> dict[str, Any] | None:
        """The tree of the instance that owns the address in the VPC; None where nobody does."""
        with self._lock:
            for backend in self._backends():
                for instance in backend.instances():
                    if instance.state in ("terminated", "shutting-down"):
                        continue
                    if instance.vpc_id == vpc_id and address in instance.nics[0].addresses():
                        return tree_of(self._facts(backend, instance))
        return None

    def _facts(self, backend: Backend, instance: Instance) -> InstanceFacts:
        profile = profile_of(backend, instance)
        options = instance.metadata_options
        launched = instance.launch_time.strftime("%Y-%m-%dT%H:%M:%SZ")
        role = profile.roles[0].name if profile and profile.roles else None
        zones = {z.name: z.zone_id for z in backend.describe_availability_zones()}
        user_data = instance.user_data
        return InstanceFacts(
            instance_id=instance.id,
            account=backend.account_id,
            region=backend.region_name,
            zone=str(instance.placement.zone),
            zone_id=zones.get(str(instance.placement.zone), ""),
            image_id=instance.image_id,
            instance_type=instance.instance_type,
            architecture=str(instance.architecture),
            private_ip=str(instance.private_ip_address),
            hostname=instance.private_dns_name,
            launch_index=int(instance.ami_launch_index),
            pending_time=launched,
            reservation_id=_reservation_id(backend, instance),
            interfaces=tuple(_interface_facts(backend, i) for i in instance.nics.values()),
            primary_mac=instance.nics[0].mac_address,
            placement_group=instance.placement.group_name,
            profile_arn=profile.arn if profile else None,
            profile_id=profile.id if profile else None,
            role=role,
            user_data=base64.b64decode(str(user_data)) if user_data else None,
            tags=dict(backend.tags.get(instance.id, {}))
            if options.instance_metadata_tags == "enabled"
            else None,
            credentials=lambda: self._credentials(backend, instance, role or ""),
        )

    def _credentials(self, backend: Backend, instance: Instance, role: str) -> str:
        """Temporary credentials of the instance's role, as JSON; minted as STS would."""
        with self._lock:
            arn = f"arn:aws:iam::{backend.account_id}:role/{role}"
            arn = next(
                (
                    r.arn
                    for r in iam_backends[backend.account_id]["aws"].roles.values()
                    if r.name == role
                ),
                arn,
            )
            sts = sts_backends[backend.account_id]["aws"]
            now = utcnow()
            sts.assumed_roles = [r for r in sts.assumed_roles if r.expiration > now]
            soon = now + timedelta(seconds=RENEW_SECONDS)
            session = next(
                (
                    r
                    for r in sts.assumed_roles
                    if r.session_name == instance.id and r.role_arn == arn and r.expiration > soon
                ),
                None,
            )
            if session is None:
                session = sts.assume_role(
                    backend.region_name, instance.id, arn, "", CREDENTIAL_SECONDS, ""
                )
                self._changed()
            return json.dumps(
                {
                    "Code": "Success",
                    "LastUpdated": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "Type": "AWS-HMAC",
                    "AccessKeyId": session.access_key_id,
                    "SecretAccessKey": session.secret_access_key,
                    "Token": session.session_token,
                    "Expiration": session.expiration.strftime("%Y-%m-%dT%H:%M:%SZ"),
                },
                indent=2,
            )


def profile_of(backend: Backend, instance: Instance) -> InstanceProfile | None:
    """The instance profile that is associated with an instance."""
    association = backend.iam_instance_profile_associations.get(instance.id)
    return association.iam_instance_profile if association else None


def _reservation_id(backend: Backend, instance: Instance) -> str:
    return next((r.id for r in backend.reservations.values() if instance in r.instances), "")


def _interface_facts(backend: Backend, interface: Any) -> InterfaceFacts:
    return InterfaceFacts(
        mac=interface.mac_address,
        interface_id=interface.id,
        device=int(interface.device_index or 0),
        address=interface.private_ip_address,
        groups={g.id: g.name for g in interface.group_set},
        subnet_id=interface.subnet_id,
        subnet_cidr=interface.subnet.cidr_block,
        vpc_id=interface.vpc_id,
        vpc_cidr=backend.get_vpc(interface.vpc_id).cidr_block,
    )
