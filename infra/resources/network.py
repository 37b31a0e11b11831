"""A private network in one zone: no internet gateway, no public address, no SSH."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

SSM_SERVICES = ("ssm", "ssmmessages")
"""Interface endpoints: secrets (ssm) and Session Manager (both) without a way to the internet."""


@dataclass(frozen=True)
class NetworkArgs:
    """What the network is made from.

    cidr: of the VPC. zone_pinned: the zone was named by the user, so a change of it counts.
    allowed_cidrs: who may reach `api_port` of the primaries.
    """

    region: str
    cidr: str
    zone: pulumi.Input[str]
    zone_pinned: bool
    api_port: int
    allowed_cidrs: tuple[str, ...]


class Network(pulumi.ComponentResource):
    """VPC, private subnet, endpoints for S3 and SSM, security groups."""

    vpc_id: pulumi.Output[str]
    subnet_id: pulumi.Output[str]
    members_id: pulumi.Output[str]
    access_id: pulumi.Output[str]

    def __init__(self, args: NetworkArgs, opts: pulumi.ResourceOptions) -> None:
        super().__init__("moe-serving:network:Network", "network", None, opts)
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
        subnet, routes = self._subnet(args)
        self.subnet_id = subnet.id
        self.members_id = self._members()
        self.access_id = self._access(args)
        self._endpoints(args, routes)
        self.register_outputs({"vpc_id": self.vpc_id, "subnet_id": self.subnet_id})

    def _child(self, ignore_changes: list[str] | None = None) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, ignore_changes=ignore_changes)

    def _subnet(self, args: NetworkArgs) -> tuple[aws.ec2.Subnet, aws.ec2.RouteTable]:
        subnet = aws.ec2.Subnet(
            "nodes",
            vpc_id=self.vpc_id,
            cidr_block=subnet_cidr(args.cidr),
            availability_zone=args.zone,
            map_public_ip_on_launch=False,
            # The zones that offer a type change over time: a new answer must not move the nodes.
            opts=self._child(ignore_changes=[] if args.zone_pinned else ["availabilityZone"]),
        )
        routes = aws.ec2.RouteTable("nodes", vpc_id=self.vpc_id, opts=self._child())
        aws.ec2.RouteTableAssociation(
            "nodes", subnet_id=subnet.id, route_table_id=routes.id, opts=self._child()
        )
        return subnet, routes

    def _members(self) -> pulumi.Output[str]:
        """All traffic among the nodes: vLLM's data plane takes random ports in both directions.

        EFA asks for the rules to name the group itself; 0.0.0.0/0 does not stand for it.
        """
        group = self._security_group("members", "Nodes of one stack, among themselves")
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
        aws.vpc.SecurityGroupEgressRule(
            "members-to-https",
            security_group_id=group.id,
            cidr_ipv4="0.0.0.0/0",
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            opts=self._child(),
        )
        return group.id

    def _access(self, args: NetworkArgs) -> pulumi.Output[str]:
        group = self._security_group("access", "Who may reach the endpoint")
        for cidr in args.allowed_cidrs:
            aws.vpc.SecurityGroupIngressRule(
                f"access-from-{cidr.replace('/', '-')}",
                security_group_id=group.id,
                cidr_ipv4=cidr,
                ip_protocol="tcp",
                from_port=args.api_port,
                to_port=args.api_port,
                opts=self._child(),
            )
        return group.id

    def _endpoints(self, args: NetworkArgs, routes: aws.ec2.RouteTable) -> None:
        aws.ec2.VpcEndpoint(
            "s3",
            vpc_id=self.vpc_id,
            service_name=f"com.amazonaws.{args.region}.s3",
            vpc_endpoint_type="Gateway",
            route_table_ids=[routes.id],
            opts=self._child(),
        )
        group = self._security_group("aws-services", "Interface endpoints of AWS services")
        aws.vpc.SecurityGroupIngressRule(
            "aws-services-from-members",
            security_group_id=group.id,
            referenced_security_group_id=self.members_id,
            ip_protocol="tcp",
            from_port=443,
            to_port=443,
            opts=self._child(),
        )
        for service in SSM_SERVICES:
            aws.ec2.VpcEndpoint(
                service,
                vpc_id=self.vpc_id,
                service_name=f"com.amazonaws.{args.region}.{service}",
                vpc_endpoint_type="Interface",
                subnet_ids=[self.subnet_id],
                security_group_ids=[group.id],
                private_dns_enabled=True,
                opts=self._child(),
            )

    def _security_group(self, name: str, description: str) -> aws.ec2.SecurityGroup:
        return aws.ec2.SecurityGroup(
            name,
            vpc_id=self.vpc_id,
            description=description,
            tags={"Name": f"moe-serving-{pulumi.get_stack()}-{name}"},
            opts=self._child(),
        )


def subnet_cidr(vpc_cidr: str) -> str:
    """The nodes' subnet: the first /20 (4091 addresses) of the VPC, or all of a smaller one."""
    network = ipaddress.IPv4Network(vpc_cidr)
    return str(next(network.subnets(new_prefix=max(20, network.prefixlen))))
