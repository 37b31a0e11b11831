"""What clients meet: a load balancer, the gateway, or the first primary itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from infra.plan.plan import Plan
from infra.resources.endpoint import Endpoint, EndpointArgs, Targets
from infra.resources.gateway import Gateway
from infra.resources.network import Network
from infra.resources.nodes import Address
from infra.settings import EndpointSettings


def fronted(plan: Plan, settings: EndpointSettings) -> bool:
    """Whether something stands between the clients and the primaries."""
    return plan.gateway is not None or settings.balanced


@dataclass(frozen=True)
class Front:
    """gateway, balancer: where the stack has one. first: the first primary, with its API's port."""

    settings: EndpointSettings
    gateway: Gateway | None
    balancer: Endpoint | None
    first: Address
    api_port: int

    @property
    def url(self) -> pulumi.Output[str]:
        """Base of the OpenAI API, as clients write it."""
        if self.balancer is not None:
            return self.balancer.url
        if self.gateway is not None:
            return self.gateway.url
        return self.first.private_ip.apply(lambda ip: f"http://{ip}:{self.api_port}/v1")

    @property
    def names(self) -> list[pulumi.Input[str]]:
        """By which clients reach the gateway through a load balancer: its certificate has them."""
        if self.balancer is None:
            return []
        return [*([self.settings.domain] if self.settings.domain else []), self.balancer.dns_name]

    @property
    def own_authority(self) -> bool:
        """Whether clients meet a certificate that the gateway's own authority signed.

        A load balancer with a certificate ends their TLS and begins its own to the gateway, whose
        certificate it takes unseen.
        """
        return not (self.balancer and self.settings.certificate_arn)


@dataclass(frozen=True)
class FrontArgs:
    """What a front is made from. addresses: of the groups' nodes."""

    plan: Plan
    settings: EndpointSettings
    network: Network
    gateway: Gateway | None
    addresses: Mapping[str, Address]


def front(args: FrontArgs, opts: pulumi.ResourceOptions) -> Front:
    """Make the load balancer, if one is asked for, before what is there already."""
    settings, network = args.settings, args.network
    balancer = None
    if settings.balanced:
        public = settings.exposure == "public"
        outside = network.public_subnet_id if public else None
        balancer = Endpoint(
            EndpointArgs(
                vpc_id=network.vpc_id,
                subnet_id=outside if outside is not None else network.subnet_id,
                public=outside is not None,
                certificate_arn=settings.certificate_arn,
                domain=settings.domain,
                allowed_cidrs=settings.allowed_cidrs,
                targets=_targets(args),
            ),
            opts,
        )
    first = args.addresses[args.plan.groups[0].primary.name]
    return Front(settings, args.gateway, balancer, first, args.plan.ports.api)


def _targets(args: FrontArgs) -> Targets:
    plan, gate = args.plan, args.plan.gateway
    if args.gateway is not None and gate is not None:
        own = {gate.node: args.gateway.address.private_ip}
        return Targets(own, gate.port, args.gateway.group_id, tls=gate.tls is not None)
    primaries = {g.primary.name: args.addresses[g.primary.name].private_ip for g in plan.groups}
    return Targets(primaries, plan.ports.api, args.network.access_id, tls=False)
