from __future__ import annotations

import json

import boto3
import pytest
from moto import mock_aws

from infra import wait
from node_bootstrap.assignment import status_key
from node_bootstrap.jsondata import to_json
from node_bootstrap.status import Fault


class Time:
    """A clock that moves only when somebody sleeps, and then runs what is due."""

    def __init__(self) -> None:
        self.at = 0.0
        self.due: dict[float, object] = {}
        self.clock = wait.Clock(lambda: self.at, lambda: self.at, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.at += seconds
        for when in sorted(t for t in self.due if t <= self.at):
            self.due.pop(when)()


@pytest.fixture
def s3(deployment, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=deployment.bucket)
        yield client


@pytest.fixture
def put(s3, deployment):
    def put(status) -> None:
        s3.put_object(
            Bucket=deployment.bucket, Key=status_key(status.node), Body=to_json(status).encode()
        )

    return put


def test_waits_for_all_nodes_and_says_each_change_once(deployment, s3, put, status):
    time, said = Time(), []
    put(status(0))
    time.due = {3.0: lambda: put(status(1, phase="weights")), 6.0: lambda: put(status(1))}
    proven = wait.until_ready(deployment, s3, 60, said.append, time.clock)
    assert set(proven) == {"serve-0-0", "serve-0-1"}
    assert said == [
        "serve-0-1: booting (0 s)",
        "serve-0-1: weights (3 s)",
        "http://10.42.0.10:8000/v1 answers on every rank (6 s)",
    ]


def test_says_that_it_still_waits(deployment, s3, put, status):
    time, said = Time(), []
    time.due = {70.0: lambda: (put(status(0)), put(status(1)))}
    wait.until_ready(deployment, s3, 100, said.append, time.clock)
    assert [line for line in said if "booting" in line] == [
        "serve-0-0, serve-0-1: booting (0 s)",
        "serve-0-0, serve-0-1: booting (31 s)",
        "serve-0-0, serve-0-1: booting (62 s)",
    ]


def test_time_limit_says_what_was_last_seen_and_what_goes_on(deployment, s3):
    with pytest.raises(wait.NotReadyError, match=r"no answer after 11 s .*booting.*moe status"):
        wait.until_ready(deployment, s3, 10, lambda _: None, Time().clock)


def test_a_failure_that_lasts_fails_with_reason_and_log(deployment, s3, put, status):
    time = Time()
    log = "\n".join(f"line {n}" for n in range(40))
    put(status(1, phase="failed", fault=Fault(1.0, "no room on the disk", 0, log)))
    with pytest.raises(wait.NotReadyError) as raised:
        wait.until_ready(deployment, s3, 600, lambda _: None, time.clock)
    assert time.at == wait.FAILURE_HOLDS_SECONDS
    assert "serve-0-1 (i-1) failed: no room on the disk" in str(raised.value)
    assert "    line 39" in str(raised.value)
    assert "    line 14\n" not in str(raised.value)


def test_a_failure_from_before_this_update_is_waited_out(deployment, s3, put, status):
    time = Time()
    put(status(0))
    put(status(1, phase="failed", revision="r0"))
    time.due = {4.0: lambda: put(status(1))}
    assert wait.until_ready(deployment, s3, 60, lambda _: None, time.clock)


def test_a_status_of_another_form_is_as_none(deployment, s3):
    s3.put_object(Bucket=deployment.bucket, Key=status_key("serve-0-0"), Body=b'{"schema": 99}')
    assert wait.read_statuses(s3, deployment.bucket, deployment.nodes) == {}


def test_a_bucket_that_cannot_be_read_is_named(deployment, s3):
    with pytest.raises(wait.NotReadyError, match=r"s3://absent/nodes/serve-0-0/status\.json"):
        wait.read_statuses(s3, "absent", ["serve-0-0"])


def test_record_tells_who_holds_which_experts(deployment, status):
    statuses = {"serve-0-0": status(0), "serve-0-1": status(1)}
    record = json.loads(wait.record(deployment, statuses, 19.23, 1000.0))
    assert record["nodes"]["serve-0-0"]["experts_per_rank"] == {"0": [0, 1]}
    assert record["nodes"]["serve-0-1"]["experts_per_rank"] == {"1": [2, 3]}
    assert record["nodes"]["serve-0-1"]["step_seconds"] == {"weights": 1.5}
    assert record["groups"]["serve-0"]["generation"] == 1
    assert record["deployment"]["endpoint"] == deployment.endpoint
    assert (record["waited_seconds"], record["proven_at"]) == (19.2, 1000.0)


def test_the_time_limit_begins_anew_with_each_turn(deployment, s3, put, status, group_report):
    time = Time()
    queued = group_report(revision="r0", wants="r1")
    for node in (0, 1):
        put(status(node, revision="r0", group=queued if node == 0 else None))
    time.due = {
        8.0: lambda: put(status(0, group=group_report(phase="starting", generation=2))),
        16.0: lambda: (put(status(0)), put(status(1))),
    }
    assert wait.until_ready(deployment, s3, 10, lambda _: None, time.clock)


def test_a_failure_says_who_goes_on(deployment, s3, put, status, group_report):
    put(status(0, revision="r0", group=group_report(revision="r0", wants="r1")))
    put(status(1, phase="failed", fault=Fault(1.0, "no room on the disk", 0)))
    with pytest.raises(wait.NotReadyError, match="serve-0 goes on with what was there before"):
        wait.until_ready(deployment, s3, 600, lambda _: None, Time().clock)
