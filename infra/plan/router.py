"""The router: one address for all groups, on the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from node_bootstrap.gateway.layout import ROUTER_PORTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.plan.gateway import GatewayPlan
    from infra.plan.topology import GroupPlace, Ports

GATEWAY = "gateway"
VERSION = "0.1.17"
"""Of vllm-router: the first with `--kv-connector` is 0.1.14."""

_HEALTH_INTERVAL_SECONDS = 3
"""There is no retry on another decode group: a dead one must leave the rotation soon."""
_STARTUP_SECONDS = 7200


_STARTUP_CHECK_SECONDS = 1


@dataclass(frozen=True)
class Router:
    """vllm-router on the gateway.

    argv: with every group, for reading; nodes run it with those groups that are proven.
    common: the part of argv that names no address. secret_env: environment variable -> SSM
    parameter. health_path: what may be checked; `/health` is 503 as soon as any single worker is.
    """

    node: str
    instance_type: str
    version: str
    argv: tuple[str, ...]
    env: dict[str, str]
    secret_env: dict[str, str]
    common: tuple[str, ...]
    health_path: str = "/readiness"


def router(
    groups: Sequence[GroupPlace], ports: Ports, gate: GatewayPlan, api_key: str, policy: str
) -> Router:
    """The router of a gateway.

    Args:
        groups: every replica of the stack.
        ports: of the stack.
        gate: the node that it runs on.
        api_key: SSM parameter of the key that the groups' APIs ask for.
        policy: how it picks a group.
    """
    sides = {role: [g for g in groups if g.role == role] for role in ("prefill", "decode")}
    split = any(sides.values())
    common = [
        *(("--vllm-pd-disaggregation", "--kv-connector", "nixl") if split else ()),
        *("--policy", policy),
        *("--health-check-interval-secs", str(_HEALTH_INTERVAL_SECONDS)),
        *("--worker-startup-timeout-secs", str(_STARTUP_SECONDS)),
        *("--worker-startup-check-interval", str(_STARTUP_CHECK_SECONDS)),
        *("--request-timeout-secs", f"{gate.limits.request_seconds:.0f}"),
        # The front refuses larger requests, in the API's own form; this is only above it.
        *("--max-payload-size", str(2 * gate.limits.body_bytes)),
    ]
    workers = [
        word
        for role, places in sides.items()
        for place in places
        for url in urls(place, ports)
        for word in (f"--{role}", url)
    ]
    if not split:
        workers = ["--worker-urls", *(url for place in groups for url in urls(place, ports))]
    listen = ["--host", "127.0.0.1", "--port", str(ROUTER_PORTS["a"])]
    # The router shows its workers this key as a bearer token.
    secret = {"OPENAI_API_KEY": api_key}
    argv = ("vllm-router", *common, *listen, *workers)
    return Router(gate.node, gate.instance_type, VERSION, argv, {}, secret, tuple(common))


def urls(group: GroupPlace, ports: Ports) -> list[str]:
    """Addresses of a group's APIs: one, one per node, or one per rank."""
    if group.load_balancing == "internal":
        return [f"http://{group.primary.address}:{ports.api}"]
    per_node = group.cut.data_parallel_size_local if group.load_balancing == "external" else 1
    return [
        f"http://{node.address}:{ports.api + rank}"
        for node in group.nodes
        for rank in range(per_node)
    ]
