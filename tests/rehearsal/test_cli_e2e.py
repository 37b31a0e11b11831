"""Runs that break off, and their repair: on the account, without booting nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rehearsal import machine
from rehearsal.driver import account_process
from rehearsal.paths import CHECKOUT, Home

pytestmark = pytest.mark.e2e

SOME_RESOURCES = 12


@pytest.fixture
def home(tmp_path, monkeypatch):
    place = Home(tmp_path / "rehearsal")
    monkeypatch.setenv("MOE_REHEARSAL_DIR", str(place.root))
    yield place
    account_process.stop(place)
    machine.sweep(place.tag)


def command(name: str) -> list[str]:
    boot = ["--no-boot"] if name == "up" else []
    return [sys.executable, "-m", "rehearsal", name, *boot]


def started(name: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen(command(name), cwd=CHECKOUT, stdout=out, stderr=out)


def until(condition, driver: subprocess.Popen[bytes], log: Path, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def half_way(home: Home, log: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start `up`, wait until some resources exist; return the driver and the engine's pid."""
    driver = started("up", log)
    until(lambda: log.read_text().count(" created (") >= SOME_RESOURCES, driver, log)
    (file,) = home.pulumi_state.rglob(".pulumi/locks/**/*.json")
    return driver, int(json.loads(file.read_text())["pid"])


def down(log: Path) -> str:
    assert started("down", log).wait(300) == 0, log.read_text()
    return log.read_text()


def test_a_killed_engine_is_made_good_by_the_next_up(home, tmp_path):
    driver, engine = half_way(home, tmp_path / "first")
    os.kill(engine, signal.SIGKILL)
    assert driver.wait(60) != 0

    log = tmp_path / "second"
    assert started("up", log).wait(300) == 0, log.read_text()
    assert "currently locked" not in log.read_text()
    assert "InvalidGroup.Duplicate" not in log.read_text()

    down(tmp_path / "down")
    assert not home.root.exists()
    assert machine.leftovers(home.tag) == []


def test_an_interrupted_up_is_cancelled_cleanly_and_taken_down(home, tmp_path):
    driver, engine = half_way(home, tmp_path / "first")
    driver.send_signal(signal.SIGINT)
    assert driver.wait(120) != 0
    assert not Path(f"/proc/{engine}").exists()
    assert list(home.pulumi_state.rglob(".pulumi/locks/**/*.json")) == []
    assert "✓ nothing in the account" in down(tmp_path / "down")
    assert not home.root.exists()


def test_down_needs_neither_a_finished_up_nor_a_living_account(home, tmp_path):
    driver, engine = half_way(home, tmp_path / "first")
    os.kill(engine, signal.SIGKILL)
    driver.wait(60)
    endpoint = account_process.running(home)
    assert endpoint is not None
    time.sleep(1)  # the account writes its state at most half a second after a change
    os.kill(endpoint.pid, signal.SIGKILL)
    assert "✓ nothing in the account" in down(tmp_path / "down")
    assert not home.root.exists()
    assert machine.leftovers(home.tag) == []


def test_a_second_up_beside_a_running_one_is_refused(home, tmp_path):
    driver, engine = half_way(home, tmp_path / "first")
    os.kill(engine, signal.SIGSTOP)
    try:
        second = started("up", tmp_path / "second")
        assert second.wait(60) == 1
        assert "Another command is at work on the rehearsal" in (tmp_path / "second").read_text()
    finally:
        os.kill(engine, signal.SIGCONT)
    driver.send_signal(signal.SIGINT)
    driver.wait(120)
