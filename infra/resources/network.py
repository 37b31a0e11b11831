"""The network of a stack, in one zone: made here, or an existing subnet with groups of its own."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from infra.plan.reach import SSM_SERVICES
from infra.resources import ports

ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True)
class Existing:
    """A VPC and a subnet that are there already; their routes and endpoints are their owner's.

    zone: of the subnet. public_subnet_id: for a public endpoint.
    """

    vpc_id: pulumi.Input[str]
    subnet_id: pulumi.Input[str]
    zone: pulumi.Input[str]
    public_subnet_id: str | None


@dataclass(frozen=True)
class NetworkArgs:
    """What the network is made from.

    cidr: of the VPC. zone_pinned: the settings say the zone, or the reservation that they name, so
    a change of it counts.
    allowed_cidrs: who may reach `api_port` of the primaries.
    nat: a way out to the internet. plain_http: whether nodes need it on port 80 too.
    public_subnet: one that the internet reaches.
    existing: takes the place of cidr, zone and nat.
    services: of AWS, that nodes without a NAT gateway reach by interface endpoints.
    """

    region: str
    cidr: str
    zone: pulumi.Input[str]
    zone_pinned: bool
    api_port: int
    allowed_cidrs: tuple[str, ...]
    nat: bool = False
    public_subnet: bool = False
    existing: Existing | None = None
    services: tuple[str, ...] = SSM_SERVICES
    plain_http: bool = False


class Network(pulumi.ComponentResource):
    """VPC, private subnet, endpoints for S3 and SSM or a NAT gateway, security groups.

    zone: where the nodes really are: the zones that offer a type change, the subnet stays.
    """

    vpc_id: pulumi.Output[str]
    subnet_id: pulumi.Output[str]
    zone: pulumi.Output[str]
    members_id: pulumi.Output[str]
    access_id: pulumi.Output[str]
    public_subnet_id: pulumi.Output[str] | None = None

    def __init__(self, args: NetworkArgs, opts: pulumi.ResourceOptions) -> None:
        super().__init__("moe-serving:network:Network", "network", None, opts)
        self._args = args
        self._routes: aws.ec2.RouteTable | None = None
        self._further: list[pulumi.Input[str]] = []
        if args.existing is None:
            self._make(args)
        else:
            self._take(args.existing)
        self.members_id = self._members()
        self.access_id = self._access(args)
        if self._routes is not None:
            self._s3_endpoint(self._routes)
        self.register_outputs({"vpc_id": self.vpc_id, "subnet_id": self.subnet_id})

    def open(self, after: Sequence[pulumi.Resource]) -> None:
        """Make what is billed by the hour: the ways to AWS's services or to the internet.

        Args:
            after: what must be there first, so that nothing is billed where capacity is refused.
        """
        if self._routes is None:
            return
        # Free, and made beside a NAT gateway too: changing from one way to the other deletes none.
        group = self._services_group()
        if self._args.nat:
            self._nat(self._routes, after)
        else:
            self._interface_endpoints(group, after)

    @property
    def plain_http(self) -> bool:
        """Whether nodes reach the internet on port 80: apt's mirrors, which sign what they have."""
        return self._args.plain_http

    def admit_to_services(self, group_id: pulumi.Input[str]) -> None:
        """Let a further security group reach the interface endpoints that `open` makes."""
        self._further.append(group_id)

    def _child(
        self, ignore_changes: list[str] | None = None, after: Sequence[pulumi.Resource] = ()
    ) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(
            parent=self, ignore_changes=ignore_changes, depends_on=list(after)
        )

    def _take(self, existing: Existing) -> None:
        self.vpc_id = pulumi.Output.from_input(existing.vpc_id)
        self.subnet_id = pulumi.Output.from_input(existing.subnet_id)
        self.zone = pulumi.Output.from_input(existing.zone)
        if existing.public_subnet_id:
            self.public_subnet_id = pulumi.Output.from_input(existing.public_subnet_id)

    def _make(self, args: NetworkArgs) -> None:
        vpc = aws.ec2.Vpc(
            "vpc",
            cidr_block=args.cidr,
            # Both are what the private names of interface endpoints need.
            enable_dns_support=True,
            enable_dns_hostnames=True,
            tags={"Name": f"moe-serving-{pulumi.get_stack()}"},
            opts=self._child(),
        )
        self.vpc_id = vpc.id
        outside = args.nat or args.public_subnet
        private, public = subnet_cidrs(args.cidr, public=outside)
        # The zones that offer a type change over time: a new answer must not move the nodes.
        kept = [] if args.zone_pinned else ["availabilityZone"]
        subnet, self._routes = self._subnet("nodes", private, args.zone, kept)
        self.subnet_id, self.zone = subnet.id, subnet.availability_zone
        if public is not None:
            self._public(public)

    def _subnet(
        self, name: str, cidr: str, zone: pulumi.Input[str], kept: list[str]
    ) -> tuple[aws.ec2.Subnet, aws.ec2.RouteTable]:
        subnet = aws.ec2.Subnet(
            name,
            vpc_id=self.vpc_id,
            cidr_block=cidr,
            availability_zone=zone,
            map_public_ip_on_launch=False,
            opts=self._child(ignore_changes=kept),
        )
        routes = aws.ec2.RouteTable(name, vpc_id=self.vpc_id, opts=self._child())
        aws.ec2.RouteTableAssociation(
            name, subnet_id=subnet.id, route_table_id=routes.id, opts=self._child()
        )
        return subnet, routes

    def _public(self, cidr: str) -> None:
        """A subnet with a route to the internet: for the NAT gateway and the load balancer."""
        subnet, routes = self._subnet("public", cidr, self.zone, [])
        gateway = aws.ec2.InternetGateway("internet", vpc_id=self.vpc_id, opts=self._child())
        route = aws.ec2.Route(
            "public-to-internet",
            route_table_id=routes.id,
            destination_cidr_block=ANYWHERE,
            gateway_id=gateway.id,
            opts=self._child(),
        )
        # Whoever uses this subnet needs its way out, not only its id.
        self.public_subnet_id = pulumi.Output.all(subnet.id, route.id).apply(
            lambda known: str(known[0])
        )

    def _nat(self, routes: aws.ec2.RouteTable, after: Sequence[pulumi.Resource]) -> None:
        address = aws.ec2.Eip("nat", domain="vpc", opts=self._child(after=after))
        nat = aws.ec2.NatGateway(
            "nat",
            subnet_id=self.public_subnet_id,
            allocation_id=address.id,
            opts=self._child(after=after),
        )
        aws.ec2.Route(
            "nodes-to-internet",
            route_table_id=routes.id,
            destination_cidr_block=ANYWHERE,
            nat_gateway_id=nat.id,
            opts=self._child(),
        )

    def _members(self) -> pulumi.Output[str]:
        """All traffic among the nodes: vLLM's data plane takes random ports in both directions.

        EFA asks for the rules to name the group itself; 0.0.0.0/0 does not stand for it.
        """
        group = self.security_group("members", "Nodes of one stack, among themselves")
        aws.vpc.SecurityGroupIngressRule(
            "members-from-members",
            security_group_id=group.id,
            referenced_security_group_id=group.id,
            ip_protocol="-1",
            opts=self._child(),
        )
        aws.vpc.SecurityGroupEgressRule(
            "members-to-members",
            security_group_id=group.id,
            referenced_security_group_id=group.id,
            ip_protocol="-1",
            opts=self._child(),
        )
        # S3 is reached by its public addresses, routed to the gateway endpoint.
        ports.egress("members-to-https", group.id, 443, self._child(), cidr_ipv4=ANYWHERE)
        if self.plain_http:
            ports.egress("members-to-http", group.id, 80, self._child(), cidr_ipv4=ANYWHERE)
        return group.id

    def _access(self, args: NetworkArgs) -> pulumi.Output[str]:
        group = self.security_group("access", "Who may reach the endpoint")
        ports.from_cidrs("access", group.id, args.api_port, self._child(), args.allowed_cidrs)
        return group.id

    def _s3_endpoint(self, routes: aws.ec2.RouteTable) -> None:
        aws.ec2.VpcEndpoint(
            "s3",
            vpc_id=self.vpc_id,
            service_name=f"com.amazonaws.{self._args.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[routes.id],
            opts=self._child(),
        )

    def _services_group(self) -> aws.ec2.SecurityGroup:
        group = self.security_group("aws-services", "Interface endpoints of AWS services")
        peers = {"aws-services-from-members": self.members_id}
        peers |= {f"aws-services-from-other-{n}": id_ for n, id_ in enumerate(self._further)}
        for name, peer in peers.items():
            ports.ingress(name, group.id, 443, self._child(), referenced_security_group_id=peer)
        return group

    def _interface_endpoints(
        self, group: aws.ec2.SecurityGroup, after: Sequence[pulumi.Resource]
    ) -> None:
        for service in self._args.services:
            aws.ec2.VpcEndpoint(
                service,
                vpc_id=self.vpc_id,
                service_name=f"com.amazonaws.{self._args.region}.{service}",
                vpc_endpoint_type="Interface",
                subnet_ids=[self.subnet_id],
                security_group_ids=[group.id],
                private_dns_enabled=True,
                opts=self._child(after=after),
            )

    def security_group(self, name: str, description: str) -> aws.ec2.SecurityGroup:
        """A group of the stack's VPC without any rule."""
        return aws.ec2.SecurityGroup(
            name,
            vpc_id=self.vpc_id,
            description=description,
            tags={"Name": f"moe-serving-{pulumi.get_stack()}-{name}"},
            opts=self._child(),
        )


SMALLEST_WITH_PUBLIC = 27
"""Of a VPC with a public subnet: EC2's smallest subnet is a /28, and there are two."""


def subnet_cidrs(vpc_cidr: str, *, public: bool) -> tuple[str, str | None]:
    """The nodes' subnet and, where asked for, the public one.

    The nodes get the first /20 (4091 addresses) of the VPC, or all that a smaller one has; the
    public subnet is the last /26 (a load balancer and a NAT gateway need few), or what is there.
    """
    network = ipaddress.IPv4Network(vpc_cidr)
    taken = network.prefixlen + (1 if public else 0)
    private = next(network.subnets(new_prefix=max(20, taken)))
    if not public:
        return str(private), None
    *_, last = network.subnets(new_prefix=min(28, max(26, taken)))
    return str(private), str(last)
