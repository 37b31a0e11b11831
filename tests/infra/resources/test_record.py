from __future__ import annotations

import dataclasses
import json

import boto3
import pulumi
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from infra import wait
from infra.resources import record
from node_bootstrap.assignment import status_key
from node_bootstrap.jsondata import to_json

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:pulumi_aws")


@pytest.fixture
def s3(deployment, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=deployment.bucket)
        yield client


def both_report(s3, deployment, status) -> None:
    """The statuses of both nodes, ready, as their agents write them."""
    for index in range(2):
        made = status(index)
        key = status_key(made.node)
        s3.put_object(Bucket=deployment.bucket, Key=key, Body=to_json(made).encode())


def run_hook(deployment, timeout_seconds: float) -> None:
    args = record.RecordArgs(deployment.bucket, "", timeout_seconds, profile=None)
    given = pulumi.ResourceHookArgs(
        "urn", "", "deployment", "type", new_inputs={"content": to_json(deployment)}
    )
    record._endpoint_answers(args, given)


def test_an_answer_writes_the_record_beside_what_was_asked(s3, deployment, status):
    both_report(s3, deployment, status)
    run_hook(deployment, timeout_seconds=10)
    written = s3.get_object(Bucket=deployment.bucket, Key=wait.RECORD_KEY)["Body"].read()
    assert json.loads(written)["deployment"] == json.loads(to_json(deployment))


def test_no_answer_fails_the_update_and_the_record_says_why_and_proves_nothing(s3, deployment):
    with pytest.raises(wait.NotReadyError):
        run_hook(deployment, timeout_seconds=0)
    written = json.loads(
        s3.get_object(Bucket=deployment.bucket, Key=wait.RECORD_KEY)["Body"].read()
    )
    assert "no answer after" in written["last_failure"]["reason"]
    assert written["last_failure"]["revisions"] == {"serve-0": "r1"}
    assert "deployment" not in written


def test_a_failure_stands_beside_what_was_proven_before_until_the_next_answer(
    s3, deployment, status
):
    both_report(s3, deployment, status)
    run_hook(deployment, timeout_seconds=10)
    changed = dataclasses.replace(
        deployment,
        groups={"serve-0": dataclasses.replace(deployment.groups["serve-0"], revision="r2")},
    )
    with pytest.raises(wait.NotReadyError):
        run_hook(changed, timeout_seconds=0)
    record = s3.get_object(Bucket=deployment.bucket, Key=wait.RECORD_KEY)["Body"].read()
    assert json.loads(record)["deployment"] == json.loads(to_json(deployment))
    assert json.loads(record)["last_failure"]["revisions"] == {"serve-0": "r2"}
    run_hook(deployment, timeout_seconds=10)
    record = s3.get_object(Bucket=deployment.bucket, Key=wait.RECORD_KEY)["Body"].read()
    assert "last_failure" not in json.loads(record)


def failed_at(deployment) -> float | None:
    return record.last_failure(f"s3://{deployment.bucket}/{wait.RECORD_KEY}", None)


def test_settings_that_were_proven_before_a_failure_are_asked_for_anew_and_then_stay(
    s3, deployment, status
):
    both_report(s3, deployment, status)
    run_hook(deployment, timeout_seconds=10)
    assert failed_at(deployment) is None
    changed = dataclasses.replace(
        deployment,
        groups={"serve-0": dataclasses.replace(deployment.groups["serve-0"], revision="r2")},
    )
    with pytest.raises(wait.NotReadyError):
        run_hook(changed, timeout_seconds=0)

    back = dataclasses.replace(deployment, failed_at=failed_at(deployment))
    assert to_json(back) != to_json(deployment), "else the engine would see nothing to wait for"

    run_hook(back, timeout_seconds=10)
    assert failed_at(deployment) == back.failed_at


def test_a_record_that_may_not_be_read_tells_of_no_failure_and_says_so(monkeypatch):
    def refused(uri, profile):
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")

    warnings = []
    monkeypatch.setattr(record, "read_record", refused)
    monkeypatch.setattr(pulumi.log, "warn", warnings.append)
    assert record.last_failure("s3://bucket/record.json", None) is None
    assert "may not be read" in warnings[0]


@pytest.mark.parametrize(
    ("proven", "expected"),
    [
        ({}, "deepep_low_latency"),
        ({"nodes": {"serve-0-0": {"all2all_backend": None}}}, "deepep_low_latency"),
        (
            {"nodes": {"serve-0-0": {"all2all_backend": {"in_effect": "allgather_reducescatter"}}}},
            "allgather_reducescatter",
        ),
    ],
    ids=["nothing proven yet", "no library needed", "fell back"],
)
def test_the_backend_in_effect_is_the_one_that_was_proven(proven, expected):
    assert record.in_effect(proven, "serve-0-0", "deepep_low_latency") == expected


def test_a_record_that_is_not_there_yet_is_empty(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        s3 = boto3.client("s3")
        assert record.read_record("s3://bucket/record.json", None) == {}
        s3.create_bucket(Bucket="bucket")
        assert record.read_record("s3://bucket/record.json", None) == {}
        s3.put_object(Bucket="bucket", Key="record.json", Body=b'{"nodes": {}}')
        assert record.read_record("s3://bucket/record.json", None) == {"nodes": {}}
