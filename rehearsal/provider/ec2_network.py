"""VPC, subnet, internet gateway."""

# ruff: noqa: D102 - what the methods do is written once, in resource.Resource

from __future__ import annotations

from typing import Any, ClassVar

from rehearsal.provider import ec2, errors, shapes, tags
from rehearsal.provider.resource import MINUTE, Call, Change, Inputs, Resource, State, Timeouts

_DNS = {"enableDnsSupport": "EnableDnsSupport", "enableDnsHostnames": "EnableDnsHostnames"}
_METRICS = {"enableNetworkAddressUsageMetrics": "EnableNetworkAddressUsageMetrics"}


class Vpc(Resource):
    """A VPC. Changing its attributes takes one call each, as ModifyVpcAttribute wants it."""

    pulumi_type = "aws:ec2/vpc:Vpc"
    updatable = frozenset({*_DNS, *_METRICS, "instanceTenancy"})
    force_new = frozenset({"cidrBlock", "ipv4IpamPoolId", "ipv4NetmaskLength", "region"})
    computed = frozenset(
        {"cidrBlock", "enableDnsHostnames", "enableNetworkAddressUsageMetrics", "ipv6CidrBlock"}
    )
    defaults: ClassVar = {"enableDnsSupport": True, "instanceTenancy": "default"}
    timeouts = Timeouts(delete=5 * MINUTE)

    def create(self, call: Call, inputs: Inputs) -> str:
        names = {
            "cidrBlock", "instanceTenancy", "ipv4IpamPoolId", "ipv4NetmaskLength",
            "ipv6CidrBlock", "ipv6IpamPoolId", "ipv6NetmaskLength",
            "ipv6CidrBlockNetworkBorderGroup",
        }  # fmt: skip
        asked: dict[str, Any] = {key: inputs[key] for key in names & inputs.keys()}
        if inputs.get("assignGeneratedIpv6CidrBlock"):
            asked["amazonProvidedIpv6CidrBlock"] = True
        made = call.client("ec2").create_vpc(
            **ec2.parameters(call, "CreateVpc", asked),
            TagSpecifications=tags.specification("vpc", inputs),
        )
        return made["Vpc"]["VpcId"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        call.wait(f"{rid} to be available", lambda: self._available(call, rid))
        now = self._attributes(call, rid)
        for name, api in (_DNS | _METRICS).items():
            if name in inputs and inputs[name] != now.get(name):
                value = {api: {"Value": inputs[name]}}
                call.client("ec2").modify_vpc_attribute(VpcId=rid, **value)

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        vpc = ec2.find(call, "describe_vpcs", "Vpcs", VpcIds=[rid])
        if vpc is None:
            return None
        ipv6 = next(iter(vpc.get("Ipv6CidrBlockAssociationSet") or []), {})
        return {
            "arn": call.arn("ec2", f"vpc/{rid}"),
            "cidrBlock": vpc["CidrBlock"],
            "instanceTenancy": vpc.get("InstanceTenancy"),
            "dhcpOptionsId": vpc.get("DhcpOptionsId"),
            "ownerId": vpc.get("OwnerId"),
            "ipv6CidrBlock": ipv6.get("Ipv6CidrBlock"),
            "ipv6AssociationId": ipv6.get("AssociationId"),
            "tagsAll": shapes.tag_map(vpc.get("Tags")),
            **self._attributes(call, rid),
            **self._main_parts(call, rid),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        if change.any("instanceTenancy"):
            call.client("ec2").modify_vpc_tenancy(
                VpcId=rid, InstanceTenancy=change.new["instanceTenancy"]
            )
        tags.sync_ec2(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        vpc = call.client("ec2")
        ec2.delete_when_free(call, lambda: vpc.delete_vpc(VpcId=rid), "DependencyViolation")

    def _available(self, call: Call, rid: str) -> bool | None:
        vpc = ec2.find(call, "describe_vpcs", "Vpcs", VpcIds=[rid])
        return True if vpc and vpc["State"] == "available" else None

    def _attributes(self, call: Call, rid: str) -> State:
        found = {}
        for name, api in (_DNS | _METRICS).items():
            attribute = api[0].lower() + api[1:]
            try:
                answer = call.client("ec2").describe_vpc_attribute(VpcId=rid, Attribute=attribute)
            except Exception as error:
                if not errors.gone(error):
                    raise
                continue
            found[name] = answer.get(api, {}).get("Value")
        return found

    def _main_parts(self, call: Call, rid: str) -> State:
        """The parts that AWS makes with each VPC."""
        client = call.client("ec2")
        mine = {"Name": "vpc-id", "Values": [rid]}
        default, main = {"Name": "default", "Values": ["true"]}, "association.main"
        acls = client.describe_network_acls(Filters=[mine, default])["NetworkAcls"]
        only = [mine, {"Name": main, "Values": ["true"]}]
        tables = client.describe_route_tables(Filters=only)["RouteTables"]
        named = [mine, {"Name": "group-name", "Values": ["default"]}]
        groups = client.describe_security_groups(Filters=named)["SecurityGroups"]
        table = tables[0]["RouteTableId"] if tables else None
        return {
            "defaultNetworkAclId": acls[0]["NetworkAclId"] if acls else None,
            "mainRouteTableId": table,
            "defaultRouteTableId": table,
            "defaultSecurityGroupId": groups[0]["GroupId"] if groups else None,
        }


class Subnet(Resource):
    """A subnet."""

    pulumi_type = "aws:ec2/subnet:Subnet"
    updatable = frozenset(
        {"assignIpv6AddressOnCreation", "enableDns64", "mapPublicIpOnLaunch",
         "enableResourceNameDnsARecordOnLaunch", "enableResourceNameDnsAaaaRecordOnLaunch",
         "privateDnsHostnameTypeOnLaunch"}
    )  # fmt: skip
    force_new = frozenset(
        {"availabilityZone", "availabilityZoneId", "cidrBlock", "vpcId", "outpostArn", "region",
         "ipv6Native", "ipv4IpamPoolId", "ipv4NetmaskLength"}
    )  # fmt: skip
    computed = frozenset(
        {"availabilityZone", "availabilityZoneId", "privateDnsHostnameTypeOnLaunch", "cidrBlock"}
    )
    defaults: ClassVar = {
        "assignIpv6AddressOnCreation": False,
        "enableDns64": False,
        "enableResourceNameDnsARecordOnLaunch": False,
        "enableResourceNameDnsAaaaRecordOnLaunch": False,
        "ipv6Native": False,
        "mapPublicIpOnLaunch": False,
    }
    unsupported = frozenset(
        {"customerOwnedIpv4Pool", "enableLniAtDeviceIndex", "ipv6IpamPoolId", "ipv6NetmaskLength",
         "mapCustomerOwnedIpOnLaunch"}
    )  # fmt: skip
    not_imported = frozenset({"availabilityZoneId"})

    def create(self, call: Call, inputs: Inputs) -> str:
        names = {
            "vpcId", "cidrBlock", "availabilityZone", "availabilityZoneId", "ipv6CidrBlock",
            "outpostArn", "ipv4IpamPoolId", "ipv4NetmaskLength",
        }  # fmt: skip
        asked: dict[str, Any] = {key: inputs[key] for key in names & inputs.keys()}
        if inputs.get("ipv6Native"):
            asked["ipv6Native"] = True
        made = call.client("ec2").create_subnet(
            **ec2.parameters(call, "CreateSubnet", asked),
            TagSpecifications=tags.specification("subnet", inputs),
        )
        return made["Subnet"]["SubnetId"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        subnet = call.wait(f"{rid} to be available", lambda: self._available(call, rid))
        client, now = call.client("ec2"), self._settings(subnet)
        for name, value in now.items():
            wanted = inputs.get(name, value)
            if wanted != value:
                client.modify_subnet_attribute(SubnetId=rid, **_subnet_attribute(name, wanted))

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        subnet = ec2.find(call, "describe_subnets", "Subnets", SubnetIds=[rid])
        if subnet is None:
            return None
        ipv6 = next(iter(subnet.get("Ipv6CidrBlockAssociationSet") or []), {})
        return {
            "arn": subnet.get("SubnetArn"),
            "vpcId": subnet["VpcId"],
            "cidrBlock": subnet.get("CidrBlock"),
            "availabilityZone": subnet.get("AvailabilityZone"),
            "availabilityZoneId": subnet.get("AvailabilityZoneId"),
            "ownerId": subnet.get("OwnerId"),
            "ipv6CidrBlock": ipv6.get("Ipv6CidrBlock"),
            "ipv6CidrBlockAssociationId": ipv6.get("AssociationId"),
            "ipv6Native": subnet.get("Ipv6Native", False),
            "tagsAll": shapes.tag_map(subnet.get("Tags")),
            **self._settings(subnet),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        tags.sync_ec2(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        client = call.client("ec2")
        # the addresses of nodes that were just terminated go some seconds after them
        ec2.delete_when_free(
            call, lambda: client.delete_subnet(SubnetId=rid), "DependencyViolation"
        )

    def _available(self, call: Call, rid: str) -> dict[str, Any] | None:
        subnet = ec2.find(call, "describe_subnets", "Subnets", SubnetIds=[rid])
        return subnet if subnet and subnet["State"] == "available" else None

    def _settings(self, subnet: dict[str, Any]) -> State:
        dns = subnet.get("PrivateDnsNameOptionsOnLaunch") or {}
        settings = {
            "assignIpv6AddressOnCreation": subnet.get("AssignIpv6AddressOnCreation", False),
            "enableDns64": subnet.get("EnableDns64", False),
            "mapPublicIpOnLaunch": subnet.get("MapPublicIpOnLaunch", False),
            "enableResourceNameDnsARecordOnLaunch": dns.get("EnableResourceNameDnsARecord", False),
            "enableResourceNameDnsAaaaRecordOnLaunch": dns.get(
                "EnableResourceNameDnsAAAARecord", False
            ),
        }
        if "HostnameType" in dns:
            settings["privateDnsHostnameTypeOnLaunch"] = dns["HostnameType"]
        return settings


def _subnet_attribute(name: str, value: Any) -> dict[str, Any]:
    api = name[0].upper() + name[1:].replace("Aaaa", "AAAA")
    return {api: value if isinstance(value, str) else {"Value": value}}


class InternetGateway(Resource):
    """An internet gateway, attached to its VPC."""

    pulumi_type = "aws:ec2/internetGateway:InternetGateway"
    updatable = frozenset({"vpcId"})
    force_new = frozenset({"region"})
    computed = frozenset({"vpcId"})

    def create(self, call: Call, inputs: Inputs) -> str:
        wanted = tags.specification("internet-gateway", inputs)
        made = call.client("ec2").create_internet_gateway(TagSpecifications=wanted)
        return made["InternetGateway"]["InternetGatewayId"]

    def finish(self, call: Call, rid: str, inputs: Inputs) -> None:
        self._attach(call, rid, inputs.get("vpcId"))

    def read(self, call: Call, rid: str, known: Inputs) -> State | None:
        del known
        gateway = self._find(call, rid)
        if gateway is None:
            return None
        return {
            "arn": call.arn("ec2", f"internet-gateway/{rid}"),
            "ownerId": gateway.get("OwnerId"),
            "vpcId": _attached_vpc(gateway),
            "tagsAll": shapes.tag_map(gateway.get("Tags")),
        }

    def update(self, call: Call, rid: str, change: Change) -> None:
        tags.sync_ec2(call, rid, change)

    def delete(self, call: Call, rid: str, state: Inputs) -> None:
        del state
        self._attach(call, rid, None)
        client = call.client("ec2")
        ec2.delete_when_free(
            call,
            lambda: client.delete_internet_gateway(InternetGatewayId=rid),
            "DependencyViolation",
        )

    def _find(self, call: Call, rid: str) -> dict[str, Any] | None:
        key = "InternetGateways"
        return ec2.find(call, "describe_internet_gateways", key, InternetGatewayIds=[rid])

    def _attach(self, call: Call, rid: str, vpc: str | None) -> None:
        client, gateway = call.client("ec2"), self._find(call, rid) or {}
        now = _attached_vpc(gateway)
        if now and now != vpc:
            # public addresses that are still mapped hold the gateway until they are released
            ec2.delete_when_free(
                call,
                lambda: client.detach_internet_gateway(InternetGatewayId=rid, VpcId=now),
                "DependencyViolation",
            )
        if vpc and now != vpc:
            client.attach_internet_gateway(InternetGatewayId=rid, VpcId=vpc)


def _attached_vpc(gateway: dict[str, Any]) -> str | None:
    attachments = gateway.get("Attachments") or []
    return attachments[0]["VpcId"] if attachments else None
