from __future__ import annotations

import dataclasses
import datetime as dt
import json
import time

import boto3
import pytest

from infra import report
from infra.cli.errors import UsageError
from infra.cli.extend import ends_of, new_end
from infra.names import STACK_TAG
from node_bootstrap.assignment import assignment_key, status_key
from node_bootstrap.jsondata import to_json
from node_bootstrap.ttl import Ttl
from rehearsal.driver import account_process
from rehearsal.paths import Home

BUCKET = "moe-serving-dev-123456789012"
FAR = 4e9
HOUR = Ttl(3600.0)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """An account that boots nothing."""
    home = Home(tmp_path_factory.mktemp("account"))
    yield account_process.start(home, "us-east-1")
    account_process.stop(home)


@pytest.fixture
def aws(endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", endpoint.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", endpoint.secret_access_key)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.url)
    return boto3.Session(region_name="us-east-1")


@pytest.fixture
def s3(aws):
    client = aws.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    for item in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def stack(s3, told, status):
    """Puts a stack of two nodes into the bucket, each with its ttl and its end."""

    def put(ends_at: float | None, ttl: Ttl | None = HOUR) -> None:
        for index, (name, assignment) in enumerate(told.items()):
            body = to_json(dataclasses.replace(assignment, ttl=ttl)).encode()
            s3.put_object(Bucket=BUCKET, Key=assignment_key(name), Body=body)
            said = to_json(status(index, ends_at=ends_at)).encode()
            s3.put_object(Bucket=BUCKET, Key=status_key(name), Body=said)

    return put


def written(s3) -> float:
    return json.loads(s3.get_object(Bucket=BUCKET, Key="ttl.json")["Body"].read())["until"]


def test_the_new_end_is_so_much_later_than_the_present_one(moe, s3, stack):
    stack(ends_at=FAR)
    shown = moe("extend", "dev", "2h")
    assert shown.exit_code == 0
    assert written(s3) == FAR + 7200
    assert "dev: its nodes end at 2096-10-02 09:06:40 UTC" in shown.stdout


def test_a_second_extension_comes_on_top_although_no_node_has_read_the_first(moe, s3, stack):
    stack(ends_at=FAR)
    moe("extend", "dev", "2h")
    moe("extend", "dev", "30m")
    assert written(s3) == FAR + 9000


def test_nodes_that_have_ended_are_told(moe, s3, stack):
    stack(ends_at=1000.0)
    shown = moe("extend", "dev", "2h")
    assert "2 nodes have ended" in shown.output
    assert written(s3) == pytest.approx(time.time() + 7200, abs=60)


def test_the_stacks_own_reservation_is_held_as_long_and_no_other_is_touched(aws, moe, stack):
    ec2 = aws.client("ec2")
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=5)
    mine, another = (
        ec2.create_capacity_reservation(
            InstanceType="p5.48xlarge",
            InstancePlatform="Linux/UNIX",
            AvailabilityZone="us-east-1a",
            InstanceCount=1,
            EndDateType="limited",
            EndDate=soon,
            TagSpecifications=[
                {
                    "ResourceType": "capacity-reservation",
                    "Tags": [{"Key": STACK_TAG, "Value": owner}],
                }
            ],
        )["CapacityReservation"]["CapacityReservationId"]
        for owner in ("dev", "other")
    )
    stack(ends_at=FAR)
    assert f"{mine} is held" in moe("extend", "dev", "2h").stdout
    ends = {
        r["CapacityReservationId"]: r["EndDate"].timestamp()
        for r in ec2.describe_capacity_reservations()["CapacityReservations"]
    }
    assert ends[mine] == FAR + 7200 + 3600
    assert ends[another] == pytest.approx(soon.timestamp(), abs=1)


def test_a_stack_without_a_ttl_has_no_end_to_move(moe, s3, stack):
    stack(ends_at=None, ttl=None)
    shown = moe("extend", "dev", "2h")
    assert shown.exit_code == 2
    assert "dev has no ttl" in shown.output


def test_what_is_no_duration_is_told(moe):
    shown = moe("extend", "dev", "soon")
    assert shown.exit_code == 2
    assert "wanted a duration such as 90s, 30m or 4h" in shown.output


def test_a_stack_that_is_not_up(moe, s3):
    assert "There is no bucket moe-serving-absent" in moe("extend", "absent", "2h").output


def test_a_node_that_was_not_heard_of_begins_its_time_now(told):
    ending = {n: dataclasses.replace(a, ttl=Ttl(60.0)) for n, a in told.items()}
    contents = report.Contents("dev", "b", ending, {}, None, proven=False)
    assert ends_of(contents, now=100.0).coming == (160.0, 160.0)


def test_without_any_ttl_there_is_no_end(told):
    contents = report.Contents("dev", "b", told, {}, None, proven=False)
    with pytest.raises(UsageError, match="no ttl"):
        ends_of(contents, now=100.0)


def test_the_latest_of_all_that_is_known_is_extended():
    assert new_end((50.0, 70.0), written=60.0, now=10.0, span_seconds=5.0) == 75.0
    assert new_end((), written=0.0, now=10.0, span_seconds=5.0) == 15.0
