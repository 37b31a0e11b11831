"""`ip -json address`: which interface carries which IPv4 address."""

from __future__ import annotations

import json
from dataclasses import dataclass

from node_bootstrap.facts.base import Unknown, first_line

COMMAND = ("ip", "-json", "address")


@dataclass(frozen=True)
class Addresses:
    """interfaces: IPv4 address -> the interface that carries it."""

    interfaces: dict[str, str]


def parse(output: str) -> Addresses | Unknown:
    """A list of links, each with its addresses."""
    try:
        return Addresses(
            {
                address["local"]: link["ifname"]
                for link in json.loads(output)
                for address in link.get("addr_info", [])
                if address.get("family") == "inet"
            }
        )
    except (ValueError, LookupError, TypeError, AttributeError):
        return Unknown(f"ip -json address is not understood: {first_line(output)}")
