from __future__ import annotations

import boto3
import pytest
from moto import mock_aws

from infra import leftovers

NOT_IN_MOTO = ("placement group", "capacity reservation")


@pytest.fixture
def ssm(monkeypatch):
    """An account that has one parameter of the stack left."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    held = tuple(kind for kind in leftovers.KINDS if kind.name not in NOT_IN_MOTO)
    monkeypatch.setattr(leftovers, "KINDS", held)
    with mock_aws():
        client = boto3.client("ssm", region_name="us-east-1")
        client.put_parameter(Name="/moe-serving/dev/api-key", Value="x", Type="SecureString")
        yield client


def test_lists_and_says_so_with_its_exit_status(moe, ssm):
    shown = moe("leftovers", "--stack", "dev", "--region", "us-east-1")
    assert shown.exit_code == 1
    assert "/moe-serving/dev/api-key" in shown.stdout


def test_deletes_nothing_without_a_yes(moe, ssm):
    shown = moe("leftovers", "--stack", "dev", "--region", "us-east-1", "--delete", answer="n\n")
    assert shown.exit_code == 1
    assert ssm.get_parameter(Name="/moe-serving/dev/api-key")


def test_deletes_with_a_yes_and_then_there_is_nothing(moe, ssm):
    argv = ("leftovers", "--stack", "dev", "--region", "us-east-1")
    assert moe(*argv, "--delete", "--yes").exit_code == 0
    shown = moe(*argv)
    assert shown.exit_code == 0
    assert "Nothing in us-east-1 belongs to the stack dev." in shown.stdout
