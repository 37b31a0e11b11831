"""What EC2 refuses about a launch's image: another processor, a root volume too small. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rehearsal.account.ec2.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rehearsal.account.ec2.facts import World
    from rehearsal.account.ec2.launch import LaunchRequest


def image_refusals(request: LaunchRequest, world: World) -> Iterator[Refusal]:
    """The image must fit the type, and the root volume must hold the image's snapshot."""
    kind = world.instance_types[request.instance_type]
    able = (kind.get("ProcessorInfo") or {}).get("SupportedArchitectures") or []
    if world.architecture and able and world.architecture not in able:
        yield Refusal(
            "InvalidParameterValue",
            f"The architecture '{able[0]}' of the specified instance type does not match the "
            f"architecture '{world.architecture}' of the specified AMI. Specify an instance type "
            "and an AMI that have matching architectures, and try again.",
        )
    for mapping in request.block_devices:
        size = (mapping.get("Ebs") or {}).get("VolumeSize")
        device = mapping.get("DeviceName")
        if world.root and size and device == world.root[0] and int(size) < world.root[1]:
            yield Refusal(
                "InvalidBlockDeviceMapping",
                f"Volume of size {size}GB is smaller than the image's snapshot, expect size "
                f">= {world.root[1]}GB",
            )
