"""Capacity reservations and Capacity Blocks, as EC2 describes them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from infra.spent import Launch

LEAD = dt.timedelta(minutes=30)
"""EC2 terminates the instances of a Capacity Block so long before its end."""


def described(ec2: Any, id_: str) -> dict[str, Any] | None:
    """A reservation or block of the client's region; None where it has no such one."""
    try:
        (found,) = ec2.describe_capacity_reservations(CapacityReservationIds=[id_])[
            "CapacityReservations"
        ]
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        if "NotFound" not in code and "Malformed" not in code:
            raise
        return None
    return found


def nodes_end_at(ec2: Any, launches: Iterable[Launch]) -> float | None:
    """The first moment at which AWS ends a node, in seconds since the epoch; None: at none.

    botocore's ClientError where reservations may not be described.
    """
    held = {launch.reservation for launch in launches if launch.lifecycle == "capacity-block"}
    named = sorted(id_ for id_ in held if id_)
    if not named:
        return None
    found = ec2.describe_capacity_reservations(CapacityReservationIds=named)
    ends = [block["EndDate"] for block in found["CapacityReservations"] if block.get("EndDate")]
    return min(((end - LEAD).timestamp() for end in ends), default=None)
