"""TCP ports of a security group, opened in one direction to one peer."""

from __future__ import annotations

from typing import Any

import pulumi
import pulumi_aws as aws


def ingress(
    name: str,
    group: pulumi.Input[str],
    port: int,
    opts: pulumi.ResourceOptions,
    *,
    ports: int = 1,
    **peer: Any,
) -> None:
    """Let a peer in to so many ports: `cidr_ipv4` or `referenced_security_group_id`."""
    aws.vpc.SecurityGroupIngressRule(
        name,
        opts=opts,
        **_tcp(group, port, ports),
        **peer,
    )


def egress(
    name: str,
    group: pulumi.Input[str],
    port: int,
    opts: pulumi.ResourceOptions,
    *,
    ports: int = 1,
    **peer: Any,
) -> None:
    """Let members out to a peer's ports: `cidr_ipv4` or `referenced_security_group_id`."""
    aws.vpc.SecurityGroupEgressRule(
        name,
        opts=opts,
        **_tcp(group, port, ports),
        **peer,
    )


def from_cidrs(
    name: str,
    group: pulumi.Input[str],
    port: int,
    opts: pulumi.ResourceOptions,
    cidrs: tuple[str, ...],
) -> None:
    """Let networks in, one rule each: `<name>-from-<network>`."""
    for cidr in cidrs:
        ingress(f"{name}-from-{cidr.replace('/', '-')}", group, port, opts, cidr_ipv4=cidr)


def _tcp(group: pulumi.Input[str], port: int, ports: int) -> dict[str, Any]:
    return {
        "security_group_id": group,
        "ip_protocol": "tcp",
        "from_port": port,
        "to_port": port + ports - 1,
    }
