"""`moe status`: how a stack is, read from its bucket; what it has cost, from EC2."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from botocore.exceptions import ClientError
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from infra import report, reservations, wait
from infra.cli.errors import UsageError
from infra.cli.stack_session import session as session_of
from infra.names import bucket_name
from infra.readiness import Deployment
from infra.render import timeline, transfer_words
from infra.spent import Launch, launches, sentence
from node_bootstrap.assignment import Assignment, assignment_key
from node_bootstrap.jsondata import ContractError, from_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_s3 import S3Client

WATCH_SECONDS = 2.0
BILLED_SECONDS = 30.0
DENIED = ("UnauthorizedOperation", "AccessDenied")
SOON_SECONDS, BLOCK_SOON_SECONDS = 900.0, 86400.0
"""An end that is so near is shown as what matters most; another block takes days to get."""
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Question:
    """The options of the command line."""

    stack: str
    bucket: str | None
    region: str | None
    json: bool
    watch: bool
    svg: Path | None = None


def run(question: Question) -> None:
    """Print the report once, or until interrupted.

    Raises:
        UsageError: there is no such bucket.
        botocore.exceptions.ClientError: AWS refused.
    """
    session = session_of(question.stack, question.region)
    bucket = question.bucket or bucket_name(
        question.stack, session.client("sts").get_caller_identity()["Account"]
    )
    s3, billed = session.client("s3"), Billed(session.client("ec2"), question.stack)

    def look() -> report.Report:
        contents = read(s3, question.stack, bucket)
        living = billed.look(time.monotonic())
        told = dataclasses.replace(contents, launches=living, block_ends_at=billed.block_ends_at)
        return report.build(told, time.time())

    if question.svg is not None:
        write_svg(look(), question.svg)
        return
    if not question.watch:
        _print(question, look())
        return
    if question.json:
        while True:
            _print(question, look())
            time.sleep(WATCH_SECONDS)
    with Live(refresh_per_second=4) as live:
        while True:
            live.update(render(look()))
            time.sleep(WATCH_SECONDS)


@dataclasses.dataclass
class Billed:
    """The living instances, listed now and then: EC2 limits how often one may ask it.

    block_ends_at: when AWS ends them with their Capacity Block, in seconds since the epoch; None
    where they are in none, or these credentials may not look at it.
    """

    ec2: EC2Client
    stack: str
    block_ends_at: float | None = None
    _known: tuple[Launch, ...] | None = None
    _asked_at: float | None = None

    def look(self, now: float) -> tuple[Launch, ...] | None:
        """None where these credentials may not list instances. now: of a monotonic clock."""
        if self._asked_at is None or now - self._asked_at > BILLED_SECONDS:
            self._asked_at = now
            self._known = _unless_denied(lambda: launches(self.ec2, self.stack))
            living = self._known or ()
            self.block_ends_at = _unless_denied(lambda: reservations.nodes_end_at(self.ec2, living))
        return self._known


def _unless_denied(ask: Callable[[], T]) -> T | None:
    try:
        return ask()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in DENIED:
            raise
        return None


def write_svg(shown: report.Report, file: Path) -> None:
    """Write the timeline of the boot as a drawing."""
    spans = [
        timeline.Span(bar.node, bar.phase, bar.from_seconds, bar.to_seconds)
        for bar in shown.timeline
    ]
    known = [bar.to_seconds or bar.from_seconds for bar in shown.timeline]
    # A phase that goes on is drawn a tenth beyond what is known.
    drawing = timeline.svg(f"{shown.stack}: from boot to ready", spans, 1.1 * max(known, default=0))
    try:
        file.write_text(drawing, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--svg {file}: {error.strerror}") from None
    print(f"wrote {file}", file=sys.stderr)


def read(s3: S3Client, stack: str, bucket: str) -> report.Contents:
    """All that the report is made from."""
    nodes = _nodes(s3, bucket)
    told = {name: document(s3, bucket, assignment_key(name), Assignment) for name in nodes}
    asked = document(s3, bucket, "deployment.json", Deployment)
    record = _text(s3, bucket, wait.RECORD_KEY)
    recorded = json.loads(record) if record else {}
    proven = None if "last_failure" in recorded else recorded.get("deployment")
    return report.Contents(
        stack=stack,
        bucket=bucket,
        assignments={name: assignment for name, assignment in told.items() if assignment},
        statuses=wait.read_statuses(s3, bucket, nodes),
        deployment=asked,
        proven=asked is not None and proven == json.loads(json.dumps(dataclasses.asdict(asked))),
    )


def render(shown: report.Report) -> Group:
    """The report as tables."""
    verdict = "answers" if shown.ready else "does not answer on every rank"
    lines: list[Table | Text] = [
        Text(f"{shown.stack}: {shown.endpoint or 'no endpoint yet'} {verdict}", style="bold")
    ]
    # A group's members are its nodes, the gateway's are the groups.
    members = {name: said for group in shown.groups for name, said in group.members.items()}
    groups = Table(
        "group", "phase", "for", "revision", "generation", "last restart", box=SIMPLE_HEAD
    )
    for group in shown.groups:
        groups.add_row(
            group.name,
            f"{group.phase}{', ' + members[group.name] if group.name in members else ''}",
            _span(group.since_seconds),
            group.revision[:8],
            str(group.generation),
            group.last_restart.cause if group.last_restart else "",
        )
    nodes = Table(
        "node", "phase", "revision", "seconds per step", "experts", "heard", box=SIMPLE_HEAD
    )
    for node in shown.nodes:
        member = f"member {members[node.name]}" if node.name in members else ""
        stale = node.revision and node.revision != node.wanted_revision
        nodes.add_row(
            f"{node.name} ({node.position})\n{node.instance_id}",
            f"{node.phase}{', running' if node.running else ''}\n{member}",
            f"{node.revision[:8]}{' -> ' + node.wanted_revision[:8] if stale else ''}",
            " ".join(f"{name} {seconds:.1f}" for name, seconds in node.step_seconds.items()),
            " ".join(f"rank {rank}: {held}" for rank, held in node.experts.items()),
            f"{_span(node.age_seconds)} ago" if node.age_seconds is not None else "never",
        )
    lines.insert(1, Text(_bill(shown)))
    if shown.ends_in_seconds is not None:
        near = shown.ends_in_seconds < SOON_SECONDS
        lines.insert(1, Text(_end(shown), style="bold red" if near else ""))
    if shown.block_ends_in_seconds is not None:
        near = shown.block_ends_in_seconds < BLOCK_SOON_SECONDS
        left = _span(max(0.0, shown.block_ends_in_seconds))
        words = f"AWS ends its nodes in {left}, with their Capacity Block; nothing moves that"
        lines.insert(1, Text(words, style="bold red" if near else ""))
    lines += [groups, nodes]
    lines += [Text(line) for group in shown.groups for line in transfer_words.of_group(group)]
    for node in shown.nodes:
        if node.fault:
            lines.append(Text(f"last fault of {node.name}: {node.fault}"))
            lines += [Text(f"  {line}") for line in node.fault_log_tail.splitlines()[-8:]]
    return Group(*lines)


def _bill(shown: report.Report) -> str:
    if shown.spent is None:
        return "Cost: these credentials may not list instances (ec2:DescribeInstances)"
    return f"Cost: {sentence(shown.spent)}"


def _end(shown: report.Report) -> str:
    left = shown.ends_in_seconds or 0.0
    if left <= 0:
        return "Its ttl is over: nodes have powered themselves off; `pulumi up` makes them anew"
    return f"Its nodes end by themselves in {_span(left)}; `moe extend {shown.stack} 2h` moves that"


def _print(question: Question, shown: report.Report) -> None:
    if question.json:
        print(json.dumps(dataclasses.asdict(shown), sort_keys=True))
    else:
        Console().print(render(shown))


def _nodes(s3: S3Client, bucket: str) -> list[str]:
    try:
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix="nodes/", Delimiter="/"
        )
        folders = [
            p["Prefix"] for page in pages for p in page.get("CommonPrefixes", []) if "Prefix" in p
        ]
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "NoSuchBucket":
            raise UsageError(
                f"There is no bucket {bucket}: the stack is not up, or is in another account."
            ) from error
        raise
    return [folder.split("/")[1] for folder in folders]


def _text(s3: S3Client, bucket: str, key: str) -> bytes | None:
    try:
        return s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "NoSuchKey":
            return None
        raise


def document(s3: S3Client, bucket: str, key: str, kind: type[T]) -> T | None:
    """A document of the bucket, None where it isn't there; UsageError for another version's."""
    text = _text(s3, bucket, key)
    try:
        return from_json(kind, text) if text else None
    except ContractError as error:
        raise UsageError(f"s3://{bucket}/{key} is of another version: {error}") from error


def _span(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
