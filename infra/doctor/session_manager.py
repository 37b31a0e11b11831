"""Nodes that run and that Session Manager doesn't know: the output `connect` can't reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from infra.names import STACK_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping

    import boto3

_DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")


def note(session: boto3.Session, stack: str) -> str:
    """A sentence about the nodes that it doesn't know; empty where it knows all.

    Raises:
        botocore.exceptions.ClientError: AWS refused for another reason than a missing permission.
    """
    ec2: Any = session.client("ec2")
    ssm: Any = session.client("ssm")
    try:
        running = _running(ec2, stack)
        # Nothing is asked of a stack without nodes.
        online = _online(ssm) if running else frozenset[str]()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in _DENIED:
            raise
        action = "ec2:DescribeInstances"
        if error.operation_name == "DescribeInstanceInformation":
            action = "ssm:DescribeInstanceInformation"
        return f"Whether Session Manager reaches the nodes was not asked: {action} is not allowed."
    return sentence({name: id_ for name, id_ in running.items() if id_ not in online})


def sentence(unknown: Mapping[str, str]) -> str:
    """What it means that these nodes (name -> instance id) are not known. Pure."""
    if not unknown:
        return ""
    named = ", ".join(f"{name} ({unknown[name]})" for name in sorted(unknown))
    return (
        f"Session Manager doesn't know {named}: the commands of the output `connect` don't reach "
        "them. The SSM agent is missing in their image (Debian's has none), does not run, or has "
        "no way to ssmmessages."
    )


def _running(ec2: Any, stack: str) -> dict[str, str]:
    filters = [
        {"Name": f"tag:{STACK_TAG}", "Values": [stack]},
        {"Name": "instance-state-name", "Values": ["running"]},
    ]
    found: dict[str, str] = {}
    for page in ec2.get_paginator("describe_instances").paginate(Filters=filters):
        for reservation in page["Reservations"]:
            for instance in reservation["Instances"]:
                tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())}
                found[tags.get("Name", instance["InstanceId"])] = instance["InstanceId"]
    return found


def _online(ssm: Any) -> frozenset[str]:
    pages = ssm.get_paginator("describe_instance_information").paginate()
    return frozenset(
        item["InstanceId"]
        for page in pages
        for item in page["InstanceInformationList"]
        if item["PingStatus"] == "Online"
    )
