"""Two agents as they run on two nodes: processes of their own, real S3, SSM, HTTP and roles.

The nodes are 127.0.0.1 and 127.0.0.2; the roles are small engines with vLLM's manners.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from importlib.metadata import version
from pathlib import Path

import pytest

from node_bootstrap import assignment as a
from node_bootstrap import jsondata
from node_bootstrap.agent.protocol import RestartOrder
from node_bootstrap.gateway import peers

BUCKET = "moe-serving-test-123456789012"
ENGINE = Path(__file__).parent / "engine.py"
WEIGHTS = b"the weights" * 1000
OTHER_WEIGHTS = b"new weights" * 1000
ADDRESSES = {"serve-0-0": "127.0.0.1", "serve-0-1": "127.0.0.2"}
NOTICED_WITHIN_SECONDS = 20
"""On a machine that does much else; 1 to 3 s where it doesn't."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory, account, make_nodes):
    nodes = make_nodes(tmp_path_factory.mktemp("nodes"), account)
    nodes.assign(env={"IFNAME": a.PRIMARY_INTERFACE, "SAYS": "KV cache is full, the-key"})
    for name in ADDRESSES:
        nodes.start(name)
    yield nodes
    nodes.close()


@pytest.fixture
def ready(nodes):
    """One group for all tests: each leaves it ready, at whatever generation."""
    nodes.wait_ready()
    nodes.before = nodes.group()["generation"]
    return nodes


def test_a_group_becomes_ready_and_says_so_in_the_bucket(ready):
    # What is in the bucket is up to a second behind each agent.
    ready.wait(
        lambda g: (
            (status := ready.status()).found.experts
            and status.group.phase == "ready"
            and all(ready.status(name).generation == g["generation"] for name in ADDRESSES)
        )
    )
    status = ready.status()
    assert status.phase == "role"
    assert status.running
    assert [s.outcome for s in status.steps] == ["NOCHANGE", "NOCHANGE", "CHANGED", "CHANGED"]
    assert status.group.phase == "ready"
    assert [p.text for p in status.group.probes] == ["A", "A"]
    assert status.group.waiting_for == ()
    assert status.found.experts[0].local == (0, 1, 2, 3)
    assert status.found.interface == "lo"
    assert status.group.restarts[0].cause == "first start"
    member = ready.status("serve-0-1")
    assert (member.revision, member.generation) == (status.revision, status.generation)
    assert "the-key" not in jsondata.to_json(status)


def test_what_a_serving_role_shows_of_trouble_is_in_the_bucket_without_secrets(ready):
    ready.wait(lambda _: ready.status("serve-0-1").signs)
    (sign,) = ready.status("serve-0-1").signs
    assert (sign.symptom, sign.line) == ("KV_EXHAUSTED", "KV cache is full, ***")


def test_a_headless_role_that_dies_while_nobody_asks_restarts_the_whole_group(ready):
    ready.kill_role("serve-0-1")
    assert ready.wait_fault() < NOTICED_WITHIN_SECONDS
    ready.wait_ready()
    assert ready.role("serve-0-0").started.generation == ready.before + 1
    assert ready.role("serve-0-1").started.generation == ready.before + 1
    assert "serve-0-1 failed: its vLLM ended by signal 9" in ready.cause()


def test_a_primary_role_that_dies_restarts_the_whole_group(ready):
    ready.kill_role("serve-0-0")
    assert ready.wait_fault() < NOTICED_WITHIN_SECONDS
    ready.wait_ready()
    assert ready.role("serve-0-1").started.generation == ready.before + 1


def test_restarted_agents_adopt_the_running_roles(ready):
    old = ready.status().agent_started_at
    roles = [ready.role(n) for n in ADDRESSES]
    for name in ADDRESSES:
        ready.kill_agent(name)
    for name in ADDRESSES:
        ready.start(name)
    ready.wait_ready()
    time.sleep(9)  # longer than a silence: whoever was not heard again would be a fault by now
    assert [ready.role(n) for n in ADDRESSES] == roles
    assert ready.group()["generation"] == ready.before
    ready.wait(lambda _: (s := ready.status()).agent_started_at > old and len(s.steps) == 4)
    steps, boot = ready.status().steps, ready.status().boot
    assert [s.outcome for s in steps] == ["SKIPPED", "NOCHANGE", "NOCHANGE", "NOCHANGE"]
    assert [s.outcome for s in boot.steps] == ["NOCHANGE", "NOCHANGE", "CHANGED", "CHANGED"]
    assert boot.agent_started_at < ready.status().agent_started_at
    assert max(s.seconds for s in steps) < 20  # under a second on a machine that is not busy


