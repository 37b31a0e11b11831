from __future__ import annotations

import threading
import time

import boto3
import pytest

from infra.preflight import run
from infra.preflight.check import Check, always
from infra.preflight.run import CHECKS, DEADLINE_SECONDS, worst

WRONG = "x" * 40


def test_credentials_that_work_are_named(result_of, asked):
    result = result_of("CREDENTIALS", asked())
    assert result.state == "PASS"
    assert "user/rehearsal-admin in account 123456789012" in result.message


@pytest.mark.parametrize("key", ["own", "unknown"])
def test_credentials_that_aws_refuses_are_one_clear_failure(endpoint, asked, key):
    id_ = endpoint.access_key_id if key == "own" else "AKIAUNKNOWN000000000"
    session = boto3.Session(id_, WRONG, region_name="us-east-1")
    (result,) = run(session, asked())
    assert (result.code, result.state) == ("PREFLIGHT_CREDENTIALS", "FAIL")
    assert "AWS does not take these credentials" in result.message


def test_no_credentials_are_one_clear_failure(endpoint, asked):
    (result,) = run(boto3.Session(region_name="us-east-1"), asked())
    assert (result.code, result.state) == ("PREFLIGHT_CREDENTIALS", "FAIL")
    assert "Unable to locate credentials" in result.message
    assert "AWS_PROFILE" in result.remedy


def test_no_region_is_one_clear_failure(endpoint, asked):
    session = boto3.Session(endpoint.access_key_id, endpoint.secret_access_key)
    (result,) = run(session, asked())
    assert (result.code, result.state) == ("PREFLIGHT_REGION", "FAIL")


def test_an_account_that_can_not_be_reached_is_one_clear_failure(admin, asked, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    (result,) = run(admin, asked())
    assert result.state == "FAIL"
    assert "AWS can't be reached" in result.message


def test_what_is_late_is_skipped_and_the_rest_is_told(admin, asked):
    told = threading.Event()

    def slow(aws, asked):
        told.wait(60)
        return ()

    late = Check("PREFLIGHT_LATE", "x", "x", (), always, slow)
    began = time.monotonic()
    results = run(admin, asked(), deadline_seconds=5.0, every=(late, CHECKS[0]))
    took = time.monotonic() - began
    told.set()
    assert took < 30
    assert [(r.code, r.state) for r in results[1:]] == [
        ("PREFLIGHT_LATE", "SKIPPED"),
        ("PREFLIGHT_REGION", "PASS"),
    ]
    assert "within 5 s" in results[1].message


def test_all_checks_take_far_less_than_the_limit(admin, asked, subnet):
    stack = asked(subnet_id=subnet()[1], elastic_ips=1, model_source="s3://models/m")
    began = time.monotonic()
    results = run(admin, stack)
    assert time.monotonic() - began < DEADLINE_SECONDS / 2
    assert len({r.code for r in results}) > 8


def test_what_fails_and_what_has_a_catch_are_findings(admin, asked):
    (result,) = (r for r in run(admin, asked(ami="ami-00000000")) if r.code == "PREFLIGHT_AMI")
    assert result.finding is not None
    assert (result.finding.code, result.finding.severity) == ("PREFLIGHT_AMI", "ERROR")
    assert worst([result]) == "FAIL"
