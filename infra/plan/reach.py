"""What the nodes need from the internet, and the way that they get there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from infra.plan.gateway import GatewayPlan
    from infra.plan.plan import Group, Node

WayOut = Literal["nat", "none", "existing"]
"""existing: the routes of a subnet that is there already are its owner's."""

_PRIVATE_REGISTRY = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/"
    r"(?P<repository>[^:@]+)"
)
"""Of Amazon ECR, which is reached over endpoints of the VPC; all others are on the internet."""


SSM_SERVICES = ("ssm", "ssmmessages")
"""Secrets (ssm) and Session Manager (both)."""
REGISTRY_SERVICES = ("ecr.api", "ecr.dkr")
"""Images of Amazon ECR; their layers come from S3."""


@dataclass(frozen=True)
class Repository:
    """A repository of Amazon ECR."""

    account: str
    region: str
    name: str


def private_repository(image: str | None) -> Repository | None:
    """The repository of an image of a private registry; None for any other."""
    found = _PRIVATE_REGISTRY.match(image or "")
    return Repository(found["account"], found["region"], found["repository"]) if found else None


def services(nodes: Iterable[Node]) -> tuple[str, ...]:
    """Services of AWS, S3 aside, that nodes reach by interface endpoints where there is no NAT."""
    private = any(private_repository(node.software.image) for node in nodes)
    return (*SSM_SERVICES, *(REGISTRY_SERVICES if private else ()))


def from_internet(
    groups: Sequence[Group], gate: GatewayPlan | None, model_source: str, *, own_image: bool
) -> tuple[str, ...]:
    """What the nodes fetch that neither their image nor AWS's own services have.

    Args:
        groups: of the plan.
        gate: the gateway, whose image is Debian's own.
        model_source: of the settings.
        own_image: the groups' nodes have an image of the user's, which brings what it needs.
    """
    found: dict[str, None] = {}
    for group in groups:
        for node in group.nodes:
            software = node.software
            if software.image and private_repository(software.image) is None:
                found[f"the image {software.image}"] = None
            if software.runtime == "venv" and (group.gpus_per_node or not own_image):
                found["Python distributions"] = None
            for part in software.components:
                if part.place == "host" and part.source.startswith("https://github.com/"):
                    found[f"{part.name} {part.version}"] = None
    if gate is not None:
        found[f"the gateway's {', '.join(gate.packages)} and router"] = None
    if model_source == "hf":
        found["the weights on Hugging Face"] = None
    return tuple(found)


def way_out(asked: bool | None, needs: Sequence[str], *, existing: bool) -> WayOut:  # noqa: FBT001 - three values: None is auto
    """The way to the internet: as asked for, else a NAT gateway where something needs it."""
    if existing:
        return "existing"
    wanted = bool(needs) if asked is None else asked
    return "nat" if wanted else "none"
