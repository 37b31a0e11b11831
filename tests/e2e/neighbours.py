"""Instances beside the stack's own nodes, which it must be closed to."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from rehearsed import NETWORK, OTHER_NETWORK, Rehearsed

from rehearsal.machine import faults
from rehearsal.machine.interface import MachineError
from rehearsal.paths import Home

DEBIAN = "/aws/service/debian/release/13/latest/amd64"
BOOT_SECONDS = 120
EVERYBODY = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


@contextlib.contextmanager
def neighbours(stack: Rehearsed) -> Iterator[dict[str, str]]:
    """One in the stack's VPC, one in another; name -> instance id. Both let everybody in."""
    ec2 = stack.client("ec2")
    with contextlib.ExitStack() as ends:
        same = stack.outputs()["vpc_id"]
        (subnet, zone) = next(
            (s["SubnetId"], s["AvailabilityZone"])
            for s in ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [same]}])["Subnets"]
            if s["CidrBlock"].startswith(NETWORK.split("/")[0])
        )
        other = ec2.create_vpc(CidrBlock=OTHER_NETWORK)["Vpc"]["VpcId"]
        ends.callback(ec2.delete_vpc, VpcId=other)
        cidr = OTHER_NETWORK.replace("/16", "/24")
        # A zone that AWS picks by itself may be one that lacks the instance type.
        place = {"VpcId": other, "CidrBlock": cidr, "AvailabilityZone": zone}
        away = ec2.create_subnet(**place)["Subnet"]["SubnetId"]
        ends.callback(ec2.delete_subnet, SubnetId=away)
        found = {
            "bystander": ends.enter_context(_instance(stack, ec2, same, subnet)),
            "stranger": ends.enter_context(_instance(stack, ec2, other, away)),
        }
        for instance in found.values():
            _wait_until_booted(stack, instance)
        yield found


@contextlib.contextmanager
def _instance(stack: Rehearsed, ec2: Any, vpc: str, subnet: str) -> Iterator[str]:
    group = ec2.create_security_group(GroupName="open", Description="open to all", VpcId=vpc)
    try:
        ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[EVERYBODY])
        image = stack.client("ssm").get_parameter(Name=DEBIAN)["Parameter"]["Value"]
        (made,) = ec2.run_instances(
            ImageId=image,
            InstanceType="t3.micro",
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
            SecurityGroupIds=[group["GroupId"]],
        )["Instances"]
        try:
            yield made["InstanceId"]
        finally:
            ec2.terminate_instances(InstanceIds=[made["InstanceId"]])
            ec2.get_waiter("instance_terminated").wait(
                InstanceIds=[made["InstanceId"]], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
            )
    finally:
        ec2.delete_security_group(GroupId=group["GroupId"])


def _wait_until_booted(stack: Rehearsed, instance: str) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(MachineError):
            asked = faults.run(Home(stack.root), instance, ["systemctl", "is-system-running"])
            if asked.stdout.strip() in ("running", "degraded"):
                return
        time.sleep(0.5)
    raise AssertionError(f"{instance} did not boot within {BOOT_SECONDS} s")
