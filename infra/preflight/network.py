"""An existing subnet and VPC: room for the nodes, and a way to S3 and SSM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.preflight.aws import Aws, is_own
from infra.preflight.check import Check
from infra.preflight.result import Verdict, failed, passed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from infra.preflight.asked import Asked

Item = dict[str, Any]


def _subnet(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    subnet = aws.subnet(asked.subnet_id)
    if subnet is None:
        yield _no_subnet(aws, asked)
        return
    filters = [{"Name": "subnet-id", "Values": [asked.subnet_id]}]
    there = aws.pages("describe_network_interfaces", "NetworkInterfaces", Filters=filters)
    own = sum(is_own(item, asked.stack) and bool(item.get("PrivateIpAddress")) for item in there)
    yield judge_subnet(subnet, own, asked)


def judge_subnet(subnet: Mapping[str, Any], own: int, asked: Asked) -> Verdict:
    """Whether a subnet can take the nodes. own: addresses that the stack holds in it already."""
    name, free = subnet["SubnetId"], subnet["AvailableIpAddressCount"] + own
    zone = subnet["AvailabilityZone"]
    if asked.vpc_id is not None and subnet["VpcId"] != asked.vpc_id:
        return failed(
            f"{name} is in {subnet['VpcId']}, not in {asked.vpc_id}",
            "set network.subnet_id to a subnet of network.vpc_id",
        )
    if asked.zone is not None and zone != asked.zone:
        return failed(
            f"{name} is in {zone}, network.zone is {asked.zone}", "leave network.zone out"
        )
    if free < asked.addresses:
        return failed(
            f"{name} has {free} free addresses, the stack needs {asked.addresses}",
            "take a larger subnet, or free addresses in it",
        )
    return passed(f"{name} in {zone} has {free} free addresses of {asked.addresses} needed")


def _ways(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    subnet = aws.subnet(asked.subnet_id)
    if subnet is None:
        yield _no_subnet(aws, asked)
        return
    vpc = subnet["VpcId"]
    in_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    tables = list(aws.pages("describe_route_tables", "RouteTables", Filters=in_vpc))
    endpoints = list(aws.pages("describe_vpc_endpoints", "VpcEndpoints", Filters=in_vpc))
    names = {
        attribute: aws.ec2.describe_vpc_attribute(VpcId=vpc, Attribute=attribute)[key]["Value"]
        for attribute, key in (
            ("enableDnsSupport", "EnableDnsSupport"),
            ("enableDnsHostnames", "EnableDnsHostnames"),
        )
    }
    table = table_of(subnet["SubnetId"], tables)
    # What a node can't do without: assignment and weights; secrets, Session Manager, its image.
    wanted = ("s3", *asked.services)
    yield judge_ways(subnet["SubnetId"], table, endpoints, names, wanted)
    if asked.internet:
        yield judge_internet(subnet["SubnetId"], table, asked.internet)


def table_of(subnet_id: str, tables: Sequence[Item]) -> Item:
    """The route table of a subnet: its own, else the main one of the VPC."""
    for table in tables:
        if any(a.get("SubnetId") == subnet_id for a in table.get("Associations", ())):
            return table
    return next(t for t in tables if any(a.get("Main") for a in t.get("Associations", ())))


def judge_ways(
    subnet_id: str,
    table: Item,
    endpoints: Sequence[Item],
    names: Mapping[str, bool],
    services: Sequence[str],
) -> Verdict:
    """Whether nodes without a public address reach AWS's services, and how.

    Args:
        subnet_id: where the nodes go.
        table: its route table.
        endpoints: of its VPC.
        names: the VPC's two DNS attributes.
        services: S3 and those that have interface endpoints.
    """
    how = {service: _way(service, table, endpoints) for service in services}
    missing = [service for service, way in how.items() if way is None]
    if missing:
        return failed(
            f"nodes in {subnet_id} have no way to {', '.join(missing)} ({_default(table)})",
            "route 0.0.0.0/0 to a NAT gateway, or make endpoints: a gateway endpoint for S3 in "
            f"{table['RouteTableId']}, interface endpoints with private DNS for "
            f"{', '.join(services[1:])}",
        )
    off = [name for name, value in names.items() if not value]
    private = [service for service, way in how.items() if way == "interface endpoint"]
    if off and private:
        return failed(
            f"private names of {', '.join(private)} need {' and '.join(off)} of the VPC",
            "turn it on for the VPC",
        )
    return passed(", ".join(f"{service} by {way}" for service, way in how.items()))


def judge_internet(subnet_id: str, table: Item, why: Sequence[str]) -> Verdict:
    """Whether nodes without a public address reach the internet, which they need for `why`."""
    way = _way_out(table)
    if way is None:
        return failed(
            f"nodes in {subnet_id} have no way to the internet ({_default(table)}), and need one "
            f"for {', '.join(why)}",
            "route 0.0.0.0/0 to a NAT gateway, or take images from ECR and weights from S3",
        )
    return passed(f"the internet by {way}, for {', '.join(why)}")


def _way(service: str, table: Item, endpoints: Sequence[Item]) -> str | None:
    for endpoint in endpoints:
        if not endpoint["ServiceName"].endswith(f".{service}"):
            continue
        if str(endpoint.get("State", "")).lower() not in ("available", "pending"):
            continue
        if table["RouteTableId"] in endpoint.get("RouteTableIds", ()):
            return "gateway endpoint"
        if endpoint.get("VpcEndpointType") == "Interface" and endpoint.get("PrivateDnsEnabled"):
            return "interface endpoint"
    return _way_out(table)


def _way_out(table: Item) -> str | None:
    route = _default_route(table)
    if route is None or route.get("State") == "blackhole":
        return None
    # Nodes have no public address, so an internet gateway alone is no way out.
    if str(route.get("GatewayId", "")).startswith("igw-"):
        return None
    return "NAT gateway" if route.get("NatGatewayId") else "default route"


def _default_route(table: Item) -> Item | None:
    routes = table.get("Routes", ())
    return next((r for r in routes if r.get("DestinationCidrBlock") == "0.0.0.0/0"), None)


def _default(table: Item) -> str:
    route = _default_route(table)
    if route is None:
        return f"{table['RouteTableId']} has no default route"
    if str(route.get("GatewayId", "")).startswith("igw-"):
        return "its default route is an internet gateway, and nodes have no public address"
    return "its default route is a black hole"


def _public_subnet(aws: Aws, asked: Asked) -> Iterator[Verdict]:
    subnet = aws.subnet(asked.public_subnet_id)
    if subnet is None:
        yield failed(
            f"{aws.region} has no subnet {asked.public_subnet_id}",
            "set network.public_subnet_id to one of this account and region",
        )
        return
    nodes = aws.subnet(asked.subnet_id)
    in_vpc = [{"Name": "vpc-id", "Values": [subnet["VpcId"]]}]
    tables = list(aws.pages("describe_route_tables", "RouteTables", Filters=in_vpc))
    zone = nodes["AvailabilityZone"] if nodes else None  # the nodes' own check says so
    yield judge_public_subnet(subnet, table_of(subnet["SubnetId"], tables), zone, asked)


def judge_public_subnet(subnet: Item, table: Item, zone: str | None, asked: Asked) -> Verdict:
    """Whether a public load balancer can stand in a subnet. zone: of the nodes, where known."""
    name = subnet["SubnetId"]
    if subnet["VpcId"] != asked.vpc_id:
        return failed(
            f"{name} is in {subnet['VpcId']}, not in {asked.vpc_id}",
            "set network.public_subnet_id to a subnet of network.vpc_id",
        )
    if zone is not None and subnet["AvailabilityZone"] != zone:
        # A network load balancer sends to targets of its own zones alone.
        return failed(
            f"{name} is in {subnet['AvailabilityZone']}, the nodes are in {zone}",
            f"set network.public_subnet_id to a subnet in {zone}",
        )
    route = _default_route(table) or {}
    if not str(route.get("GatewayId", "")).startswith("igw-") or route.get("State") == "blackhole":
        return failed(
            f"the internet does not reach {name}: {table['RouteTableId']} has no default route to "
            "an internet gateway",
            "take a subnet that has one, or route 0.0.0.0/0 of this one to an internet gateway",
        )
    if not subnet["AvailableIpAddressCount"]:
        return failed(f"{name} has no free address", "take another subnet, or free an address")
    return passed(f"{name} in {subnet['AvailabilityZone']} has a route to an internet gateway")


def _no_subnet(aws: Aws, asked: Asked) -> Verdict:
    return failed(
        f"{aws.region} has no subnet {asked.subnet_id}",
        "set network.subnet_id to one of this account and region",
    )


CHECKS = (
    Check(
        "PREFLIGHT_SUBNET",
        "moe-serving:network.subnet_id",
        "The existing subnet has room for the nodes.",
        ("ec2:DescribeSubnets", "ec2:DescribeNetworkInterfaces"),
        lambda asked: asked.subnet_id is not None,
        _subnet,
    ),
    Check(
        "PREFLIGHT_WAY_TO_AWS",
        "moe-serving:network.vpc_id",
        "Nodes in the existing VPC reach S3, SSM and, for images from there, ECR.",
        (
            "ec2:DescribeSubnets",
            "ec2:DescribeRouteTables",
            "ec2:DescribeVpcEndpoints",
            "ec2:DescribeVpcAttribute",
        ),
        lambda asked: asked.subnet_id is not None,
        _ways,
    ),
    Check(
        "PREFLIGHT_PUBLIC_SUBNET",
        "moe-serving:network.public_subnet_id",
        "The internet reaches the existing subnet of a public endpoint, in the nodes' zone.",
        ("ec2:DescribeSubnets", "ec2:DescribeRouteTables"),
        lambda asked: asked.public_subnet_id is not None,
        _public_subnet,
    ),
)
