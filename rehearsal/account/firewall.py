"""Security groups as the machine's rules: referenced groups become their members' /32s. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from rehearsal.machine.interface import Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANY_PORT = (0, 65535)
Protocol = Literal["-1", "tcp", "udp", "icmp"]
PROTOCOLS: tuple[Protocol, ...] = ("-1", "tcp", "udp", "icmp")


@dataclass(frozen=True)
class GroupRule:
    """One rule of a security group. Exactly one of cidr and group_id is set."""

    direction: Literal["ingress", "egress"]
    protocol: str
    from_port: int | None
    to_port: int | None
    cidr: str | None
    group_id: str | None


@dataclass(frozen=True)
class Member:
    """An interface with an address, and the groups it is in."""

    address: str
    groups: tuple[str, ...]


def resolve(
    members: Iterable[Member], groups: Mapping[str, Iterable[GroupRule]]
) -> tuple[Rule, ...]:
    """What each member may receive and send, in a stable order.

    Args:
        members: every interface of one VPC, booted or not: a referenced group stands for the
            addresses of all its interfaces.
        groups: group id -> its rules.
    """
    members = sorted(members, key=lambda m: m.address)
    addresses: dict[str, list[str]] = {}
    for member in members:
        for group in member.groups:
            addresses.setdefault(group, []).append(f"{member.address}/32")
    rules = [
        resolved
        for member in members
        for group in member.groups
        for rule in groups.get(group, ())
        if (resolved := _rule(member.address, rule, addresses)) is not None
    ]
    return tuple(dict.fromkeys(rules))


def _rule(address: str, rule: GroupRule, addresses: Mapping[str, list[str]]) -> Rule | None:
    peers = tuple(addresses.get(rule.group_id, ())) if rule.group_id else ()
    if rule.cidr:
        peers = (rule.cidr,)
    if not peers or rule.protocol not in PROTOCOLS:
        return None
    ports = rule.protocol in ("tcp", "udp")
    return Rule(
        address=address,
        direction=rule.direction,
        protocol=cast("Protocol", rule.protocol),
        from_port=(rule.from_port or 0) if ports else ANY_PORT[0],
        to_port=(ANY_PORT[1] if rule.to_port is None else rule.to_port) if ports else ANY_PORT[1],
        peers=peers,
    )
