"""From the plan to a running stack: the components, in the order in which they need each other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pulumi
import pulumi_aws as aws

from infra.archive import BuiltArchive
from infra.model import ModelFolder
from infra.names import NODE_TAG, STACK_TAG, bucket_name, iam_path
from infra.plan.assignments import Place, assignments, s3_location, stage, staged_weights
from infra.plan.gateway import CA_KEY
from infra.plan.plan import Node, Plan, agent_token_parameter, api_key_parameter
from infra.plan.reach import services
from infra.resources import outputs, reserved, zones
from infra.resources.capacity import (
    Capacity,
    CapacityArgs,
    Launching,
    gpu_nodes,
    reservation_end,
)
from infra.resources.existing import existing
from infra.resources.expected import expected
from infra.resources.front import Front, FrontArgs, front, fronted
from infra.resources.gateway import Gateway, GatewayArgs, as_node
from infra.resources.images import Image, image, images_of
from infra.resources.network import Network, NetworkArgs
from infra.resources.nodes import Address, AddressArgs, NodeArgs, NodeInstance
from infra.resources.policies import Models
from infra.resources.record import Record, RecordArgs, last_failure, record_uri
from infra.resources.refusals import Refusals
from infra.resources.rolling import Rolling, RollingArgs
from infra.resources.storage import Storage, StorageArgs
from infra.settings import Settings
from node_bootstrap.assignment import Assignment
from node_bootstrap.jsondata import to_json
from node_bootstrap.leaving import LEAVING_KEY


@dataclass(frozen=True)
class StackArgs:
    """All that a stack is made from.

    profile: of the AWS credentials, if the config names one.
    model: None where the weights are not on this machine.
    huggingface_token: secret; None where the model needs none.
    """

    region: str
    profile: str | None
    settings: Settings
    plan: Plan
    model: ModelFolder | None
    archive: BuiltArchive
    huggingface_token: pulumi.Output[str] | None = None


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
        self._offered = self._zones_of_types()
        self.network = self._make_network()
        self._refusals = self._make_refusals()
        self.capacity = self._make_capacity()
        # Nothing that is billed comes before the capacity that it is for.
        made = [self.capacity] if self.capacity else []
        first = made if self._plan.capacity.kind == "reserve" else []
        self.gateway = self._make_gateway()
        self.network.open(after=first)
        self.storage = self._make_storage(first)
        self.addresses = self._make_addresses()
        self._rolling = Rolling(
            RollingArgs(args.plan, args.region, args.profile, args.settings.ready_timeout_seconds)
        )
        self.front = self._make_front(first)
        self.nodes = self._make_nodes()
        self.record = self._make_record()

    def outputs(self) -> dict[str, Any]:
        """What `pulumi stack output` shows."""
        router = self.gateway.address.private_ip if self.gateway else None
        balancer = self.front.balancer
        nodes = {name: address.private_ip for name, address in self.addresses.items()}
        return {
            "endpoint": self.front.url,
            **self._keys(),
            "groups": outputs.groups(self._plan, nodes, router, self.record.all2all_backend),
            "connect": outputs.connect(
                self._plan,
                {name: node.instance_id for name, node in self.nodes.items()},
                router,
                outputs.Cli(self._args.region, self._args.profile),
            ),
            "hourly_cost": outputs.hourly_cost(self._plan),
            **({"endpoint_dns_name": balancer.dns_name} if balancer else {}),
            "record": self.record.uri,
            "bucket": self.storage.bucket_name,
            "vpc_id": self.network.vpc_id,
        }

    async def settle(self) -> None:
        """Wait until all resources are registered; what fails is reported by Pulumi, not here.

        Pulumi waits for them by itself, but asks all open outputs again after each that comes: with
        the 15,000 outputs of 64 nodes that was half of the program's time.
        """
        last = (self.record.uri, *(node.instance_id for node in self.nodes.values()))
        await asyncio.gather(*(output.future() for output in last), return_exceptions=True)

    def _keys(self) -> dict[str, Any]:
        if self.gateway is None:
            return {"api_key": self.storage.parameters[api_key_parameter(self._plan.stack)].value}
        shown = self.gateway.outputs()
        bucket, provider = self.storage.bucket_name, self._provider
        if self.front.own_authority:
            certificate = self.gateway.certificate(bucket, provider, self.record)
            shown |= {} if certificate is None else {"ca_certificate": certificate}
        return shown

    @property
    def _plan(self) -> Plan:
        return self._args.plan

    def _options(self, *after: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(provider=self._provider, depends_on=list(after))

    @property
    def _types(self) -> list[str]:
        gate = self._plan.gateway
        return sorted(
            {node.instance_type for node in self._plan.nodes}
            | ({gate.instance_type} if gate else set())
        )

    @property
    def _look_up(self) -> pulumi.InvokeOutputOptions:
        return pulumi.InvokeOutputOptions(provider=self._provider)

    def _zones_of_types(self) -> pulumi.Output[Mapping[str, Sequence[str]]]:
        types = self._types
        found = aws.ec2.get_instance_type_offerings_output(
            location_type="availability-zone",
            filters=[
                aws.ec2.GetInstanceTypeOfferingsFilterArgs(name="instance-type", values=types)
            ],
            opts=self._look_up,
        )
        return found.apply(
            lambda answer: zones.by_type(
                types, zip(answer.instance_types, answer.locations, strict=True)
            )
        )

    def _make_network(self) -> Network:
        settings = self._args.settings
        network = settings.network
        zone = self._named_zone()
        return Network(
            NetworkArgs(
                region=self._args.region,
                cidr=network.cidr,
                zone=self._offered.apply(zones.chosen) if zone is None else zone,
                zone_pinned=zone is not None,
                api_port=self._plan.ports.api,
                # With a gateway or a load balancer in front nobody else gets to the primaries.
                allowed_cidrs=(
                    ()
                    if fronted(self._plan, settings.endpoint)
                    else settings.endpoint.allowed_cidrs
                ),
                nat=self._plan.way_out == "nat",
                public_subnet=settings.endpoint.exposure == "public",
                services=services(self._plan.nodes),
                plain_http=self._plan.way_out != "none" and bool(self._plan.from_internet),
                existing=existing(network, self._types, self._offered, self._look_up),
            ),
            self._options(),
        )

    def _named_zone(self) -> str | None:
        """The zone that the settings say, or the reservation of theirs; None leaves the choice."""
        network = self._args.settings.network
        if network.zone != "auto" or network.subnet_id is not None:
            return network.zone
        return reserved.zone_of(self._plan.capacity, self._args.region, self._args.profile)

    def _make_gateway(self) -> Gateway | None:
        gate, endpoint = self._plan.gateway, self._args.settings.endpoint
        if gate is None:
            return None
        clients = () if endpoint.balanced else endpoint.allowed_cidrs
        made = Gateway(GatewayArgs(self._plan, gate, self.network, clients), self._options())
        self.network.admit_to_services(made.group_id)
        return made

    def _make_refusals(self) -> Refusals:
        types = {node.name: node.instance_type for node in self._plan.nodes}
        if (gate := self._plan.gateway) is not None:
            types[gate.node] = gate.instance_type
        types |= {kind: kind for kind in self._types}
        gpus = [n.name for g in self._plan.groups if g.gpus_per_node for n in g.nodes]
        kind, zone = self._plan.capacity.kind, self.network.zone
        return Refusals(kind, types, gpus, zone, self._offered)

    def _make_capacity(self) -> Capacity | None:
        """None where EC2's own defaults are what is wanted: On-Demand, wherever there is room."""
        capacity, nodes = self._plan.capacity, gpu_nodes(self._plan)
        if not self._plan.placement_group and (capacity.kind == "on-demand" or not nodes):
            return None
        return Capacity(
            CapacityArgs(
                kind=capacity.kind,
                id=capacity.id,
                zone=self.network.zone,
                nodes=nodes,
                placement_group=self._plan.placement_group,
                existing_group=self._args.settings.capacity.placement_group,
                refusals=self._refusals,
                end_date=reservation_end(self._plan.ttl_seconds),
            ),
            self._options(),
        )

    def _make_storage(self, after: Sequence[pulumi.Resource]) -> Storage:
        account = aws.get_caller_identity_output(opts=self._look_up).account_id
        model = self._args.model
        return Storage(
            StorageArgs(
                bucket_name=account.apply(lambda id_: bucket_name(self._plan.stack, id_)),
                archive=self._args.archive,
                model_name=self._plan.model.name,
                model_folder=model.folder if model else None,
                model_files=model.files if model else (),
                secret_parameters=(
                    agent_token_parameter(self._plan.stack),
                    api_key_parameter(self._plan.stack),
                ),
                given_parameters=self._given(),
            ),
            self._options(*after),
        )

    def _given(self) -> dict[str, pulumi.Input[str]]:
        """SSM parameters whose values are the user's."""
        staging, token = stage(self._plan), self._args.huggingface_token
        if staging is None or staging.token_parameter is None or token is None:
            return {}
        return {staging.token_parameter: token}

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
                    efa=node.network_interfaces[0].interface_type == "efa",
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

    def _make_front(self, after: Sequence[pulumi.Resource]) -> Front:
        endpoint = self._args.settings.endpoint
        args = FrontArgs(self._plan, endpoint, self.network, self.gateway, self.addresses)
        return front(args, self._options(*after))

    def _make_nodes(self) -> dict[str, NodeInstance]:
        told = self._assignments()
        # Weights are uploaded before any node starts: a GPU node that waits for them is billed.
        # So do a wrong certificate and a reservation: better before the nodes than beside them.
        others = [part for part in (self.capacity, self.front.balancer) if part is not None]
        first = [self.network, self.storage, *others]
        pictures = images_of(self._plan.nodes, self._args.settings.ami, self._look_up)
        made: dict[str, NodeInstance] = {}
        previous: list[NodeInstance] = []
        for part in self._rolling.order():
            before = {name: node.instance_id for name, node in made.items()}
            options = self._options(*first, *previous)
            for group in part:
                turn = self._rolling.hooks(group, told, before)
                for node in group.nodes:
                    args = replace(self._node_args(node, pictures[node.name], told), turn=turn)
                    made[node.name] = NodeInstance(args, options)
            previous = [made[node.name] for group in part for node in group.nodes]
        gate, router = self._plan.gateway, self._plan.router
        if gate is not None and router is not None:
            args = self._gateway_args(as_node(gate, router.secret_env))
            made[gate.node] = NodeInstance(args, self._options(*first))
        return made

    def _address(self, node: str) -> Address:
        if self.gateway is not None and self._plan.gateway and node == self._plan.gateway.node:
            return self.gateway.address
        return self.addresses[node]

    def _node_args(
        self, node: Node, pictured: Image, told: pulumi.Output[dict[str, Assignment]]
    ) -> NodeArgs:
        stack, source = self._plan.stack, self._plan.model.source
        staging = stage(self._plan)
        stages = staging is not None and staging.node == node.name
        secrets = [agent_token_parameter(stack), *node.secret_env.values()]
        if staging and stages and staging.token_parameter:
            secrets.append(staging.token_parameter)
        return NodeArgs(
            node=node,
            region=self._args.region,
            image=pictured,
            interface_id=self._address(node.name).interface_id,
            subnet_id=self.network.subnet_id,
            members_id=self.network.members_id,
            bucket_name=self.storage.bucket_name,
            bucket_arn=self.storage.bucket_arn,
            parameter_arns=[self.storage.parameters[name].arn for name in secrets],
            assignment=told.apply(lambda every: to_json(every[node.name], without_defaults=True)),
            iam_path=iam_path(stack),
            tags={**self._tags, NODE_TAG: node.name},
            launching=(
                self.capacity.launching(node.instance_type) if self.capacity else Launching()
            ),
            refusals=self._refusals,
            model=s3_location(source) if source.startswith("s3://") else None,
            ephemeral=self._plan.ttl_seconds is not None,
            models=self._models(stages=stages),
        )

    def _models(self, *, stages: bool) -> Models | None:
        told = staged_weights(self._plan, "")
        return Models(told.prefix, writes=stages) if told.stage else None

    def _gateway_args(self, node: Node) -> NodeArgs:
        told = self._told_gateway()
        # The user's own image is for nodes that serve: a GPU image fits no gateway.
        pictured = image(None, gpus=False, containers=False, options=self._look_up)
        args = self._node_args(node, pictured, told)
        keys = {"reads": (LEAVING_KEY,), "writes": (CA_KEY,)}
        return replace(args, launching=Launching(), model=None, weights=False, **keys)

    def _told_gateway(self) -> pulumi.Output[dict[str, Assignment]]:
        """The gateway's assignment by its name; empty without one."""
        gate, made = self._plan.gateway, self.gateway
        if gate is None or made is None:
            return pulumi.Output.from_input({})
        nodes = {n: a.private_ip for n, a in self.addresses.items()}
        storage, names = self.storage, self.front.names
        told = made.told(self._args.region, storage.bucket_name, storage.archive, nodes, names)
        return told.apply(lambda assignment: {gate.node: assignment})

    def _make_record(self) -> Record:
        deployment = pulumi.Output.all(
            told=pulumi.Output.all(self._assignments(), self._told_gateway()).apply(
                lambda parts: parts[0] | parts[1]
            ),
            instances={name: node.instance_id for name, node in self.nodes.items()},
            endpoint=self.front.url,
            failed_at=record_uri(self.storage.bucket_name).apply(
                lambda uri: last_failure(uri, self._args.profile)
            ),
        ).apply(lambda values: to_json(expected(self._plan, **values)))
        return Record(
            RecordArgs(
                bucket_name=self.storage.bucket_name,
                deployment=deployment,
                ready_timeout_seconds=self._args.settings.ready_timeout_seconds,
                profile=self._args.profile,
            ),
            self._options(*self.nodes.values()),
        )
