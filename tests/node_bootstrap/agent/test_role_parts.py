"""A part of vLLM that dies is noticed although vLLM's main process goes on."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

import pytest

from node_bootstrap.agent.role_parts import Parts

SLEEPER = "import time; time.sleep(60)"


@pytest.fixture
def group(tmp_path):
    """A control group of real processes: one named as vLLM names its own, one that isn't."""
    folder = tmp_path / "cgroups/system.slice/moe-role.service"
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        processes = {}
        for title in ("VLLM::EngineCore_DP0", "helper"):
            process = subprocess.Popen([title, "-c", SLEEPER], executable=sys.executable)
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes[title] = process
        pids = "".join(f"{p.pid}\n" for p in processes.values())
        (folder / "cgroup.procs").write_text(pids)
        time.sleep(0.2)
        yield tmp_path / "cgroups", processes


def ended(parts: Parts) -> str:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not parts.ended():
        time.sleep(0.02)
    return parts.ended()


def test_a_named_process_that_ends_is_told_by_name(group):
    cgroups, processes = group
    parts = Parts(cgroups)
    parts.look("/system.slice/moe-role.service")
    assert not parts.ended()
    processes["VLLM::EngineCore_DP0"].kill()
    assert ended(parts) == "VLLM::EngineCore_DP0"


def test_helpers_may_come_and_go(group):
    cgroups, processes = group
    parts = Parts(cgroups)
    parts.look("/system.slice/moe-role.service")
    processes["helper"].kill()
    processes["helper"].wait()
    assert not parts.ended()


def test_what_is_forgotten_is_not_told(group):
    cgroups, processes = group
    parts = Parts(cgroups)
    parts.look("/system.slice/moe-role.service")
    parts.forget()
    processes["VLLM::EngineCore_DP0"].kill()
    processes["VLLM::EngineCore_DP0"].wait()
    assert not parts.ended()


def test_a_group_that_is_gone_is_no_fault(tmp_path):
    parts = Parts(tmp_path)
    parts.look("/system.slice/moe-role.service")
    assert not parts.ended()
