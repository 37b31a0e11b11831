"""Placement groups, which moto has none of."""

from __future__ import annotations

from moto.core.responses import ActionResult, EmptyResult

from rehearsal.account.ec2.base import Action, new_id
from rehearsal.account.ec2.errors import refuse
from rehearsal.account.ec2.filters import matching
from rehearsal.account.ec2.models import PlacementGroup

STRATEGIES = ("cluster", "spread", "partition")


class PlacementGroups(Action):
    """CreatePlacementGroup, DescribePlacementGroups, DeletePlacementGroup."""

    def create_placement_group(self) -> ActionResult:
        """A new placement group; its name is unique in the region."""
        name, strategy = self.parameter("GroupName"), self.parameter("Strategy") or "cluster"
        if not name:
            raise refuse("MissingParameter", "The request must contain the parameter GroupName")
        if name in self.backend.placement_groups:
            raise refuse(
                "InvalidPlacementGroup.Duplicate", f"The Placement Group '{name}' already exists."
            )
        if strategy not in STRATEGIES:
            raise refuse(
                "InvalidParameterValue", f"Value ({strategy}) for parameter strategy is invalid."
            )
        self.dry_run()
        group_id = new_id("pg")
        group = PlacementGroup(
            self.backend,
            group_id,
            self.tags_for("placement-group"),
            group_id=group_id,
            group_name=name,
            strategy=strategy,
            state="available",
            group_arn=self.arn("placement-group", name),
            partition_count=self.parameter("PartitionCount"),
            spread_level=self.parameter("SpreadLevel")
            or ("rack" if strategy == "spread" else None),
        )
        self.backend.placement_groups[name] = group
        return ActionResult({"PlacementGroup": group})

    def describe_placement_groups(self) -> ActionResult:
        """By name, id or filter; unknown names are an error."""
        groups = self.backend.placement_groups
        names, ids = self.parameter("GroupNames", []), self.parameter("GroupIds", [])
        for name in names:
            if name not in groups:
                raise _unknown(name)
        by_id = {g.id for g in groups.values()}
        for group_id in ids:
            if group_id not in by_id:
                raise _unknown(group_id)
        rows = [
            g for n, g in groups.items() if (not names or n in names) and (not ids or g.id in ids)
        ]
        return ActionResult({"PlacementGroups": matching(rows, self.filters())})

    def delete_placement_group(self) -> ActionResult:
        """Refused while an instance or an active reservation is in it."""
        name = self.parameter("GroupName")
        groups = self.backend.placement_groups
        if name not in groups:
            raise _unknown(name)
        arn = self.arn("placement-group", name)
        used = any(
            i.placement.group_name == name and i.state != "terminated"
            for i in self.backend.instances()
        ) or any(
            r.placement_group_arn == arn and r.state == "active"
            for r in self.backend.capacity_reservations.values()
        )
        if used:
            raise refuse(
                "InvalidPlacementGroup.InUse",
                f"The placement group {name} is in use and may not be deleted.",
            )
        self.dry_run()
        del groups[name]
        return EmptyResult()


def _unknown(name: str) -> Exception:
    return refuse("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
