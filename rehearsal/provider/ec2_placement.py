"""Placement groups and capacity reservations."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

from typing import Any, ClassVar

from rehearsal.provider import ec2, shapes, tags
from rehearsal.provider.naming import Naming
from rehearsal.provider.resource import MINUTE, Call, Change, Inputs, Resource, State, Timeouts


class PlacementGroup(Resource):
    """A placement group; its id is its name."""

    pulumi_type = "aws:ec2/placementGroup:PlacementGroup"
    force_new = frozenset({"name", "strategy", "partitionCount", "spreadLevel", "region"})
    computed = frozenset({"partitionCount", "spreadLevel"})
    naming = Naming()

    def create(self, call: Call, inputs: Inputs) -> str:
        names = {"strategy", "partitionCount", "spreadLevel"}
        asked = {"groupName": inputs["name"], **{k: inputs[k] for k in names & inputs.keys()}}
        call.client("ec2").create_placement_group(
            **ec2.parameters(call, "CreatePlacementGroup", asked),
            TagSpecifications=tags.specification("placement-group", inputs),
        )
        return inputs["name"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        del inputs
        call.wait(f"{rid} to be available", lambda: self._available(call, rid))

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        group = self._find(call, rid)
        if group is None or group["State"] == "deleted":
            return None
        return {
            "arn": group.get("GroupArn") or call.arn("ec2", f"placement-group/{rid}"),
            "name": group["GroupName"],
            "placementGroupId": group["GroupId"],
            "strategy": group["Strategy"],
            "partitionCount": group.get("PartitionCount"),
            "spreadLevel": group.get("SpreadLevel"),
            "tagsAll": shapes.tag_map(group.get("Tags")),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        del rid
        tags.sync_ec2(call, change.state["placementGroupId"], change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        client = call.client("ec2")
        ec2.delete_when_free(
            call,
            lambda: client.delete_placement_group(GroupName=rid),
            "InvalidPlacementGroup.InUse",
        )

    def _find(self, call: Call, rid: str) -> dict[str, Any] | None:
        return ec2.find(call, "describe_placement_groups", "PlacementGroups", GroupNames=[rid])

    def _available(self, call: Call, rid: str) -> bool | None:
        group = self._find(call, rid)
        return True if group and group["State"] == "available" else None


_RESERVATION_FIELDS = (
    "availabilityZone", "ebsOptimized", "ephemeralStorage", "instanceMatchCriteria",
    "instancePlatform", "instanceType", "outpostArn", "placementGroupArn", "tenancy",
)  # fmt: skip


class CapacityReservation(Resource):
    """An On-Demand Capacity Reservation."""

    pulumi_type = "aws:ec2/capacityReservation:CapacityReservation"
    updatable = frozenset({"instanceCount", "endDate", "endDateType"})
    force_new = frozenset({*_RESERVATION_FIELDS, "region"})
    defaults: ClassVar = {
        "ebsOptimized": False, "endDateType": "unlimited", "ephemeralStorage": False,
        "instanceMatchCriteria": "open", "tenancy": "default",
    }  # fmt: skip
    timeouts = Timeouts(delete=10 * MINUTE)

    def create(self, call: Call, inputs: Inputs) -> str:
        names = {*_RESERVATION_FIELDS, "instanceCount", "endDate", "endDateType"}
        asked = {key: inputs[key] for key in names & inputs.keys() if inputs[key] != ""}
        made = call.client("ec2").create_capacity_reservation(
            **ec2.parameters(call, "CreateCapacityReservation", asked),
            TagSpecifications=tags.specification("capacity-reservation", inputs),
        )
        return made["CapacityReservation"]["CapacityReservationId"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        del inputs
        call.wait(f"{rid} to be active", lambda: self._active(call, rid))

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        found = self._find(call, rid)
        if found is None or found["State"] in ("cancelled", "expired", "failed"):
            return None
        state: State = {name: found.get(name[0].upper() + name[1:]) for name in _RESERVATION_FIELDS}
        end = found.get("EndDate")
        return {
            **state,
            "arn": found.get("CapacityReservationArn"),
            "ownerId": found.get("OwnerId"),
            "instanceCount": found.get("TotalInstanceCount"),
            "endDateType": found.get("EndDateType"),
            "endDate": end.isoformat().replace("+00:00", "Z") if end else None,
            "tagsAll": shapes.tag_map(found.get("Tags")),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        if change.any("instanceCount", "endDate", "endDateType"):
            names = {"instanceCount", "endDate", "endDateType"} & change.new.keys()
            asked = {key: change.new[key] for key in names}
            call.client("ec2").modify_capacity_reservation(
                CapacityReservationId=rid,
                **ec2.parameters(call, "ModifyCapacityReservation", asked),
            )
        tags.sync_ec2(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        call.client("ec2").cancel_capacity_reservation(CapacityReservationId=rid)
        call.wait(f"{rid} to be cancelled", lambda: self.read(call, rid, {}) is None or None)

    def _find(self, call: Call, rid: str) -> dict[str, Any] | None:
        operation, field = "describe_capacity_reservations", "CapacityReservations"
        return ec2.find(call, operation, field, CapacityReservationIds=[rid])

    def _active(self, call: Call, rid: str) -> bool | None:
        found = self._find(call, rid)
        return True if found and found["State"] == "active" else None
