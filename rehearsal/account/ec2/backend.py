"""The region's EC2: moto's backend with real addresses and what moto has no tables for."""

from __future__ import annotations

from typing import Any

import moto.ec2.urls
from moto.ec2.exceptions import InvalidInstanceIdError, InvalidNetworkInterfaceIdError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.utils import EC2_PREFIX_TO_RESOURCE, get_prefix

from rehearsal.account.ec2.addresses import AddressPool
from rehearsal.account.ec2.errors import refuse
from rehearsal.account.ec2.limits import Limits
from rehearsal.account.ec2.models import (
    CapacityReservation,
    Instance,
    NetworkInterface,
    PlacementGroup,
)
from rehearsal.account.ec2.refusals import exhausted


class Backend(EC2Backend):
    """One region. Everything in it is pickled; it knows no machine and no request."""

    limits: Limits

    def __init__(self, region_name: str, account_id: str) -> None:
        self.pools: dict[str, AddressPool] = {}
        self.placement_groups: dict[str, PlacementGroup] = {}
        self.capacity_reservations: dict[str, CapacityReservation] = {}
        self.limits = Limits()
        self.client_tokens: dict[str, tuple[str, str]] = {}
        """RunInstances' token -> (digest of its request, reservation id)."""
        super().__init__(region_name, account_id)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A state of an account that had no limits yet has none set."""
        vars(self).update({"limits": Limits(), **state})

    @property
    def _url_module(self) -> Any:
        return moto.ec2.urls

    # -- instances

    def instances(self) -> list[Instance]:
        """All instances, oldest first, terminated ones too while they are shown."""
        return [
            i for r in self.reservations.values() for i in r.instances if isinstance(i, Instance)
        ]

    def get_instance(self, instance_id: str) -> Instance:
        """The instance, or EC2's InvalidInstanceID.NotFound."""
        for instance in self.instances():
            if instance.id == instance_id:
                return instance
        raise InvalidInstanceIdError(instance_id)

    # -- interfaces

    def pool(self, subnet: Any) -> AddressPool:
        """The addresses of a subnet."""
        if subnet.id not in self.pools:
            self.pools[subnet.id] = AddressPool(subnet.cidr_block)
        return self.pools[subnet.id]

    def create_network_interface(  # noqa: PLR0913, PLR0917  # pyright: ignore[reportIncompatibleMethodOverride]  # signature: moto's own callers use it
        self,
        subnet: Any,
        private_ip_address: str | list[str] | None = None,
        private_ip_addresses: list[dict[str, Any]] | None = None,
        group_ids: list[str] | None = None,
        description: str | None = None,
        tags: dict[str, str] | None = None,
        delete_on_termination: bool | None = False,  # noqa: FBT001, FBT002  # moto's signature
        **fields: Any,
    ) -> NetworkInterface:
        """A new interface with an address of its subnet, or none for efa-only.

        moto's own callers (NAT gateways, VPC endpoints) ask for a random address anywhere: an
        address outside the subnet means any.

        Raises:
            EC2ClientError: InsufficientFreeAddressesInSubnet, InvalidIPAddress.InUse.
        """
        subnet = self.get_subnet(subnet) if isinstance(subnet, str) else subnet
        address = None
        secondary: list[str] = []
        if fields.get("interface_type") != "efa-only":
            count = int(fields.pop("secondary_ips_count", None) or 0)
            address, secondary = self._addresses_for(
                subnet, private_ip_address, private_ip_addresses or [], count
            )
        interface = NetworkInterface(
            self,
            subnet,
            address,
            group_ids=group_ids,
            description=description,
            tags=tags,
            delete_on_termination=delete_on_termination,
            **fields,
        )
        interface.private_ip_addresses += [
            {"Primary": False, "PrivateIpAddress": a} for a in secondary
        ]
        self.enis[interface.id] = interface
        return interface

    def _addresses_for(
        self, subnet: Any, wanted: str | list[str] | None, listed: list[Any], count: int
    ) -> tuple[str, list[str]]:
        """Primary and secondary addresses; count: secondary ones besides those listed."""
        first = next(iter(wanted), None) if isinstance(wanted, list) else wanted
        entries = [a if isinstance(a, dict) else {"PrivateIpAddress": a} for a in listed]
        if not first and entries:
            primary = next((a for a in entries if a.get("Primary")), entries[0])
            first = primary["PrivateIpAddress"]
        address = self.take_address(subnet, first)
        others = [a["PrivateIpAddress"] for a in entries if a["PrivateIpAddress"] != address]
        return address, [self.take_address(subnet, a) for a in [*others, *[None] * count]]

    def take_address(self, subnet: Any, wanted: str | None) -> str:
        """An address of the subnet: the wanted one where it is the subnet's, else any.

        Raises:
            EC2ClientError: InsufficientFreeAddressesInSubnet, InvalidIPAddress.InUse.
        """
        pool = self.pool(subnet)
        if wanted and pool.holds(wanted):
            if pool.taken(wanted):
                raise refuse("InvalidIPAddress.InUse", f"Address {wanted} is in use.")
            pool.take(wanted)
            return wanted
        address = pool.take_next()
        if address is None:
            raise exhausted(subnet.id).error()
        return address

    def get_network_interface(self, eni_id: str) -> NetworkInterface:
        """The interface, or EC2's InvalidNetworkInterfaceID.NotFound."""
        interface = self.enis.get(eni_id)
        if not isinstance(interface, NetworkInterface):
            raise InvalidNetworkInterfaceIdError(eni_id)
        return interface

    def delete_network_interface(self, eni_id: str) -> None:
        """Delete an interface that nobody uses and give its addresses back."""
        interface = self.get_network_interface(eni_id)
        if interface.status == "in-use":
            raise refuse(
                "InvalidParameterValue", f"Network interface '{eni_id}' is currently in use."
            )
        for address in interface.addresses():
            self.pool(interface.subnet).release(address)
        del self.enis[eni_id]
        self.tags.pop(eni_id, None)

    def forget_missing_interfaces(self) -> None:
        """Give back addresses of interfaces that moto removed from its table by itself."""
        held: dict[str, set[str]] = {}
        for interface in self.enis.values():
            if isinstance(interface, NetworkInterface):
                held.setdefault(interface.subnet_id, set()).update(interface.addresses())
        for subnet_id, pool in self.pools.items():
            pool.keep_only(held.get(subnet_id, set()))

    def delete_nat_gateway(self, nat_gateway_id: str) -> Any:
        """As moto's, which leaves the gateway's interface behind and its subnet in use."""
        gateway = super().delete_nat_gateway(nat_gateway_id)
        interface = getattr(gateway, "_eni", None)
        if interface is not None and interface.id in self.enis:
            for address in self.addresses:
                if getattr(address, "eni", None) is interface:
                    address.eni = address.association_id = None
            self.delete_network_interface(interface.id)
        return gateway

    def delete_vpc_endpoints(self, vpce_ids: list[str] | None = None) -> None:
        """As moto's, with the addresses of its interfaces given back."""
        super().delete_vpc_endpoints(vpce_ids)
        self.forget_missing_interfaces()

    # -- launch templates and tags

    def template_version(self, specifier: dict[str, Any]) -> Any:
        """The launch template's version that a request names.

        Raises:
            EC2ClientError: no such template, or no such version of it.
        """
        template_id = specifier.get("LaunchTemplateId")
        name = specifier.get("LaunchTemplateName")
        found = template_id or self.launch_template_name_to_ids.get(name or "")
        template = self.launch_templates.get(found or "")
        if template is None and template_id:
            raise refuse(
                "InvalidLaunchTemplateId.NotFound",
                f"The specified launch template, with template ID {template_id}, does not exist.",
            )
        if template is None:
            raise refuse(
                "InvalidLaunchTemplateName.NotFoundException",
                f"The specified launch template, with template name {name}, does not exist.",
            )
        return template.get_version(specifier.get("Version") or "$Default")

    def create_launch_template(
        self, name: str, description: str, template_data: dict[str, Any], tag_spec: dict[str, Any]
    ) -> Any:
        """As moto's, which puts the template's own tags into its data as well."""
        given = template_data.get("TagSpecifications")
        if given is not None:
            kept = [s for s in given if s.get("ResourceType") != "launch-template"]
            template_data["TagSpecifications"] = kept
        return super().create_launch_template(name, description, template_data, tag_spec)

    def describe_tags(self, filters: dict[str, list[str]] | None = None) -> list[dict[str, str]]:
        """Tags; moto matches patterns against all of the region, also for one resource's own."""
        ids = (filters or {}).get("resource-id", [])
        if filters is None or list(filters) != ["resource-id"] or any("*" in i for i in ids):
            return super().describe_tags(filters)
        return [
            {"resource_id": i, "key": k, "value": v, "resource_type": _resource_type(i)}
            for i in ids
            for k, v in self.tags.get(i, {}).items()
        ]


def _resource_type(resource_id: str) -> str:
    return EC2_PREFIX_TO_RESOURCE.get(get_prefix(resource_id) or "", "")


def install() -> None:
    """Make moto build this backend for every region. Call before the first request."""
    ec2_backends.backend = Backend


def backend_of(account_id: str, region: str) -> Backend:
    """The EC2 of a region."""
    backend = ec2_backends[account_id][region]
    assert isinstance(backend, Backend)  # noqa: S101  # install() ran, so the type is ours
    return backend


def backends(account_id: str) -> list[Backend]:
    """The EC2 of every region that was used so far."""
    return [b for b in dict.values(ec2_backends[account_id]) if isinstance(b, Backend)]
