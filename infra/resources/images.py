"""The machine images of the nodes, and the disks that they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra import catalog
from infra.plan.plan import Node

DEBIAN_PARAMETER = "/aws/service/debian/release/13/latest/amd64"
GPU_PARAMETER = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
)
"""NVIDIA driver, EFA, container toolkit and Fabric Manager of versions that fit one another."""

CPU_ROOT_GIB, GPU_VENV_ROOT_GIB, GPU_CONTAINER_ROOT_GIB = 30, 200, 300
"""Of a container: the image twice, packed and unpacked, and the next one beside it."""
GP3_IOPS, GPU_THROUGHPUT_MIB = 3000, 750
"""The most that gp3 gives for 3000 IOPS; unpacking an image at 125 MiB/s takes minutes."""


@dataclass(frozen=True)
class Disk:
    """The root volume: EBS gp3. throughput_mib: per second; None for gp3's own."""

    device: str
    size_gib: int
    throughput_mib: int | None


@dataclass(frozen=True)
class Image:
    """An AMI and the root volume of a node made from it.

    pinned: the user named it, so a change of it counts; else the newest one at a node's first `up`
        stays with the node.
    """

    id: pulumi.Input[str]
    disk: pulumi.Output[Disk]
    pinned: bool


def image(
    named: str | None, *, gpus: bool, containers: bool, options: pulumi.InvokeOutputOptions
) -> Image:
    """The image of a kind of nodes.

    Args:
        named: the user's own AMI.
        gpus: of GPU nodes; else Debian.
        containers: whether vLLM comes in a container.
        options: of the look-ups.
    """
    parameter = GPU_PARAMETER if gpus else DEBIAN_PARAMETER
    found: pulumi.Output[str] = (
        pulumi.Output.from_input(named)
        if named is not None
        else aws.ssm.get_parameter_output(name=parameter, opts=options).value
    )
    about = aws.ec2.get_ami_output(
        filters=found.apply(lambda id_: [aws.ec2.GetAmiFilterArgs(name="image-id", values=[id_])]),
        opts=options,
    )
    smallest = smallest_root_gib(gpus=gpus, containers=containers)
    disk = about.apply(
        lambda ami: Disk(
            ami.root_device_name,
            max(smallest, root_gib(ami.root_device_name, ami.block_device_mappings)),
            GPU_THROUGHPUT_MIB if gpus else None,
        )
    )
    return Image(found, disk, named is not None)


def images_of(
    nodes: Sequence[Node], named: str | None, options: pulumi.InvokeOutputOptions
) -> dict[str, Image]:
    """The image of each node, by its name. Nodes of one kind share one, and its look-ups."""
    kinds = {node.name: _kind(node) for node in nodes}
    made = {
        (gpus, containers): image(named, gpus=gpus, containers=containers, options=options)
        for gpus, containers in dict.fromkeys(kinds.values())
    }
    return {name: made[kind] for name, kind in kinds.items()}


def _kind(node: Node) -> tuple[bool, bool]:
    gpus = catalog.instance_type(node.instance_type).gpu_count > 0
    return gpus, node.software.runtime == "container"


def smallest_root_gib(*, gpus: bool, containers: bool) -> int:
    """What the software of a node needs."""
    if not gpus:
        return CPU_ROOT_GIB
    return GPU_CONTAINER_ROOT_GIB if containers else GPU_VENV_ROOT_GIB


def root_gib(device: str, mappings: Sequence[Any]) -> int:
    """Size of the image's own root volume: EC2 refuses a smaller one. 0 where it isn't told."""
    for mapping in mappings:
        given: Mapping[str, Any] = (
            mapping
            if isinstance(mapping, Mapping)
            else {"device_name": mapping.device_name, "ebs": mapping.ebs}
        )
        ebs = given.get("ebs") or {}
        if given.get("device_name") == device:
            return int(ebs.get("volume_size") or 0)
    return 0
