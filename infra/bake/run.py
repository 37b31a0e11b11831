"""A bake from its first request to its last: whatever happens, only the image stays."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.bake import builder
from infra.bake.builder import Build
from infra.bake.images import snapshots_of
from infra.bake.site import BakeError, Clients
from infra.names import NODE_TAG, STACK_TAG, iam_path
from infra.plan.reach import private_repository
from infra.resources import policies
from infra.wait import Clock, read_statuses
from node_bootstrap.assignment import assignment_key, status_key
from node_bootstrap.jsondata import to_json
from node_bootstrap.status import Status, StepReport

POLL_SECONDS = 2.0
NEW_PROFILE_SECONDS = 60.0
"""EC2 learns of a new instance profile only after some seconds."""
FAILURE_HOLDS_SECONDS = 60.0
"""The builder tries again after a failure; one that lasts so long ends the bake."""
SEAL_SECONDS = 300.0
"""From the last step to an instance that is stopped."""
END_SECONDS = 600.0
LIVING = ("pending", "running", "stopping", "stopped")

Say = Callable[[str], None]


@dataclass
class Bake:
    """One bake. All that it makes bears the builder's name, so that it is found without ids.

    closing: called before what was made is taken away, which nothing should interrupt.
    """

    build: Build
    clients: Clients
    bucket_arn: str
    say: Say = print
    clock: Clock = field(default_factory=Clock)
    closing: Callable[[], None] = lambda: None

    def run(self) -> str:
        """Make the image; returns its id once instances can be launched from it.

        Raises:
            BakeError: the builder failed or took too long.
            botocore.exceptions.ClientError: AWS refused.
        """
        with self._taken_away():
            instance = self._launch(self._identity())
            self._wait_until_sealed(instance)
            return self._image(instance)

    # -- what is made

    def _identity(self) -> str:
        """Role and instance profile; returns the profile's ARN."""
        iam, name, path = self.clients.iam, self._role_name, iam_path(self.build.stack)
        tags = builder.pairs(builder.tags(self.build))
        iam.create_role(
            RoleName=name,
            Path=path,
            AssumeRolePolicyDocument=policies.assumed_by_ec2(),
            Description=f"Builder {self.build.name}: reads its own assignment, writes its status",
            Tags=tags,
        )
        repository = private_repository(self.build.site.told.software.image)
        document = policies.builder(
            self.bucket_arn, self.build.name, repository, builds=self.build.builds
        )
        iam.put_role_policy(RoleName=name, PolicyName="builder", PolicyDocument=document)
        made = iam.create_instance_profile(InstanceProfileName=name, Path=path, Tags=tags)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
        return made["InstanceProfile"]["Arn"]

    def _launch(self, profile_arn: str) -> str:
        told = builder.assignment(self.build)
        self.clients.s3.put_object(
            Bucket=told.bucket,
            Key=assignment_key(self.build.name),
            Body=to_json(told, without_defaults=True).encode(),
            ContentType="application/json",
        )
        request = builder.launch(self.build, profile_arn)
        until = self.clock.monotonic() + NEW_PROFILE_SECONDS
        while True:
            try:
                (instance,) = self.clients.ec2.run_instances(**request)["Instances"]
            except ClientError as error:
                if "nstance profile" not in str(error).lower() or self.clock.monotonic() > until:
                    raise
                self.clock.sleep(POLL_SECONDS)
                continue
            self.say(
                f"builder {self.build.name}: {instance['InstanceId']}, {self.build.instance_type}, "
                f"from {self.build.site.base_image}"
            )
            return instance["InstanceId"]

    def _image(self, instance: str) -> str:
        ec2, every = self.clients.ec2, builder.image_tags(self.build)
        began = self.clock.monotonic()
        name = builder.image_name(self.build, dt.datetime.fromtimestamp(self.clock.now(), dt.UTC))
        # Part of the stack until it is whole: a bake that is cut off leaves something to be found.
        unfinished = {**every, **builder.tags(self.build)}
        image = ec2.create_image(
            InstanceId=instance,
            Name=name,
            Description=f"Everything installed for group {self.build.group} of {self.build.stack}",
            TagSpecifications=builder.specifications(("image", "snapshot"), unfinished),
        )["ImageId"]
        self.say(f"image {image}: pending")
        while True:
            (found,) = ec2.describe_images(ImageIds=[image])["Images"]
            if found["State"] == "available":
                break
            reason = (found.get("StateReason") or {}).get("Message", "EC2 gives no reason")
            if found["State"] != "pending":
                raise BakeError(f"EC2 could not make {image}: {found['State']}, {reason}")
            if self.clock.monotonic() - began > self.build.timeout_seconds:
                raise BakeError(f"{image} is still pending after {_spent(self.clock, began)}.")
            self.clock.sleep(POLL_SECONDS)
        finished = [image, *snapshots_of(found)]
        ec2.create_tags(Resources=finished, Tags=builder.pairs(every))
        ec2.delete_tags(Resources=finished, Tags=[{"Key": k} for k in (STACK_TAG, NODE_TAG)])
        self.say(f"image {image}: available ({_spent(self.clock, began)})")
        return image

    # -- what is waited for

    def _wait_until_sealed(self, instance: str) -> None:
        """Say each step as it is done, until the builder has powered itself off."""
        began = healthy_at = self.clock.monotonic()
        sealed_at: float | None = None
        said: set[StepReport] = set()
        bucket, name = self.build.site.told.bucket, self.build.name
        while True:
            now, state = self.clock.monotonic(), self._state(instance)
            status = read_statuses(self.clients.s3, bucket, [name]).get(name)
            for step in status.steps if status else ():
                if step not in said:
                    said.add(step)
                    detail = step.detail.splitlines()[0] if step.detail else ""
                    self.say(f"  {step.name:10} {step.outcome:9} {step.seconds:8.1f} s  {detail}")
            sealed_at = sealed_at or (now if status and status.phase == "image" else None)
            if status is None or status.phase != "failed":
                healthy_at = now
            if state == "stopped" and sealed_at is not None:
                self.say(f"builder {name}: everything is installed ({_spent(self.clock, began)})")
                return
            why = self._why_not(state, status, (now - healthy_at, now - began, sealed_at, now))
            if why:
                raise BakeError(f"{name} can't become an image: {why}{self._console(instance)}")
            self.clock.sleep(POLL_SECONDS)

    def _why_not(
        self,
        state: str,
        status: Status | None,
        times: tuple[float, float, float | None, float],
    ) -> str:
        """Why the bake ends here; empty while it goes on."""
        failing, spent, sealed_at, now = times
        if state not in ("pending", "running", "stopping"):
            return f"its instance is {state} before everything was installed."
        if status is not None and status.fault is not None and failing > FAILURE_HOLDS_SECONDS:
            return status.fault.what
        if sealed_at is not None and now - sealed_at > SEAL_SECONDS:
            return f"everything is installed, but it is not stopped after {SEAL_SECONDS:.0f} s."
        if spent > self.build.timeout_seconds:
            phase = status.phase if status else "not heard of"
            return f"not done after {spent:.0f} s (--timeout); last seen: {phase}."
        return ""

    def _state(self, instance: str) -> str:
        try:
            found = self.clients.ec2.describe_instances(InstanceIds=[instance])
        except ClientError as error:
            # An instance that was just launched may not be shown yet.
            if error.response.get("Error", {}).get("Code") == "InvalidInstanceID.NotFound":
                return "pending"
            raise
        return found["Reservations"][0]["Instances"][0]["State"]["Name"]

    def _console(self, instance: str) -> str:
        """The end of the console, where there is any."""
        try:
            output = self.clients.ec2.get_console_output(InstanceId=instance).get("Output", "")
        except (ClientError, BotoCoreError):
            return ""
        tail = "\n".join(f"    {line}" for line in output.splitlines()[-15:])
        return f"\n  console of {instance}, its end:\n{tail}" if tail else ""

    # -- what goes again

    @property
    def _role_name(self) -> str:
        return f"moe-{self.build.stack[:40]}-{self.build.name}"[:64]

    @contextmanager
    def _taken_away(self) -> Iterator[None]:
        """Whatever was made but a finished image goes, also after a failure or an interruption.

        Raises:
            BakeError: something stays; the message says what, and how to find it.
        """
        try:
            yield
        finally:
            self._take_away()

    def _take_away(self) -> None:
        self.closing()
        self.say(f"builder {self.build.name}: taking it away")
        parts: tuple[tuple[str, Callable[[], None]], ...] = (
            ("unfinished image", self._remove_images),
            ("instance", self._terminate),
            ("instance profile and role", self._remove_identity),
            ("objects in the bucket", self._remove_objects),
        )
        stays = []
        for what, action in parts:
            try:
                action()
            except (ClientError, BotoCoreError, BakeError) as error:
                stays.append(f"{what}: {error}")
        if stays:
            raise BakeError(
                f"Of {self.build.name} something stays: {'; '.join(stays)}. "
                f"`moe leftovers --stack {self.build.stack}` shows it."
            )

    def _mine(self) -> list[dict[str, Any]]:
        return [
            {"Name": f"tag:{STACK_TAG}", "Values": [self.build.stack]},
            {"Name": f"tag:{NODE_TAG}", "Values": [self.build.name]},
        ]

    def _remove_images(self) -> None:
        """A finished one no longer bears the builder's name."""
        ec2 = self.clients.ec2
        for image in ec2.describe_images(Owners=["self"], Filters=self._mine())["Images"]:
            ec2.deregister_image(ImageId=image["ImageId"])
        # A pending image does not always name its snapshot yet, so they are found by themselves.
        mine = ec2.describe_snapshots(OwnerIds=["self"], Filters=self._mine())["Snapshots"]
        for snapshot in mine:
            ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])

    def _terminate(self) -> None:
        ec2 = self.clients.ec2
        until = self.clock.monotonic() + END_SECONDS
        while ids := self._instances((*LIVING, "shutting-down")):
            if living := self._instances(LIVING):
                ec2.terminate_instances(InstanceIds=living)
            if self.clock.monotonic() > until:
                raise BakeError(f"{', '.join(ids)} is not terminated after {END_SECONDS:.0f} s")
            self.clock.sleep(POLL_SECONDS / 4)

    def _instances(self, states: tuple[str, ...]) -> list[str]:
        filters = [*self._mine(), {"Name": "instance-state-name", "Values": list(states)}]
        reservations = self.clients.ec2.describe_instances(Filters=filters)["Reservations"]
        return [i["InstanceId"] for r in reservations for i in r["Instances"]]

    def _remove_identity(self) -> None:
        iam, name = self.clients.iam, self._role_name
        for call in (
            lambda: iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name),
            lambda: iam.delete_instance_profile(InstanceProfileName=name),
            lambda: iam.delete_role_policy(RoleName=name, PolicyName="builder"),
            lambda: iam.delete_role(RoleName=name),
        ):
            _unless_missing(call)

    def _remove_objects(self) -> None:
        bucket = self.build.site.told.bucket
        for key in (assignment_key(self.build.name), status_key(self.build.name)):
            self.clients.s3.delete_object(Bucket=bucket, Key=key)


def _unless_missing(call: Callable[[], Any]) -> None:
    try:
        call()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "NoSuchEntity":
            raise


def _spent(clock: Clock, began: float) -> str:
    return f"{clock.monotonic() - began:.0f} s"
