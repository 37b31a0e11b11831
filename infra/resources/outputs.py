"""What `pulumi stack output` shows of a deployment."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from infra.plan.plan import Group, Plan

FORWARD_DOCUMENT = "AWS-StartPortForwardingSession"
FORWARD_THROUGH_DOCUMENT = "AWS-StartPortForwardingSessionToRemoteHost"
PRIVILEGED_PORTS = 1024
"""Below it a person's own machine lets nobody but root listen."""


def groups(
    plan: Plan,
    addresses: Mapping[str, pulumi.Output[str]],
    router: pulumi.Output[str] | None,
    all2all_backend: Callable[[Group], pulumi.Input[str]],
) -> dict[str, Any]:
    """Addresses and the all2all backend of every group.

    Args:
        plan: of the stack.
        addresses: node -> private address.
        router: address of what routes between the groups, if anything does.
        all2all_backend: of a group, in effect.
    """
    return {
        group.name: _group(plan, group, addresses, router)
        | {"all2all_backend": all2all_backend(group)}
        for group in plan.groups
    }


def _group(
    plan: Plan,
    group: Group,
    addresses: Mapping[str, pulumi.Output[str]],
    router: pulumi.Output[str] | None,
) -> dict[str, Any]:
    primary, *others = (addresses[node.name] for node in group.nodes)
    port = plan.ports.api
    shown = {
        "primary_address": primary,
        "headless_addresses": others,
        "metrics_address": primary.apply(lambda ip: f"http://{ip}:{port}/metrics"),
    }
    return shown | ({"router_address": router} if router is not None else {})


def hourly_cost(plan: Plan) -> dict[str, Any]:
    """On-demand price of the instances in US dollars per hour, and which types have none."""
    cost = plan.cost
    shown: dict[str, Any] = {"instances_usd": cost.known_usd_per_hour}
    if cost.unpriced:
        shown["without_a_known_price"] = list(cost.unpriced)
    if cost.price_region:
        shown["prices_of"] = f"{cost.price_region}, {cost.price_date}"
    return shown


@dataclass(frozen=True)
class Cli:
    """What AWS's own command is told: the stack's region, and the profile of the credentials."""

    region: str
    profile: str | None


def connect(
    plan: Plan,
    instances: Mapping[str, pulumi.Output[str]],
    router: pulumi.Output[str] | None,
    cli: Cli,
) -> dict[str, pulumi.Output[str]]:
    """Session Manager's commands: to the endpoint, and for a shell on each node.

    The gateway boots from an image without the SSM agent, so that the way to it goes through a GPU
    node, whose image has it.

    Args:
        plan: of the stack.
        instances: node -> id.
        router: address of the gateway, if there is one.
        cli: for the commands.
    """
    shells = {n: id_.apply(lambda known: session(known, cli)) for n, id_ in instances.items()}
    gate, first = plan.gateway, plan.groups[0].primary.name
    through = next((g.primary.name for g in plan.groups if g.gpus_per_node), None)
    if gate is None or router is None:
        way = instances[first].apply(lambda id_: forward(id_, plan.ports.api, cli))
    elif through is None:
        way = instances[gate.node].apply(lambda id_: forward(id_, gate.port, cli))
    else:
        way = pulumi.Output.all(instances[through], router).apply(
            lambda known: forward(known[0], gate.port, cli, host=known[1])
        )
    return {"endpoint": way, **shells}


def session(instance_id: str, cli: Cli) -> str:
    """A shell on a node, ready to paste."""
    profile = f" --profile {shlex.quote(cli.profile)}" if cli.profile else ""
    return f"aws ssm start-session --target {instance_id} --region {cli.region}{profile}"


def forward(instance_id: str, port: int, cli: Cli, host: str | None = None) -> str:
    """The endpoint on this machine's own port, ready to paste.

    Args:
        instance_id: the node that Session Manager reaches.
        port: of the endpoint; a privileged one is 8000 higher on this machine.
        cli: for the command.
        host: address of the endpoint, where it is another node's.
    """
    own = port + 8000 if port < PRIVILEGED_PORTS else port
    parameters = {"portNumber": [str(port)], "localPortNumber": [str(own)]}
    if host is not None:
        parameters = {"host": [host], **parameters}
    document = FORWARD_DOCUMENT if host is None else FORWARD_THROUGH_DOCUMENT
    return (
        f"{session(instance_id, cli)} --document-name {document} "
        f"--parameters {shlex.quote(json.dumps(parameters))}"
    )
