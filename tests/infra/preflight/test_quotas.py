from __future__ import annotations

import boto3
import pytest

from infra import catalog
from infra.names import STACK_TAG
from infra.preflight import quotas
from infra.preflight.quotas import VCPU_QUOTAS, class_of, judge
from infra.preflight.run import CHECKS, results

CLASSES = {
    "c7i.large": quotas.STANDARD,
    "m7i-flex.large": quotas.STANDARD,
    "p5en.48xlarge": quotas.P,
    "p6-b200.48xlarge": quotas.P,
    "p4d.24xlarge": quotas.P,
    "g6e.48xlarge": quotas.G,
    "g7e.48xlarge": quotas.G,
    "trn2.48xlarge": None,
    "inf2.xlarge": None,
    "u-6tb1.metal": None,
    "x2idn.metal": None,
    "f2.48xlarge": None,
}


@pytest.mark.parametrize("kind", CLASSES)
def test_the_quota_that_a_type_counts_against(kind):
    assert class_of(kind) == CLASSES[kind]


def test_every_type_of_the_catalog_has_a_quota():
    unknown = [kind for kind in catalog.instance_types() if class_of(kind) is None]
    assert unknown == []


def quota(value: float):
    return "get_service_quota", {"Quota": {"Value": value}}


def tagged(stack: str):
    return [{"Key": STACK_TAG, "Value": stack}]


@pytest.fixture
def vcpus(stubbed, asked):
    """Verdicts on vCPU quotas with what runs and what is reserved."""

    def judge_all(*values, instances=(), reservations=(), **changes):
        aws = stubbed(
            quotas=values,
            ec2=[
                ("describe_instances", {"Reservations": [{"Instances": list(instances)}]}),
                ("describe_capacity_reservations", {"CapacityReservations": list(reservations)}),
            ],
        )
        return list(quotas._vcpus(aws, asked(**changes)))

    return judge_all


P5 = {"nodes": {"serve": ("p5.48xlarge", 2)}, "gpu": True}


def test_enough_quota_passes(vcpus):
    (verdict,) = vcpus(quota(384), **P5)
    assert verdict.state == "PASS"
    assert "Running On-Demand P instances (ec2 L-417A185B)" in verdict.message
    assert "needs 384 vCPUs, 0 are in use" in verdict.message


def test_too_little_quota_fails_and_says_how_much_to_ask_for(vcpus):
    (verdict,) = vcpus(quota(383), **P5)
    assert verdict.state == "FAIL"
    assert verdict.remedy.startswith("ask Service Quotas for 384")


def test_what_others_run_and_hold_reserved_counts(vcpus):
    running = {"InstanceType": "p5.48xlarge", "Tags": tagged("other")}
    held = {"State": "active", "InstanceType": "p4d.24xlarge", "AvailableInstanceCount": 2}
    (verdict,) = vcpus(quota(700), instances=[running], reservations=[held], **P5)
    assert "needs 384 vCPUs, 384 are in use elsewhere" in verdict.message
    assert verdict.state == "FAIL"


def test_the_stacks_own_nodes_do_not_count_twice(vcpus):
    own = {"InstanceType": "p5.48xlarge", "Tags": tagged("dev")}
    (verdict,) = vcpus(quota(384), instances=[own, own], **P5)
    assert verdict.state == "PASS"


def test_capacity_blocks_and_spot_do_not_count_as_on_demand(vcpus):
    block = {"InstanceType": "p5.48xlarge", "InstanceLifecycle": "capacity-block"}
    spot = {"InstanceType": "p5.48xlarge", "InstanceLifecycle": "spot"}
    (verdict,) = vcpus(quota(384), instances=[block, spot], **P5)
    assert "0 are in use" in verdict.message


def test_spot_nodes_have_a_quota_of_their_own_and_their_gateway_does_not(vcpus):
    nodes = {"serve": ("p5.48xlarge", 2), "gateway": ("c7i.xlarge", 1)}
    first, second = vcpus(quota(500), quota(1), nodes=nodes, gpu=True, capacity_kind="spot")
    assert "All P Spot Instance Requests" in first.message
    assert "Running On-Demand Standard instances" in second.message
    assert (first.state, second.state) == ("PASS", "FAIL")


@pytest.mark.parametrize("kind", ["reservation", "capacity-block"])
def test_capacity_that_is_held_already_needs_no_quota(vcpus, kind):
    (verdict,) = vcpus(capacity_kind=kind, **P5)
    assert verdict.state == "PASS"


def test_without_a_value_of_the_account_the_default_of_aws_counts(vcpus):
    default = ("get_aws_default_service_quota", {"Quota": {"Value": 0.0}})
    none = ("get_service_quota", "NoSuchResourceException", "none")
    (verdict,) = vcpus(none, default, **P5)
    assert "the quota is 0" in verdict.message


def test_a_quota_that_aws_does_not_tell_is_skipped(vcpus):
    none = "NoSuchResourceException", "none"
    (verdict,) = vcpus(("get_service_quota", *none), ("get_aws_default_service_quota", *none), **P5)
    assert verdict.state == "SKIPPED"


def test_without_permission_to_read_quotas_it_is_skipped(stubbed, asked):
    (check,) = (c for c in CHECKS if c.code == "PREFLIGHT_VCPU_QUOTA")
    aws = stubbed(quotas=[("get_service_quota", "AccessDeniedException", "no")])
    (result,) = results(check, aws, asked())
    assert (result.state, result.permission) == ("SKIPPED", "servicequotas:GetServiceQuota")


@pytest.fixture
def empty(endpoint):
    """A region that no other test makes anything in."""
    keys = (endpoint.access_key_id, endpoint.secret_access_key)
    return boto3.Session(*keys, region_name="us-west-2")


def test_the_quota_of_interfaces_passes_and_fails(result_of, asked, empty):
    names = {"ServiceCode": "vpc", "QuotaCode": "L-DF5E4CA3"}
    found = empty.client("service-quotas").get_service_quota(**names)
    room = int(found["Quota"]["Value"])
    assert result_of("INTERFACE_QUOTA", asked(interfaces=room), empty).state == "PASS"
    result = result_of("INTERFACE_QUOTA", asked(interfaces=room + 1), empty)
    assert result.state == "FAIL"
    assert f"needs {room + 1} interfaces" in result.message


def test_the_quota_of_vpcs_passes_on_an_account_with_room(result_of, asked, empty):
    assert result_of("VPC_QUOTA", asked(), empty).state == "PASS"


def test_the_quota_of_vpcs_fails_where_others_have_them_all(stubbed, asked):
    there = [{"VpcId": f"vpc-{n}"} for n in range(5)]
    own = {"VpcId": "vpc-own", "Tags": tagged("dev")}

    def verdict(*vpcs):
        aws = stubbed(quotas=[quota(5)], ec2=[("describe_vpcs", {"Vpcs": list(vpcs)})])
        return next(quotas._vpcs(aws, asked()))

    assert verdict(*there).state == "FAIL"
    assert "5 are in use elsewhere, and the quota is 5" in verdict(*there).message
    assert verdict(*there[:4], own).state == "PASS"


def test_elastic_ips_pass_and_fail():
    quota = quotas.ELASTIC_IPS
    assert judge(quota, 5.0, 4, 1, "addresses").state == "PASS"
    verdict = judge(quota, 5.0, 5, 1, "addresses")
    assert (verdict.state, "ec2 L-0263D0A3" in verdict.message) == ("FAIL", True)


def test_classes_and_purchases_have_quotas_of_their_own():
    assert len({quota.code for quota in VCPU_QUOTAS.values()}) == 6
