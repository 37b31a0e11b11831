"""What a stack that is up has for a builder: read from its bucket and from EC2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import boto3

from infra.bake.builder import BASE_TAG, Site, group_of
from infra.names import NODE_TAG, STACK_TAG
from node_bootstrap.assignment import Assignment

ROOT_KEYS = {"Size": "VolumeSize", "VolumeType": "VolumeType", "Iops": "Iops"}
"""Of a volume as EC2 describes it -> as a launch asks for it."""


class BakeError(RuntimeError):
    """No image can be made: why, and what to do."""


@dataclass(frozen=True)
class Clients:
    """The AWS APIs that a bake uses."""

    ec2: Any
    s3: Any
    iam: Any

    @classmethod
    def of(cls, session: boto3.Session) -> Clients:
        """Clients of one session."""
        return cls(*(session.client(name) for name in ("ec2", "s3", "iam")))


def chosen(stack: str, group: str | None, assignments: Iterable[Assignment]) -> Assignment:
    """The assignment of a node of the group, its primary.

    Raises:
        BakeError: there is no such group, or several and none is named.
    """
    primaries: dict[str, Assignment] = {}
    for told in assignments:
        if told.position == "primary" and told.gateway is None:
            primaries.setdefault(group_of(told), told)
    if group is None and len(primaries) == 1:
        return next(iter(primaries.values()))
    if group not in primaries:
        what = f"no group {group}" if group else "several groups: say which with --group"
        has = ", ".join(primaries) or "no group at all"
        raise BakeError(f"{stack} has {what if primaries else 'no node'}; it has {has}.")
    return primaries[group]


def find(clients: Clients, told: Assignment) -> Site:
    """Where a node of the stack is, what it was launched from, and with which root volume.

    Raises:
        BakeError: the node has no instance, or the stack no security group of its members.
    """
    instance = _instance(clients.ec2, told)
    (image,) = clients.ec2.describe_images(ImageIds=[instance["ImageId"]])["Images"] or [None]
    # On what an earlier image was made on: images of images would only grow.
    base = (_tags(image).get(BASE_TAG) if image else None) or instance["ImageId"]
    device = instance["RootDeviceName"]
    return Site(
        told=told,
        instance_type=instance["InstanceType"],
        base_image=base,
        device=device,
        root=_root(clients.ec2, instance, device),
        subnet_id=instance["SubnetId"],
        members_id=_members(clients.ec2, told.stack),
    )


def _instance(ec2: Any, told: Assignment) -> Mapping[str, Any]:
    filters = [
        {"Name": f"tag:{STACK_TAG}", "Values": [told.stack]},
        {"Name": f"tag:{NODE_TAG}", "Values": [told.node]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]
    reservations = ec2.describe_instances(Filters=filters)["Reservations"]
    found = [instance for r in reservations for instance in r["Instances"]]
    if not found:
        raise BakeError(
            f"{told.node} has no instance to take subnet and image from: `pulumi up` makes it."
        )
    return found[0]


def _root(ec2: Any, instance: Mapping[str, Any], device: str) -> Mapping[str, Any]:
    ids = [m["Ebs"]["VolumeId"] for m in instance["BlockDeviceMappings"] if _is(m, device)]
    (volume,) = ec2.describe_volumes(VolumeIds=ids)["Volumes"]
    root = {asked: volume[told] for told, asked in ROOT_KEYS.items() if volume.get(told)}
    if volume.get("Throughput"):
        root["Throughput"] = volume["Throughput"]
    return root


def _is(mapping: Mapping[str, Any], device: str) -> bool:
    return mapping["DeviceName"] == device and "Ebs" in mapping


def _members(ec2: Any, stack: str) -> str:
    filters = [
        {"Name": f"tag:{STACK_TAG}", "Values": [stack]},
        {"Name": "tag:Name", "Values": [f"moe-serving-{stack}-members"]},
    ]
    found = ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    if not found:
        raise BakeError(f"{stack} has no security group of its members: `pulumi up` makes it.")
    return found[0]["GroupId"]


def _tags(thing: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags") or ()}