def test_a_member_without_its_primary_stops(ready):
    ready.kill_agent("serve-0-0")
    pid = ready.role("serve-0-1").pid
    began = time.monotonic()
    while alive(pid) and time.monotonic() - began < 60:
        time.sleep(0.1)
    assert not alive(pid)
    assert time.monotonic() - began < NOTICED_WITHIN_SECONDS
    ready.start("serve-0-0")
    ready.wait_fault()
    ready.wait_ready()


def test_a_member_whose_agent_is_gone_is_noticed(ready):
    ready.kill_agent("serve-0-1")
    assert ready.wait_fault() < NOTICED_WITHIN_SECONDS
    assert "serve-0-1 has been silent" in ready.cause()
    ready.start("serve-0-1")
    ready.wait_ready()


def test_a_hanging_rank_is_noticed(ready):
    os.kill(ready.role("serve-0-1").pid, signal.SIGSTOP)
    assert ready.wait_fault() < NOTICED_WITHIN_SECONDS
    ready.wait_ready()
    assert "did not answer: no answer within 5 s" in ready.cause()


def test_a_new_revision_reaches_both_nodes_and_they_change_together(ready):
    revision = ready.assign(env={"LENGTH": "3"})
    ready.wait(lambda g: g["revision"] == revision and g["phase"] == "ready")
    ready.wait(lambda _: [p.text for p in ready.status().group.probes] == ["AAA", "AAA"])
    ready.wait(lambda _: ready.status("serve-0-1").revision == revision)
    assert ready.cause() == "new revision"


def test_a_revision_that_can_not_be_prepared_leaves_the_old_one_serving_until_mended(ready):
    old = ready.group()["revision"]
    missing = a.Software("venv", sys.executable, {"no-such-distribution-of-ours": "1.0"})
    ready.assign(software=missing)
    ready.wait(lambda _: ready.status().phase == "failed")
    assert "no-such-distribution-of-ours 1.0 is missing" in ready.status().fault.what
    assert ready.group()["phase"] == "ready"
    assert ready.group()["revision"] == old
    mended = a.Software("venv", sys.executable, {"moto": version("moto")})
    revision = ready.assign(software=mended)
    ready.wait(lambda g: g["revision"] == revision and g["phase"] == "ready")


def test_weights_that_are_not_the_planned_ones_fail_the_node_until_the_object_is_right(ready):
    planned = ready.assignment("serve-0-0").weights.files[0]
    other = dataclasses.replace(planned, sha256=hashlib.sha256(OTHER_WEIGHTS).hexdigest())
    ready.weights = (other,)
    revision = ready.assign()
    ready.wait(lambda _: ready.status().phase == "failed")
    assert "the object was changed; deploy again" in ready.status().fault.what
    ready.account.s3.put_object(Bucket=BUCKET, Key="models/m/w.bin", Body=OTHER_WEIGHTS)
    ready.wait(lambda g: g["revision"] == revision and g["phase"] == "ready")
    assert ready.cause() == "new revision"


def test_the_agent_tells_its_group_only_to_who_has_the_token(ready):
    base = f"http://127.0.0.1:{ready.agent_port}"
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        request = urllib.request.Request(f"{base}/v1/group", headers=headers)
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request, timeout=15)
    with urllib.request.urlopen(f"{base}/metrics", timeout=15) as answer:
        metrics = answer.read().decode()
    assert 'moe_group_phase{phase="ready"} 1.0' in metrics
    with urllib.request.urlopen(f"{base}/healthz", timeout=15) as answer:
        assert answer.read() == b"ok\n"


TOKEN = "the-token"


def test_a_group_starts_anew_on_the_order_of_who_holds_the_token(ready):
    now = ready.group()
    order = RestartOrder(now["revision"], now["generation"], "the gateway wants it")
    agent = ("127.0.0.1", ready.agent_port)
    with pytest.raises(peers.PeerError, match="HTTP 401"):
        peers.order_restart(*agent, "wrong", order)
    peers.order_restart(*agent, TOKEN, dataclasses.replace(order, generation=now["generation"] - 1))
    time.sleep(1)
    assert ready.group()["generation"] == now["generation"], "that life was over already"
    peers.order_restart(*agent, TOKEN, order)
    ready.wait(lambda group: group["generation"] > now["generation"])
    assert ready.cause() == "the gateway wants it"
    with pytest.raises(peers.PeerError, match="HTTP 404"):
        peers.order_restart("127.0.0.2", ready.agent_port, TOKEN, order)


def test_an_agent_tries_ports_for_who_holds_the_token(ready):
    reached, closed = f"127.0.0.1:{ready.agent_port}", "127.0.0.1:1"
    said = peers.unreached({"n": "127.0.0.2"}, ready.agent_port, TOKEN, [reached, closed])
    assert len(said) == 1
    assert said[0].startswith(f"n doesn't reach the side channel {closed}: ")


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
