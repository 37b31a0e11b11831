"""The hardware gate."""

from __future__ import annotations

import os

import pytest

from node_bootstrap.assignment import Hardware
from node_bootstrap.status import Found
from node_bootstrap.steps import hardware
from node_bootstrap.steps.base import StepError


@pytest.mark.parametrize("broken", ["ip", "cat"])
def test_a_node_whose_tools_say_nothing_is_not_compared_with_the_plan(broken):
    said = {"ip": "[]", "cat": "MemTotal: 1024 kB"} | {broken: "what?"}
    with pytest.raises(StepError, match=r"can't be compared with the plan: .*: what\?"):
        hardware.look("10.0.0.5", lambda command: said[command[0]])


def test_everything_that_differs_is_told_at_once():
    found = Found(cpus=2, memory_gib=3.5, addresses=("10.0.0.9",))
    assert hardware.faults(Hardware("10.0.0.5", 8, 16), found) == [
        "2 CPUs, the plan needs 8",
        "3.5 GiB of memory, the plan needs 16.0",
        "no interface carries 10.0.0.5 (addresses: 10.0.0.9)",
    ]


def test_this_machine_passes_a_gate_that_asks_for_what_it_has():
    cpus = len(os.sched_getaffinity(0))
    check = hardware.HardwareStep(Hardware("127.0.0.1", cpus, 0.1)).check()
    assert check.done, check.detail
    assert check.detail.endswith("127.0.0.1 on lo")


def test_a_node_that_is_too_small_is_refused_with_what_to_do():
    step = hardware.HardwareStep(Hardware("127.0.0.1", 4096, 0.1))
    with pytest.raises(StepError, match=r"the plan needs 4096.*Choose an instance type"):
        step.apply(0)
