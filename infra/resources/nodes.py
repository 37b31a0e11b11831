"""One node: its address, its identity, its assignment, its launch template, its instance."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.plan.plan import Node
from infra.resources import policies
from node_bootstrap import user_data
from node_bootstrap.assignment import assignment_key

CREATE_TIMEOUT, DELETE_TIMEOUT = "30m", "40m"
"""The provider's own 10 and 20 minutes are too short for large GPU types."""

ROOT_VOLUME_GIB = 30


@dataclass(frozen=True)
class AddressArgs:
    """Where a node's primary interface goes."""

    node: str
    subnet_id: pulumi.Input[str]
    security_group_ids: Sequence[pulumi.Input[str]]


class Address(pulumi.ComponentResource):
    """The primary interface, made before the instance, so that its address is known before boot.

    It outlives the instance: a node that is made anew keeps its address.
    """

    interface_id: pulumi.Output[str]
    private_ip: pulumi.Output[str]

    def __init__(self, name: str, args: AddressArgs, opts: pulumi.ResourceOptions) -> None:
        super().__init__("moe-serving:node:Address", name, None, opts)
        interface = aws.ec2.NetworkInterface(
            name,
            subnet_id=args.subnet_id,
            security_groups=list(args.security_group_ids),
            description=f"Primary interface of {args.node}",
            tags={"Name": args.node},
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.interface_id, self.private_ip = interface.id, interface.private_ip
        self.register_outputs({"private_ip": self.private_ip})


@dataclass(frozen=True)
class NodeArgs:
    """What one node is made from.

    parameter_arns: SSM parameters that its assignment names.
    assignment: its assignment as JSON. image_pinned: the user named the AMI, so a change counts.
    """

    node: Node
    region: str
    image_id: pulumi.Input[str]
    image_pinned: bool
    root_device_name: pulumi.Input[str]
    interface_id: pulumi.Input[str]
    bucket_name: pulumi.Input[str]
    bucket_arn: pulumi.Input[str]
    parameter_arns: Sequence[pulumi.Input[str]]
    assignment: pulumi.Input[str]
    iam_path: str
    tags: dict[str, str]


class NodeInstance(pulumi.ComponentResource):
    """Role, assignment, launch template and instance of one node."""

    instance_id: pulumi.Output[str]

    def __init__(self, args: NodeArgs, opts: pulumi.ResourceOptions) -> None:
        super().__init__("moe-serving:node:Node", args.node.name, None, opts)
        self._name = args.node.name
        profile, policy = self._identity(args)
        assignment = aws.s3.BucketObjectv2(
            f"{self._name}-assignment",
            bucket=args.bucket_name,
            key=assignment_key(self._name),
            content=args.assignment,
            content_type="application/json",
            opts=self._child(),
        )
        template = self._template(args, profile)
        instance = aws.ec2.Instance(
            self._name,
            # Interfaces and subnet stand in the template alone: EC2 refuses them in both places.
            launch_template=aws.ec2.InstanceLaunchTemplateArgs(
                id=template.id, version=template.latest_version.apply(str)
            ),
            tags={"Name": self._name, **args.tags},
            opts=pulumi.ResourceOptions(
                parent=self,
                # Two instances can't hold one interface: the old one must go first.
                delete_before_replace=True,
                # A node reads its assignment with its own role in its first seconds.
                depends_on=[assignment, policy],
                custom_timeouts=pulumi.CustomTimeouts(create=CREATE_TIMEOUT, delete=DELETE_TIMEOUT),
            ),
        )
        self.instance_id = instance.id
        self.register_outputs({"instance_id": self.instance_id})

    def _child(self, ignore_changes: list[str] | None = None) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, ignore_changes=ignore_changes)

    def _identity(self, args: NodeArgs) -> tuple[aws.iam.InstanceProfile, aws.iam.RolePolicy]:
        role = aws.iam.Role(
            self._name,
            path=args.iam_path,
            assume_role_policy=policies.assumed_by_ec2(),
            description=f"Node {self._name}: reads its own assignment, writes its own status",
            opts=self._child(),
        )
        document = pulumi.Output.all(args.bucket_arn, *args.parameter_arns).apply(
            lambda arns: policies.node(arns[0], self._name, arns[1:])
        )
        policy = aws.iam.RolePolicy(self._name, role=role.id, policy=document, opts=self._child())
        profile = aws.iam.InstanceProfile(
            self._name, path=args.iam_path, role=role.name, opts=self._child()
        )
        return profile, policy

    def _template(self, args: NodeArgs, profile: aws.iam.InstanceProfile) -> aws.ec2.LaunchTemplate:
        return aws.ec2.LaunchTemplate(
            self._name,
            image_id=args.image_id,
            instance_type=args.node.instance_type,
            iam_instance_profile=aws.ec2.LaunchTemplateIamInstanceProfileArgs(arn=profile.arn),
            network_interfaces=[
                aws.ec2.LaunchTemplateNetworkInterfaceArgs(
                    network_card_index=0,
                    device_index=0,
                    network_interface_id=args.interface_id,
                    delete_on_termination="false",
                )
            ],
            block_device_mappings=[
                aws.ec2.LaunchTemplateBlockDeviceMappingArgs(
                    device_name=args.root_device_name,
                    ebs=aws.ec2.LaunchTemplateBlockDeviceMappingEbsArgs(
                        encrypted="true",
                        volume_type="gp3",
                        volume_size=ROOT_VOLUME_GIB,
                        delete_on_termination="true",
                    ),
                )
            ],
            metadata_options=aws.ec2.LaunchTemplateMetadataOptionsArgs(
                http_endpoint="enabled", http_tokens="required", http_put_response_hop_limit=1
            ),
            # State is in S3 and disks are caches: a node that ended is made anew, never revived.
            instance_initiated_shutdown_behavior="terminate",
            user_data=pulumi.Output.from_input(args.bucket_name).apply(
                lambda bucket: encoded_user_data(bucket, self._name, args.region)
            ),
            # An instance's tags don't reach its volumes.
            tag_specifications=[
                aws.ec2.LaunchTemplateTagSpecificationArgs(
                    resource_type="volume", tags={"Name": self._name, **args.tags}
                )
            ],
            # The newest image must not replace a node by itself; one that the user names does.
            opts=self._child(ignore_changes=[] if args.image_pinned else ["imageId"]),
        )


def encoded_user_data(bucket: str, node: str, region: str) -> str:
    """User data as a launch template takes it: gzip without a time stamp, then base64."""
    rendered = user_data.render(bucket=bucket, node=node, region=region)
    return base64.b64encode(gzip.compress(rendered, mtime=0)).decode()
