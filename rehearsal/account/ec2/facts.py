"""What exists of the things that a launch request names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class SubnetFacts:
    """free: addresses left. taken: addresses that may not be asked for again."""

    vpc_id: str
    zone: str
    cidr: str
    free: int
    taken: Callable[[str], bool]


@dataclass(frozen=True)
class InterfaceFacts:
    """A network interface made beforehand."""

    subnet_id: str
    kind: str
    in_use: bool


@dataclass(frozen=True)
class ReservationFacts:
    """A capacity reservation. available: instances that still fit."""

    instance_type: str
    zone: str
    state: str
    available: int
    placement_group: str | None
    kind: str


@dataclass(frozen=True)
class Room:
    """What is left for one launch; None: no bound.

    vcpus: of the quota that counts the type. capacity: instances that AWS can still start without
    a reservation. interfaces: of the region's quota.
    """

    vcpus: float | None = None
    capacity: int | None = None
    interfaces: float | None = None


@dataclass(frozen=True)
class World:
    """What exists of the things that a request names; what is absent does not exist."""

    images: frozenset[str] = frozenset()
    instance_types: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    zones_of_type: Mapping[str, frozenset[str]] = field(default_factory=dict)
    subnets: Mapping[str, SubnetFacts] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    """Security group id -> vpc id."""
    interfaces: Mapping[str, InterfaceFacts] = field(default_factory=dict)
    placement_groups: frozenset[str] = frozenset()
    reservations: Mapping[str, ReservationFacts] = field(default_factory=dict)
    profiles: frozenset[str] = frozenset()
    """Names and ARNs of instance profiles."""
    keys: frozenset[str] = frozenset()
    room: Room = Room()
    image_state: str = "available"
    """Of the image; `deregistered` where it once was one."""
    architecture: str | None = None
    """Of the image; None: not known."""
    root: tuple[str, int] | None = None
    """The image's root device and the size of its snapshot in GiB."""
    placement_zones: frozenset[str] = frozenset()
    """Zones in which the named cluster placement group has instances or reservations."""
