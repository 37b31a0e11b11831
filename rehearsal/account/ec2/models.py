"""Interfaces, instances and images: moto's classes with what moto drops put back."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from moto.core.utils import utcnow
from moto.ec2.models.amis import Ami
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.models.elastic_network_interfaces import Attachment
from moto.ec2.models.elastic_network_interfaces import NetworkInterface as MotoInterface
from moto.ec2.models.instances import Instance as MotoInstance
from moto.ec2.models.instances import InstanceState, StateReason
from moto.ec2.utils import random_eni_attach_id

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

CODES = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}
"""EC2's instance state names and codes."""
CARD_STRIDE = 1000
"""moto keys an instance's interfaces by device index alone, so two cards with device 1 would
overwrite each other. Ours are keyed by card * CARD_STRIDE + device: on card 0 as in moto."""


class OwnTags(TaggedEC2Resource):
    """Tags read by id: moto searches all tags of the region for each resource described."""

    id: str
    ec2_backend: Any

    if TYPE_CHECKING:

        def __new__(cls, *_: Any, **__: Any) -> Self:
            """As BaseModel's, which is typed to return BaseModel."""
            ...

    def get_tags(self) -> list[dict[str, str]]:
        """This resource's tags in moto's shape."""
        tags = self.ec2_backend.tags.get(self.id, {})
        return [{"key": k, "value": v, "resource_id": self.id} for k, v in tags.items()]

    @property
    def tags(self) -> list[dict[str, str]]:
        """What `describe` shows."""
        return self.get_tags()


class Record(OwnTags):
    """A resource that moto has none of: attributes as in EC2's model, in snake case."""

    def __init__(self, backend: Any, resource_id: str, tags: dict[str, str], **fields: Any) -> None:
        self.ec2_backend = backend
        self.id = resource_id
        for name, value in fields.items():
            setattr(self, name, value)
        self.add_tags(tags)


class PlacementGroup(Record):
    """A placement group."""

    group_name: str
    strategy: str


class CapacityReservation(Record):
    """An On-Demand Capacity Reservation (reservation_type "default") or Capacity Block."""

    instance_type: str
    availability_zone: str
    state: str
    total_instance_count: int
    available_instance_count: int
    placement_group_arn: str | None
    reservation_type: str
    create_date: datetime
    start_date: datetime
    end_date: Any
    """When it ends, as it was given; of a Capacity Block always a datetime."""


class NetworkInterface(OwnTags, MotoInterface):  # pyright: ignore[reportIncompatibleVariableOverride]  # moto's Mixins type `tags` loosely
    """A network interface with its type, its card, and an address of its subnet or none."""

    card = 0

    def __init__(self, backend: Any, subnet: Any, address: str | None, **fields: Any) -> None:
        self.interface_kind = fields.pop("interface_type", None) or "interface"
        # moto picks a random address where it gets none; an efa-only interface has none at all.
        super().__init__(backend, subnet, address or subnet.cidr_block.split("/")[0], **fields)
        self.interface_type = self.interface_kind
        if address is None:
            self.private_ip_address = None
            self.private_ip_addresses = []
            self.private_dns_name = None

    @property
    def group_set(self) -> list[Any]:
        """The interface's own groups; moto adds those of its instance's other interfaces."""
        return self._group_set

    @property
    def attachment(self) -> Attachment | None:
        """As moto's, with the card."""
        attachment = super().attachment
        if attachment:
            attachment.network_card_index = self.card
        return attachment

    def stop(self) -> None:
        """An EIP stays over a stop: only an address that EC2 gave by itself would go."""

    def addresses(self) -> list[str]:
        """All private IPv4 addresses."""
        return [a["PrivateIpAddress"] for a in self.private_ip_addresses]


@dataclass
class Transition:
    """When and why the state last changed."""

    since: datetime
    reason: str = ""


