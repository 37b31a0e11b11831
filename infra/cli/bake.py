"""`moe bake`: an AMI with everything installed, for the nodes of one group."""

from __future__ import annotations

import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.bake import builder, images, site
from infra.bake.run import Bake
from infra.cli import status
from infra.cli.errors import UsageError
from infra.cli.stack_session import session as session_of
from infra.names import bucket_name
from infra.settings import seconds
from infra.wait import NotReadyError

if TYPE_CHECKING:
    from types import FrameType

    import boto3


_ROW = "{:21}  {:10}  {:8}  {:12}  {:9}  {:16}  {}"


@dataclass(frozen=True)
class Question:
    """The options of the command line."""

    stack: str
    group: str | None = None
    instance_type: str | None = None
    timeout: str = "90m"
    bucket: str | None = None
    region: str | None = None


def run(question: Question) -> int:
    """Make an image, print its id and the line for the stack's file. Returns the exit status."""
    try:
        timeout = seconds(question.timeout)
    except ValueError as error:
        raise UsageError(f"moe bake --timeout {question.timeout}: wanted {error}") from error
    session = session_of(question.stack, question.region)
    try:
        bake = _bake(question, session, timeout)
        with _interrupted_once() as closing:
            bake.closing = closing
            image = bake.run()
    except (site.BakeError, NotReadyError) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{image} has all that group {bake.build.group} needs. For its nodes, put into the "
        f"stack's file\n\n  moe-serving:ami: {image}\n\nand run `pulumi up`: it replaces them."
    )
    return 0


def list_images(stack: str, region: str | None) -> None:
    """Print the images that were baked for a stack."""
    found = images.baked(session_of(stack, region).client("ec2"), stack)
    if not found:
        print(f"No image was baked for {stack}.")
        return
    print(_ROW.format("image", "group", "release", "software", "state", "created", "made on"))
    for i in found:
        row = (i.id, i.group, i.release, i.software, i.state, i.created[:16], i.base)
        print(_ROW.format(*row))


def delete_image(stack: str, image: str, region: str | None) -> int:
    """Deregister an image and delete its snapshots. Returns the exit status."""
    try:
        gone = images.delete(session_of(stack, region).client("ec2"), stack, image)
    except site.BakeError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{gone.id} ({gone.name}) is deregistered, {', '.join(gone.snapshots)} deleted.")
    return 0


def _bake(question: Question, session: boto3.Session, timeout: float) -> Bake:
    caller = session.client("sts").get_caller_identity()
    clients = site.Clients.of(session)
    bucket = question.bucket or bucket_name(question.stack, caller["Account"])
    contents = status.read(clients.s3, question.stack, bucket)
    told = site.chosen(question.stack, question.group, contents.assignments.values())
    found = site.find(clients, told)
    build = builder.Build(
        site=found,
        name=f"bake-{builder.group_of(told)[:40]}-{secrets.token_hex(3)}",
        instance_type=question.instance_type or builder.builder_type(found.instance_type),
        timeout_seconds=timeout,
    )
    partition = caller["Arn"].split(":")[1]
    return Bake(build, clients, f"arn:{partition}:s3:::{bucket}")


@contextmanager
def _interrupted_once() -> Iterator[Callable[[], None]]:
    """SIGTERM is taken as ^C; once the function that it yields was called, neither counts."""
    closed = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        if not closed:
            raise KeyboardInterrupt
        print("taking away what was made; this can't be cut short", file=sys.stderr)

    def close() -> None:
        nonlocal closed
        closed = True

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield close
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
