from __future__ import annotations

import pytest

from infra.names import STACK_TAG


@pytest.fixture
def ec2(admin):
    return admin.client("ec2")


@pytest.fixture
def main_table(ec2):
    def find(vpc: str) -> str:
        tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
        return tables["RouteTables"][0]["RouteTableId"]

    return find


@pytest.fixture
def with_nat(ec2, subnet, main_table):
    """A subnet whose default route is a NAT gateway."""

    def make() -> str:
        vpc, name = subnet()
        address = ec2.allocate_address(Domain="vpc")["AllocationId"]
        made = ec2.create_nat_gateway(SubnetId=name, AllocationId=address)
        ec2.create_route(
            RouteTableId=main_table(vpc),
            DestinationCidrBlock="0.0.0.0/0",
            NatGatewayId=made["NatGateway"]["NatGatewayId"],
        )
        return name

    return make


def test_a_subnet_with_room_passes(result_of, asked, subnet):
    vpc, name = subnet()
    result = result_of("SUBNET", asked(vpc_id=vpc, subnet_id=name))
    assert result.state == "PASS"
    assert "251 free addresses of 4 needed" in result.message


def test_a_subnet_without_room_fails(result_of, asked, subnet):
    stack = asked(subnet_id=subnet(prefix=28)[1], addresses=12)
    result = result_of("SUBNET", stack)
    assert result.state == "FAIL"
    assert "has 11 free addresses, the stack needs 12" in result.message


def test_addresses_that_the_stack_holds_already_are_free_for_it(result_of, asked, subnet, ec2):
    _, name = subnet(prefix=28)
    tags = [{"Key": STACK_TAG, "Value": "dev"}]
    ec2.create_network_interface(
        SubnetId=name, TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}]
    )
    assert result_of("SUBNET", asked(subnet_id=name, addresses=11)).state == "PASS"


def test_a_subnet_of_another_vpc_fails(result_of, asked, subnet):
    result = result_of("SUBNET", asked(vpc_id="vpc-0a", subnet_id=subnet()[1]))
    assert (result.state, "not in vpc-0a" in result.message) == ("FAIL", True)


def test_a_subnet_of_another_zone_fails(result_of, asked, subnet):
    result = result_of("SUBNET", asked(zone="us-east-1b", subnet_id=subnet()[1]))
    assert (result.state, "is in us-east-1a" in result.message) == ("FAIL", True)


@pytest.mark.parametrize("code", ["SUBNET", "WAY_TO_AWS"])
def test_a_subnet_that_is_not_there_fails(result_of, asked, code):
    result = result_of(code, asked(subnet_id="subnet-0123456789abcdef0"))
    assert result.state == "FAIL"
    assert "has no subnet subnet-0123456789abcdef0" in result.message


def test_a_subnet_with_no_way_out_fails_and_names_what_is_missing(result_of, asked, subnet):
    result = result_of("WAY_TO_AWS", asked(subnet_id=subnet()[1]))
    assert result.state == "FAIL"
    assert "no way to s3, ssm, ssmmessages" in result.message
    assert "has no default route" in result.message


def test_an_internet_gateway_is_no_way_for_nodes_without_public_addresses(
    result_of, asked, subnet, ec2, main_table
):
    vpc, name = subnet()
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    ec2.create_route(
        RouteTableId=main_table(vpc), DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
    )
    result = result_of("WAY_TO_AWS", asked(subnet_id=name))
    assert result.state == "FAIL"
    assert "nodes have no public address" in result.message


def test_a_nat_gateway_is_a_way_to_everything(result_of, asked, with_nat):
    result = result_of("WAY_TO_AWS", asked(subnet_id=with_nat()))
    assert result.state == "PASS"
    assert result.message == "s3 by NAT gateway, ssm by NAT gateway, ssmmessages by NAT gateway"


PULLS = ("the image vllm/vllm-openai:v0.33.0",)


def test_images_of_a_public_registry_need_a_way_to_the_internet(results_of, asked, subnet):
    _, internet = results_of("WAY_TO_AWS", asked(subnet_id=subnet()[1], internet=PULLS))
    assert internet.state == "FAIL"
    assert "need one for the image vllm/vllm-openai:v0.33.0" in internet.message


def test_a_nat_gateway_is_a_way_to_the_internet(results_of, asked, with_nat):
    _, internet = results_of("WAY_TO_AWS", asked(subnet_id=with_nat(), internet=PULLS))
    assert internet.state == "PASS"