class Instance(OwnTags, MotoInstance):  # pyright: ignore[reportIncompatibleVariableOverride]  # moto's mixins type `tags` loosely
    """An instance whose interfaces, placement and life are EC2's, driven by `life`."""

    boots = False
    """Whether a machine really boots it, or it only has states."""
    instance_lifecycle: str | None = None
    capacity_reservation_id: str | None = None
    capacity_reservation_specification: dict[str, Any] | None = None
    root_gib: int = 8

    def prep_nics(self, *_: Any, **__: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # called by moto alone
        """Nothing: moto would make interfaces here; `attach_all` attaches the launch's."""
        self.nics: dict[int, Any] = {}

    def attach_all(self, interfaces: Iterable[tuple[NetworkInterface, int, int, bool]]) -> None:
        """Attach (interface, card, device index, delete on termination), the primary among them."""
        for interface, card, device, delete in interfaces:
            interface.card = card
            interface.delete_on_termination = delete
            self.attach_eni(interface, device)
        self.security_groups = list(self.nics[0].group_set)

    def attach_eni(self, eni: Any, device_index: int) -> str:
        """Attach at (eni.card, device_index); returns the attachment's id."""
        self.nics[eni.card * CARD_STRIDE + int(device_index)] = eni
        eni.instance = self
        eni.attachment_id = random_eni_attach_id()
        eni.attach_time = utcnow()
        eni.status = "in-use"
        eni.device_index = int(device_index)
        return eni.attachment_id

    def detach_eni(self, eni: Any) -> None:
        """Detach; the interface is available again."""
        self.nics = {slot: e for slot, e in self.nics.items() if e is not eni}
        eni.instance = eni.attachment_id = eni.attach_time = eni.device_index = None
        eni.card = 0
        eni.status = "available"

    def __del__(self) -> None:
        """Addresses belong to interfaces here, so there is nothing to give back."""

    @property
    def private_ip_address(self) -> str | None:
        """The primary interface's address; None once that is detached."""
        return self.nics[0].private_ip_address if 0 in self.nics else None

    @property
    def private_ip(self) -> str | None:
        """As private_ip_address."""
        return self.private_ip_address

    @property
    def private_dns_name(self) -> str:
        """Empty once the primary interface is detached, as EC2 shows terminated instances."""
        return super().private_dns_name if self.private_ip_address else ""

    @property
    def public_ip_address(self) -> str | None:
        """The primary interface's public address, if any."""
        return self.nics[0].public_ip if 0 in self.nics else None

    @property
    def public_ip(self) -> str | None:
        """As public_ip_address."""
        return self.public_ip_address

    @property
    def subnet_id(self) -> str | None:
        """The primary interface's subnet."""
        return self._subnet_id

    @property
    def source_dest_check_value(self) -> bool:
        """As on the primary interface."""
        return bool(self.source_dest_check)

    def go(self, state: str, reason: str = "", code: str = "") -> InstanceState:
        """Enter a state and return the one left.

        Args:
            state: one of CODES.
            reason: EC2's StateReason message, where there is one.
            code: EC2's StateReason code.
        """
        before = copy.copy(self._state)
        self._state = InstanceState(state, CODES[state])
        now = utcnow()
        self.transition = Transition(now, reason)
        shown = f"{reason.rpartition(': ')[2]} ({now:%Y-%m-%d %H:%M:%S} GMT)"
        self._reason = shown if reason else ""
        self.state_reason = StateReason(reason, code)
        return before


class Image(Ami):
    """An image with a root volume of its own size."""

    root_gib = 8
    boots = False
    """Whether it was made from an instance that a machine really booted."""

    @property
    def block_device_mappings(self) -> list[dict[str, Any]]:
        """The root volume, gone with the instance: what EC2's public images have."""
        return [
            {
                "DeviceName": self.root_device_name,
                "Ebs": {
                    "SnapshotId": self.ebs_snapshot.id,
                    "VolumeSize": self.root_gib,
                    "DeleteOnTermination": True,
                    "VolumeType": "gp3",
                    "Encrypted": self.ebs_snapshot.encrypted,
                },
            }
        ]
