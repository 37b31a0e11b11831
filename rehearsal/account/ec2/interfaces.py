"""Actions on network interfaces, with types, cards and addresses of the subnet."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import InvalidNetworkAttachmentIdError
from moto.ec2.models.instance_types import INSTANCE_TYPES

from rehearsal.account.ec2 import limits
from rehearsal.account.ec2.base import Action
from rehearsal.account.ec2.errors import refuse
from rehearsal.account.ec2.models import CARD_STRIDE, Instance, NetworkInterface
from rehearsal.account.ec2.refusals import EFA, address_refusals
from rehearsal.account.ec2.shortage import interface_limit
from rehearsal.account.ec2.world import subnet_facts

KINDS = ("interface", "efa", "efa-only")
FREE_OF_ADDRESSES = (
    "PrivateIpAddress",
    "PrivateIpAddresses",
    "SecondaryPrivateIpAddressCount",
    "Ipv6Addresses",
    "Ipv6AddressCount",
    "Ipv4Prefixes",
    "Ipv4PrefixCount",
)


class Interfaces(Action):
    """CreateNetworkInterface and what may be done to one."""

    def create_network_interface(self) -> ActionResult:
        """A new interface: a free address of its subnet, the asked one, or none (efa-only)."""
        subnet_id = self.parameter("SubnetId")
        kind = self.parameter("InterfaceType") or "interface"
        subnet = self.backend.get_subnet(subnet_id)
        if kind not in KINDS:
            raise refuse(
                "InvalidParameterValue",
                f"Value ({kind}) for parameter InterfaceType is invalid here: "
                f"one of {', '.join(KINDS)}.",
            )
        if kind == "efa-only" and any(self.parameter(p) for p in FREE_OF_ADDRESSES):
            raise refuse(
                "InvalidParameterValue",
                "IP addresses cannot be assigned to an EFA-only network interface.",
            )
        groups = self.parameter("Groups", [])
        self.check_groups(groups, subnet.vpc_id)
        listed = self.parameter("PrivateIpAddresses", [])
        wanted = [self.parameter("PrivateIpAddress"), *(a["PrivateIpAddress"] for a in listed)]
        self.check_addresses(subnet_id, [a for a in dict.fromkeys(wanted) if a])
        if len(self.backend.enis) >= self.backend.limits.quota(limits.INTERFACES):
            raise interface_limit().error()
        self.dry_run()
        interface = self.backend.create_network_interface(
            subnet,
            self.parameter("PrivateIpAddress"),
            listed,
            group_ids=groups,
            description=self.parameter("Description"),
            tags=self.tags_for("network-interface"),
            interface_type=kind,
            secondary_ips_count=self.parameter("SecondaryPrivateIpAddressCount"),
        )
        return ActionResult({"NetworkInterface": interface})

    def check_groups(self, groups: list[str], vpc_id: str) -> None:
        """Refuse unknown groups (moto would invent them) and those of another VPC."""
        for group_id in groups:
            group = self.backend.get_security_group_from_id(group_id)
            if group is None:
                raise refuse(
                    "InvalidGroup.NotFound", f"The security group '{group_id}' does not exist"
                )
            if group.vpc_id != vpc_id:
                raise refuse(
                    "InvalidParameter",
                    f"Security group {group_id} belongs to {group.vpc_id}, not to {vpc_id}.",
                )

    def check_addresses(self, subnet_id: str, addresses: list[str]) -> None:
        """Refuse addresses outside the subnet, reserved ones, and those in use."""
        subnet = subnet_facts(self.backend, subnet_id)
        for address in addresses:
            for refusal in address_refusals(address, subnet) if subnet else ():
                raise refusal.error()

    def attach_network_interface(self) -> ActionResult:
        """Attach to a running or stopped instance; EFAs only while it is stopped."""
        interface = self.backend.get_network_interface(self.parameter("NetworkInterfaceId"))
        instance = self.backend.get_instance(self.parameter("InstanceId"))
        device = int(self.parameter("DeviceIndex"))
        card = int(self.parameter("NetworkCardIndex") or 0)
        _check_attachment(interface, instance, card, device)
        self.dry_run()
        interface.card = card
        attachment_id = instance.attach_eni(interface, device)
        return ActionResult({"AttachmentId": attachment_id, "NetworkCardIndex": card})

    def detach_network_interface(self) -> ActionResult:
        """Detach any but the primary interface."""
        attachment_id = self.parameter("AttachmentId")
        interface = next(
            (e for e in self.backend.enis.values() if e.attachment_id == attachment_id), None
        )
        if interface is None or interface.instance is None:
            raise InvalidNetworkAttachmentIdError(attachment_id)
        if interface.instance.nics.get(0) is interface:
            raise refuse(
                "OperationNotPermitted",
                f"The network interface at device index 0 and networkCard index 0 of "
                f"{interface.instance.id} cannot be detached.",
            )
        self.dry_run()
        interface.instance.detach_eni(interface)
        return EmptyResult()

    def modify_network_interface_attribute(self) -> ActionResult:
        """Groups, description, source/dest check, delete on termination."""
        interface = self.backend.get_network_interface(self.parameter("NetworkInterfaceId"))
        groups = self.parameter("Groups", [])
        self.check_groups(groups, interface.vpc_id)
        self.dry_run()
        self.backend.modify_network_interface_attribute(
            interface.id,
            groups,
            self.parameter("SourceDestCheck.Value"),
            self.parameter("Description.Value"),
        )
        instance = interface.instance
        if groups and instance and instance.nics.get(0) is interface:
            instance.security_groups = list(interface.group_set)
        delete = self.parameter("Attachment.DeleteOnTermination")
        if delete is not None:
            interface.delete_on_termination = bool(delete)
        return EmptyResult()

    def assign_private_ip_addresses(self) -> ActionResult:
        """Secondary addresses of the interface's own subnet."""
        interface = self.backend.get_network_interface(self.parameter("NetworkInterfaceId"))
        wanted = [a for a in self.parameter("PrivateIpAddresses", []) if a]
        held = interface.addresses()
        self.check_addresses(interface.subnet_id, [a for a in wanted if a not in held])
        count = int(self.parameter("SecondaryPrivateIpAddressCount") or 0)
        self.dry_run()
        new = [self.backend.take_address(interface.subnet, a) for a in wanted if a not in held]
        new += [self.backend.take_address(interface.subnet, None) for _ in range(count)]
        added: list[dict[str, Any]] = [{"Primary": False, "PrivateIpAddress": a} for a in new]
        interface.private_ip_addresses += added
        return ActionResult(
            {"NetworkInterfaceId": interface.id, "AssignedPrivateIpAddresses": added}
        )

    def unassign_private_ip_addresses(self) -> ActionResult:
        """Give secondary addresses back."""
        interface = self.backend.get_network_interface(self.parameter("NetworkInterfaceId"))
        self.backend.unassign_private_ip_addresses(
            interface.id, self.parameter("PrivateIpAddresses", [])
        )
        self.backend.forget_missing_interfaces()
        return EmptyResult()


