"""Each refusal of EC2 that the program could meet, and what says so before EC2 is asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import boto3
import pytest
import yaml

from infra import catalog
from infra.checks import ALL_RULES, launch_facts
from infra.preflight import Asked
from infra.preflight.aws import Aws
from infra.preflight.run import CHECKS, results

TABLE = yaml.safe_load((Path(__file__).parent / "refusals" / "refusals.yaml").read_text())
TYPE, REGION = "p5.48xlarge", "us-east-1"
RULES = {rule.code: rule for rule in ALL_RULES}
PREFLIGHT = {check.code: check for check in CHECKS}
CAUGHT_BY_A_RULE = [r for r in TABLE if r.get("earlier", {}).get("check") in RULES]
CAUGHT_BY_PREFLIGHT = [r for r in TABLE if r.get("earlier", {}).get("check") in PREFLIGHT]
ASKED = Asked(
    stack="dev",
    nodes={"serve": (TYPE, 1)},
    interfaces=1,
    addresses=1,
    gpu=True,
    capacity_kind="on-demand",
    capacity_id=None,
    zone=None,
    vpc_id=None,
    subnet_id=None,
    elastic_ips=0,
    ami=None,
    model_name="m",
    model_source="m",
    model_revision=None,
    model_token=False,
    balanced=False,
    ttl_seconds=None,
)
"""A stack of one node of the type that the table launches."""


def case(row) -> str:
    return row["case"]


@pytest.fixture(scope="module")
def things(account, site):
    """What the requests name."""
    ec2 = site.ec2
    groups = {}
    for name in ("near", "far", "own"):
        made = ec2.create_placement_group(GroupName=name, Strategy="cluster")["PlacementGroup"]
        groups[name] = made["GroupArn"]
    full = site.new_subnet("10.20.200.0/28")
    for _ in range(11):
        ec2.create_network_interface(SubnetId=full)
    elsewhere = site.new_subnet("10.20.201.0/28", "us-east-1b")
    eni = ec2.create_network_interface(SubnetId=site.subnet)["NetworkInterface"]
    efa = {"SubnetId": site.subnet, "InterfaceType": "efa-only"}
    running = site.run(InstanceType=TYPE, SubnetId=site.subnet, Placement={"GroupName": "own"})
    site.wait(running["InstanceId"], "running")
    (image,) = ec2.describe_images(ImageIds=[site.image])["Images"]
    return {
        "$subnet": site.subnet,
        "$group": site.group,
        "$full": full,
        "$elsewhere": elsewhere,
        "$eni": eni["NetworkInterfaceId"],
        "$address": eni["PrivateIpAddress"],
        "$efa": ec2.create_network_interface(**efa)["NetworkInterface"]["NetworkInterfaceId"],
        "$running": running["InstanceId"],
        "$root": image["RootDeviceName"],
        "$long": "x" * (16 * 1024 + 1),
        "$group_of_nodes": "near",
        "$group_elsewhere": "far",
        "$group_of_running": "own",
        "$reservation": reserved(ec2, "us-east-1a"),
        "$reservation_in_group": reserved(ec2, "us-east-1b", PlacementGroupArn=groups["far"]),
        "$block": block(site, "us-east-1a"),
        **balancer(account, site, elsewhere),
    }


def reserved(ec2, zone, **more):
    return ec2.create_capacity_reservation(
        InstanceType=TYPE,
        InstancePlatform="Linux/UNIX",
        InstanceCount=1,
        AvailabilityZone=zone,
        **more,
    )["CapacityReservation"]["CapacityReservationId"]


def block(site, zone):
    """A Capacity Block that runs."""
    offered = site.ec2.describe_capacity_block_offerings(
        InstanceType=TYPE, InstanceCount=1, CapacityDurationHours=24
    )["CapacityBlockOfferings"]
    bought = site.ec2.purchase_capacity_block(
        CapacityBlockOfferingId=next(
            one["CapacityBlockOfferingId"] for one in offered if one["AvailabilityZone"] == zone
        ),
        InstancePlatform="Linux/UNIX",
    )["CapacityReservation"]["CapacityReservationId"]

    def active():
        (found,) = site.ec2.describe_capacity_reservations(CapacityReservationIds=[bought])[
            "CapacityReservations"
        ]
        return found["State"] == "active"

    site.wait_for(active)
    return bought


def balancer(account, site, subnet):
    elb = account.client("elbv2")
    (made,) = elb.create_load_balancer(
        Name="endpoint", Type="network", Scheme="internal", Subnets=[subnet]
    )["LoadBalancers"]
    (targets,) = elb.create_target_group(
        Name="endpoint", Protocol="TCP", Port=8000, VpcId=site.vpc, TargetType="ip"
    )["TargetGroups"]
    pending = account.client("acm").request_certificate(DomainName="moe.example.com")
    return {
        "$balancer": made["LoadBalancerArn"],
        "$targets": targets["TargetGroupArn"],
        "$pending": pending["CertificateArn"],
    }


def resolved(value, things):
    """A request of the table with the account's things in their places."""
    if isinstance(value, list):
        return [resolved(v, things) for v in value]
    if not isinstance(value, dict):
        return things.get(value, value) if isinstance(value, str) else value
    place = {"SubnetId": things["$subnet"], "Groups": [things["$group"]]}
    if "$primary" in value:
        return {"DeviceIndex": 0, **place, **resolved(value["$primary"], things)}
    if "$target" in value:
        target = {"CapacityReservationId": resolved(value["$target"], things)}
        return {"CapacityReservationTarget": target}
    if "$efa" in value:
        rest = {k: resolved(v, things) for k, v in value.items() if k != "$efa"}
        card = {"NetworkCardIndex": value["$efa"], "DeviceIndex": 1, "InterfaceType": "efa-only"}
        return {**card, **place, **rest}
    return {k: resolved(v, things) for k, v in value.items()}


