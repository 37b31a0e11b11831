"""What the person at the keyboard is told when AWS refuses capacity: which, where, what next.

The provider's error names a code; an error hook of Pulumi sees it and adds the sentence that a
provider can't know. It does not wait for capacity that nobody holds: that bills for the other
nodes. A node whose capacity is reserved is asked for again: EC2 has it, or is about to mend it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from infra.plan.request import CapacityKind

CODES = (
    "InsufficientInstanceCapacity",
    "InsufficientReservedInstanceCapacity",
    "InsufficientCapacity",
    "ReservationCapacityExceeded",
    "VcpuLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "InstanceLimitExceeded",
    "NetworkInterfaceLimitExceeded",
    "AddressLimitExceeded",
    "InsufficientFreeAddressesInSubnet",
    "Unsupported",
)
"""EC2's codes that this module has a next step for; longer names before what they contain."""
_NO_CAPACITY = CODES[:3]
_RESERVED: tuple[CapacityKind, ...] = ("reserve", "reservation", "capacity-block")
RETRY_PAUSES_SECONDS = (5.0, 20.0)
"""Before each further try of a node whose capacity is reserved."""
_QUOTAS = {
    "VcpuLimitExceeded": "vCPUs of running On-Demand P (L-417A185B) or G (L-DB2E81BA) instances",
    "MaxSpotInstanceCountExceeded": "vCPUs of Spot P (L-7212CCBC) or G (L-3819A6DF) requests",
    "InstanceLimitExceeded": "running instances of this type",
    "NetworkInterfaceLimitExceeded": "network interfaces per Region (vpc, L-DF5E4CA3)",
    "AddressLimitExceeded": "Elastic IP addresses (ec2, L-0263D0A3)",
}


@dataclass(frozen=True)
class Asked:
    """What was refused.

    zones: the zones of the region that offer the type, if that is known. in_reservation: whether it
    is a node for which capacity is held.
    """

    what: str
    instance_type: str
    zone: str
    kind: CapacityKind
    zones: Sequence[str] = ()
    in_reservation: bool = False


def code_of(error: str) -> str | None:
    """The first of the known codes that an error names."""
    return next((code for code in CODES if code in error), None)


def next_step(error: str, asked: Asked) -> str | None:
    """What was refused, where, and what to try; None for an error that this knows nothing of."""
    code = code_of(error)
    if code is None:
        return None
    said = f"{asked.what}: EC2 refused {asked.instance_type} in {asked.zone} ({code})."
    if code in _NO_CAPACITY:
        broken = asked.in_reservation
        why = _broken(asked.kind) if broken else f"{_held(asked.kind)} {_elsewhere(asked)}"
        return f"{said} {why}"
    if code == "ReservationCapacityExceeded":
        return (
            f"{said} The reservation or Capacity Block has no free instance left: end what runs in "
            "it, or name another one as capacity.id."
        )
    if code in _QUOTAS:
        return (
            f"{said} A quota of the account is used up: {_QUOTAS[code]}. Ask for more in Service "
            "Quotas, or end what uses it; then `up` again goes on from here."
        )
    if code == "InsufficientFreeAddressesInSubnet":
        return f"{said} The subnet has no free address left: take a larger one."
    return f"{said} The zone doesn't offer the type. {_elsewhere(asked)}"


def _held(kind: CapacityKind) -> str:
    """What is billed now, and how to go on in the same zone."""
    if kind == "reserve":
        return "No node was started, so none is billed; `up` again tries once more."
    if kind == "spot":
        return "Nodes that did start are billed; `up` again goes on with what is missing."
    return (
        "Nodes that did start are billed until `destroy`; `up` again goes on with what is missing. "
        "`capacity: {kind: reserve}` starts all of them or none."
    )


def _broken(kind: CapacityKind) -> str:
    """EC2 holds capacity for a node and doesn't give it."""
    billed = "the reservation and the nodes in it are" if kind == "reserve" else "nodes are"
    return (
        f"The capacity is reserved, and EC2 gave it at none of {len(RETRY_PAUSES_SECONDS) + 1} "
        f"tries: hosts in it may be broken. Until `destroy`, {billed} billed; `up` again goes on "
        "with what is missing. Next: `up` in a few minutes; then a case with AWS Support that "
        "names the reservation."
    )


def pause_before_retry(errors: Sequence[str], *, in_reservation: bool) -> float | None:
    """Seconds until a node is asked for again; None where it is not. errors: all so far."""
    if not in_reservation or code_of(errors[0]) not in _NO_CAPACITY:
        return None
    tried = len(errors) - 1
    return RETRY_PAUSES_SECONDS[tried] if tried < len(RETRY_PAUSES_SECONDS) else None


def _elsewhere(asked: Asked) -> str:
    others = [zone for zone in asked.zones if zone != asked.zone]
    offered = f" ({', '.join(others)} offer it too)" if others else ""
    return (
        f"Next: another zone as network.zone{offered}, while the stack has no nodes; a Capacity "
        "Block (capacity: {kind: capacity-block, id: cr-…}); or another instance type."
    )


class Refusals:
    """The error hook of a stack: one for all its instances and reservations."""

    def __init__(
        self,
        kind: CapacityKind,
        types: Mapping[str, str],
        gpu_nodes: Collection[str],
        zone: pulumi.Output[str],
        zones: pulumi.Output[Mapping[str, Sequence[str]]],
    ) -> None:
        """Make the hook.

        Args:
            kind: of the stack's capacity.
            types: logical name of an instance or reservation -> instance type.
            gpu_nodes: logical names of the instances that the capacity is for.
            zone: where the nodes go.
            zones: instance type -> zones that offer it.
        """
        self._kind: CapacityKind = kind
        self._types = types
        self._gpu_nodes = gpu_nodes
        self._zone = zone
        self._zones = zones
        self._hook = pulumi.ErrorHook("capacity-refused", self._tell)

    @property
    def binding(self) -> pulumi.ResourceHookBinding:
        """For the options of a resource that asks for capacity."""
        return pulumi.ResourceHookBinding(on_error=[self._hook])

    async def _tell(self, args: Any) -> bool:
        if args.failed_operation != "create" or not args.errors:
            return False
        name, kind = args.name, self._types.get(args.name, "an instance")
        reserved = self._kind in _RESERVED and name in self._gpu_nodes
        pause = pause_before_retry(args.errors, in_reservation=reserved)
        if pause is not None:
            pulumi.log.info(
                f"{name}: EC2 has no host free in the reservation; again in {pause:g} s"
            )
            await asyncio.sleep(pause)
            return True
        zone = await self._zone.future() or "the zone"
        zones = (await self._zones.future() or {}).get(kind, ())
        said = next_step(args.errors[0], Asked(name, kind, zone, self._kind, zones, reserved))
        if said:
            pulumi.log.error(said)
        return False
