from __future__ import annotations

import boto3
import pytest
from botocore.stub import Stubber

from infra import leftovers
from infra.names import STACK_TAG

ALL_KINDS = leftovers.KINDS
"""Also those that the account of the other tests lacks."""


def test_nothing_is_left_of_a_stack_that_never_was(session):
    assert leftovers.find("never", session) == ()


def test_everything_of_a_stack_is_found(session, stack):
    found = {item.kind: item.id for item in leftovers.find("dev", session)}
    assert found == stack


def test_names_are_shown_where_there_are_any(session, stack):
    names = {item.kind: item.name for item in leftovers.find("dev", session)}
    assert (names["VPC"], names["role"]) == ("mine", "node-role")


def test_another_stacks_things_are_not_found(session, stack):
    assert leftovers.find("de", session) == ()


def test_what_pulumi_knows_is_no_leftover(session, stack):
    known = set(stack.values()) - {stack["launch template"]}
    (only,) = leftovers.find("dev", session, known)
    assert (only.kind, only.id) == ("launch template", stack["launch template"])


def test_interfaces_of_an_instance_that_pulumi_knows_are_no_leftovers(session, stack):
    ec2 = session.client("ec2")
    ec2.attach_network_interface(
        NetworkInterfaceId=stack["network interface"], InstanceId=stack["instance"], DeviceIndex=1
    )
    kinds = {item.kind for item in leftovers.find("dev", session, {stack["instance"]})}
    assert "network interface" not in kinds


@pytest.mark.parametrize(
    ("name", "operation", "answer", "id_"),
    [
        (
            "placement group",
            "describe_placement_groups",
            {"PlacementGroups": [{"GroupName": "pg", "State": "available"}]},
            "pg",
        ),
        (
            "capacity reservation",
            "describe_capacity_reservations",
            {"CapacityReservations": [{"CapacityReservationId": "cr-1", "State": "active"}]},
            "cr-1",
        ),
    ],
)
def test_kinds_that_have_no_stand_in(name, operation, answer, id_):
    ec2 = boto3.client(
        "ec2", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    (kind,) = [k for k in ALL_KINDS if k.name == name]
    with Stubber(ec2) as stub:
        expected = {"Filters": [{"Name": f"tag:{STACK_TAG}", "Values": ["dev"]}]}
        stub.add_response(operation, answer, expected)
        clients = leftovers.Clients(ec2, *[None] * 5)
        assert list(kind.find(clients, "dev")) == [(id_, id_)]


def test_a_kind_that_may_not_be_listed_is_an_error_not_an_empty_list(session, monkeypatch):
    ec2 = boto3.client(
        "ec2", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    clients = leftovers.Clients(ec2, *[None] * 5)
    (kind,) = [k for k in ALL_KINDS if k.name == "VPC"]
    with Stubber(ec2) as stub:
        stub.add_client_error("describe_vpcs", "UnauthorizedOperation", "not you")
        with pytest.raises(leftovers.CannotLookError, match=r"VPC: .*not you"):
            leftovers._find(clients, "dev", [kind], ())
