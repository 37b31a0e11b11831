"""The gateway: whether a stack has one, what it runs, and what it is told."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from infra import catalog
from infra.plan import topology
from infra.plan.assignments import apis, kv_transfer, staged_weights
from infra.plan.plan import agent_token_parameter
from infra.plan.request import DEFAULT_KEYS
from infra.plan.router import GATEWAY, VERSION
from infra.plan.software import SoftwarePlan
from node_bootstrap.assignment import (
    SCHEMA,
    Assignment,
    Gateway,
    GatewayGroup,
    GatewayKey,
    GatewayLimits,
    GatewayTls,
    Limits,
    Member,
    Software,
)
from node_bootstrap.revision import with_revision
from node_bootstrap.ttl import Ttl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from infra.plan.assignments import Place
    from infra.plan.nics import NetworkInterface
    from infra.plan.plan import Group, Plan
    from infra.plan.request import GatewayOptions, KeyRequest, Request
    from node_bootstrap.assignment import Hardware

TLS_PORT, PLAIN_PORT = 443, 80
CA_KEY = "gateway/ca.pem"
"""S3 key of the certificate of the gateway's own authority: what clients must trust."""
DRAIN_SECONDS = 600.0
PACKAGES = {"caddy": "2.6.2", "prometheus": "2.53.3"}
"""Debian 13's own: upstream versions, whatever Debian's revision of them."""


@dataclass(frozen=True)
class GatewayPlan:
    """The gateway of a stack. reason: why it has one. port: the one that clients reach.

    tls: who signs; None: plain HTTP. domain: a further name of the certificate.
    keys: at least one. packages: of Debian -> version.
    """

    node: str
    instance_type: str
    reason: str
    port: int
    tls: Literal["internal", "acme"] | None
    domain: str | None
    keys: tuple[KeyRequest, ...]
    packages: dict[str, str]
    software: SoftwarePlan
    limits: GatewayLimits
    network_interfaces: tuple[NetworkInterface, ...]
    hardware: Hardware
    address: str

    @property
    def scheme(self) -> str:
        """Of the endpoint's address."""
        return "https" if self.tls else "http"


class AskedGroup(Protocol):
    """A group, as settings or a request have it."""

    @property
    def role(self) -> str:
        """`serve`, `prefill` or `decode`."""
        ...

    @property
    def replicas(self) -> int:
        """Groups of this kind."""
        ...

    @property
    def nodes(self) -> int:
        """Nodes of each."""
        ...

    @property
    def load_balancing(self) -> str:
        """`internal`, `hybrid` or `external`."""
        ...


def has_several_apis(group: AskedGroup) -> bool:
    """Whether a group has more than its primary's API."""
    mode = group.load_balancing
    return mode == "external" or (mode == "hybrid" and group.nodes > 1)


def why(
    groups: Iterable[AskedGroup], *, enabled: bool | None, public: bool, tls: bool, keys: bool
) -> str:
    """Why a stack has a gateway; empty where the primary is the endpoint. enabled None: auto."""
    if enabled is not None:
        return "gateway.enabled is true" if enabled else ""
    asked = tuple(groups)
    reasons = (
        (any(g.role != "serve" for g in asked), "prefill and decode groups need a router"),
        (sum(g.replicas for g in asked) > 1, "several groups need one address"),
        (any(map(has_several_apis, asked)), "several APIs of a group need one address"),
        (public, "keys, limits and paths of a public endpoint"),
        (tls, "endpoint.tls"),
        (keys, "endpoint.keys"),
    )
    return next((reason for holds, reason in reasons if holds), "")


def gateway(request: Request) -> GatewayPlan | None:
    """The gateway's plan; None where the stack has none."""
    asked = request.gateway
    reason = why(
        request.groups,
        enabled=asked.enabled,
        public=request.endpoint.exposure == "public",
        tls=request.endpoint.tls,
        keys=bool(asked.keys),
    )
    if not reason:
        return None
    instance = catalog.instance_type(request.gateway_instance_type)
    place = topology.NodePlace(GATEWAY, 0, "primary", 0, 0)
    return GatewayPlan(
        node=GATEWAY,
        instance_type=instance.name,
        reason=reason,
        port=TLS_PORT if asked.tls else PLAIN_PORT,
        tls=asked.issuer if asked.tls else None,
        domain=asked.domain,
        keys=asked.keys or DEFAULT_KEYS,
        packages=PACKAGES,
        software=SoftwarePlan("venv", request.vllm.python, None, {"vllm-router": VERSION}, ()),
        limits=_limits(asked),
        network_interfaces=topology.interfaces(instance).interfaces,
        hardware=topology.hardware(instance, place, driver_min=""),
        address=place.address,
    )


