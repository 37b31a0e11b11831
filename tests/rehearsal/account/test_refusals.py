"""What EC2 refuses to launch, rule by rule. Pure: no process, no moto server."""

from __future__ import annotations

import base64

import pytest
from moto.ec2.models.instance_types import INSTANCE_TYPES

from rehearsal.account.ec2.facts import InterfaceFacts, ReservationFacts, SubnetFacts, World
from rehearsal.account.ec2.launch import merge, parse, tags_by_resource
from rehearsal.account.ec2.refusals import check_launch

P5, P5_4XL, B300, G5_XL = "p5.48xlarge", "p5.4xlarge", "p6-b300.48xlarge", "g5.xlarge"
TYPES = {t: INSTANCE_TYPES[t] for t in (P5, P5_4XL, B300, G5_XL, "m7i.large")}
SUBNET = SubnetFacts("vpc-1", "us-east-1a", "10.0.0.0/24", 10, lambda ip: ip == "10.0.0.9")
WORLD = World(
    images=frozenset({"ami-1"}),
    instance_types=TYPES,
    zones_of_type={P5: frozenset({"us-east-1a"}), B300: frozenset({"us-east-1b"})},
    subnets={
        "subnet-1": SUBNET,
        "subnet-full": SubnetFacts("vpc-1", "us-east-1a", "10.0.1.0/28", 0, lambda _: True),
        "subnet-b": SubnetFacts("vpc-1", "us-east-1b", "10.0.2.0/24", 10, lambda _: False),
    },
    groups={"sg-1": "vpc-1", "sg-other": "vpc-2"},
    interfaces={
        "eni-free": InterfaceFacts("subnet-1", "interface", in_use=False),
        "eni-used": InterfaceFacts("subnet-1", "interface", in_use=True),
    },
    placement_groups=frozenset({"pg"}),
    reservations={
        "cr-1": ReservationFacts(P5, "us-east-1a", "active", 1, None, "default"),
        "cr-full": ReservationFacts(P5, "us-east-1a", "active", 0, None, "default"),
        "cr-pg": ReservationFacts(P5, "us-east-1a", "active", 1, "pg", "default"),
        "cb-1": ReservationFacts(P5, "us-east-1a", "active", 1, None, "capacity-block"),
    },
    profiles=frozenset({"node"}),
    keys=frozenset(),
)
PRIMARY = {"DeviceIndex": 0, "SubnetId": "subnet-1", "Groups": ["sg-1"]}


def nic(card=0, device=1, kind="interface", **more):
    return {
        "NetworkCardIndex": card,
        "DeviceIndex": device,
        "InterfaceType": kind,
        "SubnetId": "subnet-1",
        "Groups": ["sg-1"],
        **more,
    }


def efa(card, device=1, **more):
    return nic(card, device, "efa-only", **more)


def launch(*interfaces, itype=P5, **more):
    request = {"ImageId": "ami-1", "InstanceType": itype, **more}
    if interfaces:
        request["NetworkInterfaces"] = list(interfaces)
    return request


def target(reservation):
    return {"CapacityReservationTarget": {"CapacityReservationId": reservation}}


