"""What a stack asks of the account, in plain values: made from its plan and settings, pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infra import catalog
from infra.bake.builder import digest
from infra.plan.assignments import software_of
from infra.plan.reach import SSM_SERVICES, services
from infra.plan.request import THERE_ALREADY
from infra.plan.router import GATEWAY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from infra.plan.plan import Plan
    from infra.plan.request import CapacityKind
    from infra.settings import Settings


@dataclass(frozen=True)
class Asked:
    """All that the checks of the account compare with it.

    nodes: group (or `gateway`) -> (instance type, number). interfaces: network interfaces of all
    nodes and endpoints; addresses: those that take an address of the subnet.
    gpu: whether any node has a GPU. ttl_seconds: None where the stack has no end.
    balanced: whether there is a load balancer; certificate_arn, domain: its. public: whether the
    internet reaches the endpoint; public_subnet_id: an existing subnet that it is in then.
    placement_group: that the settings say the reservation is in.
    services: of AWS, that nodes reach by interface endpoints where there is no NAT gateway.
    internet: why the nodes must reach the internet, one phrase each; empty where they need not.
    software: group -> digest of what its nodes have installed.
    """

    stack: str
    nodes: Mapping[str, tuple[str, int]]
    interfaces: int
    addresses: int
    gpu: bool
    capacity_kind: CapacityKind
    capacity_id: str | None
    zone: str | None
    vpc_id: str | None
    subnet_id: str | None
    elastic_ips: int
    ami: str | None
    model_name: str
    model_source: str
    model_revision: str | None
    balanced: bool
    model_token: bool
    ttl_seconds: float | None
    internet: tuple[str, ...] = ()
    placement_group: str | None = None
    software: Mapping[str, str] = field(default_factory=dict)
    certificate_arn: str | None = None
    domain: str | None = None
    public: bool = False
    public_subnet_id: str | None = None
    services: tuple[str, ...] = SSM_SERVICES

    @property
    def types(self) -> tuple[str, ...]:
        """Instance types, each once."""
        return tuple(dict.fromkeys(kind for kind, _ in self.nodes.values()))

    @property
    def reserved_nodes(self) -> Mapping[str, int]:
        """Instance type -> how many of it come from the stack's capacity: all but the gateway."""
        wanted: Counter[str] = Counter()
        for name, (kind, count) in self.nodes.items():
            if name != GATEWAY:
                wanted[kind] += count
        return wanted

    @property
    def makes_network(self) -> bool:
        """Whether the stack makes its own VPC."""
        return self.vpc_id is None and self.subnet_id is None

    @property
    def named_capacity(self) -> bool:
        """Whether the nodes go into a reservation or block that is there already."""
        return self.capacity_id is not None and self.capacity_kind in THERE_ALREADY

    def purchase(self, name: str) -> str:
        """How the nodes of a group are had: `spot`, `capacity-block`, else `on-demand`."""
        if name != GATEWAY and self.capacity_kind in ("spot", "capacity-block"):
            return self.capacity_kind
        return "on-demand"


def asked_of(plan: Plan, settings: Settings) -> Asked:
    """What a plan and the settings that it came from ask of the account."""
    nodes = {line.what: (line.instance_type, line.count) for line in plan.cost.lines}
    gateways = nodes.get(GATEWAY, ("", 0))[1]
    layouts = [node.network_interfaces for node in plan.nodes]
    makes_network = settings.network.vpc_id is None and settings.network.subnet_id is None
    nat = plan.way_out == "nat"
    # The NAT gateway takes the place of the interface endpoints.
    used = services(plan.nodes)
    endpoints = 0 if not makes_network else 1 if nat else len(used)
    balancers, public = int(settings.endpoint.balanced), settings.endpoint.exposure == "public"
    with_address = sum(nic.interface_type != "efa-only" for nics in layouts for nic in nics)
    zone = settings.network.zone
    return Asked(
        stack=plan.stack,
        nodes=nodes,
        interfaces=sum(map(len, layouts)) + gateways + endpoints + balancers,
        addresses=with_address + gateways + endpoints + (0 if public else balancers),
        gpu=any(catalog.instance_type(node.instance_type).gpu_count for node in plan.nodes),
        capacity_kind=settings.capacity.kind,
        capacity_id=settings.capacity.id,
        zone=None if zone == "auto" else zone,
        vpc_id=settings.network.vpc_id,
        subnet_id=settings.network.subnet_id,
        elastic_ips=int(nat),
        ami=settings.ami,
        model_name=plan.model.name,
        model_source=settings.model.source,
        model_revision=settings.model.revision,
        balanced=settings.endpoint.balanced,
        model_token=settings.huggingface_token,
        ttl_seconds=plan.ttl_seconds,
        internet=plan.from_internet,
        placement_group=settings.capacity.placement_group,
        software={
            group.name.rpartition("-")[0]: digest(software_of(group.primary))
            for group in plan.groups
        },
        certificate_arn=settings.endpoint.certificate_arn,
        domain=settings.endpoint.domain,
        public=public,
        public_subnet_id=settings.network.public_subnet_id if public else None,
        services=used,
    )
