"""The images of the account and the public SSM parameters that name them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from moto.core.utils import utcnow
from moto.ssm.models import Parameter, ssm_backends

from rehearsal.account.ec2.models import Image

if TYPE_CHECKING:
    from rehearsal.account.ec2.backend import Backend

DEBIAN_OWNER = "136693071363"
AMAZON_OWNER = "898082745236"
MADE = datetime(2026, 1, 1, tzinfo=UTC)
DLAMI = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-"


@dataclass(frozen=True)
class PublicImage:
    """An image that the account knows.

    bootable: the machine has a root file system for it. ssm_agent: it comes with the SSM agent.
    """

    name: str
    description: str
    owner: str
    root_device: str
    root_gib: int
    parameters: tuple[str, ...]
    bootable: bool = False
    ssm_agent: bool = True

    @property
    def image_id(self) -> str:
        """Stable, so that a stack's state stays good over a new rehearsal."""
        return "ami-0" + hashlib.sha256(self.name.encode()).hexdigest()[:16]


PUBLIC_IMAGES = (
    PublicImage(
        "debian-13-amd64-20260101-2345",
        "Debian 13 (20260101-2345)",
        DEBIAN_OWNER,
        "/dev/xvda",
        8,
        ("/aws/service/debian/release/13/latest/amd64",),
        bootable=True,
        ssm_agent=False,
    ),
    PublicImage(
        "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) 20260101",
        "Base OSS Nvidia Driver GPU AMI on Ubuntu 24.04",
        AMAZON_OWNER,
        "/dev/sda1",
        75,
        (f"{DLAMI}ubuntu-24.04/latest/ami-id",),
    ),
    PublicImage(
        "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 20260101",
        "Base OSS Nvidia Driver GPU AMI on Ubuntu 22.04",
        AMAZON_OWNER,
        "/dev/sda1",
        75,
        (f"{DLAMI}ubuntu-22.04/latest/ami-id",),
    ),
    PublicImage(
        "Deep Learning Base OSS Nvidia Driver GPU AMI (Amazon Linux 2023) 20260101",
        "Base OSS Nvidia Driver GPU AMI on Amazon Linux 2023",
        AMAZON_OWNER,
        "/dev/xvda",
        75,
        (f"{DLAMI}amazon-linux-2023/latest/ami-id",),
    ),
)
BOOTABLE = frozenset(i.image_id for i in PUBLIC_IMAGES if i.bootable)
WITH_SSM_AGENT = frozenset(i.image_id for i in PUBLIC_IMAGES if i.ssm_agent)


def register(backend: Backend) -> None:
    """Put the public images and their parameters into a region. Known ones stay as they are."""
    ssm = ssm_backends[backend.account_id][backend.region_name]
    parameters = ssm._parameters  # noqa: SLF001  # the API refuses names under /aws
    for public in PUBLIC_IMAGES:
        if public.image_id not in backend.amis:
            backend.amis[public.image_id] = _image(backend, public)
        for name in public.parameters:
            if name not in parameters:
                parameters[name].append(_parameter(backend.account_id, name, public.image_id))


def _image(backend: Backend, public: PublicImage) -> Image:
    image: Any = Image(  # typed by moto as its base class
        backend,
        public.image_id,
        name=public.name,
        description=public.description,
        owner_id=public.owner,
        owner_alias="amazon",
        public=True,
        virtualization_type="hvm",
        architecture="x86_64",
        hypervisor="xen",
        root_device_type="ebs",
        root_device_name=public.root_device,
        region_name=f"{backend.region_name}a",
        creation_date=MADE,
        image_location=f"{public.owner}/{public.name}",
    )
    image.root_gib = public.root_gib
    return image


def _parameter(account: str, name: str, value: str) -> Parameter:
    parameter: Any = Parameter(  # typed by moto as its base class
        account_id=account,
        name=name,
        value=value,
        parameter_type="String",
        description=None,
        allowed_pattern=None,
        keyid=None,
        last_modified_date=utcnow(),
        version=1,
        data_type="aws:ec2:image",
        tier="Standard",
    )
    return parameter
