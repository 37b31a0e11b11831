"""What EC2 refuses about placement groups. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehearsal.account.ec2.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rehearsal.account.ec2.facts import World
    from rehearsal.account.ec2.launch import LaunchRequest


def placement_refusals(request: LaunchRequest, world: World, zone: str) -> Iterator[Refusal]:
    """Not every type may be in a group, and a cluster group is in one zone."""
    if not request.placement_group:
        return
    info = world.instance_types[request.instance_type].get("PlacementGroupInfo") or {}
    strategies = info.get("SupportedStrategies")
    if strategies is not None and "cluster" not in strategies:
        yield Refusal(
            "InvalidParameterCombination",
            f"Placement groups may not be used with instances of type '{request.instance_type}'.",
        )
    if zone and world.placement_zones - {zone}:
        yield Refusal(
            "InsufficientInstanceCapacity",
            f"We currently do not have sufficient {request.instance_type} capacity in {zone} for "
            f"the cluster placement group '{request.placement_group}', which is in "
            f"{', '.join(sorted(world.placement_zones))}.",
        )
