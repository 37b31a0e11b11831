"""Capacity Blocks: offered, bought, and over at a time known from the start.

A purchase is a person's act: the program only launches into a block that exists.
"""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow

from rehearsal.account.ec2.base import Action, new_id
from rehearsal.account.ec2.errors import refuse
from rehearsal.account.ec2.models import CapacityReservation
from rehearsal.account.ec2.world import zones_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rehearsal.account.ec2.backend import Backend

TYPES = frozenset(
    {
        "p4d.24xlarge",
        "p4de.24xlarge",
        "p5.4xlarge",
        "p5.48xlarge",
        "p5e.48xlarge",
        "p5en.48xlarge",
        "p6-b200.48xlarge",
        "p6-b300.48xlarge",
        "trn1.32xlarge",
        "trn2.48xlarge",
    }
)
"""Types that AWS sells in blocks."""
INSTANCES = 64
"""At most so many instances in a block."""
DAYS_AHEAD = 56
"""A block starts within eight weeks."""
HOURS = frozenset(24 * d for d in (*range(1, 15), *range(21, 183, 7)))
"""1 to 14 days, or a multiple of 7 up to 182."""
END_HOUR, END_MINUTE = 11, 30
"""Blocks end at 11:30 UTC."""
LAST_MINUTES = 30
"""Instances are terminated from this many minutes before the end."""
PAYMENT_SECONDS = 2.0
"""How long a purchase is payment-pending here: long enough to be seen (minutes on AWS)."""


def state_at(now: datetime, bought: datetime, start: datetime, end: datetime) -> str:
    """A block's state. Pure; all times are UTC."""
    if now >= end:
        return "expired"
    if (now - bought).total_seconds() < PAYMENT_SECONDS:
        return "payment-pending"
    return "active" if now >= start else "scheduled"


def end_of(start: datetime, hours: int) -> datetime:
    """When a block of at least so many hours ends: the next 11:30 UTC after them."""
    least = start + timedelta(hours=hours)
    end = least.replace(hour=END_HOUR, minute=END_MINUTE, second=0, microsecond=0)
    return end if end >= least else end + timedelta(days=1)


def follow(backend: Backend) -> set[str]:
    """Bring blocks to the state of the hour; returns the ids of those whose instances must end."""
    now = utcnow()
    over: set[str] = set()
    for block in backend.capacity_reservations.values():
        if block.reservation_type != "capacity-block":
            continue
        if block.state != "expired":
            block.state = state_at(now, block.create_date, block.start_date, block.end_date)
        if block.state == "expired" or now >= block.end_date - timedelta(minutes=LAST_MINUTES):
            over.add(block.id)
    return over


def wrong_wish(kind: str, count: int, hours: int) -> str:
    """Why AWS has no such block to offer; "" where it may have. Pure."""
    if kind not in TYPES:
        return f"The instance type '{kind}' is not supported for Capacity Blocks."
    if not 1 <= count <= INSTANCES:
        return f"InstanceCount must be 1 to {INSTANCES}."
    if hours not in HOURS:
        return "CapacityDurationHours must be 1 to 14 days, or a multiple of 7 days up to 182."
    return ""


class CapacityBlocks(Action):
    """Describe offerings and buy one."""

    def describe_capacity_block_offerings(self) -> ActionResult:
        """One offering in each zone that has the type, from the wished date on."""
        kind = self.parameter("InstanceType") or ""
        count = int(self.parameter("InstanceCount") or 1)
        hours = int(self.parameter("CapacityDurationHours") or 0)
        wrong = wrong_wish(kind, count, hours)
        if wrong:
            raise refuse("InvalidParameterValue", wrong)
        now = utcnow()
        start = max(_time(self.parameter("StartDateRange")) or now, now)
        if start > now + timedelta(days=DAYS_AHEAD):
            raise refuse("InvalidParameterValue", "StartDateRange must be within 8 weeks.")
        self.dry_run()
        offered = [
            _offering(kind, count, zone, start, hours)
            for zone in sorted(zones_of(kind, self.region))
        ]
        for offering in offered:
            self.backend.block_offerings[offering["CapacityBlockOfferingId"]] = offering
        return ActionResult({"CapacityBlockOfferings": offered})

    def purchase_capacity_block(self) -> ActionResult:
        """Buy an offering once; nothing gives the money back."""
        offering_id = self.parameter("CapacityBlockOfferingId") or ""
        offering = self.backend.block_offerings.get(offering_id)
        if offering is None:
            raise refuse(
                "InvalidParameterValue",
                f"The Capacity Block offering '{offering_id}' does not exist or was bought.",
            )
        self.dry_run()
        del self.backend.block_offerings[offering_id]
        block = self._bought(offering)
        self.backend.capacity_reservations[block.id] = block
        return ActionResult({"CapacityReservation": block})

    def _bought(self, offering: dict[str, Any]) -> CapacityReservation:
        block_id = new_id("cr")
        return CapacityReservation(
            self.backend,
            block_id,
            self.tags_for("capacity-reservation"),
            capacity_reservation_id=block_id,
            capacity_reservation_arn=self.arn("capacity-reservation", block_id),
            owner_id=self.current_account,
            instance_type=offering["InstanceType"],
            instance_platform=self.parameter("InstancePlatform") or "Linux/UNIX",
            availability_zone=offering["AvailabilityZone"],
            tenancy="default",
            total_instance_count=offering["InstanceCount"],
            available_instance_count=offering["InstanceCount"],
            ebs_optimized=True,
            ephemeral_storage=False,
            state="payment-pending",
            start_date=offering["StartDate"],
            create_date=utcnow(),
            end_date=offering["EndDate"],
            end_date_type="limited",
            instance_match_criteria="targeted",
            placement_group_arn=None,
            reservation_type="capacity-block",
        )


def _time(given: Any) -> datetime | None:
    if not given:
        return None
    time = given if isinstance(given, datetime) else datetime.fromisoformat(str(given))
    return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time


def _offering(kind: str, count: int, zone: str, start: datetime, hours: int) -> dict[str, Any]:
    end = end_of(start, hours)
    wish = f"{kind} {count} {zone} {start.isoformat()} {hours}"
    return {
        "CapacityBlockOfferingId": f"cbr-0{hashlib.sha256(wish.encode()).hexdigest()[:16]}",
        "InstanceType": kind,
        "AvailabilityZone": zone,
        "InstanceCount": count,
        "StartDate": start,
        "EndDate": end,
        "CapacityBlockDurationHours": math.ceil((end - start).total_seconds() / 3600),
        # A rehearsal bills nothing: the fee is there since clients read it.
        "UpfrontFee": "0.00",
        "CurrencyCode": "USD",
        "Tenancy": "default",
    }


def instances_of(backend: Backend, blocks: Iterable[str]) -> list[Any]:
    """The instances in these blocks that have not begun to end."""
    ids = set(blocks)
    return [
        i
        for i in (backend.instances() if ids else ())
        if i.capacity_reservation_id in ids and i.state not in ("shutting-down", "terminated")
    ]
