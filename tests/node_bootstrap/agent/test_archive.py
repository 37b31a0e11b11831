"""A new bootstrap archive reaches a running agent, or is refused, while the role runs on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from node_bootstrap import assignment as a
from node_bootstrap import durable
from node_bootstrap.status import Status

BUCKET = "moe-serving-test-123456789012"
MAIN = "import sys\nfrom node_bootstrap.cli import main\nsys.exit(main())\n"


@pytest.fixture
def node(tmp_path, account, make_nodes):
    node = make_nodes(tmp_path, account)
    alone = (a.Member("serve-0-0", "127.0.0.1", "primary", 0, 1),)
    argv = (*node.assignment("serve-0-0").argv[:-1], "0")
    node.changes = {"members": alone, "argv": argv}
    node.first = node.archive("first")
    node.assign(archive=node.first)
    node.start_from_archive()
    node.wait_ready()
    yield node
    node.close()


def test_a_new_archive_makes_the_agent_leave_and_the_role_stays(node):
    role = node.role("serve-0-0")
    second = node.archive("second")
    node.assign(archive=second)
    assert node.agents["serve-0-0"].wait(60) == 0
    node.start_from_archive()
    node.wait(lambda _: node.status().archive_sha256 == second.sha256)
    node.wait_ready()
    assert node.role("serve-0-0") == role


def test_an_archive_with_a_wrong_digest_fails_the_node_and_the_old_one_goes_on(node):
    role = node.role("serve-0-0")
    node.assign(archive=node.archive("changed", sha256="0" * 64))
    node.wait(lambda _: node.status().phase == "failed")
    status = node.status()
    assert "the old one goes on: moe-fetch: s3://" in status.fault.what
    assert "the archive was changed after the deployment" in status.fault.what
    assert status.archive_sha256 == node.first.sha256
    assert node.group()["phase"] == "ready"
    assert node.role("serve-0-0") == role
    node.assign(archive=node.first)
    node.wait(lambda _: node.status().phase == "role")


def test_status_prints_how_the_node_is(node):
    path = node.root("serve-0-0") / "var/lib/moe/status.json"
    node.wait(lambda _: (s := durable.load(path, Status)) and s.phase == "role" and s.running)
    began = time.monotonic()
    program = Path(node.root("serve-0-0")) / "opt/moe/current/moe-node.pyz"
    command = [sys.executable, program, "--root", node.root("serve-0-0"), "status"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "serve-0-0 (i-0123456789abcdef0): role" in done.stdout
    assert time.monotonic() - began < 20
