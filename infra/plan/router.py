"""The router of a prefill/decode stack: one endpoint for all groups, on the gateway."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.plan.topology import GroupPlace, Ports

GATEWAY = "gateway"
VERSION = "0.1.17"
"""Of vllm-router: the first with `--kv-connector` is 0.1.14."""

_HEALTH_INTERVAL_SECONDS = 3
"""There is no retry on another decode group: a dead one must leave the rotation soon."""
_STARTUP_SECONDS = 7200


@dataclass(frozen=True)
class Router:
    """vllm-router on the gateway.

    secret_env: environment variable -> SSM parameter. health_path: what a load balancer may check;
    `/health` is 503 as soon as any single worker is.
    """

    node: str
    instance_type: str
    version: str
    argv: tuple[str, ...]
    env: dict[str, str]
    secret_env: dict[str, str]
    health_path: str = "/readiness"


def router(
    groups: Sequence[GroupPlace], ports: Ports, instance_type: str, api_key: str
) -> Router | None:
    """The router, where the stack has prefill or decode groups.

    Args:
        groups: every replica of the stack.
        ports: of the stack.
        instance_type: of the gateway.
        api_key: SSM parameter of the key that the groups' APIs ask for.
    """
    sides = {role: [g for g in groups if g.role == role] for role in ("prefill", "decode")}
    if not any(sides.values()):
        return None
    argv = [
        *("vllm-router", "--vllm-pd-disaggregation", "--kv-connector", "nixl"),
        *("--host", "0.0.0.0", "--port", str(ports.api)),  # noqa: S104 - security groups decide who gets here
    ]
    for role, places in sides.items():
        for place in places:
            argv += [word for url in urls(place, ports) for word in (f"--{role}", url)]
    argv += [
        *("--health-check-interval-secs", str(_HEALTH_INTERVAL_SECONDS)),
        *("--worker-startup-timeout-secs", str(_STARTUP_SECONDS)),
        *("--prometheus-host", "0.0.0.0", "--prometheus-port", str(ports.router_metrics)),  # noqa: S104
    ]
    # The router shows its workers this key as a bearer token.
    secret = {"OPENAI_API_KEY": api_key}
    return Router(GATEWAY, instance_type, VERSION, tuple(argv), {}, secret)


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
