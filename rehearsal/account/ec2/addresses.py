"""Which addresses of a subnet are taken. Pure integers, O(1) a request."""

from __future__ import annotations

import ipaddress

RESERVED_LOW = 4
"""EC2 keeps a subnet's first four addresses and its last for itself."""


class AddressPool:
    """The private IPv4 addresses of one subnet."""

    def __init__(self, cidr: str) -> None:
        network = ipaddress.IPv4Network(cidr)
        self._first = int(network.network_address) + RESERVED_LOW
        self._last = int(network.broadcast_address) - 1
        self._next = self._first
        self._taken: set[int] = set()

    @property
    def free(self) -> int:
        """How many addresses are left."""
        return self._last - self._first + 1 - len(self._taken)

    def holds(self, address: str) -> bool:
        """Whether the address is one that this subnet may give out."""
        return self._first <= int(ipaddress.IPv4Address(address)) <= self._last

    def taken(self, address: str) -> bool:
        """Whether somebody has the address."""
        return int(ipaddress.IPv4Address(address)) in self._taken

    def take(self, address: str) -> None:
        """Give out one address that was asked for by name."""
        self._taken.add(int(ipaddress.IPv4Address(address)))

    def take_next(self) -> str | None:
        """Give out any address; None when the subnet is full.

        Goes on from the last one given: an address that was just released is not reused at
        once, since its neighbours' ARP entries still point to the old owner.
        """
        size = self._last - self._first + 1
        for step in range(size):
            candidate = self._first + (self._next - self._first + step) % size
            if candidate not in self._taken:
                self._taken.add(candidate)
                self._next = candidate + 1
                return str(ipaddress.IPv4Address(candidate))
        return None

    def release(self, address: str) -> None:
        """Take an address back; one that was not given out is no error."""
        self._taken.discard(int(ipaddress.IPv4Address(address)))

    def keep_only(self, addresses: set[str]) -> None:
        """Take back all addresses but these."""
        self._taken &= {int(ipaddress.IPv4Address(a)) for a in addresses}
