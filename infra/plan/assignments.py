"""The plan, once addresses, bucket and archive are known, as one assignment per node."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.catalog.all2all import all2all_backends
from infra.plan.kernels import kernel_cache
from infra.plan.plan import BUCKET, Group, Node, Plan, agent_token_parameter
from infra.plan.serve import model_folder
from infra.plan.software import Component as PlannedComponent
from node_bootstrap.assignment import (
    SCHEMA,
    Api,
    Archive,
    Assignment,
    Backend,
    Component,
    KvTransfer,
    Member,
    Software,
    Stage,
    Weights,
)
from node_bootstrap.revision import with_revision
from node_bootstrap.ttl import Ttl

if TYPE_CHECKING:
    from collections.abc import Mapping


def model_prefix(model_name: str) -> str:
    """S3 prefix of a model's files; ends with a slash."""
    return f"models/{model_name}/"


def staged_prefix(model_name: str, revision: str | None) -> str:
    """S3 prefix of what one commit on Hugging Face holds; ends with a slash."""
    return f"{model_prefix(model_name)}{revision or 'main'}/"


def huggingface_parameter(stack: str) -> str:
    """SSM parameter with the token that may read the model."""
    return f"/moe-serving/{stack}/huggingface-token"


@dataclass(frozen=True)
class S3Location:
    """A model in S3. prefix: ends with a slash."""

    bucket: str
    prefix: str


def s3_location(source: str) -> S3Location:
    """Bucket and prefix of an `s3://bucket/prefix`; without a prefix it is empty."""
    bucket, _, prefix = source.removeprefix("s3://").partition("/")
    return S3Location(bucket, f"{prefix.rstrip('/')}/" if prefix.rstrip("/") else "")


@dataclass(frozen=True)
class Place:
    """What only the made resources know. addresses: node -> private IPv4 address."""

    region: str
    bucket: str
    archive: Archive
    addresses: Mapping[str, str]


def assignments(plan: Plan, place: Place) -> dict[str, Assignment]:
    """Every node's assignment, by node, each with its group's revision."""
    return {
        assignment.node: assignment
        for group in plan.groups
        for assignment in with_revision(
            tuple(_one(plan, group, node, place) for node in group.nodes)
        )
    }


def fill(text: str, nodes: tuple[Node, ...], addresses: Mapping[str, str]) -> str:
    """Put addresses in the place of their placeholders."""
    for node in nodes:
        text = text.replace(node.address, addresses[node.name])
    return text


def stage(plan: Plan) -> Stage | None:
    """Who copies the weights from Hugging Face; None where they don't come from there.

    The gateway, which has no GPUs to be billed for and is in no placement group; without one the
    first primary.
    """
    model = plan.model
    if model.source != "hf":
        return None
    node = plan.gateway.node if plan.gateway else plan.groups[0].primary.name
    token = huggingface_parameter(plan.stack) if model.with_token else None
    return Stage(model.name, model.revision, token, node)


def staged_weights(plan: Plan, bucket: str) -> Weights:
    """The gateway's: what it may copy, and nothing that it reads."""
    staging, model = stage(plan), plan.model
    if staging is None:
        return Weights(bucket, "", "", ())
    prefix = staged_prefix(model.name, model.revision)
    return Weights(bucket, prefix, "", (), "nothing", staging)


