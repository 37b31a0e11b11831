from __future__ import annotations

import dataclasses
import datetime as dt
import json
import time

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from infra import model, reservations, sources
from infra.cli.status import Billed
from infra.names import STACK_TAG
from infra.plan import plan as plans
from infra.plan.assignments import Place, assignments
from infra.planning import make_plan
from node_bootstrap.assignment import Archive, assignment_key, status_key
from node_bootstrap.jsondata import to_json

BUCKET = "moe-serving-dev-123456789012"


@pytest.fixture
def s3(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield boto3.client("s3", region_name="us-east-1")


@pytest.fixture
def plan(stack_file) -> plans.Plan:
    source = sources.read_file(stack_file)
    settings = sources.load(source, "dev")
    return make_plan("dev", settings, model.facts(settings.model, source.base))


@pytest.fixture
def bucket(s3, plan, deployment, status):
    """The bucket of a stack that answers."""

    def put(key: str, text: str) -> None:
        s3.put_object(Bucket=BUCKET, Key=key, Body=text.encode())

    s3.create_bucket(Bucket=BUCKET)
    addresses = {node.name: "10.42.0.10" for node in plan.nodes}
    place = Place("us-east-1", BUCKET, Archive("k", "a1"), addresses)
    for index, (name, told) in enumerate(assignments(plan, place).items()):
        put(assignment_key(name), to_json(dataclasses.replace(told, revision="r1")))
        put(status_key(name), to_json(status(index, updated_at=4e9)))
    put("deployment.json", to_json(deployment))
    put("record.json", json.dumps({"deployment": json.loads(to_json(deployment))}))
    return put


def test_shows_nodes_phases_seconds_and_endpoint(moe, bucket):
    shown = moe("status", "--stack", "dev")
    assert shown.exit_code == 0
    for part in ("http://10.42.0.10:8000/v1 answers", "serve-0-1", "i-1", "weights 1.5", "ready"):
        assert part in shown.stdout


def test_json_for_programs(moe, bucket):
    document = json.loads(moe("status", "--stack", "dev", "--json").stdout)
    assert (document["ready"], document["proven"]) == (True, True)
    assert document["groups"][0]["generation"] == 1
    assert document["nodes"][1]["experts"] == {"1": "2 of 4"}


def test_a_record_of_an_earlier_deployment_proves_nothing(moe, bucket):
    bucket("record.json", json.dumps({"deployment": {"stack": "dev"}}))
    assert not json.loads(moe("status", "--stack", "dev", "--json").stdout)["proven"]


def test_a_stack_that_is_not_up(moe, s3):
    shown = moe("status", "--stack", "absent")
    assert shown.exit_code == 2
    assert "There is no bucket moe-serving-absent-123456789012" in shown.output


def test_a_bucket_can_be_named(moe, s3):
    assert "no bucket mine:" in moe("status", "--bucket", "mine").output


def test_the_end_is_told_with_the_way_to_move_it(moe, bucket, status):
    bucket(status_key("serve-0-0"), to_json(status(0, updated_at=4e9, ends_at=5e9)))
    shown = " ".join(moe("status", "--stack", "dev").stdout.split())
    assert "Its nodes end by themselves in" in shown
    assert "`moe extend dev 2h` moves that" in shown


def test_cost_so_far_is_that_of_the_living_instances(moe, bucket, s3):
    ec2 = boto3.client("ec2", region_name="us-east-1")
    tags = [{"Key": STACK_TAG, "Value": "dev"}]
    ec2.run_instances(
        ImageId="ami-12c6146b",
        InstanceType="p5.48xlarge",
        MinCount=2,
        MaxCount=2,
        TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
    )
    document = json.loads(moe("status", "--stack", "dev", "--json").stdout)
    assert document["spent"]["usd_per_hour"] == 110.08
    assert "$110.08 an hour" in moe("status", "--stack", "dev").stdout


def test_without_instances_nothing_is_billed(moe, bucket):
    assert "Cost: no instance is billed" in moe("status", "--stack", "dev").stdout


def test_without_permission_to_list_instances_the_rest_is_told():
    ec2 = boto3.client(
        "ec2", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    with Stubber(ec2) as stub:
        stub.add_client_error("describe_instances", "UnauthorizedOperation")
        billed = Billed(ec2, "dev")
        assert billed.look(0.0) is None
        assert billed.look(5.0) is None, "not asked again so soon"
        stub.assert_no_pending_responses()


END = dt.datetime(2026, 12, 2, 11, 30, tzinfo=dt.UTC)
IN_A_BLOCK = {
    "InstanceType": "p5.48xlarge",
    "LaunchTime": END - dt.timedelta(days=1),
    "InstanceLifecycle": "capacity-block",
    "CapacityReservationId": "cr-0b",
}


@pytest.fixture
def in_a_block():
    """EC2, with its stub, that has one instance of the stack, in a Capacity Block."""
    client = boto3.client("ec2", "us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    with Stubber(client) as stub:
        stub.add_response("describe_instances", {"Reservations": [{"Instances": [IN_A_BLOCK]}]})
        yield client, stub


def test_nodes_in_a_capacity_block_end_half_an_hour_before_it(in_a_block):
    ec2, stub = in_a_block
    answer = {"CapacityReservations": [{"EndDate": END}]}
    asked = {"CapacityReservationIds": ["cr-0b"]}
    stub.add_response("describe_capacity_reservations", answer, asked)
    billed = Billed(ec2, "dev")
    billed.look(0.0)
    assert billed.block_ends_at == END.timestamp() - 1800


def test_without_permission_to_look_at_the_block_the_instances_are_told(in_a_block):
    ec2, stub = in_a_block
    stub.add_client_error("describe_capacity_reservations", "UnauthorizedOperation")
    billed = Billed(ec2, "dev")
    assert [launch.reservation for launch in billed.look(0.0) or ()] == ["cr-0b"]
    assert billed.block_ends_at is None


def test_the_end_of_the_block_is_shown(moe, bucket, monkeypatch):
    monkeypatch.setattr(reservations, "nodes_end_at", lambda *_: time.time() + 5 * 3600)
    shown = moe("status", "--stack", "dev").stdout
    assert "AWS ends its nodes in 5.0 h, with their Capacity Block" in shown


def test_the_boot_as_a_drawing(moe, bucket, status, tmp_path):
    made = status(0, updated_at=4e9, booted_at=1000.0, agent_started_at=1012.5)
    bucket(status_key("serve-0-0"), to_json(made))
    file = tmp_path / "boot.svg"
    assert moe("status", "--stack", "dev", "--svg", str(file)).exit_code == 0
    assert "boot 12.5 s" in file.read_text()
