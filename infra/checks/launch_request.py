"""Rules of a launch request: run over what the program is about to send to EC2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.checks.facts import LaunchFacts, RequestedInterface
from infra.checks.finding import Finding, in_order
from infra.checks.registry import ALL_RULES
from infra.checks.rule import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ADDRESS_FIELDS = (
    "associatePublicIpAddress",
    "privateIpAddress",
    "ipv4Addresses",
    "ipv4AddressCount",
    "ipv4Prefixes",
    "ipv4PrefixCount",
    "ipv6Addresses",
    "ipv6AddressCount",
    "ipv6Prefixes",
    "ipv6PrefixCount",
    "primaryIpv6",
    "connectionTrackingSpecification",
)


def judge_launch(facts: LaunchFacts) -> tuple[Finding, ...]:
    """What EC2 would refuse of a launch request, or what wouldn't work once it is launched."""
    values = vars(facts)
    found = [
        finding
        for rule in ALL_RULES
        if rule.scope == "launch"
        for finding in rule.look(values, f"{NAMESPACE}groups")
    ]
    return in_order(tuple(found))


def launch_facts(
    template: Mapping[str, Any],
    rules: Sequence[Mapping[str, Any]],
    *,
    runtime: str,
    host_network: bool = True,
    instances: int = 1,
) -> LaunchFacts:
    """The plain values of a launch template and of its nodes' security group.

    Args:
        template: inputs of `aws.ec2.LaunchTemplate`, in the provider's spelling.
        rules: inputs of the group's `SecurityGroupIngressRule` (direction `in`) and
            `SecurityGroupEgressRule` (direction `out`), each with a key `direction`.
        runtime: `venv` or `container`.
        host_network: whether containers share the host's network.
        instances: how many are launched from it.
    """
    metadata = template.get("metadataOptions") or {}
    disks = template.get("blockDeviceMappings") or ()
    interfaces = tuple(template.get("networkInterfaces") or ())
    to_itself = {
        rule["direction"]
        for rule in rules
        if str(rule.get("ipProtocol")) == "-1"
        and rule.get("referencedSecurityGroupId") == rule.get("securityGroupId")
    }
    return LaunchFacts(
        runtime=runtime,
        host_network=host_network,
        http_tokens=str(metadata.get("httpTokens", "")),
        hop_limit=int(metadata.get("httpPutResponseHopLimit", 1)),
        requested=tuple(_interface(nic) for nic in interfaces),
        names_interface=any(nic.get("networkInterfaceId") for nic in interfaces),
        instances=instances,
        self_ingress="in" in to_itself,
        self_egress="out" in to_itself,
        root_volume_gib=int((disks[0].get("ebs") or {}).get("volumeSize", 8)) if disks else 8,
    )


def _interface(nic: Mapping[str, Any]) -> RequestedInterface:
    return (
        int(nic.get("networkCardIndex", 0)),
        int(nic.get("deviceIndex", 0)),
        str(nic.get("interfaceType") or "interface"),
        any(nic.get(field) is not None for field in _ADDRESS_FIELDS),
        str(nic.get("associatePublicIpAddress")).lower() == "true",
    )
