"""Security groups as nftables rules in a VPC's namespace.

All traffic between instances is routed through the namespace, so one forward chain sees it, with
conntrack: replies always pass. A new flow passes if its source may send it and its
destination may take it; the side that is outside the VPC has no say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rehearsal.machine import host

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rehearsal.machine.interface import Rule

Direction = Literal["egress", "ingress"]
Permit = tuple[str, int, int, tuple[str, ...]]
"""protocol, first and last port, peers."""

RULES_TABLE = "inet moe_rules"
PORTS_TABLE = "bridge moe_ports"


def apply(netns: str, text: str) -> None:
    """Load a ruleset into a namespace: whole and at once, or not at all.

    Raises:
        MachineError: nft refused it.
    """
    host.run(["nsenter", f"--net=/run/netns/{netns}", "nft", "-f", "-"], stdin=text)


def ruleset(vpc_cidr: str, client_link: str, rules: Sequence[Rule]) -> str:
    """Return the nft input that replaces what is allowed in a VPC.

    Instances with the same rules share a chain, and equal lists of peers share a set, so that the
    text grows with the number of instances and not with its square.

    Args:
        vpc_cidr: addresses that are inside.
        client_link: the link to this machine; over it, the namespace itself is not reached.
        rules: what is allowed; an address without any may neither send nor receive.
    """
    sets: dict[tuple[str, ...], str] = {}
    egress = _side("egress", "daddr", rules, sets)
    ingress = _side("ingress", "saddr", rules, sets)
    peers = [line for members, name in sets.items() for line in _peer_set(name, members)]
    lines = [
        f"table {RULES_TABLE}",  # so that the delete never fails
        f"delete table {RULES_TABLE}",
        f"table {RULES_TABLE} {{",
        *peers,
        *egress,
        *ingress,
        "chain input {",
        "type filter hook input priority filter; policy accept;",
        # Metadata and resolver belong to instances only.
        f'iifname "{client_link}" ct state new meta l4proto != icmp drop',
        "}",
        "chain forward {",
        "type filter hook forward priority filter; policy drop;",
        "ct state established,related accept",
        f"ip saddr {vpc_cidr} jump egress",
        f"ip daddr {vpc_cidr} jump ingress",
        f"ip saddr {vpc_cidr} accept",
        f"ip daddr {vpc_cidr} accept",
        "}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def port_guard(ports: Mapping[str, str]) -> str:
    """Return the nft input that ties each bridge port to its address, as EC2's source check does.

    Args:
        ports: port name → the only IPv4 address that it may send from.
    """
    allowed = _elements(f'"{port}" . {address}' for port, address in sorted(ports.items()))
    lines = [
        f"table {PORTS_TABLE}",
        f"delete table {PORTS_TABLE}",
        f"table {PORTS_TABLE} {{",
        f"set addresses {{ type ifname . ipv4_addr; {allowed} }}",
        "chain prerouting {",
        "type filter hook prerouting priority filter; policy accept;",
        # A node that asks for its lease has no address yet.
        "ip saddr 0.0.0.0 udp dport 67 accept",
        "ether type ip iifname . ip saddr @addresses accept",
        "ether type ip drop",
        "}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _side(
    direction: Direction,
    peer_field: str,
    rules: Sequence[Rule],
    sets: dict[tuple[str, ...], str],
) -> list[str]:
    permits: dict[str, set[Permit]] = {}
    for rule in rules:
        if rule.direction == direction:
            permits.setdefault(rule.address, set()).add(_permit(rule))
    chains: dict[tuple[Permit, ...], str] = {}
    members: list[str] = []
    for address in sorted(permits):
        key = tuple(sorted(permits[address]))
        name = chains.setdefault(key, f"{direction}_{len(chains)}")
        members.append(f"{address} : goto {name}")
    lines: list[str] = []
    for key, name in chains.items():
        lines += [f"chain {name} {{", *_permit_lines(key, peer_field, sets), "drop", "}"]
    own_field = "saddr" if direction == "egress" else "daddr"
    return [
        *lines,
        f"map {direction}_of {{ type ipv4_addr : verdict; {_elements(members)} }}",
        # goto: a permit's `return` leads back to whoever jumped here, past the drop.
        f"chain {direction} {{",
        f"ip {own_field} vmap @{direction}_of",
        "drop",
        "}",
    ]


def _permit(rule: Rule) -> Permit:
    if rule.protocol in ("tcp", "udp"):
        return (rule.protocol, rule.from_port, rule.to_port, tuple(sorted(set(rule.peers))))
    return (rule.protocol, 0, 0, tuple(sorted(set(rule.peers))))


def _permit_lines(
    permits: Iterable[Permit],
    peer_field: str,
    sets: dict[tuple[str, ...], str],
) -> list[str]:
    lines: list[str] = []
    for protocol, first, last, peers in permits:
        if not peers:
            continue
        name = sets.setdefault(peers, f"peers_{len(sets)}")
        lines.append(f"ip {peer_field} @{name} {_match(protocol, first, last)}return")
    return lines


def _match(protocol: str, first: int, last: int) -> str:
    if protocol == "-1":
        return ""
    if protocol == "icmp":
        return "meta l4proto icmp "
    return f"{protocol} dport {first}-{last} "


def _peer_set(name: str, members: Iterable[str]) -> list[str]:
    return [f"set {name} {{ type ipv4_addr; flags interval; auto-merge; {_elements(members)} }}"]


def _elements(members: Iterable[str]) -> str:
    joined = ", ".join(members)
    # nft has no empty list of elements.
    return f"elements = {{ {joined} }};" if joined else ""