@pytest.fixture
def with_endpoints(ec2, subnet, main_table):
    """A subnet with a gateway endpoint for S3 and interface endpoints for these services."""

    def make(*services: str, names: bool = True) -> str:
        vpc, name = subnet()
        if names:
            ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
        ec2.create_vpc_endpoint(
            VpcId=vpc,
            ServiceName="com.amazonaws.us-east-1.s3",
            VpcEndpointType="Gateway",
            RouteTableIds=[main_table(vpc)],
        )
        for service in services:
            ec2.create_vpc_endpoint(
                VpcId=vpc,
                ServiceName=f"com.amazonaws.us-east-1.{service}",
                VpcEndpointType="Interface",
                SubnetIds=[name],
                PrivateDnsEnabled=True,
            )
        return name

    return make


def test_endpoints_are_a_way(result_of, asked, with_endpoints):
    result = result_of("WAY_TO_AWS", asked(subnet_id=with_endpoints("ssm", "ssmmessages")))
    assert result.state == "PASS"
    assert "s3 by gateway endpoint, ssm by interface endpoint" in result.message


def test_a_missing_endpoint_is_named(result_of, asked, with_endpoints):
    result = result_of("WAY_TO_AWS", asked(subnet_id=with_endpoints("ssm")))
    assert (result.state, "no way to ssmmessages" in result.message) == ("FAIL", True)


def test_private_names_that_the_vpc_does_not_resolve_fail(result_of, asked, with_endpoints):
    name = with_endpoints("ssm", "ssmmessages", names=False)
    result = result_of("WAY_TO_AWS", asked(subnet_id=name))
    assert result.state == "FAIL"
    assert "need enableDnsHostnames of the VPC" in result.message


ECR = ("ssm", "ssmmessages", "ecr.api", "ecr.dkr")


def test_images_of_ecr_need_its_endpoints_too(result_of, asked, with_endpoints):
    stack = asked(subnet_id=with_endpoints("ssm", "ssmmessages"), services=ECR)
    result = result_of("WAY_TO_AWS", stack)
    assert (result.state, "no way to ecr.api, ecr.dkr" in result.message) == ("FAIL", True)


def test_endpoints_of_ecr_are_a_way_to_its_images(result_of, asked, with_endpoints):
    stack = asked(subnet_id=with_endpoints(*ECR), services=ECR)
    assert result_of("WAY_TO_AWS", stack).state == "PASS"


@pytest.fixture
def beside(ec2, main_table):
    """A further subnet of a VPC, with or without a route to an internet gateway."""

    def make(vpc: str, zone: str = "us-east-1a", *, routed: bool = True) -> str:
        made = ec2.create_subnet(VpcId=vpc, CidrBlock="10.20.1.0/24", AvailabilityZone=zone)
        if routed:
            gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
            ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
            ec2.create_route(
                RouteTableId=main_table(vpc), DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
            )
        return made["Subnet"]["SubnetId"]

    return make


def test_a_public_subnet_with_an_internet_gateway_passes(result_of, asked, subnet, beside):
    vpc, name = subnet()
    stack = asked(vpc_id=vpc, subnet_id=name, public_subnet_id=beside(vpc))
    assert result_of("PUBLIC_SUBNET", stack).state == "PASS"


def test_a_public_subnet_that_the_internet_does_not_reach_fails(result_of, asked, subnet, beside):
    vpc, name = subnet()
    stack = asked(vpc_id=vpc, subnet_id=name, public_subnet_id=beside(vpc, routed=False))
    result = result_of("PUBLIC_SUBNET", stack)
    assert result.state == "FAIL"
    assert "no default route to an internet gateway" in result.message


def test_a_public_subnet_of_another_zone_than_the_nodes_fails(result_of, asked, subnet, beside):
    vpc, name = subnet()
    stack = asked(vpc_id=vpc, subnet_id=name, public_subnet_id=beside(vpc, "us-east-1b"))
    result = result_of("PUBLIC_SUBNET", stack)
    assert (result.state, "the nodes are in us-east-1a" in result.message) == ("FAIL", True)


def test_a_public_subnet_of_another_vpc_fails(result_of, asked, subnet, beside):
    (vpc, name), (other, _) = subnet(), subnet()
    stack = asked(vpc_id=vpc, subnet_id=name, public_subnet_id=beside(other))
    result = result_of("PUBLIC_SUBNET", stack)
    assert (result.state, f"not in {vpc}" in result.message) == ("FAIL", True)


def test_a_public_subnet_that_is_not_there_fails(result_of, asked, subnet):
    vpc, name = subnet()
    stack = asked(vpc_id=vpc, subnet_id=name, public_subnet_id="subnet-0123456789abcdef0")
    result = result_of("PUBLIC_SUBNET", stack)
    assert (result.state, "has no subnet" in result.message) == ("FAIL", True)
