"""On-Demand Capacity Reservations, which moto has none of."""

from __future__ import annotations

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.models.instance_types import INSTANCE_TYPES

from rehearsal.account.ec2 import limits
from rehearsal.account.ec2.base import Action, new_id
from rehearsal.account.ec2.errors import refuse
from rehearsal.account.ec2.filters import matching
from rehearsal.account.ec2.models import CapacityReservation
from rehearsal.account.ec2.shortage import no_capacity, vcpu_limit
from rehearsal.account.ec2.world import zones_of


class CapacityReservations(Action):
    """Create, describe, modify and cancel reservations."""

    def create_capacity_reservation(self) -> ActionResult:
        """Reserve capacity for a number of instances of one type in one zone."""
        kind, zone = self.parameter("InstanceType"), self._zone()
        count = int(self.parameter("InstanceCount"))
        group_arn = self.parameter("PlacementGroupArn")
        if kind not in INSTANCE_TYPES:
            raise refuse("InvalidInstanceType", f"The instance type '{kind}' does not exist")
        zones = zones_of(kind, self.region)
        if zones and zone not in zones:
            raise refuse(
                "Unsupported",
                f"The instance type {kind} is not supported in {zone}: "
                f"only in {', '.join(sorted(zones))}.",
            )
        if group_arn and group_arn.split("/")[-1] not in self.backend.placement_groups:
            raise refuse(
                "InvalidPlacementGroup.Unknown", f"The Placement Group '{group_arn}' is unknown."
            )
        if count < 1:
            raise refuse("InvalidParameterValue", "InstanceCount must be at least 1.")
        self._check_room(kind, zone, count)
        self.dry_run()
        reservation = self._record(kind, zone, count, group_arn)
        self.backend.capacity_reservations[reservation.id] = reservation
        return ActionResult({"CapacityReservation": reservation})

    def _check_room(self, kind: str, zone: str, count: int) -> None:
        """A reservation counts against the quotas of On-Demand instances, and AWS must have it."""
        room = limits.room(self.backend, kind, zone, spot=False)
        if room.vcpus is not None and count * limits.vcpus(kind) > room.vcpus:
            raise vcpu_limit(room.vcpus).error()
        if room.capacity is not None and count > room.capacity:
            raise no_capacity(kind, zone, zones_of(kind, self.region) - {zone}).error()

    def _zone(self) -> str:
        zone_id = self.parameter("AvailabilityZoneId")
        zones = self.backend.describe_availability_zones()
        wanted = self.parameter("AvailabilityZone")
        found = next((z.name for z in zones if z.name == wanted or z.zone_id == zone_id), None)
        if found is None:
            raise refuse(
                "InvalidParameterValue", f"Invalid availability zone: [{wanted or zone_id}]"
            )
        return found

    def _record(
        self, kind: str, zone: str, count: int, group_arn: str | None
    ) -> CapacityReservation:
        reservation_id = new_id("cr")
        now = utcnow()
        return CapacityReservation(
            self.backend,
            reservation_id,
            self.tags_for("capacity-reservation"),
            capacity_reservation_id=reservation_id,
            capacity_reservation_arn=self.arn("capacity-reservation", reservation_id),
            owner_id=self.current_account,
            instance_type=kind,
            instance_platform=self.parameter("InstancePlatform"),
            availability_zone=zone,
            tenancy=self.parameter("Tenancy") or "default",
            total_instance_count=count,
            available_instance_count=count,
            ebs_optimized=bool(self.parameter("EbsOptimized")),
            ephemeral_storage=bool(self.parameter("EphemeralStorage")),
            state="active",
            start_date=now,
            create_date=now,
            end_date=self.parameter("EndDate"),
            end_date_type=self.parameter("EndDateType") or "unlimited",
            instance_match_criteria=self.parameter("InstanceMatchCriteria") or "open",
            placement_group_arn=group_arn,
            reservation_type="default",
        )

    def _reservation(self, reservation_id: str) -> CapacityReservation:
        found = self.backend.capacity_reservations.get(reservation_id)
        if found is None:
            raise refuse(
                "InvalidCapacityReservationId.NotFound",
                f"The capacity reservation '{reservation_id}' does not exist",
            )
        return found

    def describe_capacity_reservations(self) -> ActionResult:
        """By id or filter; unknown ids are an error."""
        ids = self.parameter("CapacityReservationIds", [])
        rows = [self._reservation(i) for i in ids] or list(
            self.backend.capacity_reservations.values()
        )
        return ActionResult({"CapacityReservations": matching(rows, self.filters())})

    def modify_capacity_reservation(self) -> ActionResult:
        """Change the count (never below what is used), the end and the matching."""
        reservation = self._reservation(self.parameter("CapacityReservationId"))
        if reservation.state != "active":
            raise refuse(
                "IncorrectState", f"The capacity reservation is {reservation.state}, not active."
            )
        used = reservation.total_instance_count - reservation.available_instance_count
        count = int(self.parameter("InstanceCount") or reservation.total_instance_count)
        if count < used:
            raise refuse(
                "InvalidParameterValue",
                f"{used} instances use the reservation: it cannot be {count}.",
            )
        self.dry_run()
        reservation.total_instance_count = count
        reservation.available_instance_count = count - used
        for name, field in (
            ("EndDate", "end_date"),
            ("EndDateType", "end_date_type"),
            ("InstanceMatchCriteria", "instance_match_criteria"),
        ):
            if self.parameter(name) is not None:
                setattr(reservation, field, self.parameter(name))
        return ActionResult({"Return": True})

    def cancel_capacity_reservation(self) -> ActionResult:
        """Give the capacity back; running instances go on."""
        reservation = self._reservation(self.parameter("CapacityReservationId"))
        self.dry_run()
        reservation.state = "cancelled"
        reservation.available_instance_count = 0
        return ActionResult({"Return": True})
