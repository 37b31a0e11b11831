"""A stack with a ttl ends by itself, though nobody comes back; `moe extend` moves that."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest
import yaml
from rehearsed import CHECKOUT, PRIMARY, Rehearsed, own_network, running, write_stack

pytestmark = pytest.mark.nightly

NETWORK = own_network(5)
TTL_SECONDS = 150
LONGER_SECONDS = 15
POWERED_OFF_SECONDS = 120
"""systemd ends the node's units first; the account looks at its instances every few seconds."""


@pytest.fixture(scope="module")
def ending(tmp_path_factory) -> Iterator[Rehearsed]:
    """One node with a short ttl, up and answering."""
    folder = tmp_path_factory.mktemp("ttl")
    path = write_stack(folder / "stacks", network=NETWORK, nodes=1) / "Pulumi.rehearsal.yaml"
    data = yaml.safe_load(path.read_text())
    data["config"]["moe-serving:ttl"] = f"{TTL_SECONDS}s"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    stack = Rehearsed(folder / "home", folder / "stacks")
    with running(stack):
        yield stack


def moe(stack: Rehearsed, *command: str) -> str:
    done = subprocess.run(
        [CHECKOUT / ".venv/bin/moe", *command],
        env=stack.tool_env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def instance_state(stack: Rehearsed, instance_id: str) -> str:
    found = stack.client("ec2").describe_instances(InstanceIds=[instance_id])
    return found["Reservations"][0]["Instances"][0]["State"]["Name"]


def test_the_node_powers_itself_off_at_the_end_that_was_moved(ending: Rehearsed) -> None:
    status = ending.status(PRIMARY)
    assert status.ends_at == pytest.approx(status.booted_at + TTL_SECONDS, abs=1)
    instance_id = ending.instances()[PRIMARY]
    shown = json.loads(moe(ending, "status", "--json"))
    assert 0 < shown["ends_in_seconds"] < TTL_SECONDS
    assert shown["spent"]["usd_per_hour"] > 0

    assert "its nodes end at" in moe(ending, "extend", "rehearsal", f"{LONGER_SECONDS}s")
    end = status.ends_at + LONGER_SECONDS
    ending.wait(
        "the node has read its new end",
        lambda: (ending.status(PRIMARY).ends_at or 0) == pytest.approx(end, abs=1),
        60,
    )
    timer = ending.inside(PRIMARY, "systemctl", "list-timers", "--all", "--no-pager")
    assert "moe-end.timer" in timer
    assert "moe-unassigned.timer" in timer, "the net where no assignment ever arrives"

    time.sleep(max(0.0, end - 4 - time.time()))
    assert instance_state(ending, instance_id) == "running", "past its first end, before its new"
    ending.wait(
        "the instance is terminated",
        lambda: instance_state(ending, instance_id) == "terminated",
        POWERED_OFF_SECONDS,
    )
    assert time.time() >= end
    assert "Its ttl is over" in " ".join(moe(ending, "status").split())
