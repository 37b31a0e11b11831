from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path

import pytest

from rehearsal.driver import recovery
from rehearsal.driver.errors import DriverError
from rehearsal.driver.pulumi import (
    Lock,
    Pulumi,
    stacks_with_resources,
    state_file,
    unfinished_marker,
)
from rehearsal.paths import Home


@pytest.fixture
def pulumi(tmp_path):
    return Pulumi(Path("/none/pulumi"), "dev", tmp_path, Home(tmp_path / "rehearsal"), {})


@pytest.fixture
def gone():
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def lock(pulumi, pid, hostname):
    folder = pulumi.home.pulumi_state / ".pulumi/locks/organization/moe-serving/dev"
    folder.mkdir(parents=True)
    (folder / "0.json").write_text(json.dumps({"pid": pid, "hostname": hostname}))


def test_a_lock_of_a_dead_process_is_not_held(gone):
    assert not Lock(gone, socket.gethostname()).held


def test_a_lock_whose_pid_another_program_has_now_is_not_held():
    assert not Lock(1, socket.gethostname()).held


def test_a_lock_of_another_host_counts_as_held(gone):
    assert Lock(gone, "elsewhere").held


def test_a_running_pulumi_holds_its_lock(tmp_path):
    program = tmp_path / "pulumi"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([program, "30"])
    try:
        # Popen returns once the new program's files are open; the kernel names it a moment later.
        deadline = time.monotonic() + 5
        lock_of_it = Lock(process.pid, socket.gethostname())
        while not lock_of_it.held and time.monotonic() < deadline:
            time.sleep(0.01)
        assert lock_of_it.held
    finally:
        process.kill()
        process.wait()


def test_unlocking_is_refused_while_a_run_may_be_alive(pulumi):
    lock(pulumi, 4711, "elsewhere")
    with pytest.raises(DriverError, match=r"process 4711 on elsewhere.*pulumi cancel --stack dev"):
        pulumi.unlock()


def test_a_stack_without_locks_needs_no_unlocking(pulumi):
    pulumi.unlock()


def test_recovery_is_needed_after_a_lock_or_an_unfinished_run(pulumi, gone):
    assert not recovery.needed(pulumi)
    marker = recovery.begin(pulumi)
    assert recovery.needed(pulumi)
    marker.unlink()
    lock(pulumi, gone, socket.gethostname())
    assert recovery.needed(pulumi)


def test_an_unfinished_run_of_another_stack_does_not_count(pulumi):
    unfinished = unfinished_marker(pulumi.home, "other")
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()
    assert not recovery.needed(pulumi)


def test_the_known_ids_are_those_of_resources_that_have_one():
    deployment = {"resources": [{"urn": "stack"}, {"urn": "vpc", "id": "vpc-1"}]}
    assert recovery.known_ids(deployment) == {"vpc-1"}
    assert recovery.known_ids({}) == frozenset()


def test_only_stacks_with_resources_keep_the_rehearsal(pulumi):
    for name, resources in (("empty", []), ("full", [{"urn": "vpc"}])):
        file = state_file(pulumi.home, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"checkpoint": {"latest": {"resources": resources}}}))
    never_applied = state_file(pulumi.home, "new")
    never_applied.write_text(json.dumps({"checkpoint": {"latest": None}}))
    assert stacks_with_resources(pulumi.home) == ["full"]


def test_a_failed_command_is_told_with_pulumis_words(pulumi, tmp_path):
    program = tmp_path / "pulumi"
    program.write_text("#!/bin/sh\necho 'error: no stack named dev' >&2\nexit 255\n")
    program.chmod(0o755)
    failing = Pulumi(program, "dev", tmp_path, pulumi.home, {"PATH": "/usr/bin:/bin"})
    with pytest.raises(DriverError, match="no stack named dev"):
        failing.deployment()
