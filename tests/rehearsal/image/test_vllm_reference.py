"""Comparing answers, and ending a server with all that it started."""

import subprocess
import sys
import time

import pytest

from rehearsal.image import reference
from rehearsal.image.reference import Completion


def test_equal_answers_differ_by_their_log_probabilities_only():
    one = Completion("ab", (1, 2), (-0.5, -1.0))
    assert one.difference(one) == 0
    assert one.difference(Completion("ab", (1, 2), (-0.5, -1.25))) == 0.25


@pytest.mark.parametrize(
    "other", [Completion("ac", (1, 3), (-0.5, -1)), Completion("ab", (12,), (-1,))]
)
def test_other_tokens_are_infinitely_different(other):
    assert Completion("ab", (1, 2), (-0.5, -1)).difference(other) == float("inf")


def test_all_processes_of_a_session_end_with_it():
    child = (
        "import subprocess, time; subprocess.Popen(['sleep', '60']); "
        "print('up', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", child], stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    assert len(reference.session_members(process.pid)) == 2
    reference.end_session(process)
    deadline = time.monotonic() + 5
    while reference.session_members(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert reference.session_members(process.pid) == []
