"""One launch request as it goes to EC2, and the security group of the nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.checks.finding import Severity
from infra.checks.rule import Hit, Hits, rule

if TYPE_CHECKING:
    from infra.checks.facts import RequestedInterface

_EFA_GUIDE = "EC2 user guide: Elastic Fabric Adapter, get started (security group)"
_IMAGE_GIB = 64
"""vLLM's image has 22 GB, and as much again while it is unpacked, beside the system."""


@rule(
    Severity.ERROR,
    "",
    consequence="Any program that can be made to fetch a URL gets the keys of the node's role",
    remedy="http_tokens: required",
    source="EC2 user guide: instance metadata service version 2",
    example="A launch template without http_tokens.",
    scope="launch",
    suppressible=False,
)
def imds_without_tokens(*, http_tokens: str) -> Hits:
    """The metadata service must want a session's token."""
    if http_tokens != "required":
        yield Hit(f"http_tokens is {http_tokens or 'not set'}")


@rule(
    Severity.ERROR,
    "",
    consequence="boto3 in the container hangs: answers of the metadata service don't reach it",
    remedy="http_put_response_hop_limit: 2, or the host's network for the container",
    source="terraform-aws-eks v21 (default 1, containers on a bridge need 2)",
    example="A container on a bridge network with a hop limit of 1.",
    scope="launch",
)
def imds_hop_limit(*, runtime: str, host_network: bool, hop_limit: int) -> Hits:
    """A container behind a bridge is one hop further from the metadata service."""
    if runtime == "container" and not host_network and hop_limit < 2:
        yield Hit(f"the hop limit is {hop_limit} and containers are behind a bridge")
    elif runtime == "venv" and hop_limit > 1:
        yield Hit(
            f"the hop limit is {hop_limit} and nothing on the node is behind a bridge",
            consequence="More than the node itself can ask for the keys of its role",
            remedy="http_put_response_hop_limit: 1",
        )


@rule(
    Severity.ERROR,
    "",
    consequence="EC2 refuses the launch with InvalidParameterValue, even where the value is false",
    remedy="leave every field of an address out of efa-only interfaces",
    source="karpenter-provider-aws launchtemplate.go; botocore: don't assign any IP addresses",
    example="An efa-only interface with associate_public_ip_address: false.",
    scope="launch",
)
def efa_only_with_address(*, requested: tuple[RequestedInterface, ...]) -> Hits:
    """An efa-only interface has no address of any kind."""
    for card, device, kind, has_address, _ in requested:
        if kind == "efa-only" and has_address:
            yield Hit(f"the efa-only interface at card {card}, device {device} has an address")


@rule(
    Severity.ERROR,
    "",
    consequence="EC2 refuses the request, or the node gets no public address",
    remedy="private subnets, or an Elastic IP on the primary interface",
    source="EC2 user guide: multiple network interfaces at launch have no automatic public IPv4",
    example="17 interfaces, the first with associate_public_ip_address: true.",
    scope="launch",
)
def public_address_with_several_interfaces(*, requested: tuple[RequestedInterface, ...]) -> Hits:
    """EC2 gives no public address to an instance that is launched with several interfaces."""
    if len(requested) > 1 and any(public for *_, public in requested):
        yield Hit(f"{len(requested)} interfaces and a public address in one request")


@rule(
    Severity.ERROR,
    "",
    consequence="Ranks start, wait for one another and hang until a time limit ends them",
    remedy="one rule each for all protocols from and to the security group itself",
    source=_EFA_GUIDE,
    example="A security group with egress to 0.0.0.0/0 and none to itself.",
    scope="launch",
    suppressible=False,
)
def members_closed_to_themselves(*, self_ingress: bool, self_egress: bool) -> Hits:
    """EFA wants all traffic from and to the nodes' own security group, said explicitly."""
    lacking = [
        name for name, open_ in (("ingress", self_ingress), ("egress", self_egress)) if not open_
    ]
    if lacking:
        yield Hit(f"the nodes' security group has no {' and no '.join(lacking)} rule for itself")


@rule(
    Severity.WARNING,
    "",
    consequence="Unpacking the image fills the disk: the node never gets to vLLM",
    remedy=f"a root volume of {_IMAGE_GIB} GiB or more, or images on the instance store",
    source="awslabs dsv3-uccl-nixl@95b939c (image of 22 GB)",
    example="A root volume of 30 GiB with the container runtime.",
    scope="launch",
)
def root_volume_too_small(*, runtime: str, root_volume_gib: int) -> Hits:
    """The container image must fit the root volume, packed and unpacked."""
    if runtime == "container" and root_volume_gib < _IMAGE_GIB:
        yield Hit(f"the root volume has {root_volume_gib} GiB")


@rule(
    Severity.ERROR,
    "",
    consequence="Both instances want the one interface: EC2 refuses the second launch",
    remedy="one launch template per node",
    source="EC2 user guide: a network interface is attached to one instance",
    example="A template that names an interface, with a count of 2.",
    scope="launch",
)
def one_interface_for_several_nodes(*, names_interface: bool, instances: int) -> Hits:
    """A template that names an existing interface can launch one instance."""
    if names_interface and instances > 1:
        yield Hit(f"{instances} instances from a template that names an existing interface")


RULES = (
    imds_without_tokens,
    imds_hop_limit,
    efa_only_with_address,
    public_address_with_several_interfaces,
    members_closed_to_themselves,
    root_volume_too_small,
    one_interface_for_several_nodes,
)
