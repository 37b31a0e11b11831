"""What EC2 refuses to make past a quota, or to delete while something depends on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehearsal.account.ec2 import limits
from rehearsal.account.ec2.base import Action
from rehearsal.account.ec2.errors import refuse
from rehearsal.account.ec2.models import NetworkInterface
from rehearsal.account.ec2.shortage import address_limit, vpc_limit

if TYPE_CHECKING:
    from moto.core.responses import ActionResult


class Network(Action):
    """VPCs, subnets, security groups, internet gateways and Elastic IPs."""

    def _interfaces(self) -> list[NetworkInterface]:
        return [e for e in self.backend.enis.values() if isinstance(e, NetworkInterface)]

    def create_vpc(self) -> ActionResult:
        """Refused past the region's quota."""
        if len(self.backend.vpcs) >= self.backend.limits.quota(limits.VPCS):
            raise vpc_limit().error()
        return super().create_vpc()  # pyright: ignore[reportAttributeAccessIssue]  # moto's mixin, joined in api.py

    def allocate_address(self) -> ActionResult:
        """Refused past the region's quota of Elastic IPs."""
        if len(self.backend.addresses) >= self.backend.limits.quota(limits.ELASTIC_IPS):
            raise address_limit().error()
        return super().allocate_address()  # pyright: ignore[reportAttributeAccessIssue]  # moto's mixin, joined in api.py

    def delete_subnet(self) -> ActionResult:
        """Refused while an interface is in the subnet."""
        subnet_id = self.parameter("SubnetId")
        self.backend.get_subnet(subnet_id)
        if any(e.subnet_id == subnet_id for e in self._interfaces()):
            raise refuse(
                "DependencyViolation",
                f"The subnet '{subnet_id}' has dependencies and cannot be deleted.",
            )
        self.dry_run()
        result = super().delete_subnet()  # pyright: ignore[reportAttributeAccessIssue]  # moto's mixin, joined in api.py
        self.backend.pools.pop(subnet_id, None)
        return result

    def delete_security_group(self) -> ActionResult:
        """Refused while an interface or another group's rule uses it, and for defaults."""
        group_id = self.parameter("GroupId")
        group = self.backend.get_security_group_from_id(group_id) if group_id else None
        if group is not None:
            if group.is_default:
                raise refuse(
                    "CannotDelete",
                    f'the specified group: "{group_id}" name: "default" '
                    "cannot be deleted by a user",
                )
            used = any(group in e.group_set for e in self._interfaces())
            others = [
                g for g in self.backend.groups[str(group.vpc_id)].values() if g.id != group_id
            ]
            named = any(
                (rule.source_group or {}).get("GroupId") == group_id
                for other in others
                for rule in (*other.ingress_rules, *other.egress_rules)
            )
            if used or named:
                raise refuse("DependencyViolation", f"resource {group_id} has a dependent object")
        self.dry_run()
        return super().delete_security_group()  # pyright: ignore[reportAttributeAccessIssue]  # moto's mixin, joined in api.py

    def delete_vpc(self) -> ActionResult:
        """Refused while a gateway, endpoint or a group of the user's own is in the VPC."""
        vpc_id = self.parameter("VpcId")
        self.backend.get_vpc(vpc_id)
        gateways = [
            g for g in self.backend.internet_gateways.values() if g.vpc and g.vpc.id == vpc_id
        ]
        endpoints = [
            e
            for e in self.backend.vpc_end_points.values()
            if e.vpc_id == vpc_id and e.state != "deleted"
        ]
        groups = [g for g in self.backend.groups.get(vpc_id, {}).values() if not g.is_default]
        if gateways or endpoints or groups:
            raise refuse(
                "DependencyViolation",
                f"The vpc '{vpc_id}' has dependencies and cannot be deleted.",
            )
        self.dry_run()
        return super().delete_vpc()  # pyright: ignore[reportAttributeAccessIssue]  # moto's mixin, joined in api.py

    def detach_internet_gateway(self) -> ActionResult:
        """Refused while public addresses are mapped to interfaces of the VPC."""
        vpc_id = self.parameter("VpcId")
        if any(e.vpc_id == vpc_id and e.public_ip for e in self._interfaces()):
            raise refuse(
                "DependencyViolation",
                f"Network {vpc_id} has some mapped public address(es). "
                "Please unmap those public address(es) before detaching the gateway.",
            )
        self.dry_run()
        return super().detach_internet_gateway()  # pyright: ignore[reportAttributeAccessIssue]  # moto's mixin, joined in api.py
