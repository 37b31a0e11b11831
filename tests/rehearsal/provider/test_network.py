"""VPC, subnets, routing, security groups, interfaces: against moto's account, over gRPC."""

from __future__ import annotations

import pytest

from rehearsal.provider.wire import UNKNOWN

VPC = "aws:ec2/vpc:Vpc"
SUBNET = "aws:ec2/subnet:Subnet"
GROUP = "aws:ec2/securityGroup:SecurityGroup"
INTERFACE = "aws:ec2/networkInterface:NetworkInterface"
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"


@pytest.fixture
def vpc(engine):
    return engine.create(VPC, {"cidrBlock": "10.7.0.0/16", "enableDnsHostnames": True})


@pytest.fixture
def subnet(engine, vpc):
    inputs = {"vpcId": vpc.id, "cidrBlock": "10.7.1.0/24", "mapPublicIpOnLaunch": True}
    return engine.create(SUBNET, inputs)


def test_a_vpc_is_made_with_its_dns_settings_and_answers_its_parts(engine, vpc, ec2):
    assert vpc.id.startswith("vpc-")
    assert vpc.state["enableDnsHostnames"] is True
    assert vpc.state["mainRouteTableId"].startswith("rtb-")
    assert vpc.state["defaultSecurityGroupId"].startswith("sg-")
    assert vpc.state["arn"].endswith(f":vpc/{vpc.id}")
    attribute = ec2.describe_vpc_attribute(VpcId=vpc.id, Attribute="enableDnsHostnames")
    assert attribute["EnableDnsHostnames"]["Value"] is True
    engine.delete(vpc)
    assert engine.read(vpc).id == ""


def test_default_tags_are_on_everything_and_are_no_tags_of_the_resource(engine, ec2):
    made = engine.create(VPC, {"cidrBlock": "10.8.0.0/16", "tags": {"Name": "n"}})
    assert made.state["tags"] == {"Name": "n"}
    assert made.state["tagsAll"] == {"stack": "dev", "Name": "n"}
    remote = ec2.describe_vpcs(VpcIds=[made.id])["Vpcs"][0]["Tags"]
    assert {t["Key"]: t["Value"] for t in remote} == {"stack": "dev", "Name": "n"}


def test_a_cidr_change_replaces_a_vpc_and_a_tag_change_does_not(engine, vpc):
    replaced = engine.diff(vpc, {"cidrBlock": "10.9.0.0/16", "enableDnsHostnames": True})
    assert list(replaced.replaces) == ["cidrBlock"]
    inputs = {"cidrBlock": "10.7.0.0/16", "enableDnsHostnames": True, "tags": {"a": "b"}}
    changed = engine.diff(vpc, inputs)
    assert not changed.replaces
    assert set(changed.diffs) == {"tags", "tagsAll"}
    updated = engine.update(vpc, inputs)
    assert updated.state["tagsAll"] == {"stack": "dev", "a": "b"}


def test_unchanged_inputs_are_no_difference(engine, vpc, subnet):
    assert not engine.diff(vpc, {"cidrBlock": "10.7.0.0/16", "enableDnsHostnames": True}).diffs
    inputs = {"vpcId": vpc.id, "cidrBlock": "10.7.1.0/24", "mapPublicIpOnLaunch": True}
    assert not engine.diff(subnet, inputs).diffs


def test_a_preview_knows_inputs_and_leaves_the_rest_unknown(engine):
    planned = engine.create(VPC, {"cidrBlock": "10.7.0.0/16"}, preview=True)
    assert planned.state["cidrBlock"] == "10.7.0.0/16"
    assert planned.state["arn"] == UNKNOWN
    assert planned.state["tagsAll"] == {"stack": "dev"}
    assert planned.state["region"] == "us-west-2"