def _one(plan: Plan, group: Group, node: Node, place: Place) -> Assignment:
    addresses = place.addresses
    return Assignment(
        schema=SCHEMA,
        stack=plan.stack,
        region=place.region,
        bucket=place.bucket,
        node=node.name,
        group=group.name,
        role=group.role,
        position=node.position,
        revision="",
        archive=place.archive,
        members=tuple(
            Member(n.name, addresses[n.name], n.position, n.first_rank, n.ranks)
            for n in group.nodes
        ),
        agent_port=plan.ports.agent,
        api_port=plan.ports.api,
        agent_token_parameter=agent_token_parameter(plan.stack),
        argv=tuple(
            fill(a, group.nodes, addresses).replace(BUCKET, place.bucket) for a in node.argv
        ),
        env={k: fill(v, group.nodes, addresses) for k, v in node.env.items()},
        secret_env=node.secret_env,
        software=software_of(node),
        weights=_weights(plan, place, node),
        hardware=dataclasses.replace(node.hardware, private_ip=addresses[node.name]),
        probe=plan.probe,
        limits=plan.limits,
        ttl=None if plan.ttl_seconds is None else Ttl(plan.ttl_seconds),
        backend=_backend(group),
        kv_transfer=kv_transfer(group),
        transfer=group.transfer,
        takes_turns=plan.gateway is not None,
        apis=() if group.load_balancing == "internal" else apis(group, plan.ports.api, addresses),
        kernel_cache=kernel_cache(plan, group),
    )


def apis(group: Group, port: int, addresses: Mapping[str, str]) -> tuple[Api, ...]:
    """The APIs of a group: one, one per node, or one per rank, at ports that follow each other."""
    primary = group.primary
    if group.load_balancing == "internal":
        return (Api(addresses[primary.name], port, 0, group.data_parallel_size),)
    if group.load_balancing == "hybrid":
        return tuple(Api(addresses[n.name], port, n.first_rank, n.ranks) for n in group.nodes)
    return tuple(
        Api(addresses[node.name], port + local, node.first_rank + local, 1)
        for node in group.nodes
        for local in range(node.ranks)
    )


def kv_transfer(group: Group) -> KvTransfer | None:
    """How a group hands KV over, as nodes are told."""
    planned = group.kv_transfer
    if planned is None:
        return None
    return KvTransfer(
        connector=planned.connector,
        backends=planned.backends,
        transport=planned.transport,
        side_channel_port=planned.side_channel_port,
        restart_with_peer=planned.restart_with_peer,
    )


def _backend(group: Group) -> Backend | None:
    """What a node imports before it starts; None where vLLM brings all that it needs."""
    chosen = group.all2all_backend.chosen
    # A group of one rank exchanges no tokens: it has no backend at all.
    backend = all2all_backends().get(chosen)
    if backend is None or not backend.library:
        return None
    return Backend(chosen, backend.library.partition(" ")[0], group.all2all_fallback or "")


def software_of(node: Node) -> Software:
    """What a node is told to have, as the plan says."""
    software = node.software
    components = tuple(_component(c) for c in software.components)
    return Software(
        software.runtime, software.python, software.distributions, software.image, components
    )


def _component(planned: PlannedComponent) -> Component:
    source, _, sha256 = planned.source.partition("#sha256=")
    return Component(planned.name, planned.version, planned.place, source, sha256)


def _weights(plan: Plan, place: Place, node: Node) -> Weights:
    """Files of this machine are uploaded to the stack's bucket; those in S3 stay where they are."""
    model = plan.model
    destination = model_folder(model.name)
    if (staging := stage(plan)) is not None:
        told = staged_weights(plan, place.bucket)
        if staging.node != node.name:  # another token must not restart those who read none
            staging = dataclasses.replace(staging, token_parameter=None)
        address = f"s3://{BUCKET}/{told.prefix}"
        streamed = any(address in node.argv for node in plan.nodes)
        fetch = "nothing" if streamed else "prefix"
        return dataclasses.replace(told, destination=destination, fetch=fetch, stage=staging)
    if not model.source.startswith("s3://"):
        return Weights(place.bucket, model_prefix(model.name), destination, model.files)
    where = s3_location(model.source)
    # vLLM that was given the s3:// address streams the weights; a folder has to be filled first.
    streamed = any(model.source in node.argv for node in plan.nodes)
    fetch = "nothing" if streamed else "prefix"
    return Weights(where.bucket, where.prefix, destination, (), fetch)
