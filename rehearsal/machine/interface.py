"""What the account asks of the machine, and what the machine asks of the account.

The account (`rehearsal.account`) knows EC2's words and rules; the machine (`rehearsal.machine`)
knows containers, links and nftables. They meet here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

METADATA_ADDRESS = "169.254.169.254"
RESOLVER_ADDRESS = "169.254.169.253"
ACCOUNT_ADDRESS = "169.254.169.252"
"""Where the account's API is reached from inside a VPC, as an interface endpoint would be."""
ACCOUNT_PORT = 4566
INDEX_ADDRESS = "169.254.169.251"
"""Where nodes reach the package index of the rehearsal; it answers only where one was asked for."""
INDEX_PORT = 3141
CLIENT_NETWORK = "198.18.0.0/15"
"""Addresses of this machine as a client of a VPC (RFC 2544 range: routed nowhere)."""

InstanceState = Literal["pending", "running", "stopped", "terminated"]
ImageState = Literal["pending", "available", "failed", "unknown"]


@dataclass(frozen=True)
class Launch:
    """One instance as the machine needs it. user data is fetched by the node, not given here."""

    instance_id: str
    image_id: str
    vpc_id: str
    vpc_cidr: str
    subnet_id: str
    subnet_cidr: str
    private_ip: str
    mac: str
    hostname: str
    cpus: int
    memory_mib: int


@dataclass(frozen=True)
class Rule:
    """Traffic that is allowed to (ingress) or from (egress) one instance's address.

    peers: CIDR blocks of the other side. protocol: "-1", "tcp", "udp" or "icmp";
    ports are ignored unless tcp or udp.
    """

    address: str
    direction: Literal["ingress", "egress"]
    protocol: Literal["-1", "tcp", "udp", "icmp"]
    from_port: int
    to_port: int
    peers: tuple[str, ...]


class Machine(Protocol):
    """Boots, stops and ends instances. Calls return at once; `state` tells how far it got.

    All raise MachineError with a sentence for a person when the machine can't do it.
    """

    def launch(self, launch: Launch) -> None:
        """Boot a new instance from its image."""
        ...

    def start(self, instance_id: str) -> None:
        """Boot a stopped instance again: same disk, same address."""
        ...

    def stop(self, instance_id: str, *, force: bool) -> None:
        """Power off; with force, or after 30 seconds, kill. The disk stays."""
        ...

    def reboot(self, instance_id: str) -> None:
        """Restart the instance's own init."""
        ...

    def terminate(self, instance_id: str) -> None:
        """Kill the instance and remove all it had here. Unknown ids are no error."""
        ...

    def state(self, instance_id: str) -> InstanceState:
        """`stopped` also when the instance powered itself off; `terminated` when unknown."""
        ...

    def console(self, instance_id: str) -> bytes:
        """The console log so far."""
        ...

    def make_image(self, image_id: str, instance_id: str) -> None:
        """Begin to copy an instance's disk into an image that instances can boot from."""
        ...

    def image_state(self, image_id: str) -> ImageState:
        """How far an image is; `unknown` for one that was never made here, or was forgotten."""
        ...

    def forget_image(self, image_id: str) -> None:
        """Remove an image. Instances that were made from it live on. Unknown ids are no error."""
        ...

    def firewall(self, vpc_id: str, rules: Sequence[Rule]) -> None:
        """Replace, at once and whole, what is allowed in a VPC. Replies to it always pass."""
        ...


class MachineError(RuntimeError):
    """The machine could not do what was asked; the message says what to do about it."""


MetadataSource = Callable[[str, str], "dict[str, Any] | None"]
"""(vpc_id, source address) -> the metadata tree of the instance that owns the address.

Keys are path segments below `/latest/` (`meta-data`, `dynamic`, `user-data`); a dict is a folder,
str and bytes are leaves, a callable without arguments is a leaf made at each request
(credentials). None: no such instance, every request is 404.
"""
