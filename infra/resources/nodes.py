"""One node: its address, its identity, its assignment, its launch template, its instance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pulumi
import pulumi_aws as aws

from infra.plan.assignments import S3Location
from infra.plan.plan import Node
from infra.plan.reach import private_repository
from infra.resources import launches, policies
from infra.resources.capacity import Launching
from infra.resources.images import Image
from infra.resources.refusals import Refusals
from node_bootstrap.assignment import assignment_key

CREATE_TIMEOUT, DELETE_TIMEOUT = "30m", "40m"
"""The provider's own 10 and 20 minutes are too short for large GPU types."""


@dataclass(frozen=True)
class AddressArgs:
    """Where a node's primary interface goes. efa: it is the only one, and carries EFA too."""

    node: str
    subnet_id: pulumi.Input[str]
    security_group_ids: Sequence[pulumi.Input[str]]
    efa: bool = False


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
            interface_type="efa" if args.efa else None,
            description=f"Primary interface of {args.node}",
            tags={"Name": args.node},
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.interface_id, self.private_ip = interface.id, interface.private_ip
        self.register_outputs({"private_ip": self.private_ip})


@dataclass(frozen=True)
class NodeArgs:
    """What one node is made from.

    interface_id: of its primary interface. subnet_id, members_id: of all others.
    parameter_arns: SSM parameters that its assignment names.
    assignment: its assignment as JSON.
    launching: where its capacity comes from; refusals: what is said where there is none.
    model: the weights that it reads, where they aren't in the stack's bucket.
    ephemeral: the stack has a ttl.
    reads, writes: S3 keys that it may get and put beside its assignment and status.
    weights: whether it reads any.
    models: weights that a node of the stack copies to the stack's bucket.
    turn: what holds it back from being replaced before others serve.
    """

    node: Node
    region: str
    image: Image
    interface_id: pulumi.Input[str]
    subnet_id: pulumi.Input[str]
    members_id: pulumi.Input[str]
    bucket_name: pulumi.Input[str]
    bucket_arn: pulumi.Input[str]
    parameter_arns: Sequence[pulumi.Input[str]]
    assignment: pulumi.Input[str]
    iam_path: str
    tags: dict[str, str]
    launching: Launching
    refusals: Refusals
    model: S3Location | None = None
    ephemeral: bool = False
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    weights: bool = True
    models: policies.Models | None = None
    turn: pulumi.ResourceHookBinding | None = None


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
                hooks=args.refusals.binding,
            ),
        )
        self.instance_id = instance.id
        self.register_outputs({"instance_id": self.instance_id})

    def _child(
        self,
        ignore_changes: list[str] | None = None,
        hooks: pulumi.ResourceHookBinding | None = None,
    ) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, ignore_changes=ignore_changes, hooks=hooks)

    def _identity(self, args: NodeArgs) -> tuple[aws.iam.InstanceProfile, aws.iam.RolePolicy]:
        role = aws.iam.Role(
            self._name,
            path=args.iam_path,
            assume_role_policy=policies.assumed_by_ec2(),
            description=f"Node {self._name}: reads its own assignment, writes its own status",
            opts=self._child(),
        )
        document = pulumi.Output.all(args.bucket_arn, *args.parameter_arns).apply(
            lambda arns: policies.node(
                arns[0],
                self._name,
                arns[1:],
                args.model,
                private_repository(args.node.software.image),
                reads=args.reads,
                writes=args.writes,
                weights=args.weights,
                models=args.models,
                kernels=_kernels(args.node),
                builds=args.node.software.runtime == "venv" and bool(args.node.hardware.gpu_count),
            )
        )
        policy = aws.iam.RolePolicy(self._name, role=role.id, policy=document, opts=self._child())
        profile = aws.iam.InstanceProfile(
            self._name, path=args.iam_path, role=role.name, opts=self._child()
        )
        return profile, policy

    def _template(self, args: NodeArgs, profile: aws.iam.InstanceProfile) -> aws.ec2.LaunchTemplate:
        containers = args.node.software.runtime == "container"
        way, layout = args.launching, args.node.network_interfaces
        return aws.ec2.LaunchTemplate(
            self._name,
            image_id=args.image.id,
            instance_type=args.node.instance_type,
            iam_instance_profile=aws.ec2.LaunchTemplateIamInstanceProfileArgs(arn=profile.arn),
            network_interfaces=launches.known_interfaces(
                layout, args.interface_id, args.subnet_id, args.members_id
            ),
            block_device_mappings=args.image.disk.apply(launches.root_volume),
            placement=launches.placement(way),
            capacity_reservation_specification=launches.reservation(way),
            instance_market_options=launches.market(way),
            metadata_options=aws.ec2.LaunchTemplateMetadataOptionsArgs(
                http_endpoint="enabled",
                http_tokens="required",
                # A container's network is one hop further from the metadata service.
                http_put_response_hop_limit=2 if containers else 1,
            ),
            # State is in S3 and disks are caches: a node that ended is made anew, never revived.
            instance_initiated_shutdown_behavior="terminate",
            user_data=pulumi.Output.from_input(args.bucket_name).apply(
                lambda bucket: launches.encoded_user_data(
                    bucket, self._name, args.region, ephemeral=args.ephemeral
                )
            ),
            tag_specifications=launches.tags(self._name, args.tags, layout),
            # The newest image must not replace a node by itself; one that the user names does.
            # What replaces an instance stands here: it changes first, and when its turn has come.
            opts=self._child(
                ignore_changes=[] if args.image.pinned else ["imageId", "blockDeviceMappings"],
                hooks=args.turn,
            ),
        )


def _kernels(node: Node) -> Literal["reads", "writes"] | None:
    if not node.hardware.gpu_count:
        return None
    return "writes" if node.position == "primary" else "reads"