def _limits(asked: GatewayOptions) -> GatewayLimits:
    return GatewayLimits(
        body_bytes=asked.body_limit_bytes,
        request_seconds=asked.request_timeout_seconds,
        wait_seconds=asked.wait_seconds,
        waiting_requests=asked.waiting_requests,
        drain_seconds=DRAIN_SECONDS,
        retries=asked.retries,
    )


def assignment(
    plan: Plan, place: Place, digests: Mapping[str, str], names: Sequence[str] = ()
) -> Assignment:
    """What the gateway is told.

    Args:
        plan: of a stack that has one.
        place: with the gateway's own address among the addresses.
        digests: name of a key -> SHA-256 of its value, in hex.
        names: further ones by which clients reach it: a load balancer's.
    """
    gate, router = plan.gateway, plan.router
    if gate is None or router is None:
        raise ValueError(f"{plan.stack} has no gateway")
    address = place.addresses[gate.node]
    told = Assignment(
        schema=SCHEMA,
        stack=plan.stack,
        region=place.region,
        bucket=place.bucket,
        node=gate.node,
        group=gate.node,
        role="gateway",
        position="primary",
        revision="",
        archive=place.archive,
        members=(Member(gate.node, address, "primary", 0, 0),),
        agent_port=plan.ports.agent,
        api_port=plan.ports.api,
        agent_token_parameter=agent_token_parameter(plan.stack),
        argv=(),
        env={},
        secret_env=router.secret_env,
        software=Software("venv", gate.software.python, gate.software.distributions),
        weights=staged_weights(plan, place.bucket),
        hardware=dataclasses.replace(gate.hardware, private_ip=address),
        probe=plan.probe,
        limits=Limits(start_seconds=60.0, stop_seconds=10.0, silence_seconds=5.0),
        ttl=None if plan.ttl_seconds is None else Ttl(plan.ttl_seconds),
        gateway=Gateway(
            port=gate.port,
            groups=tuple(_group(plan, group, place) for group in plan.groups),
            keys=tuple(_key(key, digests[key.name]) for key in gate.keys),
            router_argv=(gate.software.python, "-m", "vllm_router.launch_router", *router.common),
            tls=_tls(gate, address, names),
            ca_key=CA_KEY,
            packages=gate.packages,
            limits=gate.limits,
        ),
    )
    return with_revision((told,))[0]


def _tls(gate: GatewayPlan, address: str, further: Sequence[str]) -> GatewayTls | None:
    if gate.tls is None:
        return None
    domain = [gate.domain] if gate.domain else []
    # A load balancer speaks to the address; port forwards end at localhost.
    names = (*domain, *further, address, "localhost", "127.0.0.1")
    return GatewayTls(tuple(dict.fromkeys(names)), gate.tls)


def _group(plan: Plan, group: Group, place: Place) -> GatewayGroup:
    ways = apis(group, plan.ports.api, place.addresses)
    return GatewayGroup(
        name=group.name,
        role=group.role,
        urls=tuple(f"http://{api.address}:{api.port}" for api in ways),
        ranks=group.data_parallel_size,
        members=tuple(
            Member(n.name, place.addresses[n.name], n.position, n.first_rank, n.ranks)
            for n in group.nodes
        ),
        kv_transfer=kv_transfer(group),
        transfer=group.kv_transfer.measured if group.kv_transfer else None,
    )


def _key(key: KeyRequest, digest: str) -> GatewayKey:
    return GatewayKey(key.name, digest, key.expires_at, key.models, key.requests_per_minute)


def key_parameter(stack: str, key: KeyRequest) -> str:
    """SSM parameter with the value of an API key."""
    turn = f".{key.rotate}" if key.rotate else ""
    return f"/moe-serving/{stack}/keys/{key.name}{turn}"
