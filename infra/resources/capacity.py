"""Where the instances come from: placement group, reservation, market. Made before any node."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import pulumi
import pulumi_aws as aws

from infra.plan.plan import RESERVED_LONGER_SECONDS, Plan
from infra.plan.request import CapacityKind
from infra.resources.refusals import Refusals

RESERVATION_TIMEOUT = "30m"


@dataclass(frozen=True)
class CapacityArgs:
    """What is asked of the account.

    id: of a reservation or Capacity Block that is there already.
    zone: where the nodes go. nodes: how many of each instance type, CPU types left out.
    placement_group: whether the GPU nodes share one that is made here.
    existing_group: name of the one that the reservation `id` is in.
    end_date: when a reservation ends by itself (RFC 3339), if it does.
    refusals: tells what to try where AWS has no room.
    """

    kind: CapacityKind
    id: str | None
    zone: pulumi.Input[str]
    nodes: Mapping[str, int]
    placement_group: bool
    refusals: Refusals
    existing_group: str | None = None
    end_date: str | None = None


@dataclass(frozen=True)
class Launching:
    """How the nodes of one type are launched. None: as EC2 does by itself."""

    placement_group: pulumi.Input[str] | None = None
    reservation_id: pulumi.Input[str] | None = None
    market: Literal["capacity-block", "spot"] | None = None


class Capacity(pulumi.ComponentResource):
    """A cluster placement group and, where asked for, On-Demand Capacity Reservations in it.

    A reservation is all or nothing: without room for the last node none is started or billed.
    Capacity Blocks are never bought here: a purchase can't be undone.
    """

    def __init__(self, args: CapacityArgs, opts: pulumi.ResourceOptions) -> None:
        super().__init__("moe-serving:capacity:Capacity", "capacity", None, opts)
        self._options = pulumi.ResourceOptions(parent=self)
        group = self._placement_group() if args.placement_group else None
        self._launching = {
            kind: self._way(args, kind, count, group) for kind, count in args.nodes.items()
        }
        self.register_outputs({})

    def launching(self, instance_type: str) -> Launching:
        """How nodes of a type are launched; CPU types as EC2 does by itself."""
        return self._launching.get(instance_type, Launching())

    def _placement_group(self) -> aws.ec2.PlacementGroup:
        return aws.ec2.PlacementGroup(
            "nodes", strategy=aws.ec2.PlacementStrategy.CLUSTER, opts=self._options
        )

    def _way(
        self, args: CapacityArgs, kind: str, count: int, group: aws.ec2.PlacementGroup | None
    ) -> Launching:
        way = Launching(placement_group=group.name if group else None)
        match args.kind:
            case "reserve":
                return replace(way, reservation_id=self._reserve(args, kind, count, group).id)
            case "reservation":
                return Launching(args.existing_group, args.id)
            case "capacity-block":
                return replace(way, reservation_id=args.id, market="capacity-block")
            case "spot":
                return replace(way, market="spot")
            case "on-demand":
                return way

    def _reserve(
        self, args: CapacityArgs, kind: str, count: int, group: aws.ec2.PlacementGroup | None
    ) -> aws.ec2.CapacityReservation:
        return aws.ec2.CapacityReservation(
            kind,
            instance_type=kind,
            instance_count=count,
            instance_platform="Linux/UNIX",
            availability_zone=args.zone,
            # `open` would let any other instance of the account take what is held for these nodes.
            instance_match_criteria="targeted",
            # A reservation can't be moved into a placement group later.
            placement_group_arn=group.arn if group else None,
            end_date_type="limited" if args.end_date else "unlimited",
            end_date=args.end_date,
            opts=pulumi.ResourceOptions(
                parent=self,
                # Every run counts `ttl` from its own start; the first one's end stands, or what
                # `moe extend` made of it.
                ignore_changes=["endDate"],
                custom_timeouts=pulumi.CustomTimeouts(create=RESERVATION_TIMEOUT),
                hooks=args.refusals.binding,
            ),
        )


def gpu_nodes(plan: Plan) -> dict[str, int]:
    """GPU instance type -> how many nodes of it, in the plan's order."""
    counts: dict[str, int] = {}
    for group in plan.groups:
        if group.gpus_per_node:
            counts[group.instance_type] = counts.get(group.instance_type, 0) + len(group.nodes)
    return counts


def reservation_end(ttl_seconds: float | None) -> str | None:
    """When a reservation ends that nobody comes back for; only the first `up`'s answer counts."""
    if ttl_seconds is None:
        return None
    seconds = ttl_seconds + RESERVED_LONGER_SECONDS
    return (dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
