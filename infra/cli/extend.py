"""`moe extend`: the nodes of a stack with a ttl go on for longer."""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.cli import status
from infra.cli.errors import UsageError
from infra.cli.stack_session import session as session_of
from infra.names import STACK_TAG, bucket_name
from infra.plan.plan import RESERVED_LONGER_SECONDS
from infra.settings import seconds
from node_bootstrap.agent.ending import POLL_SECONDS
from node_bootstrap.jsondata import to_json
from node_bootstrap.ttl import EXTENSION_KEY, Extension

if TYPE_CHECKING:
    from mypy_boto3_ec2.client import EC2Client

    from infra.report import Contents

LATE_SECONDS = 3 * POLL_SECONDS
"""A node that ends so soon may not read of its new end before."""


@dataclass(frozen=True)
class Ends:
    """When nodes end, in seconds since the epoch: those to come, and how many are over."""

    coming: tuple[float, ...]
    over: int


def run(stack: str, by: str, bucket: str | None, region: str | None) -> None:
    """Write the new end to the bucket, and say it.

    Raises:
        UsageError: no such stack, no ttl, no duration.
        botocore.exceptions.ClientError: AWS refused.
    """
    try:
        span = seconds(by)
    except ValueError as error:
        raise UsageError(f"moe extend {stack} {by}: wanted {error}") from error
    session = session_of(stack, region)
    name = bucket or bucket_name(stack, session.client("sts").get_caller_identity()["Account"])
    s3 = session.client("s3")
    now = time.time()
    contents = status.read(s3, stack, name)
    ends = ends_of(contents, now)
    written = status.document(s3, name, EXTENSION_KEY, Extension)
    until = new_end(ends.coming, written.until if written else 0.0, now, span)
    body = to_json(Extension(schema=1, until=until)).encode()
    s3.put_object(Bucket=name, Key=EXTENSION_KEY, Body=body, ContentType="application/json")
    print(f"{stack}: its nodes end at {_utc(until)}, in {_span(until - now)}.")
    for reservation in hold_longer(session.client("ec2"), stack, until):
        print(f"{stack}: {reservation} is held until an hour after that.")
    soon = [end for end in ends.coming if end - now < LATE_SECONDS]
    if soon or ends.over:
        print(
            f"{ends.over} nodes have ended, {len(soon)} may end before they read this: "
            "`pulumi up` makes them anew.",
            file=sys.stderr,
        )


def ends_of(contents: Contents, now: float) -> Ends:
    """When the nodes end as they told it; a node that told nothing yet begins its time now.

    Raises:
        UsageError: no node has an end.
    """
    coming, over = [], 0
    for node, told in contents.assignments.items():
        if told.ttl is None:
            continue
        report = contents.statuses.get(node)
        end = report.ends_at if report and report.ends_at else now + told.ttl.seconds
        if end > now:
            coming.append(end)
        else:
            over += 1
    if not coming and not over:
        raise UsageError(
            f"{contents.stack} has no ttl: its nodes never end by themselves. To give it an end, "
            "set moe-serving:ttl and run `pulumi up`."
        )
    return Ends(tuple(coming), over)


def new_end(ends: Iterable[float], written: float, now: float, span_seconds: float) -> float:
    """So much later than the last of what is known: the nodes' ends, and what was written before.

    All in seconds since the epoch but the span.
    """
    return max(now, written, *ends) + span_seconds


def hold_longer(ec2: EC2Client, stack: str, until: float) -> list[str]:
    """Move the ends of the stack's own capacity reservations, which nodes made anew would need.

    Args:
        ec2: client in the stack's region.
        stack: whose tag they carry.
        until: when the nodes end, in seconds since the epoch.

    Returns:
        Ids of those whose end was before.
    """
    end = dt.datetime.fromtimestamp(until + RESERVED_LONGER_SECONDS, dt.UTC)
    found = ec2.describe_capacity_reservations(
        Filters=[
            {"Name": f"tag:{STACK_TAG}", "Values": [stack]},
            {"Name": "state", "Values": ["active"]},
            {"Name": "end-date-type", "Values": ["limited"]},
        ]
    )["CapacityReservations"]
    early = [r.get("CapacityReservationId", "") for r in found if r.get("EndDate", end) < end]
    for reservation in early:
        ec2.modify_capacity_reservation(
            CapacityReservationId=reservation, EndDateType="limited", EndDate=end
        )
    return early


def _utc(moment: float) -> str:
    return f"{dt.datetime.fromtimestamp(moment, dt.UTC):%Y-%m-%d %H:%M:%S} UTC"


def _span(span_seconds: float) -> str:
    minutes = int(span_seconds // 60)
    if minutes < 60:
        return f"{minutes} min {span_seconds % 60:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min"
