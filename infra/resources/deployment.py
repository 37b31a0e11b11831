"""From the plan to a running stack: the components, in the order in which they need each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.archive import BuiltArchive
from infra.model import ModelFolder
from infra.names import NODE_TAG, STACK_TAG, bucket_name, iam_path
from infra.plan.assignments import Place, assignments
from infra.plan.plan import Node, Plan, agent_token_parameter, api_key_parameter
from infra.readiness import Deployment, ExpectedGroup, ExpectedNode
from infra.resources import zones
from infra.resources.network import Network, NetworkArgs
from infra.resources.nodes import Address, AddressArgs, NodeArgs, NodeInstance
from infra.resources.record import Record, RecordArgs
from infra.resources.storage import Storage, StorageArgs
from infra.settings import Settings
from node_bootstrap.assignment import Assignment
from node_bootstrap.jsondata import to_json

IMAGE_PARAMETER = "/aws/service/debian/release/13/latest/amd64"
IMAGE_ROOT_DEVICE = "/dev/xvda"


@dataclass(frozen=True)
class StackArgs:
    """All that a stack is made from. profile: of the AWS credentials, if the config names one."""

    region: str
    profile: str | None
    settings: Settings
    plan: Plan
    model: ModelFolder
    archive: BuiltArchive


class Stack:
    """The resources of one deployment and what is handed out about them."""

    def __init__(self, args: StackArgs) -> None:
        self._args = args
        self._tags = {STACK_TAG: args.plan.stack, **args.settings.tags}
        self._provider = aws.Provider(
            "aws",
            region=args.region,
            profile=args.profile,
            default_tags=aws.ProviderDefaultTagsArgs(tags=self._tags),
        )
        self.network = self._make_network()
        self.storage = self._make_storage()
        self.addresses = self._make_addresses()
        self.nodes = self._make_nodes()
        self.record = self._make_record()

    def outputs(self) -> dict[str, Any]:
        """What `pulumi stack output` shows."""
        return {
            "endpoint": self._endpoint(),
            "api_key": self.storage.parameters[api_key_parameter(self._args.plan.stack)].value,
            "groups": {group.name: self._group_outputs(group.nodes) for group in self._plan.groups},
            "connect": {
                name: node.instance_id.apply(self._session_command)
                for name, node in self.nodes.items()
            },
            "record": self.record.uri,
            "bucket": self.storage.bucket_name,
            "vpc_id": self.network.vpc_id,
        }

    @property
    def _plan(self) -> Plan:
        return self._args.plan

    def _options(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(provider=self._provider, depends_on=list(after))

    def _make_network(self) -> Network:
        settings = self._args.settings
        pinned = settings.network.zone != "auto"
        return Network(
            NetworkArgs(
                region=self._args.region,
                cidr=settings.network.cidr,
                zone=settings.network.zone if pinned else self._zone(),
                zone_pinned=pinned,
                api_port=self._plan.ports.api,
                allowed_cidrs=settings.endpoint.allowed_cidrs,
            ),
            self._options(),
        )

    def _zone(self) -> pulumi.Output[str]:
        types = sorted({node.instance_type for node in self._plan.nodes})
        offered = aws.ec2.get_instance_type_offerings_output(
            location_type="availability-zone",
            filters=[
                aws.ec2.GetInstanceTypeOfferingsFilterArgs(name="instance-type", values=types)
            ],
            opts=pulumi.InvokeOutputOptions(provider=self._provider),
        )
        return offered.apply(
            lambda found: zones.choose(
                types, list(zip(found.instance_types, found.locations, strict=True))
            )
        )

    def _make_storage(self) -> Storage:
        account = aws.get_caller_identity_output(
            opts=pulumi.InvokeOutputOptions(provider=self._provider)
        ).account_id
        return Storage(
            StorageArgs(
                bucket_name=account.apply(lambda id_: bucket_name(self._plan.stack, id_)),
                archive=self._args.archive,
                model_name=self._plan.model.name,
                model_folder=self._args.model.folder,
                model_files=self._args.model.files,
                secret_parameters=(
                    agent_token_parameter(self._plan.stack),
                    api_key_parameter(self._plan.stack),
                ),
            ),
            self._options(),
        )

    def _make_addresses(self) -> dict[str, Address]:
        primaries = {group.primary.name for group in self._plan.groups}
        members, access = self.network.members_id, self.network.access_id
        return {
            node.name: Address(
                f"{node.name}-address",
                AddressArgs(
                    node=node.name,
                    subnet_id=self.network.subnet_id,
                    security_group_ids=[members, access] if node.name in primaries else [members],
                ),
                self._options(),
            )
            for node in self._plan.nodes
        }

    def _assignments(self) -> pulumi.Output[dict[str, Assignment]]:
        def fill_in(known: Mapping[str, Any]) -> dict[str, Assignment]:
            region, archive = self._args.region, self.storage.archive
            place = Place(region, known["bucket"], archive, known["addresses"])
            return assignments(self._plan, place)

        return pulumi.Output.all(
            bucket=self.storage.bucket_name,
            addresses={name: address.private_ip for name, address in self.addresses.items()},
        ).apply(fill_in)

    def _make_nodes(self) -> dict[str, NodeInstance]:
        image, root_device = self._image()
        told = self._assignments()
        # Weights are uploaded before any node starts: a GPU node that waits for them is billed.
        ready = self._options(self.network, self.storage)
        return {
            node.name: NodeInstance(
                NodeArgs(
                    node=node,
                    region=self._args.region,
                    image_id=image,
                    image_pinned=self._args.settings.ami is not None,
                    root_device_name=root_device,
                    interface_id=self.addresses[node.name].interface_id,
                    bucket_name=self.storage.bucket_name,
                    bucket_arn=self.storage.bucket_arn,
                    parameter_arns=[
                        self.storage.parameters[name].arn
                        for name in (
                            agent_token_parameter(self._plan.stack),
                            *node.secret_env.values(),
                        )
                    ],
                    assignment=told.apply(lambda every, name=node.name: to_json(every[name])),
                    iam_path=iam_path(self._plan.stack),
                    tags={**self._tags, NODE_TAG: node.name},
                ),
                ready,
            )
            for node in self._plan.nodes
        }

    def _image(self) -> tuple[pulumi.Input[str], pulumi.Input[str]]:
        """(AMI, name of its root device): the user's, or the newest Debian 13."""
        options = pulumi.InvokeOutputOptions(provider=self._provider)
        named = self._args.settings.ami
        if named is None:
            newest = aws.ssm.get_parameter_output(name=IMAGE_PARAMETER, opts=options)
            return newest.value, IMAGE_ROOT_DEVICE
        image = aws.ec2.get_ami_output(
            filters=[aws.ec2.GetAmiFilterArgs(name="image-id", values=[named])], opts=options
        )
        return named, image.root_device_name

    def _make_record(self) -> Record:
        deployment = pulumi.Output.all(
            told=self._assignments(),
            instances={name: node.instance_id for name, node in self.nodes.items()},
            endpoint=self._endpoint(),
        ).apply(lambda v: to_json(expected(self._plan, v["told"], v["instances"], v["endpoint"])))
        return Record(
            RecordArgs(
                bucket_name=self.storage.bucket_name,
                deployment=deployment,
                ready_timeout_seconds=self._args.settings.ready_timeout_seconds,
                profile=self._args.profile,
            ),
            self._options(*self.nodes.values()),
        )

    def _endpoint(self) -> pulumi.Output[str]:
        primary = self._plan.groups[0].primary.name
        port = self._plan.ports.api
        return self.addresses[primary].private_ip.apply(lambda ip: f"http://{ip}:{port}/v1")

    def _group_outputs(self, nodes: tuple[Node, ...]) -> dict[str, Any]:
        primary, *headless = (self.addresses[node.name].private_ip for node in nodes)
        port = self._plan.ports.api
        return {
            "primary_address": primary,
            "headless_addresses": headless,
            "metrics_address": primary.apply(lambda ip: f"http://{ip}:{port}/metrics"),
        }

    def _session_command(self, instance_id: str) -> str:
        profile = f" --profile {self._args.profile}" if self._args.profile else ""
        region = self._args.region
        return f"aws ssm start-session --target {instance_id} --region {region}{profile}"


def expected(
    plan: Plan, told: Mapping[str, Assignment], instances: Mapping[str, str], endpoint: str
) -> Deployment:
    """What the nodes must report before the deployment counts as proven."""
    first = told[plan.nodes[0].name]
    return Deployment(
        schema=1,
        stack=plan.stack,
        region=first.region,
        bucket=first.bucket,
        endpoint=endpoint,
        model=plan.model.name,
        vllm_version=plan.vllm_version,
        nodes={
            name: ExpectedNode(
                instance_id=instances[name],
                private_ip=assignment.me.address,
                revision=assignment.revision,
                archive_sha256=assignment.archive.sha256,
            )
            for name, assignment in told.items()
        },
        groups={
            group.name: ExpectedGroup(
                nodes=tuple(node.name for node in group.nodes),
                revision=told[group.primary.name].revision,
                ranks=group.data_parallel_size,
                expert_parallel_size=group.expert_parallel_size,
            )
            for group in plan.groups
        },
    )
