from __future__ import annotations

import json
import urllib.request

import boto3
import pytest

from infra import catalog
from infra.names import STACK_TAG
from infra.preflight import quotas
from infra.preflight.aws import Aws, is_own
from infra.preflight.quotas import VCPU_QUOTAS, class_of
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


def tagged(stack: str):
    return [{"Key": STACK_TAG, "Value": stack}]


class Region:
    """A region of the account with quotas of its own, and what others run and hold in it."""

    def __init__(self, endpoint, name: str):
        self.url = endpoint.url
        keys = (endpoint.access_key_id, endpoint.secret_access_key)
        self.session = boto3.Session(*keys, region_name=name)
        self.ec2 = self.session.client("ec2")
        kind = [{"Name": "instance-type", "Values": [TYPE]}]
        offered = self.ec2.describe_instance_type_offerings(
            LocationType="availability-zone", Filters=kind
        )["InstanceTypeOfferings"]
        self.zone = min(o["Location"] for o in offered)
        vpc = self.ec2.create_vpc(CidrBlock="10.30.0.0/16")["Vpc"]["VpcId"]
        place = {"VpcId": vpc, "CidrBlock": "10.30.0.0/24", "AvailabilityZone": self.zone}
        self.subnet = self.ec2.create_subnet(**place)["Subnet"]["SubnetId"]
        images = self.ec2.describe_images(Owners=["amazon"])["Images"]
        self.image = next(i["ImageId"] for i in images if i["Architecture"] == "x86_64")

    def quotas(self, **values: float) -> None:
        """The account's quotas of the region, by code with _ for -; all others as they were."""
        body = {
            "region": self.session.region_name,
            "quotas": {code.replace("_", "-"): value for code, value in values.items()},
        }
        request = urllib.request.Request(
            f"{self.url}/_rehearsal/limits", json.dumps(body).encode(), method="PUT"
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert opener.open(request, timeout=10).status == 200

    def run(self, count: int, stack: str, market: str | None = None) -> None:
        """Instances of a stack."""
        how = {} if market is None else {"InstanceMarketOptions": {"MarketType": market}}
        self.ec2.run_instances(
            ImageId=self.image,
            InstanceType=TYPE,
            MinCount=count,
            MaxCount=count,
            SubnetId=self.subnet,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tagged(stack)}],
            **how,
        )

    def hold(self, count: int) -> None:
        """A reservation of another stack, with nothing in it."""
        self.ec2.create_capacity_reservation(
            InstanceType=TYPE,
            InstancePlatform="Linux/UNIX",
            AvailabilityZone=self.zone,
            InstanceCount=count,
        )

    def clear(self) -> None:
        """Nothing runs, nothing is held, no quota is set."""
        running = [i for r in self.ec2.describe_instances()["Reservations"] for i in r["Instances"]]
        if running:
            names = [i["InstanceId"] for i in running]
            self.ec2.terminate_instances(InstanceIds=names)
            wait = {"Delay": 1, "MaxAttempts": 20}
            self.ec2.get_waiter("instance_terminated").wait(InstanceIds=names, WaiterConfig=wait)
        for held in self.ec2.describe_capacity_reservations()["CapacityReservations"]:
            name = held["CapacityReservationId"]
            self.ec2.cancel_capacity_reservation(CapacityReservationId=name)
        self.quotas()


@pytest.fixture(scope="module")
def _ohio(endpoint):
    return Region(endpoint, "us-east-2")


@pytest.fixture
def region(_ohio):
    """A region in which nothing runs before and after a test."""
    yield _ohio
    _ohio.clear()


@pytest.fixture
def vcpus(asked, region):
    """Results on vCPU quotas in that region."""
    (check,) = (c for c in CHECKS if c.code == "PREFLIGHT_VCPU_QUOTA")
    aws = Aws.of(region.session, "123456789012", "arn:aws:iam::123456789012:user/dev")

    def judge_all(**changes):
        return list(results(check, aws, asked(**changes)))

    return judge_all


TYPE = "p5.48xlarge"
P5 = {"nodes": {"serve": (TYPE, 2)}, "gpu": True}


def test_enough_quota_passes(vcpus, region):
    region.quotas(L_417A185B=384)
    (verdict,) = vcpus(**P5)
    assert verdict.state == "PASS"
    assert "Running On-Demand P instances (ec2 L-417A185B)" in verdict.message
    assert "needs 384 vCPUs, 0 are in use" in verdict.message


def test_too_little_quota_fails_and_says_how_much_to_ask_for(vcpus, region):
    region.quotas(L_417A185B=383)
    (verdict,) = vcpus(**P5)
    assert verdict.state == "FAIL"
    assert verdict.remedy.startswith("ask Service Quotas for 384")


def test_what_others_run_and_hold_reserved_counts(vcpus, region):
    region.quotas(L_417A185B=700)
    region.run(1, stack="other")
    region.hold(1)
    (verdict,) = vcpus(**P5)
    assert "needs 384 vCPUs, 384 are in use elsewhere" in verdict.message
    assert verdict.state == "FAIL"


