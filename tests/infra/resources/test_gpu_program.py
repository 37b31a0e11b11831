"""What the program asks AWS for on GPU types: cards, disks, capacity, ways out."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import boto3
import pulumi
import pytest
from botocore.stub import Stubber

from infra.plan.request import Capacity
from infra.resources import reserved

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pulumi_aws")

MODEL = "deepseek-ai/DeepSeek-V3-0324"
BLOCK = "cr-0123456789abcdef0"
PRIVATE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/vllm-efa:0.33.0"


@pytest.fixture(autouse=True)
def ec2(monkeypatch):
    """What EC2 answers to the program's own questions; a test says it."""
    client = boto3.client("ec2", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    monkeypatch.setattr(boto3.Session, "client", lambda *_: client)
    with Stubber(client) as stub:
        yield stub


def is_in(ec2, zone: str) -> None:
    """BLOCK is in a zone."""
    answer = {"CapacityReservations": [{"AvailabilityZone": zone}]}
    asked = {"CapacityReservationIds": [BLOCK]}
    ec2.add_response("describe_capacity_reservations", answer, asked)


def config_of(kind: str = "p5en.48xlarge", nodes: int = 2, **sections: Any) -> dict[str, Any]:
    group = {
        "instance_type": kind,
        "nodes": nodes,
        "max_model_len": 16384,
        "max_num_batched_tokens": 1024,
        "load_format": "runai_streamer",
    }
    return {
        "aws:region": "us-east-1",
        "moe-serving:model": {"name": MODEL, "source": f"s3://my-models/{MODEL}"},
        "moe-serving:vllm": {"version": "0.33.0"},
        "moe-serving:groups": {"serve": group},
        **{f"moe-serving:{name}": section for name, section in sections.items()},
    }


def template_of(account, node: str = "serve-0-0") -> dict[str, Any]:
    return account.one("launchTemplate:LaunchTemplate", node).inputs


@pytest.mark.parametrize(
    ("kind", "count", "efa_on_card_0"),
    [
        ("p5.48xlarge", 33, True),
        ("p5en.48xlarge", 17, True),
        ("p6-b200.48xlarge", 9, True),
        ("p6-b300.48xlarge", 17, False),
    ],
)
def test_every_network_card_of_a_type(run_program, kind, count, efa_on_card_0):
    account, _ = run_program(config_of(kind))
    first, *others = template_of(account)["networkInterfaces"]
    assert first["networkInterfaceId"] == "serve-0-0-address-id"
    assert len(others) == count - 1
    for nic in others:
        assert nic["interfaceType"] == "efa-only"
        assert nic["deviceIndex"] == 1
        assert nic["securityGroups"] == ["members-id"]
        assert nic["deleteOnTermination"] == "true"
        assert not {"associatePublicIpAddress", "privateIpAddress"} & set(nic)
    assert (0 in [nic["networkCardIndex"] for nic in others]) == efa_on_card_0


def test_containers_have_a_larger_disk_and_one_hop_more_to_the_metadata(run_program):
    account, _ = run_program(config_of())
    made = template_of(account)
    (disk,) = made["blockDeviceMappings"]
    assert disk["ebs"]["volumeSize"] == 300
    assert (disk["ebs"]["iops"], disk["ebs"]["throughput"]) == (3000, 750)
    assert made["metadataOptions"]["httpPutResponseHopLimit"] == 2


def test_an_image_with_a_larger_root_volume_gets_that_size(run_program, monkeypatch):
    from infra.resources import images  # noqa: PLC0415 - patched here alone

    monkeypatch.setattr(images, "GPU_CONTAINER_ROOT_GIB", 20)
    account, _ = run_program(config_of(ami="ami-00000000000000001"))
    assert template_of(account)["blockDeviceMappings"][0]["ebs"]["volumeSize"] == 75


def test_a_reservation_for_all_nodes_in_their_placement_group(run_program):
    account, _ = run_program(config_of(capacity={"kind": "reserve"}))
    made = account.one("capacityReservation:CapacityReservation", "p5en.48xlarge").inputs
    assert made["instanceCount"] == 2
    assert made["instanceMatchCriteria"] == "targeted"
    assert made["placementGroupArn"] == "arn:aws:mock:::nodes"
    assert made["availabilityZone"] == "us-east-1a"
    launch = template_of(account)
    target = launch["capacityReservationSpecification"]["capacityReservationTarget"]
    assert target == {"capacityReservationId": "p5en.48xlarge-id"}
    assert launch["placement"] == {"groupName": "nodes-1234567"}
    assert "instanceMarketOptions" not in launch


def test_what_is_billed_waits_for_the_reservation(run_program):
    inside = {"load_balancer": True, "allowed_cidrs": ["10.0.0.0/8"]}
    account, _ = run_program(config_of(capacity={"kind": "reserve"}, endpoint=inside))
    kinds = [made.kind.rpartition(":")[2] for made in account.made]
    reserved = kinds.index("CapacityReservation")
    billed = {
        n: kinds.index(n) for n in ("LoadBalancer", "NatGateway", "Eip", "Bucket", "Instance")
    }
    assert [name for name, at in billed.items() if at < reserved] == []


def test_a_reservation_ends_by_itself_an_hour_after_the_nodes_of_a_stack_with_a_ttl(run_program):
    account, _ = run_program(config_of(capacity={"kind": "reserve"}, ttl="4h"))
    made = account.one("capacityReservation:CapacityReservation", "p5en.48xlarge").inputs
    assert made["endDateType"] == "limited"
    left = dt.datetime.fromisoformat(made["endDate"]) - dt.datetime.now(dt.UTC)
    assert dt.timedelta(hours=4, minutes=58) < left <= dt.timedelta(hours=5)


def test_on_demand_nodes_share_a_placement_group_and_target_nothing(run_program):
    account, _ = run_program(config_of())
    launch = template_of(account)
    assert launch["placement"] == {"groupName": "nodes-1234567"}
    assert not {"capacityReservationSpecification", "instanceMarketOptions"} & set(launch)


def test_a_capacity_block_has_a_market_and_no_placement_group(run_program, ec2):
    is_in(ec2, "us-east-1b")
    account, _ = run_program(config_of(capacity={"kind": "capacity-block", "id": BLOCK}))
    launch = template_of(account)
    assert launch["instanceMarketOptions"] == {"marketType": "capacity-block"}
    target = launch["capacityReservationSpecification"]["capacityReservationTarget"]
    assert target == {"capacityReservationId": BLOCK}
    assert "placement" not in launch
    assert not account.of("PlacementGroup")
    assert not account.of("CapacityBlockReservation")


@pytest.mark.parametrize("group", [None, "theirs"])
def test_a_reservation_that_is_there_is_launched_into_where_it_is(run_program, ec2, group):
    is_in(ec2, "us-east-1b")
    named = {"placement_group": group} if group else {}
    account, _ = run_program(config_of(capacity={"kind": "reservation", "id": BLOCK, **named}))
    launch = template_of(account)
    target = launch["capacityReservationSpecification"]["capacityReservationTarget"]
    assert target == {"capacityReservationId": BLOCK}
    assert launch.get("placement", {}).get("groupName") == group
    assert not account.of("PlacementGroup")


@pytest.mark.parametrize("kind", ["reservation", "capacity-block"])
def test_the_nodes_follow_a_reservation_to_its_zone(run_program, ec2, kind):
    is_in(ec2, "us-east-1b")
    account, _ = run_program(config_of(capacity={"kind": kind, "id": BLOCK}))
    assert account.one("subnet:Subnet", "nodes").inputs["availabilityZone"] == "us-east-1b"


def test_a_zone_that_is_named_comes_before_the_reservations(run_program):
    account, _ = run_program(
        config_of(capacity={"kind": "reservation", "id": BLOCK}, network={"zone": "us-east-1a"})
    )
    assert account.one("subnet:Subnet", "nodes").inputs["availabilityZone"] == "us-east-1a"


def test_a_reservation_that_the_region_has_not_is_an_error_that_names_it(ec2):
    ec2.add_client_error(
        "describe_capacity_reservations", "InvalidCapacityReservationId.NotFound", "none"
    )
    with pytest.raises(pulumi.RunError, match=f"us-east-1 has no capacity reservation {BLOCK}"):
        reserved.zone_of(Capacity("reservation", BLOCK), "us-east-1", None)


def test_spot_nodes_end_when_they_are_interrupted(run_program):
    account, _ = run_program(config_of(nodes=1, capacity={"kind": "spot"}))
    options = template_of(account)["instanceMarketOptions"]
    assert options["marketType"] == "spot"
    assert options["spotOptions"] == {
        "spotInstanceType": "one-time",
        "instanceInterruptionBehavior": "terminate",
    }


def test_an_image_of_a_public_registry_brings_a_nat_gateway_and_no_interface_endpoints(run_program):
    account, _ = run_program(config_of())
    gateway = account.one("natGateway:NatGateway", "nat").inputs
    assert gateway["subnetId"] == "public-id"
    routes = {made.name: made.inputs for made in account.of("route:Route")}
    assert routes["nodes-to-internet"]["natGatewayId"] == "nat-id"
    assert routes["public-to-internet"]["gatewayId"] == "internet-id"
    endpoints = {made.name: made.inputs["vpcEndpointType"] for made in account.of("VpcEndpoint")}
    assert endpoints == {"s3": "Gateway"}
    zones = {made.inputs["availabilityZone"] for made in account.of("subnet:Subnet")}
    assert zones == {"us-east-1a"}


def test_an_image_of_a_private_registry_needs_no_way_out(run_program):
    account, _ = run_program(config_of(nodes=1, vllm={"version": "0.33.0", "image": PRIVATE}))
    assert not account.of("NatGateway") + account.of("InternetGateway")
    endpoints = {made.name: made.inputs["vpcEndpointType"] for made in account.of("VpcEndpoint")}
    assert endpoints.pop("s3") == "Gateway"
    assert set(endpoints) == {"ssm", "ssmmessages", "ecr.api", "ecr.dkr"}
    (policy, *_) = [made.inputs["policy"] for made in account.of("rolePolicy:RolePolicy")]
    pulled = {s["Sid"]: s["Resource"] for s in json.loads(policy)["Statement"]}
    assert pulled["PullImage"] == "arn:aws:ecr:us-east-1:123456789012:repository/vllm-efa"


def open_to_anywhere(account) -> set[tuple[str, int]]:
    rules = [made.inputs for made in account.of("SecurityGroupEgressRule")]
    return {(r["securityGroupId"], r["fromPort"]) for r in rules if r.get("cidrIpv4")}


def test_a_gateway_needs_a_way_out_where_the_nodes_need_none(run_program):
    config = config_of(vllm={"version": "0.33.0", "image": PRIVATE}, gateway={"enabled": True})
    account, _ = run_program(config)
    assert account.of("NatGateway")
    # The mirrors of Debian and Ubuntu on EC2 speak plain HTTP.
    both = {(f"{group}-id", port) for group in ("members", "gateway") for port in (80, 443)}
    assert open_to_anywhere(account) == both


def test_nodes_that_need_nothing_of_the_internet_reach_https_alone(run_program):
    account, _ = run_program(config_of(nodes=1, vllm={"version": "0.33.0", "image": PRIVATE}))
    assert open_to_anywhere(account) == {("members-id", 443)}


def test_weights_in_s3_are_neither_uploaded_nor_fetched_where_vllm_streams_them(run_program):
    account, _ = run_program(config_of())
    keys = [made.inputs["key"] for made in account.of("BucketObjectv2")]
    assert not [key for key in keys if key.startswith("models/")]


def test_logs_do_not_stay_for_ever(run_program):
    account, _ = run_program(config_of())
    (made,) = account.of("BucketLifecycleConfiguration")
    rules = {rule["id"]: rule for rule in made.inputs["rules"]}
    assert rules["logs"]["filter"] == {"prefix": "logs/"}
    assert rules["logs"]["expiration"]["days"] == 30
    assert rules["half-made-uploads"]["abortIncompleteMultipartUpload"]["daysAfterInitiation"] == 1


def test_an_image_for_the_nodes_is_not_the_gateways(run_program):
    named = "ami-00000000000000001"
    account, _ = run_program(config_of(ami=named, gateway={"enabled": True}))
    templates = account.of("ec2/launchTemplate:LaunchTemplate")
    assert {made.name: made.inputs["imageId"] == named for made in templates} == {
        "serve-0-0": True,
        "serve-0-1": True,
        "gateway": False,
    }


def test_the_way_to_a_gateway_goes_through_a_gpu_node_whose_image_has_the_ssm_agent(run_program):
    account, exported = run_program(config_of(gateway={"enabled": True}))
    assert exported["connect"]["endpoint"] == (
        "aws ssm start-session --target serve-0-0-id --region us-east-1 "
        "--document-name AWS-StartPortForwardingSessionToRemoteHost --parameters "
        f"""'{{"host": ["{exported["groups"]["serve-0"]["router_address"]}"], """
        """"portNumber": ["443"], "localPortNumber": ["8443"]}'"""
    )
    rules = {made.name: made.inputs for made in account.of("SecurityGroupIngressRule")}
    inward = rules["gateway-from-members"]
    assert (inward["securityGroupId"], inward["fromPort"]) == ("gateway-id", 443)
    assert inward["referencedSecurityGroupId"] == "members-id"
