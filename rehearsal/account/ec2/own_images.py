"""Images made from instances: CreateImage and DeregisterImage as EC2 does them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from moto.core.responses import ActionResult

from rehearsal.account.ec2.base import Action, new_id
from rehearsal.account.ec2.errors import refuse
from rehearsal.account.ec2.models import Image, Instance

if TYPE_CHECKING:
    from rehearsal.account.ec2.backend import Backend

NAME = re.compile(r"[A-Za-z0-9()\[\] ./\-'@_]{3,128}")
"""What EC2 takes for the name of an image."""


class Images(Action):
    """Own images; what is read of images is moto's."""

    def create_image(self) -> ActionResult:
        """Begin to make an image of an instance that is stopped, or that may stay running."""
        instance = self.backend.get_instance(self.parameter("InstanceId"))
        name = str(self.parameter("Name") or "")
        _check_name(self.backend, name)
        _check_state(instance, stay=bool(self.parameter("NoReboot")))
        self.dry_run()
        image = _made(self.backend, instance, name, str(self.parameter("Description") or ""))
        image.add_tags(self.tags_for("image"))
        image.ebs_snapshot.add_tags(self.tags_for("snapshot"))
        self.account.life.make_image(image, instance)
        self.backend.amis[image.id] = image
        return ActionResult({"ImageId": image.id})

    def deregister_image(self) -> ActionResult:
        """The image goes, its snapshot stays; instances made from it live on."""
        image_id = self.parameter("ImageId")
        image = self.backend.amis.get(image_id)
        if image is not None and image.owner_id != self.backend.account_id:
            raise refuse("AuthFailure", f"Not authorized for image:{image_id}")
        self.dry_run()
        self.backend.deregister_image(image_id)
        self.backend.tags.pop(image_id, None)
        self.account.life.forget_image(image_id)
        return ActionResult({"Return": True})


def _check_name(backend: Backend, name: str) -> None:
    if not NAME.fullmatch(name):
        raise refuse(
            "InvalidAMIName.Malformed",
            "AMI names must be between 3 and 128 characters long, and may contain letters, "
            "numbers, '(', ')', '.', '-', '/', '_', '[', ']', '@', \"'\" and spaces",
        )
    own = (i for i in backend.amis.values() if i.owner_id == backend.account_id)
    taken = next((i.id for i in own if i.name == name), None)
    if taken is not None:
        raise refuse(
            "InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {taken}"
        )


def _check_state(instance: Instance, *, stay: bool) -> None:
    if instance.state not in ("running", "stopped"):
        raise refuse(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is not in a state from which an image can be made "
            f"(it is {instance.state}): it must be running or stopped.",
        )
    if instance.state == "running" and not stay:
        raise refuse(
            "Unsupported",
            "This rehearsal reboots no instance for its image: stop it first, or set NoReboot.",
        )


def _made(backend: Backend, instance: Instance, name: str, description: str) -> Image:
    below = backend.amis[instance.image_id]
    image_id = new_id("ami")
    image: Any = Image(  # typed by moto as its base class
        backend,
        image_id,
        name=name,
        description=description,
        image_location=f"{backend.account_id}/{name}",
        virtualization_type="hvm",
        architecture=below.architecture,
        platform=below.platform,
        hypervisor="xen",
        root_device_type="ebs",
        root_device_name=below.root_device_name,
        region_name=str(instance.placement.zone),
        state="pending",
    )
    root = instance.block_device_mapping[str(below.root_device_name)].volume_id
    # moto's own is of a volume that never was.
    del backend.snapshots[image.ebs_snapshot.id]
    image.ebs_snapshot = backend.create_snapshot(
        str(root), f"Created by CreateImage({instance.id}) for {image_id}", from_ami=image_id
    )
    image.instance_id = instance.id
    image.root_gib = image.ebs_snapshot.volume.size
    image.boots = instance.boots
    return image