def test_the_stacks_own_nodes_do_not_count_twice(vcpus, region):
    region.quotas(L_417A185B=384)
    region.run(2, stack="dev")
    (verdict,) = vcpus(**P5)
    assert verdict.state == "PASS"


def test_spot_instances_do_not_count_as_on_demand(vcpus, region):
    region.run(1, stack="other", market="spot")
    (verdict,) = vcpus(**P5)
    assert "0 are in use" in verdict.message


def test_instances_in_capacity_blocks_count_against_no_quota(stubbed, asked):
    # As EC2 describes them: the account's own blocks begin tomorrow.
    block = {"InstanceType": TYPE, "InstanceLifecycle": "capacity-block"}
    answers = [
        ("describe_instances", {"Reservations": [{"Instances": [block]}]}),
        ("describe_capacity_reservations", {"CapacityReservations": []}),
    ]
    (verdict,) = quotas._vcpus(stubbed(ec2=answers), asked(**P5))
    assert "0 are in use" in verdict.message


def test_spot_nodes_have_a_quota_of_their_own_and_their_gateway_does_not(vcpus, region):
    region.quotas(L_7212CCBC=500, L_1216C47A=1)
    nodes = {"serve": (TYPE, 2), "gateway": ("c7i.xlarge", 1)}
    first, second = vcpus(nodes=nodes, gpu=True, capacity_kind="spot")
    assert "All P Spot Instance Requests" in first.message
    assert "Running On-Demand Standard instances" in second.message
    assert (first.state, second.state) == ("PASS", "FAIL")


@pytest.mark.parametrize("kind", ["reservation", "capacity-block"])
def test_capacity_that_is_held_already_needs_no_quota(vcpus, region, kind):
    region.quotas(L_417A185B=0)
    (verdict,) = vcpus(capacity_kind=kind, **P5)
    assert verdict.state == "PASS"


# The account has a value of each of these quotas; a new account of AWS has not.
@pytest.fixture
def untold(stubbed, asked):
    """Verdict where the account tells no value of its own, and AWS tells what is given."""

    def judge(*default):
        none = ("get_service_quota", "NoSuchResourceException", "none")
        aws = stubbed(quotas=[none, ("get_aws_default_service_quota", *default)])
        (verdict,) = quotas._vcpus(aws, asked(**P5))
        return verdict

    return judge


def test_without_a_value_of_the_account_the_default_of_aws_counts(untold):
    verdict = untold({"Quota": {"Value": 0.0}})
    assert (verdict.state, "the quota is 0" in verdict.message) == ("FAIL", True)


def test_a_quota_that_aws_does_not_tell_is_skipped(untold):
    assert untold("NoSuchResourceException", "none").state == "SKIPPED"


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


@pytest.fixture
def filled(endpoint):
    """A region with one VPC and one Elastic IP of others, and one of each of the stack's own."""
    found = Region(endpoint, "us-west-1")
    mine = {"TagSpecifications": [{"ResourceType": "vpc", "Tags": tagged("dev")}]}
    made = [found.ec2.create_vpc(CidrBlock="10.31.0.0/16", **mine)["Vpc"]["VpcId"]]
    held = [found.ec2.allocate_address(Domain="vpc")["AllocationId"]]
    mine = {"TagSpecifications": [{"ResourceType": "elastic-ip", "Tags": tagged("dev")}]}
    held.append(found.ec2.allocate_address(Domain="vpc", **mine)["AllocationId"])
    yield found
    found.quotas()
    for vpc in made:
        found.ec2.delete_vpc(VpcId=vpc)
    for address in held:
        found.ec2.release_address(AllocationId=address)


def test_the_quota_of_vpcs_fails_where_others_have_them_all(result_of, asked, filled):
    others = [v for v in filled.ec2.describe_vpcs()["Vpcs"] if not is_own(v, "dev")]
    filled.quotas(L_F678F1CE=len(others))
    verdict = result_of("VPC_QUOTA", asked(), filled.session)
    assert verdict.state == "FAIL"
    assert f"{len(others)} are in use elsewhere, and the quota is {len(others)}" in verdict.message
    filled.quotas(L_F678F1CE=len(others) + 1)
    assert result_of("VPC_QUOTA", asked(), filled.session).state == "PASS"


def test_elastic_ips_pass_and_fail(result_of, asked, filled):
    stack = asked(elastic_ips=1)
    filled.quotas(L_0263D0A3=2)
    assert result_of("ELASTIC_IP_QUOTA", stack, filled.session).state == "PASS"
    filled.quotas(L_0263D0A3=1)
    verdict = result_of("ELASTIC_IP_QUOTA", stack, filled.session)
    assert (verdict.state, "ec2 L-0263D0A3" in verdict.message) == ("FAIL", True)


def test_classes_and_purchases_have_quotas_of_their_own():
    assert len({quota.code for quota in VCPU_QUOTAS.values()}) == 6
