"""Where a reservation or Capacity Block that is there already is: the nodes must follow it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
import pulumi

from infra import reservations
from infra.plan.request import THERE_ALREADY

if TYPE_CHECKING:
    from infra.plan.request import Capacity


def zone_of(capacity: Capacity, region: str, profile: str | None) -> str | None:
    """The zone of the reservation that the settings name; None where they name none.

    EC2 gives what is reserved to launches in its own zone alone. Pulumi's provider has no look-up
    of reservations.

    Raises:
        pulumi.RunError: the region has no such reservation.
    """
    if capacity.id is None or capacity.kind not in THERE_ALREADY:
        return None
    ec2 = boto3.Session(profile_name=profile, region_name=region).client("ec2")
    found = reservations.described(ec2, capacity.id)
    if found is None:
        # Shown as its sentence alone: a traceback helps nobody to mend a setting.
        raise pulumi.RunError(
            f"moe-serving:capacity.id: {region} has no capacity reservation {capacity.id}, so the "
            "nodes' zone can't be told from it: name one of this account and region, or set "
            "network.zone."
        )
    return str(found.get("AvailabilityZone"))
