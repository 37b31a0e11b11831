"""The hardware gate."""

from __future__ import annotations

import os

import pytest

from node_bootstrap.assignment import Hardware
from node_bootstrap.status import Found
from node_bootstrap.steps import hardware
from node_bootstrap.steps.base import StepError

ADDRESSES = """[
{"ifindex":1,"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8}]},
{"ifindex":2,"ifname":"ens5","addr_info":[
  {"family":"inet","local":"10.42.1.11","prefixlen":24},
  {"family":"inet6","local":"fe80::1","prefixlen":64}]},
{"ifindex":3,"ifname":"ens6","addr_info":[]}]"""


def test_addresses_are_found_with_their_interfaces():
    assert hardware.parse_interfaces(ADDRESSES) == {"127.0.0.1": "lo", "10.42.1.11": "ens5"}


def test_memory_is_counted_as_the_kernel_counts_it():
    assert hardware.parse_memory_gib("MemFree: 1 kB\nMemTotal:       25165824 kB\n") == 24.0
    assert hardware.parse_memory_gib("nothing of the kind\n") == 0.0


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
