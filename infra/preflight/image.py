"""The image of the nodes: there, for the right processors, its root on EBS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from infra import catalog
from infra.bake.builder import SOFTWARE_TAG
from infra.plan.router import GATEWAY
from infra.preflight.aws import Aws, code_of
from infra.preflight.check import Check, always
from infra.preflight.result import Verdict, failed, passed, warned

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from infra.preflight.asked import Asked

DEBIAN_PARAMETER = "/aws/service/debian/release/13/latest/amd64"
GPU_PARAMETER = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
)


def _image(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    for parameter, types in images_of(asked).items():
        named = asked.ami if parameter is None else _newest(aws, parameter)
        if named is None:
            yield failed(
                f"{aws.region} has no public parameter {parameter}", "set ami to an image's id"
            )
            continue
        found = _described(aws, named)
        if found is None:
            yield failed(f"{aws.region} has no image {named}", "set ami to one of this region")
            continue
        yield judge_image(found, types, asked.software)


def images_of(asked: Asked) -> Mapping[str | None, tuple[str, ...]]:
    """Public parameter -> types that boot from its image; None stands for the user's own image."""
    kinds: dict[str | None, list[str]] = {}
    for name, (kind, _) in asked.nodes.items():
        gpus = catalog.instance_type(kind).gpu_count
        newest = GPU_PARAMETER if gpus else DEBIAN_PARAMETER
        own = asked.ami is not None and name != GATEWAY
        kinds.setdefault(None if own else newest, []).append(kind)
    return {parameter: tuple(dict.fromkeys(types)) for parameter, types in kinds.items()}


def _newest(aws: Aws, parameter: str) -> str | None:
    try:
        return aws.ssm.get_parameter(Name=parameter)["Parameter"]["Value"]
    except ClientError as error:
        if code_of(error) != "ParameterNotFound":
            raise
        return None


def _described(aws: Aws, image: str) -> Mapping[str, Any] | None:
    try:
        found = aws.ec2.describe_images(ImageIds=[image])["Images"]
    except ClientError as error:
        if not code_of(error).startswith("InvalidAMIID"):
            raise
        return None
    return found[0] if found else None


def judge_image(
    found: Mapping[str, Any], types: tuple[str, ...], software: Mapping[str, str] | None = None
) -> Verdict:
    """Whether an image of DescribeImages can boot instances of these types.

    software: group -> digest of what its nodes have: one that was baked may have something else.
    """
    faults = []
    if found.get("State") != "available":
        faults.append(f"its state is {found.get('State')}")
    if str(found.get("Platform", "")).lower() == "windows":
        faults.append("it is a Windows image")
    for kind in types:
        wanted = catalog.instance_type(kind).architecture
        if found.get("Architecture") != wanted:
            faults.append(f"it is for {found.get('Architecture')}, {kind} is {wanted}")
    size = _root_gib(found)
    if found.get("RootDeviceType") != "ebs" or size is None:
        faults.append("its root is not on EBS, and the nodes' root is an encrypted EBS volume")
    what = f"image {found['ImageId']} ({found.get('Name', 'without a name')})"
    if faults:
        return failed(f"{what}: {'; '.join(faults)}", "set ami to another image, or leave it out")
    others = _others(found, software or {})
    if others:
        return warned(
            f"{what} was baked with other software than {', '.join(others)}: the nodes install "
            "what differs at each first boot",
            "make a new one with `moe bake` once the stack is up, and set ami to it",
        )
    return passed(f"{what} for {', '.join(types)}: {found['Architecture']}, a root of {size} GiB")


def _others(found: Mapping[str, Any], software: Mapping[str, str]) -> list[str]:
    """Groups that have other software than a baked image; none for any other image."""
    tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags") or ()}
    baked = tags.get(SOFTWARE_TAG)
    return [group for group, has in software.items() if baked not in (None, has)]


def _root_gib(found: Mapping[str, Any]) -> int | None:
    for mapping in found.get("BlockDeviceMappings", ()):
        if mapping.get("DeviceName") == found.get("RootDeviceName") and "Ebs" in mapping:
            return int(mapping["Ebs"].get("VolumeSize", 0))
    return None


CHECKS = (
    Check(
        "PREFLIGHT_AMI",
        "moe-serving:ami",
        "The image exists, fits the processors, and has its root on EBS.",
        ("ec2:DescribeImages", "ssm:GetParameter"),
        always,
        _image,
    ),
)
