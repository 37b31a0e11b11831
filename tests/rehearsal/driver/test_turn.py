from __future__ import annotations

import subprocess
import sys

import pytest

from rehearsal.driver.errors import DriverError
from rehearsal.driver.turn import turn
from rehearsal.paths import CHECKOUT, Home

HOLD = """
import sys, time
from pathlib import Path
from rehearsal.driver.turn import turn
from rehearsal.paths import Home
with turn(Home(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_command_on_the_same_rehearsal_is_refused(holder, tmp_path):
    refused = pytest.raises(DriverError, match=f"at work on the rehearsal in {tmp_path}")
    with refused, turn(Home(tmp_path), patience_seconds=0.2):
        pass


def test_a_command_on_another_rehearsal_is_not(holder, tmp_path):
    with turn(Home(tmp_path / "another"), patience_seconds=0.2):
        pass


def test_a_killed_command_holds_nothing(holder, tmp_path):
    holder.kill()
    with turn(Home(tmp_path)):
        pass


def test_the_turn_is_free_after_the_command(tmp_path):
    with turn(Home(tmp_path)):
        pass
    with turn(Home(tmp_path), patience_seconds=0):
        pass
