"""A load balancer in front of the endpoint: public with a certificate, or inside the VPC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.resources import ports

HTTPS_PORT = 443
DEFAULT_PORTS = {"https": HTTPS_PORT, "http": 80}
TCP_IDLE_SECONDS = 6000
"""The most that a TCP listener takes: a long completion that isn't streamed sends nothing for long.

A TLS listener has 350 s, which nobody can change; TCP keep-alives of either side hold it open.
"""
TLS_POLICY = "ELBSecurityPolicy-TLS13-1-2-2021-06"
DRAIN_SECONDS = 600


@dataclass(frozen=True)
class Targets:
    """What stands behind. addresses: node -> private address. port: of each.

    security_group_id: of the nodes, which opens the port. tls: what they speak there.
    """

    addresses: Mapping[str, pulumi.Input[str]]
    port: int
    security_group_id: pulumi.Input[str]
    tls: bool


@dataclass(frozen=True)
class EndpointArgs:
    """What stands in front of which nodes.

    public: with an address of the internet. subnet_id: where it is; public or the nodes' own.
    certificate_arn: of ACM; without one it passes TCP on, to the same port. domain: the name that
    clients use. allowed_cidrs: who may connect.
    """

    vpc_id: pulumi.Input[str]
    subnet_id: pulumi.Input[str]
    public: bool
    certificate_arn: str | None
    domain: str | None
    allowed_cidrs: tuple[str, ...]
    targets: Targets


class Endpoint(pulumi.ComponentResource):
    """Network load balancer, its security group, and one listener.

    url: base of the OpenAI API. dns_name: of the load balancer, for the record of `domain`.
    """

    url: pulumi.Output[str]
    dns_name: pulumi.Output[str]

    def __init__(self, args: EndpointArgs, opts: pulumi.ResourceOptions) -> None:
        super().__init__("moe-serving:endpoint:Endpoint", "endpoint", None, opts)
        self._opts = pulumi.ResourceOptions(parent=self)
        self._port = HTTPS_PORT if args.certificate_arn else args.targets.port
        group = self._security_group(args)
        balancer = aws.lb.LoadBalancer(
            "endpoint",
            load_balancer_type="network",
            internal=not args.public,
            subnets=[args.subnet_id],
            # A network load balancer made without a group can't be given one later.
            security_groups=[group.id],
            opts=self._opts,
        )
        self._listener(args, balancer, self._targets(args))
        scheme = "https" if args.certificate_arn or args.targets.tls else "http"
        port = "" if self._port == DEFAULT_PORTS[scheme] else f":{self._port}"
        self.dns_name = balancer.dns_name
        self.url = balancer.dns_name.apply(
            lambda name: f"{scheme}://{args.domain or name}{port}/v1"
        )
        self.register_outputs({"url": self.url})

    def _security_group(self, args: EndpointArgs) -> aws.ec2.SecurityGroup:
        group = aws.ec2.SecurityGroup(
            "load-balancer",
            vpc_id=args.vpc_id,
            description="Who may reach the load balancer, and the nodes behind it",
            tags={"Name": f"moe-serving-{pulumi.get_stack()}-load-balancer"},
            opts=self._opts,
        )
        nodes, port, opts = args.targets.security_group_id, args.targets.port, self._opts
        ports.from_cidrs("load-balancer", group.id, self._port, opts, args.allowed_cidrs)
        ports.egress(
            "load-balancer-to-nodes", group.id, port, opts, referenced_security_group_id=nodes
        )
        ports.ingress(
            "nodes-from-load-balancer", nodes, port, opts, referenced_security_group_id=group.id
        )
        return group

    def _targets(self, args: EndpointArgs) -> aws.lb.TargetGroup:
        """Addresses, not instances: they are known before boot and outlive an instance."""
        group = aws.lb.TargetGroup(
            "endpoint",
            port=args.targets.port,
            # A TCP listener forwards to nothing else, and hands the clients' own TLS through.
            protocol="TLS" if args.targets.tls and args.certificate_arn else "TCP",
            target_type="ip",
            vpc_id=args.vpc_id,
            # The nodes see the load balancer's address: the one that their group lets in.
            preserve_client_ip="false",
            deregistration_delay=DRAIN_SECONDS,
            health_check=aws.lb.TargetGroupHealthCheckArgs(
                protocol="TCP", interval=10, healthy_threshold=2, unhealthy_threshold=2
            ),
            opts=self._opts,
        )
        for node, address in args.targets.addresses.items():
            aws.lb.TargetGroupAttachment(
                f"{node}-target",
                target_group_arn=group.arn,
                target_id=address,
                port=args.targets.port,
                opts=self._opts,
            )
        return group

    def _listener(
        self, args: EndpointArgs, balancer: aws.lb.LoadBalancer, group: aws.lb.TargetGroup
    ) -> None:
        secure = args.certificate_arn is not None
        aws.lb.Listener(
            "endpoint",
            load_balancer_arn=balancer.arn,
            port=self._port,
            protocol="TLS" if secure else "TCP",
            certificate_arn=args.certificate_arn,
            ssl_policy=TLS_POLICY if secure else None,
            tcp_idle_timeout_seconds=None if secure else TCP_IDLE_SECONDS,
            default_actions=[
                aws.lb.ListenerDefaultActionArgs(type="forward", target_group_arn=group.arn)
            ],
            opts=self._opts,
        )