def test_drift_of_a_tag_and_of_a_setting_is_read(engine, subnet, ec2):
    ec2.create_tags(Resources=[subnet.id], Tags=[{"Key": "Name", "Value": "drifted"}])
    ec2.modify_subnet_attribute(SubnetId=subnet.id, MapPublicIpOnLaunch={"Value": False})
    now = engine.read(subnet)
    assert now.inputs["mapPublicIpOnLaunch"] is False
    assert now.state["tagsAll"]["Name"] == "drifted"
    assert now.inputs["tagsAll"]["Name"] == "drifted"
    inputs = {k: subnet.inputs[k] for k in ("vpcId", "cidrBlock", "mapPublicIpOnLaunch")}
    assert set(engine.diff(now, inputs).diffs) == {"mapPublicIpOnLaunch", "tagsAll"}


def test_an_import_finds_the_inputs_that_make_it(engine, vpc, subnet):
    found = engine.found(SUBNET, subnet.id)
    assert found.inputs["vpcId"] == vpc.id
    assert found.inputs["cidrBlock"] == "10.7.1.0/24"
    program = {"vpcId": vpc.id, "cidrBlock": "10.7.1.0/24", "mapPublicIpOnLaunch": True}
    assert not engine.diff(found, program).replaces


def test_a_security_group_lets_nothing_out_until_a_rule_says_so(engine, vpc, ec2):
    group = engine.create(GROUP, {"vpcId": vpc.id}, name="web")
    assert group.inputs["name"].startswith("web-")
    assert group.state["description"] == "Managed by Pulumi"
    remote = ec2.describe_security_groups(GroupIds=[group.id])["SecurityGroups"][0]
    assert remote["IpPermissionsEgress"] == []
    rule = engine.create(
        EGRESS, {"securityGroupId": group.id, "ipProtocol": "-1", "cidrIpv4": "0.0.0.0/0"}
    )
    assert rule.id.startswith("sgr-")
    remote = ec2.describe_security_groups(GroupIds=[group.id])["SecurityGroups"][0]
    assert remote["IpPermissionsEgress"][0]["IpProtocol"] == "-1"
    engine.delete(rule)
    assert engine.read(rule).id == ""


def test_a_name_that_the_program_gave_makes_a_replacement_delete_first(engine, vpc):
    auto = engine.create(GROUP, {"vpcId": vpc.id})
    assert not engine.diff(auto, {"vpcId": vpc.id, "description": "new"}).deleteBeforeReplace
    fixed = engine.create(GROUP, {"vpcId": vpc.id, "name": "fixed"})
    change = engine.diff(fixed, {"vpcId": vpc.id, "name": "fixed", "description": "new"})
    assert list(change.replaces) == ["description"]
    assert change.deleteBeforeReplace


def test_an_automatic_name_stays_over_updates(engine, vpc):
    group = engine.create(GROUP, {"vpcId": vpc.id}, name="web")
    engine.seed = b"another run"
    again = engine.checked(GROUP, {"vpcId": vpc.id}, group.inputs, "web")
    assert again["name"] == group.inputs["name"]


def test_a_rule_between_groups_changes_in_place(engine, vpc):
    group = engine.create(GROUP, {"vpcId": vpc.id})
    inputs = {
        "securityGroupId": group.id,
        "referencedSecurityGroupId": group.id,
        "ipProtocol": "tcp",
        "fromPort": 9400,
        "toPort": 9400,
    }
    rule = engine.create(INGRESS, inputs)
    assert rule.state["referencedSecurityGroupId"] == group.id
    assert not engine.diff(rule, inputs).diffs
    wider = {**inputs, "toPort": 9500}
    assert not engine.diff(rule, wider).replaces
    assert engine.update(rule, wider).state["toPort"] == 9500


