"""Interrupted work goes on with the next `make up`; `make down` after it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rehearsed import CHECKOUT, OTHER_NETWORK, Rehearsed, write_stack

pytestmark = [pytest.mark.e2e, pytest.mark.alone]


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Rehearsed]:
    """A rehearsal of its own, not brought up; taken down whatever happens."""
    rehearsed = Rehearsed(
        tmp_path / "home", write_stack(tmp_path / "stacks", network=OTHER_NETWORK)
    )
    try:
        yield rehearsed
    finally:
        rehearsed.run("down", check=False)


def machine_state(marker: str) -> dict[str, set[str]]:
    """Everything of this machine that a rehearsal could leave behind or change."""

    def lines(*command: str) -> set[str]:
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return {line.strip() for line in shown.splitlines()}

    processes = {
        line
        for line in lines("ps", "axww", "-o", "args")
        if marker in line and "pytest" not in line
    }
    groups = set()
    for top in (
        Path("/sys/fs/cgroup/unified"),
        Path("/sys/fs/cgroup/memory"),
        Path("/sys/fs/cgroup"),
    ):
        groups |= {str(path) for path in top.glob("*moe*")}
    return {
        "processes": processes,
        "mounts": {
            line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()
        },
        "namespaces": lines("ip", "netns", "list"),
        "links": lines("ip", "-o", "-br", "link"),
        "routes": lines("ip", "route", "show", "table", "all"),
        "nft": lines("nft", "list", "tables"),
        "cgroups": groups,
        "resolver": {Path("/etc/resolv.conf").read_text()},
        "devices": lines("stat", "-c", "%n %a %U %G", "/dev/null", "/dev/tty", "/dev/console"),
        "sysctls": lines("sysctl", "net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"),
    }


def interrupt_when(
    rehearsed: Rehearsed,
    reached: Callable[[], bool],
    interrupt: Callable[[Rehearsed, subprocess.Popen], None],
) -> None:
    process = subprocess.Popen(
        rehearsed.command("up"),
        cwd=CHECKOUT,
        env=rehearsed.outer_env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline and not reached():
        time.sleep(0.1)
    assert process.poll() is None, "it ended before it could be interrupted"
    interrupt(rehearsed, process)
    process.wait(timeout=120)


def launched(rehearsed: Rehearsed) -> Callable[[], bool]:
    return lambda: any((rehearsed.root / "instances").glob("i-*"))


def resources_begun(rehearsed: Rehearsed) -> Callable[[], bool]:
    """The stack's state has its first resources, no instance is there yet."""
    stacks = rehearsed.root / "pulumi/state/.pulumi/stacks"
    return lambda: any(path.stat().st_size > 4000 for path in stacks.rglob("rehearsal.json"))


def kill_engine(rehearsed: Rehearsed, _: subprocess.Popen) -> None:
    """kill -9 of the Pulumi engine alone: what a crash or the OOM killer does."""
    (lock,) = (rehearsed.root / "pulumi/state").rglob(".pulumi/locks/**/*.json")
    os.kill(int(json.loads(lock.read_text())["pid"]), signal.SIGKILL)


def interrupt_group(_: Rehearsed, process: subprocess.Popen) -> None:
    """SIGINT to the foreground group, which is what a terminal does on ^C."""
    os.killpg(process.pid, signal.SIGINT)


@pytest.mark.parametrize(
    ("how", "when"),
    [
        pytest.param(interrupt_group, launched, id="sigint-launched"),
        pytest.param(kill_engine, resources_begun, id="kill-9-resources-begun"),
        pytest.param(
            interrupt_group, resources_begun, id="sigint-resources-begun", marks=pytest.mark.drill
        ),
        pytest.param(kill_engine, launched, id="kill-9-launched", marks=pytest.mark.drill),
    ],
)
def test_an_interrupted_up_goes_on_and_down_leaves_nothing(bare: Rehearsed, how, when) -> None:
    before = machine_state(str(bare.root))
    interrupt_when(bare, when(bare), how)
    bare.run("up")
    assert bare.every_rank_answers()
    bare.run("down")
    assert machine_state(str(bare.root)) == before
    assert not bare.root.exists()


def test_down_after_an_interrupted_up_leaves_nothing(bare: Rehearsed) -> None:
    before = machine_state(str(bare.root))
    interrupt_when(bare, launched(bare), kill_engine)
    bare.run("down")
    assert machine_state(str(bare.root)) == before
    assert not bare.root.exists()
