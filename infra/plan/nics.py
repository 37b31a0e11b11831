"""The network interfaces of one node: which card and device index carries what.

EC2's rules: the primary interface is an ENA at card 0, device 0, never efa-only; at most one EFA
per card; `efa-only` has no IP. Device index 1 on the further cards, because AWS assigns public
addresses to "the interface with device index 0" and terraform-provider-aws takes the last interface
with index 0 as the primary one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from infra.catalog.instances import InstanceType, NetworkCard

InterfaceType = Literal["interface", "efa", "efa-only"]
UseCase = Literal["one-ip", "ip-bandwidth"]
_P5_IP_CARD_STEP = 4
"""On p5 and p5e four cards share one ENA's worth of IP bandwidth."""


@dataclass(frozen=True)
class NetworkInterface:
    """One interface of a launch request, in EC2's words."""

    network_card_index: int
    device_index: int
    interface_type: InterfaceType


@dataclass(frozen=True)
class NicLayout:
    """The interfaces of one node, primary first, and what they carry in Gbit/s."""

    interfaces: tuple[NetworkInterface, ...]
    efa_gbps: float
    ip_gbps: float

    @property
    def efa_count(self) -> int:
        """Interfaces that carry EFA; the node must find as many EFA devices."""
        return sum(nic.interface_type != "interface" for nic in self.interfaces)

    @property
    def ip_count(self) -> int:
        """Interfaces with a private address."""
        return sum(nic.interface_type != "efa-only" for nic in self.interfaces)


def nic_layout(instance: InstanceType, *, efa: bool = True, use: UseCase = "one-ip") -> NicLayout:
    """Lay the interfaces of a node out.

    Args:
        instance: the instance type.
        efa: whether the node's role needs EFA; without it the node gets one ENA.
        use: `one-ip` for one private address (what groups use), `ip-bandwidth` for an ENA on every
            card that adds IP bandwidth, where weights must be pulled faster than one ENA can.
    """
    primary = NetworkInterface(0, 0, "interface")
    if not efa or instance.max_efa == 0:
        return _layout(instance, [primary])
    cards = instance.network_cards
    found = [primary]
    spread = use == "ip-bandwidth"
    if _carries_efa(instance, cards[0]):
        if cards[0].max_interfaces == 1:  # the one interface has to be both
            found[0] = NetworkInterface(0, 0, "efa")
        else:
            found.append(NetworkInterface(0, 1, "efa-only"))
    for card in cards[1:]:
        found += _on_further_card(instance, card, spread=spread)
    return _layout(instance, found)


def _carries_efa(instance: InstanceType, card: NetworkCard) -> bool:
    # Fewer EFAs than cards: card 0 is the one that is left out (p6-b300).
    spare = card.index == 0 and instance.max_efa < len(instance.network_cards)
    return card.efa_only and not spare


def _on_further_card(
    instance: InstanceType, card: NetworkCard, *, spread: bool
) -> list[NetworkInterface]:
    ena_too = spread and card.max_interfaces > 1 and _adds_ip_bandwidth(instance, card)
    if ena_too:  # the ENA takes index 1, so the efa-only interface moves to 0
        efa = [NetworkInterface(card.index, 0, "efa-only")] if card.efa_only else []
        return [*efa, NetworkInterface(card.index, 1, "interface")]
    if not card.efa_only:
        return []
    index = 1 if card.max_interfaces > 1 and not spread else 0
    return [NetworkInterface(card.index, index, "efa-only")]


def _adds_ip_bandwidth(instance: InstanceType, card: NetworkCard) -> bool:
    step = _P5_IP_CARD_STEP if len(instance.network_cards) == 32 else 1
    return card.index % step == 0


def _layout(instance: InstanceType, interfaces: list[NetworkInterface]) -> NicLayout:
    with_ip = [nic for nic in interfaces if nic.interface_type != "efa-only"]
    ip_gbps = sum(instance.ip_gbps_of(nic.network_card_index) for nic in with_ip)
    ip_gbps = min(ip_gbps, instance.network_gbps)
    carries = any(nic.interface_type != "interface" for nic in interfaces)
    return NicLayout(tuple(interfaces), instance.network_gbps if carries else 0.0, ip_gbps)