ACCEPTED = {
    "one interface": launch(PRIMARY),
    "an instance-level subnet and group": launch(SubnetId="subnet-1", SecurityGroupIds=["sg-1"]),
    "33 interfaces on a p5": launch(PRIMARY, *(efa(c) for c in range(32))),
    "17 interfaces on a p6-b300, none of EFA on card 0": launch(
        {**PRIMARY, "SubnetId": "subnet-b"},
        *({**efa(c), "SubnetId": "subnet-b"} for c in range(1, 17)),
        itype=B300,
    ),
    "an interface made beforehand": launch({"DeviceIndex": 0, "NetworkInterfaceId": "eni-free"}),
    "16384 bytes of user data": launch(PRIMARY, UserData=base64.b64encode(b"x" * 16384).decode()),
    "a reservation with room": launch(PRIMARY, CapacityReservationSpecification=target("cr-1")),
    "a capacity block": launch(
        PRIMARY,
        CapacityReservationSpecification=target("cb-1"),
        InstanceMarketOptions={"MarketType": "capacity-block"},
    ),
    "a public address on the only interface": launch({**PRIMARY, "AssociatePublicIpAddress": True}),
}
REFUSED = {
    "no image": (launch(PRIMARY, ImageId=""), "MissingParameter"),
    "unknown image": (launch(PRIMARY, ImageId="ami-2"), "InvalidAMIID.NotFound"),
    "unknown type": (launch(PRIMARY, itype="p9.huge"), "InvalidParameterValue"),
    "unknown key pair": (launch(PRIMARY, KeyName="k"), "InvalidKeyPair.NotFound"),
    "16385 bytes of user data": (
        launch(PRIMARY, UserData=base64.b64encode(b"x" * 16385).decode()),
        "InvalidParameterValue",
    ),
    "user data that is not base64": (launch(PRIMARY, UserData="é"), "InvalidUserData.Malformed"),
    "subnet beside interfaces": (
        launch(PRIMARY, SubnetId="subnet-1"),
        "InvalidParameterCombination",
    ),
    "groups beside interfaces": (
        launch(PRIMARY, SecurityGroupIds=["sg-1"]),
        "InvalidParameterCombination",
    ),
    "one interface for two instances": (
        launch({"DeviceIndex": 0, "NetworkInterfaceId": "eni-free"}, MaxCount=2),
        "InvalidParameterCombination",
    ),
    "unknown subnet": (launch({**PRIMARY, "SubnetId": "subnet-2"}), "InvalidSubnetID.NotFound"),
    "unknown group": (launch({**PRIMARY, "Groups": ["sg-2"]}), "InvalidGroup.NotFound"),
    "group of another VPC": (launch({**PRIMARY, "Groups": ["sg-other"]}), "InvalidParameter"),
    "unknown interface": (
        launch({"DeviceIndex": 0, "NetworkInterfaceId": "eni-2"}),
        "InvalidNetworkInterfaceID.NotFound",
    ),
    "interface in use": (
        launch({"DeviceIndex": 0, "NetworkInterfaceId": "eni-used"}),
        "InvalidNetworkInterface.InUse",
    ),
    "one interface twice": (
        launch(
            {"DeviceIndex": 0, "NetworkInterfaceId": "eni-free"},
            {"DeviceIndex": 1, "NetworkInterfaceId": "eni-free"},
        ),
        "InvalidNetworkInterface.InUse",
    ),
    "unknown placement group": (
        launch(PRIMARY, Placement={"GroupName": "no"}),
        "InvalidPlacementGroup.Unknown",
    ),
    "unknown instance profile": (
        launch(PRIMARY, IamInstanceProfile={"Name": "no"}),
        "InvalidParameterValue",
    ),
    "card over the limit": (launch(PRIMARY, efa(32)), "InvalidParameterValue"),
    "one index twice": (launch(PRIMARY, nic(0, 0)), "InvalidParameterValue"),
    "no primary interface": (launch(efa(1)), "InvalidParameterCombination"),
    "three interfaces on a p5 card": (
        launch(PRIMARY, nic(0, 1), nic(0, 2)),
        "AttachmentLimitExceeded",
    ),
    "two EFAs on a card": (launch(PRIMARY, efa(1, 0), efa(1, 1)), "AttachmentLimitExceeded"),
    "EFA on card 0 of a p6-b300": (launch(PRIMARY, efa(0), itype=B300), "AttachmentLimitExceeded"),
    "EFA on a type without": (launch(PRIMARY, efa(0), itype=G5_XL), "UnsupportedOperation"),
    "efa-only as primary": (launch(efa(0, 0)), "InvalidParameterValue"),
    "efa-only with a public address": (
        launch(PRIMARY, efa(1, AssociatePublicIpAddress=True)),
        "InvalidParameterValue",
    ),
    "efa-only without a public address, said so": (
        launch(PRIMARY, efa(1, AssociatePublicIpAddress=False)),
        "InvalidParameterValue",
    ),
    "efa-only with an address": (
        launch(PRIMARY, efa(1, PrivateIpAddress="10.0.0.20")),
        "InvalidParameterValue",
    ),
    "a public address beside a second interface": (
        launch({**PRIMARY, "AssociatePublicIpAddress": True}, nic(0, 1)),
        "InvalidParameterCombination",
    ),
    "a public address on an interface made beforehand": (
        launch(
            {"DeviceIndex": 0, "NetworkInterfaceId": "eni-free", "AssociatePublicIpAddress": True}
        ),
        "InvalidParameterCombination",
    ),
    "address in use": (
        launch({**PRIMARY, "PrivateIpAddress": "10.0.0.9"}),
        "InvalidIPAddress.InUse",
    ),
    "one address for two interfaces": (
        launch(
            {**PRIMARY, "PrivateIpAddress": "10.0.0.20"}, nic(0, 1, PrivateIpAddress="10.0.0.20")
        ),
        "InvalidIPAddress.InUse",
    ),
    "address outside the subnet": (
        launch({**PRIMARY, "PrivateIpAddress": "10.9.0.9"}),
        "InvalidParameterValue",
    ),
    "address that EC2 keeps": (
        launch({**PRIMARY, "PrivateIpAddress": "10.0.0.2"}),
        "InvalidParameterValue",
    ),
    "subnet without a free address": (
        launch({**PRIMARY, "SubnetId": "subnet-full"}),
        "InsufficientFreeAddressesInSubnet",
    ),
    "subnets of two zones": (
        launch(PRIMARY, nic(0, 1, SubnetId="subnet-b")),
        "InvalidParameterCombination",
    ),
    "zone that is not the subnet's": (
        launch(PRIMARY, Placement={"AvailabilityZone": "us-east-1b"}),
        "InvalidParameterValue",
    ),
    "zone that lacks the type": (launch(PRIMARY, itype=B300), "Unsupported"),
    "unknown reservation": (
        launch(PRIMARY, CapacityReservationSpecification=target("cr-2")),
        "InvalidCapacityReservationId.NotFound",
    ),
    "full reservation": (
        launch(PRIMARY, CapacityReservationSpecification=target("cr-full")),
        "ReservationCapacityExceeded",
    ),
    "reservation of another type": (
        launch(PRIMARY, itype=P5_4XL, CapacityReservationSpecification=target("cr-1")),
        "ReservationCapacityExceeded",
    ),
    "reservation in a placement group that is not named": (
        launch(PRIMARY, CapacityReservationSpecification=target("cr-pg")),
        "ReservationCapacityExceeded",
    ),
    "capacity block with a placement group": (
        launch(
            PRIMARY,
            CapacityReservationSpecification=target("cb-1"),
            Placement={"GroupName": "pg"},
            InstanceMarketOptions={"MarketType": "capacity-block"},
        ),
        "InvalidParameterCombination",
    ),
    "capacity block without a target": (
        launch(PRIMARY, InstanceMarketOptions={"MarketType": "capacity-block"}),
        "InvalidParameterCombination",
    ),
    "capacity block without its market type": (
        launch(PRIMARY, CapacityReservationSpecification=target("cb-1")),
        "ReservationCapacityExceeded",
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_ec2_launches(case):
    assert check_launch(parse(ACCEPTED[case]), WORLD) is None


@pytest.mark.parametrize("case", REFUSED)
def test_ec2_refuses_with_its_own_code(case):
    request, code = REFUSED[case]
    refusal = check_launch(parse(request), WORLD)
    assert refusal is not None
    assert refusal.code == code


def test_lists_of_a_template_are_replaced_and_structures_merged():
    template = {"SecurityGroupIds": ["a", "b"], "Placement": {"GroupName": "g", "Tenancy": "t"}}
    merged = merge(template, {"SecurityGroupIds": ["c"], "Placement": {"Tenancy": "u"}})
    assert merged == {"SecurityGroupIds": ["c"], "Placement": {"GroupName": "g", "Tenancy": "u"}}


def test_tags_of_a_template_and_its_request_are_merged_by_key():
    def tags(**values):
        pairs = [{"Key": k, "Value": v} for k, v in values.items()]
        return {"TagSpecifications": [{"ResourceType": "instance", "Tags": pairs}]}

    merged = merge(tags(a="1", b="1"), tags(b="2"))
    assert tags_by_resource(merged["TagSpecifications"]) == {"instance": {"a": "1", "b": "2"}}
