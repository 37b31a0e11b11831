from __future__ import annotations

import json

import boto3
import pulumi
import pytest
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


def run_hook(deployment, timeout_seconds: float) -> None:
    args = record.RecordArgs(deployment.bucket, "", timeout_seconds, profile=None)
    given = pulumi.ResourceHookArgs(
        "urn", "", "deployment", "type", new_inputs={"content": to_json(deployment)}
    )
    record._endpoint_answers(args, given)


def test_an_answer_writes_the_record_beside_what_was_asked(s3, deployment, status):
    for index in range(2):
        made = status(index)
        key = status_key(made.node)
        s3.put_object(Bucket=deployment.bucket, Key=key, Body=to_json(made).encode())
    run_hook(deployment, timeout_seconds=10)
    written = s3.get_object(Bucket=deployment.bucket, Key=wait.RECORD_KEY)["Body"].read()
    assert json.loads(written)["deployment"] == json.loads(to_json(deployment))


def test_no_answer_fails_the_update_and_writes_no_record(s3, deployment):
    with pytest.raises(wait.NotReadyError):
        run_hook(deployment, timeout_seconds=0)
    assert "Contents" not in s3.list_objects_v2(Bucket=deployment.bucket)
