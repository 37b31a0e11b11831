"""Accounts for the tests: real processes on free ports, each with a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from rehearsal import machine
from rehearsal.image import rootfs
from rehearsal.machine.interface import MachineError
from rehearsal.paths import Home

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[2]


class RunningAccount:
    """An account's process and clients for it.

    boots: its machine only records what it is asked; image: its machine is real and boots this.
    """

    def __init__(self, home: Path, *, boots: bool, image: Path | None = None):
        self.home = home
        self.boots = boots
        self.image = image
        self.start()

    def start(self):
        command = [sys.executable, "-m", "rehearsal.account", "--home", str(self.home)]
        if self.boots:
            command = [sys.executable, str(HERE / "recording_machine.py"), str(self.home)]
        if self.image is not None:
            command.append(f"--image={self.image}")
        endpoint = self.home / "account" / "endpoint.json"
        self.home.mkdir(parents=True, exist_ok=True)
        before = endpoint.stat().st_mtime_ns if endpoint.exists() else 0
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=CHECKOUT,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
            )
        deadline = time.monotonic() + 90
        while not endpoint.exists() or endpoint.stat().st_mtime_ns == before:
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)
        while True:
            try:
                self.endpoint = json.loads(endpoint.read_text())
                assert self.control("GET", "health") == (200, {"ok": True})
            except (ValueError, OSError):
                time.sleep(0.02)
                continue
            return

    def log(self) -> str:
        return (self.home / "log").read_text()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self):
        self.process.terminate()
        return self.process.wait(timeout=20)

    def client(self, service, credentials=None, region="us-east-1"):
        credentials = credentials or {
            "aws_access_key_id": self.endpoint["access_key_id"],
            "aws_secret_access_key": self.endpoint["secret_access_key"],
        }
        return boto3.client(
            service,
            endpoint_url=self.endpoint["url"],
            region_name=region,
            **credentials,
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def control(self, method, path, body=None):
        request = urllib.request.Request(
            f"{self.endpoint['url']}/_rehearsal/{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read())

    def calls(self, name=None):
        path = self.home / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [json.loads(line) for line in lines]
        return [c for c in found if name in (None, c["call"])]

    def machine_state(self, instance_id, state):
        path = self.home / "machine.json"
        states = json.loads(path.read_text())
        states[instance_id] = state
        path.write_text(json.dumps(states))


@pytest.fixture(scope="module")
def account(tmp_path_factory):
    """An account that boots nothing."""
    running = RunningAccount(tmp_path_factory.mktemp("account"), boots=False)
    yield running
    running.end()


@pytest.fixture(scope="module")
def booting(tmp_path_factory):
    """An account whose machine records what it is asked."""
    running = RunningAccount(tmp_path_factory.mktemp("booting"), boots=True)
    yield running
    running.end()


@pytest.fixture
def real(tmp_path):
    """An account whose instances are booted on this machine; whatever a test leaves is swept."""
    try:
        machine.check()
    except MachineError as missing:
        pytest.skip(str(missing))
    home = Home(tmp_path / "home")
    running = RunningAccount(home.root, boots=False, image=rootfs.ensure())
    try:
        yield running
    finally:
        try:
            running.end()
        finally:
            running.kill()
            machine.sweep(home.tag)


@pytest.fixture
def fresh(tmp_path):
    """Starts accounts in this test's own folder."""
    started = []

    def start(*, boots=False):
        running = RunningAccount(tmp_path / "home", boots=boots)
        started.append(running)
        return running

    yield start
    for running in started:
        if running.process.poll() is None:
            running.end()


class Site:
    """A VPC with one subnet and one group, to launch into."""

    def __init__(self, account, cidr="10.20.0.0/24", zone="us-east-1a"):
        self.ec2 = account.client("ec2")
        self.ssm = account.client("ssm")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.new_subnet(cidr, zone)
        self.group = self.new_group("members")

    def new_subnet(self, cidr, zone="us-east-1a"):
        return self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=cidr, AvailabilityZone=zone)[
            "Subnet"
        ]["SubnetId"]

    def new_group(self, name):
        return self.ec2.create_security_group(GroupName=name, Description=name, VpcId=self.vpc)[
            "GroupId"
        ]

    @property
    def image(self):
        name = "/aws/service/debian/release/13/latest/amd64"
        return self.ssm.get_parameter(Name=name)["Parameter"]["Value"]

    def run(self, **request):
        request = {
            "ImageId": self.image,
            "InstanceType": "m7i.large",
            "MinCount": 1,
            "MaxCount": 1,
            **request,
        }
        return self.ec2.run_instances(**request)["Instances"][0]

    def instance(self, instance_id):
        found = self.ec2.describe_instances(InstanceIds=[instance_id])
        return found["Reservations"][0]["Instances"][0]

    def wait(self, instance_id, state, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            instance = self.instance(instance_id)
            if instance["State"]["Name"] == state:
                return instance
            assert time.monotonic() < deadline, instance["State"]
            time.sleep(0.1)

    @staticmethod
    def wait_for(holds, seconds=60):
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def subnets(self):
        """A subnet in each zone that offers p5.48xlarge, in this site's VPC."""
        offered = self.ec2.describe_instance_type_offerings(
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": ["p5.48xlarge"]}],
        )["InstanceTypeOfferings"]
        mine = [{"Name": "vpc-id", "Values": [self.vpc]}]
        found = self.ec2.describe_subnets(Filters=mine)["Subnets"]
        have = {s["AvailabilityZone"] for s in found}
        missing = sorted({o["Location"] for o in offered} - have)
        for index, zone in enumerate(missing):
            self.new_subnet(f"10.20.{100 + index}.0/24", zone)
        return self.ec2.describe_subnets(Filters=mine)["Subnets"]


@pytest.fixture(scope="module")
def site(account):
    return Site(account)


def code_of(call):
    """The error code with which a call is refused."""
    with pytest.raises(ClientError) as refused:
        call()
    return refused.value.response["Error"]["Code"]


@pytest.fixture
def refusal():
    return code_of


@pytest.fixture(scope="session")
def make_site():
    return Site
