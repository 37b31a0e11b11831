from __future__ import annotations

from infra import leftovers
from infra.names import STACK_TAG


def test_everything_can_be_deleted_and_then_nothing_is_found(session, stack):
    said: list[str] = []
    refused = leftovers.delete(leftovers.find("dev", session), session, 30.0, said.append)
    assert refused == {}
    assert leftovers.find("dev", session) == ()
    assert f"deleting VPC {stack['VPC']}" in said


def test_what_cannot_be_deleted_is_returned_with_awss_words(session):
    ec2 = session.client("ec2")
    tags = [{"ResourceType": "vpc", "Tags": [{"Key": STACK_TAG, "Value": "other"}]}]
    vpc_id = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=tags)["Vpc"]["VpcId"]
    ec2.create_subnet(VpcId=vpc_id, CidrBlock="10.0.0.0/24")
    (vpc,) = leftovers.find("other", session)
    refused = leftovers.delete([vpc], session, 0.0, lambda _: None)
    assert "DependencyViolation" in refused[vpc]
