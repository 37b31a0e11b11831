"""The plan, once addresses, bucket and archive are known, as one assignment per node."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.plan.plan import Group, Node, Plan, agent_token_parameter
from infra.plan.serve import model_folder
from node_bootstrap.assignment import (
    SCHEMA,
    Archive,
    Assignment,
    KvTransfer,
    Member,
    Position,
    Software,
    Weights,
    with_revision,
)

if TYPE_CHECKING:
    from collections.abc import Mapping


def model_prefix(model_name: str) -> str:
    """S3 prefix of a model's files; ends with a slash."""
    return f"models/{model_name}/"


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


def _one(plan: Plan, group: Group, node: Node, place: Place) -> Assignment:
    addresses, model = place.addresses, plan.model
    return Assignment(
        schema=SCHEMA,
        stack=plan.stack,
        region=place.region,
        bucket=place.bucket,
        node=node.name,
        group=group.name,
        role=group.role,
        position=_position(node),
        revision="",
        archive=place.archive,
        members=tuple(
            Member(n.name, addresses[n.name], _position(n), n.first_rank, n.ranks)
            for n in group.nodes
        ),
        agent_port=plan.ports.agent,
        api_port=plan.ports.api,
        agent_token_parameter=agent_token_parameter(plan.stack),
        argv=tuple(fill(a, group.nodes, addresses) for a in node.argv),
        env={k: fill(v, group.nodes, addresses) for k, v in node.env.items()},
        secret_env=node.secret_env,
        software=_software(node),
        weights=Weights(
            place.bucket, model_prefix(model.name), model_folder(model.name), model.files
        ),
        hardware=dataclasses.replace(node.hardware, private_ip=addresses[node.name]),
        probe=plan.probe,
        limits=plan.limits,
        kv_transfer=_kv_transfer(group),
    )


def _kv_transfer(group: Group) -> KvTransfer | None:
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


def _position(node: Node) -> Position:
    """Nodes know primaries and headless nodes: a further API per node is not built yet."""
    if node.position == "secondary":
        raise NotImplementedError(f"{node.name}: hybrid or external load balancing on nodes")
    return node.position


def _software(node: Node) -> Software:
    software = node.software
    if software.runtime != "venv":
        raise NotImplementedError(f"{node.name}: containers on nodes")
    return Software("venv", software.python, software.distributions)
