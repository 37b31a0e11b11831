"""Names of what a rehearsal adds to this machine: each holds the rehearsal's tag."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rehearsal.paths import Home

NETNS_FOLDER = Path("/run/netns")
"""Where iproute2 keeps named network namespaces."""


def prefix(tag: str) -> str:
    """Return what the names of namespaces and cgroups of a rehearsal begin with."""
    return f"moe-{tag}"


def vpc_netns(tag: str, vpc_id: str) -> str:
    """Return the network namespace that is a VPC's router, resolver and metadata service."""
    return f"{prefix(tag)}-{vpc_id[-8:]}"


def instance_netns(tag: str, instance_id: str) -> str:
    """Return the network namespace of an instance."""
    return f"{prefix(tag)}-{instance_id}"


def bridge(subnet_id: str) -> str:
    """Return the bridge of a subnet, a link inside the VPC's namespace."""
    return f"br-{subnet_id[-10:]}"


def port(instance_id: str) -> str:
    """Return the bridge's end of an instance's link."""
    return f"p-{instance_id[-12:]}"


def client_prefix(tag: str) -> str:
    """Return what names of a rehearsal's links in this machine's own network begin with."""
    return f"moe{tag}"


def client_link(tag: str, vpc_id: str) -> str:
    """Return the link over which this machine reaches a VPC: the tag and two digits of the VPC."""
    return client_prefix(tag) + hashlib.sha256(vpc_id.encode()).hexdigest()[:2]


def tag_of(path: Path) -> str | None:
    """Return the tag of the rehearsal to which a path of an instance or network belongs.

    None where the path is not in a rehearsal's `instances` or `networks` folder.
    """
    parts = path.parts
    for index, part in enumerate(parts[1:], start=1):
        if part in ("instances", "networks"):
            return Home(Path(*parts[:index])).tag
    return None
