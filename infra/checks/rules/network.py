"""Network interfaces of a node: what EC2 takes on each card, and what the group needs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from infra.checks.finding import Severity
from infra.checks.rule import Hit, Hits, rule

if TYPE_CHECKING:
    from infra.checks.facts import Card, Slot

_EFA = "EC2 user guide: Elastic Fabric Adapter, maximize network bandwidth"


@rule(
    Severity.ERROR,
    "instance_type",
    consequence="EC2 refuses the launch: the primary interface must be an ENA on card 0",
    remedy="report this: the plan lays interfaces out itself",
    source=_EFA,
    example="card 0, device 0 as efa-only.",
)
def primary_interface(*, interfaces: tuple[Slot, ...]) -> Hits:
    """The first interface is at card 0, device 0, and has an address."""
    first = interfaces[0] if interfaces else (0, 0, "none")
    if first[:2] != (0, 0) or first[2] not in ("interface", "efa"):
        yield Hit(f"the primary interface is {first[2]} at card {first[0]}, device {first[1]}")


@rule(
    Severity.ERROR,
    "instance_type",
    consequence="EC2 refuses the launch with AttachmentLimitExceeded",
    remedy="report this: the plan lays interfaces out itself",
    source=_EFA,
    example="p6-b300.48xlarge with EFA on card 0, which takes none; two EFAs on one card.",
)
def efa_per_card(
    *, interfaces: tuple[Slot, ...], cards: tuple[Card, ...], instance_type: str
) -> Hits:
    """A card carries one EFA at most, and some none."""
    able = {index for index, _, efa in cards if efa}
    count = Counter(card for card, _, kind in interfaces if kind != "interface")
    for card, found in sorted(count.items()):
        if card not in able:
            yield Hit(f"an EFA on card {card} of {instance_type}, which takes none")
        elif found > 1:
            yield Hit(f"{found} EFAs on card {card} of {instance_type}")


@rule(
    Severity.ERROR,
    "instance_type",
    consequence="EC2 refuses the launch with AttachmentLimitExceeded or InvalidParameterValue",
    remedy="report this: the plan lays interfaces out itself",
    source="EC2 DescribeInstanceTypes: NetworkCards, MaximumNetworkInterfaces",
    example="Three interfaces on a card of p5.48xlarge, which takes two.",
)
def interfaces_per_card(
    *, interfaces: tuple[Slot, ...], cards: tuple[Card, ...], instance_type: str
) -> Hits:
    """A card takes so many interfaces, each at a device index of its own."""
    room = {index: most for index, most, _ in cards}
    count = Counter(card for card, _, _ in interfaces)
    for card, found in sorted(count.items()):
        if found > room.get(card, 0):
            yield Hit(f"{found} interfaces on card {card} of {instance_type}: {room.get(card, 0)}")
    twice = [slot for slot, n in Counter((c, d) for c, d, _ in interfaces).items() if n > 1]
    for card, device in sorted(twice):
        yield Hit(f"two interfaces at card {card}, device {device}")


@rule(
    Severity.WARNING,
    "instance_type",
    consequence="Bandwidth between nodes falls with every EFA left out",
    remedy="report this: the plan lays interfaces out itself",
    source="EC2 DescribeInstanceTypes: EfaInfo; awslabs gpu-cluster-healthcheck",
    example="1 EFA on p5.48xlarge, which takes 32.",
)
def efa_left_out(
    *, interfaces: tuple[Slot, ...], max_efa: int, instance_type: str, transport: str
) -> Hits:
    """A node whose ranks talk over EFA should have all the EFAs of its type."""
    found = sum(kind != "interface" for _, _, kind in interfaces)
    if transport == "efa" and found < max_efa:
        yield Hit(f"{found} EFA interfaces on {instance_type}, which takes {max_efa}")


@rule(
    Severity.WARNING,
    "instance_type",
    consequence="Tokens cross the network over TCP, many times slower than RDMA",
    remedy="a type with EFA, or a group that fits one node",
    source="EC2 DescribeInstanceTypes: EfaInfo",
    example="`nodes: 2` on g6.4xlarge, which has no EFA.",
)
def no_efa_between_nodes(
    *, nodes: int, gpus_per_node: int, max_efa: int, instance_type: str
) -> Hits:
    """Groups of several GPU nodes want EFA."""
    if nodes > 1 and gpus_per_node and not max_efa:
        yield Hit(f"{nodes} x {instance_type} have no EFA between them")


@rule(
    Severity.WARNING,
    "instance_type",
    consequence="One network card carries the traffic of all GPUs of the node",
    remedy="g6e.48xlarge, g7e.48xlarge or a P type for groups of several nodes",
    source="EC2 DescribeInstanceTypes: NetworkCards",
    example="`nodes: 2` on g6e.12xlarge: one EFA for 4 GPUs.",
)
def single_efa_between_nodes(
    *, nodes: int, gpus_per_node: int, max_efa: int, instance_type: str, data_parallel_size: int
) -> Hits:
    """EFA on a type with one card is one EFA for all its GPUs."""
    if nodes > 1 and gpus_per_node > 1 and max_efa == 1 and data_parallel_size > 1:
        yield Hit(f"{instance_type} has one EFA for {gpus_per_node} GPUs")


RULES = (
    primary_interface,
    efa_per_card,
    interfaces_per_card,
    efa_left_out,
    no_efa_between_nodes,
    single_efa_between_nodes,
)