def _check_attachment(
    interface: NetworkInterface, instance: Instance, card: int, device: int
) -> None:
    if interface.status == "in-use":
        raise refuse("InvalidNetworkInterface.InUse", f"Interface: [{interface.id}] in use.")
    if instance.state not in ("running", "stopped"):
        raise refuse(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is not running or stopped (it is {instance.state}).",
        )
    if interface.interface_type in EFA and instance.state != "stopped":
        raise refuse(
            "OperationNotPermitted",
            "EFA interfaces can be attached at launch or while the instance is stopped only.",
        )
    if card * CARD_STRIDE + device in instance.nics:
        raise refuse(
            "InvalidParameterValue",
            f"Instance '{instance.id}' already has an interface attached at device index "
            f"'{device}' of network card '{card}'.",
        )
    if interface.availability_zone != instance.placement.zone:
        raise refuse(
            "InvalidParameterCombination",
            f"You may not attach a network interface to an instance if they are not in the same "
            f"availability zone ({interface.availability_zone}, {instance.placement.zone}).",
        )
    network = INSTANCE_TYPES[instance.instance_type].get("NetworkInfo") or {}
    limits = {
        c["NetworkCardIndex"]: c["MaximumNetworkInterfaces"]
        for c in network.get("NetworkCards") or []
    }
    on_card = sum(1 for e in instance.nics.values() if e.card == card)
    if limits and on_card >= limits.get(card, 0):
        raise refuse(
            "AttachmentLimitExceeded",
            f"Interface count {on_card + 1} exceeds the limit for {instance.instance_type} "
            f"on network card {card}.",
        )