@pytest.fixture
def limited(account):
    """Sets the account's limits for one test."""

    def put(limits):
        body = {"region": REGION, "quotas": {}, "capacity": [], **limits}
        assert account.control("PUT", "limits", body)[0] == 200

    yield put
    put({})


def launched(site, things, changes):
    request = {"InstanceType": TYPE, **resolved(changes, things)}
    if "NetworkInterfaces" not in request:
        request.setdefault("SubnetId", site.subnet)
    # A dry run is judged like a launch, and one that passed would make nothing.
    return site.run(**request, DryRun=True)


@pytest.fixture
def ask_aws(account, site, things):
    """Does what a row asks of AWS."""

    def ask(row):
        if "call" not in row:
            return launched(site, things, row["request"])
        service, _, operation = row["call"].partition(".")
        return getattr(account.client(service), operation)(**resolved(row["request"], things))

    return ask


@pytest.mark.parametrize("row", TABLE, ids=case)
def test_aws_refuses_with_its_own_code(row, ask_aws, limited, refusal):
    limited(row.get("limits", {}))
    assert refusal(lambda: ask_aws(row)) == row["code"]


def test_the_launch_that_the_table_changes_is_accepted(site, things, refusal):
    assert refusal(lambda: launched(site, things, {})) == "DryRunOperation"


@pytest.mark.parametrize("row", TABLE, ids=case)
def test_each_case_is_caught_earlier_or_says_why_it_cannot_be(row):
    assert ("earlier" in row) != ("never" in row)
    assert row.get("never") or row["earlier"]["check"] in {**RULES, **PREFLIGHT}


def facts_of(request):
    """What the rules of the plan are told of a launch, from the request that EC2 gets."""
    interfaces = [
        {key[0].lower() + key[1:]: value for key, value in nic.items()}
        for nic in request.get("NetworkInterfaces", ())
    ]
    kind = catalog.instance_type(request.get("InstanceType", TYPE))
    without_efa_on_card_0 = kind.max_efa < len(kind.network_cards)
    target = request.get("CapacityReservationSpecification", {})
    market = request.get("InstanceMarketOptions", {}).get("MarketType", "on-demand")
    launch = launch_facts(
        {"networkInterfaces": interfaces},
        (),
        runtime="container",
        instances=request.get("MaxCount", 1),
    )
    return {
        **vars(launch),
        "instance_type": kind.name,
        "interfaces": tuple((card, device, type_) for card, device, type_, *_ in launch.requested),
        "cards": tuple(
            (c.index, c.max_interfaces, c.efa_only and not (without_efa_on_card_0 and not c.index))
            for c in kind.network_cards
        ),
        "capacity_kind": market,
        "capacity_id": target.get("CapacityReservationTarget", {}).get("CapacityReservationId"),
        "placement_group": "GroupName" in request.get("Placement", {}),
        "no_cluster_placement": () if kind.cluster_placement else (kind.name,),
        "longest_user_data_bytes": len(request.get("UserData", "")),
    }


@pytest.mark.parametrize("row", CAUGHT_BY_A_RULE, ids=case)
def test_the_rule_finds_the_fault_in_the_request_itself(row, things):
    rule = RULES[row["earlier"]["check"]]
    assert rule.look(facts_of(resolved(row["request"], things)), "moe-serving:groups")


@pytest.mark.parametrize("code", sorted({r["earlier"]["check"] for r in CAUGHT_BY_A_RULE}))
def test_no_rule_finds_a_fault_in_the_launch_that_the_table_changes(code, things):
    good = resolved({"NetworkInterfaces": [{"$primary": {}}, {"$efa": 0}]}, things)
    assert RULES[code].look(facts_of(good), "moe-serving:groups") == ()


@pytest.fixture(scope="module")
def asks(account):
    """States that a check of the preflight gives a stack on this account."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", account.endpoint["url"])
        keys = account.endpoint["access_key_id"], account.endpoint["secret_access_key"]
        session = boto3.Session(*keys, region_name=REGION)
        aws = Aws.of(session, "123456789012", "arn:aws:iam::123456789012:user/rehearsal-admin")

    def states(code, **changes):
        stack = dataclasses.replace(ASKED, **changes)
        check = PREFLIGHT[code]
        assert check.applies(stack), "this stack would not be asked"
        return {str(result.state): result.message for result in results(check, aws, stack)}

    return states


@pytest.mark.parametrize("row", CAUGHT_BY_PREFLIGHT, ids=case)
def test_the_preflight_fails_on_the_account_that_refuses(row, things, limited, asks):
    limited(row.get("limits", {}))
    changes = resolved(row["earlier"].get("asked", {}), things)
    assert "FAIL" in asks(row["earlier"]["check"], **changes)


@pytest.mark.parametrize("code", ["AMI", "TYPE_OFFERED", "VCPU_QUOTA", "INTERFACE_QUOTA"])
def test_the_preflight_passes_where_nothing_is_refused(code, things, asks):
    assert set(asks(f"PREFLIGHT_{code}")) == {"PASS"}


def test_the_preflight_passes_with_a_reservation_and_a_subnet_that_fit(things, asks):
    held = {"capacity_kind": "reservation", "capacity_id": things["$reservation"]}
    assert set(asks("PREFLIGHT_RESERVATION", **held)) == {"PASS"}
    assert set(asks("PREFLIGHT_SUBNET", subnet_id=things["$subnet"])) == {"PASS"}