def test_inline_rules_are_kept_as_the_program_wrote_them(engine, vpc, ec2):
    rules = [
        {"protocol": "tcp", "fromPort": 80, "toPort": 80, "cidrBlocks": ["10.0.0.0/8"]},
        {"protocol": "-1", "fromPort": 0, "toPort": 0, "self": True},
    ]
    inputs = {"vpcId": vpc.id, "ingress": rules}
    group = engine.create(GROUP, inputs)
    assert not engine.diff(engine.read(group), inputs).diffs
    engine.update(group, {"vpcId": vpc.id, "ingress": rules[:1]})
    remote = ec2.describe_security_groups(GroupIds=[group.id])["SecurityGroups"][0]
    assert [p["IpProtocol"] for p in remote["IpPermissions"]] == ["tcp"]


def test_an_interface_has_its_address_and_keeps_the_order_of_its_groups(engine, vpc, subnet):
    groups = [engine.create(GROUP, {"vpcId": vpc.id}, name=n).id for n in ("a", "b")]
    inputs = {"subnetId": subnet.id, "securityGroups": groups, "description": "node"}
    nic = engine.create(INTERFACE, inputs)
    assert nic.id.startswith("eni-")
    assert nic.state["privateIp"]
    assert nic.state["securityGroups"] == groups
    turned = {**inputs, "securityGroups": groups[::-1]}
    assert not engine.diff(nic, turned).diffs
    engine.delete(nic)
    engine.delete(nic)
    assert engine.read(nic).id == ""


def test_a_private_subnet_reaches_out_through_a_nat_gateway(engine, vpc, subnet):
    gateway = engine.create("aws:ec2/internetGateway:InternetGateway", {"vpcId": vpc.id})
    assert gateway.state["vpcId"] == vpc.id
    address = engine.create("aws:ec2/eip:Eip", {"domain": "vpc"})
    assert address.state["publicIp"]
    nat = engine.create(
        "aws:ec2/natGateway:NatGateway", {"subnetId": subnet.id, "allocationId": address.id}
    )
    table = engine.create("aws:ec2/routeTable:RouteTable", {"vpcId": vpc.id})
    inputs = {
        "routeTableId": table.id,
        "destinationCidrBlock": "0.0.0.0/0",
        "natGatewayId": nat.id,
    }
    route = engine.create("aws:ec2/route:Route", inputs)
    assert not engine.diff(engine.read(route), inputs).diffs
    pair = {"subnetId": subnet.id, "routeTableId": table.id}
    association = engine.create("aws:ec2/routeTableAssociation:RouteTableAssociation", pair)
    assert not engine.diff(engine.read(association), pair).diffs
    for made in (association, route, table, nat, address, gateway):
        engine.delete(made)
        assert engine.read(made).id == "", made.token


def test_routes_written_in_a_table_are_brought_up_to_date(engine, vpc, ec2):
    gateway = engine.create("aws:ec2/internetGateway:InternetGateway", {"vpcId": vpc.id})
    inputs = {"vpcId": vpc.id, "routes": [{"cidrBlock": "0.0.0.0/0", "gatewayId": gateway.id}]}
    table = engine.create("aws:ec2/routeTable:RouteTable", inputs)
    assert not engine.diff(engine.read(table), inputs).diffs
    engine.update(table, {"vpcId": vpc.id, "routes": []})
    routes = ec2.describe_route_tables(RouteTableIds=[table.id])["RouteTables"][0]["Routes"]
    assert [route["DestinationCidrBlock"] for route in routes] == ["10.7.0.0/16"]


def test_a_gateway_endpoint_is_added_to_route_tables(engine, vpc):
    inputs = {
        "vpcId": vpc.id,
        "serviceName": "com.amazonaws.us-west-2.s3",
        "routeTableIds": [vpc.state["mainRouteTableId"]],
    }
    made = engine.create("aws:ec2/vpcEndpoint:VpcEndpoint", inputs)
    assert made.state["vpcEndpointType"] == "Gateway"
    assert not engine.diff(engine.read(made), inputs).diffs
    engine.delete(made)
    assert engine.read(made).id == ""
