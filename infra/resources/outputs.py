"""What `pulumi stack output` shows of a deployment."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

import pulumi

from infra.plan.plan import Group, Plan

FORWARD_DOCUMENT = "AWS-StartPortForwardingSession"


def groups(
    plan: Plan, addresses: Mapping[str, pulumi.Output[str]], router: pulumi.Output[str] | None
) -> dict[str, Any]:
    """Addresses and the all2all backend of every group.

    Args:
        plan: of the stack.
        addresses: node -> private address.
        router: address of what routes between the groups, if anything does.
    """
    return {group.name: _group(plan, group, addresses, router) for group in plan.groups}


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
        "all2all_backend": group.all2all_backend.chosen,
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


def session(instance_id: str, region: str, profile: str | None) -> str:
    """A shell on a node, ready to paste."""
    return f"aws ssm start-session --target {instance_id} --region {region}{_profile(profile)}"


def forward(instance_id: str, port: int, region: str, profile: str | None) -> str:
    """The endpoint on this machine's own port, ready to paste: no address of it is needed."""
    parameters = json.dumps({"portNumber": [str(port)], "localPortNumber": [str(port)]})
    return (
        f"{session(instance_id, region, profile)} --document-name {FORWARD_DOCUMENT} "
        f"--parameters {shlex.quote(parameters)}"
    )


def _profile(profile: str | None) -> str:
    return f" --profile {shlex.quote(profile)}" if profile else ""
