"""The images that were baked for a stack: listed, and deleted with their snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.bake.builder import BAKED_TAG, BASE_TAG, GROUP_TAG, RELEASE_TAG, SOFTWARE_TAG
from infra.bake.site import BakeError


@dataclass(frozen=True)
class Baked:
    """One image. software: digest of what is installed. snapshots: what it keeps on EBS."""

    id: str
    name: str
    state: str
    created: str
    group: str
    release: str
    software: str
    base: str
    snapshots: tuple[str, ...]


def baked(ec2: Any, stack: str) -> tuple[Baked, ...]:
    """The images of a stack, the newest first."""
    filters = [{"Name": f"tag:{BAKED_TAG}", "Values": [stack]}]
    found = ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
    return tuple(sorted(map(_baked, found), key=lambda image: image.created, reverse=True))


def delete(ec2: Any, stack: str, image_id: str) -> Baked:
    """Deregister an image and delete its snapshots, which EC2 keeps, and bills, otherwise.

    Raises:
        BakeError: no such image was baked for the stack, or instances run from it.
    """
    image = next((i for i in baked(ec2, stack) if i.id == image_id), None)
    if image is None:
        raise BakeError(
            f"{image_id} was not baked for {stack}; `moe bake {stack} --list` shows all."
        )
    users = _users(ec2, image_id)
    if users:
        raise BakeError(
            f"{image_id} is the image of {', '.join(users)}: nodes that are made anew need it. "
            "Set another moe-serving:ami, or none, and run `pulumi up` first."
        )
    ec2.deregister_image(ImageId=image.id)
    for snapshot in image.snapshots:  # in use until now
        ec2.delete_snapshot(SnapshotId=snapshot)
    return image


def snapshots_of(image: Mapping[str, Any]) -> tuple[str, ...]:
    """Ids of an image's snapshots, as DescribeImages tells them."""
    mappings = image.get("BlockDeviceMappings", ())
    return tuple(m["Ebs"]["SnapshotId"] for m in mappings if m.get("Ebs", {}).get("SnapshotId"))


def _users(ec2: Any, image_id: str) -> list[str]:
    filters = [
        {"Name": "image-id", "Values": [image_id]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]
    reservations = ec2.describe_instances(Filters=filters)["Reservations"]
    return [instance["InstanceId"] for r in reservations for instance in r["Instances"]]


def _baked(image: Mapping[str, Any]) -> Baked:
    tags = {tag["Key"]: tag["Value"] for tag in image.get("Tags") or ()}
    return Baked(
        id=image["ImageId"],
        name=image.get("Name", ""),
        state=image["State"],
        created=str(image.get("CreationDate", "")),
        group=tags.get(GROUP_TAG, ""),
        release=tags.get(RELEASE_TAG, ""),
        software=tags.get(SOFTWARE_TAG, ""),
        base=tags.get(BASE_TAG, ""),
        snapshots=snapshots_of(image),
    )
