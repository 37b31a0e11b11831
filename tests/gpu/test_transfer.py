"""The measured transfer between two GPUs of one host, each standing for a node: NCCL and NIXL."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from node_bootstrap.assignment import Transfer
from node_bootstrap.transfer.judge import outcome
from tests.gpu.machine import CHECKOUT, has

pytestmark = pytest.mark.gpu

PROGRAM = CHECKOUT / "node_bootstrap/files/measure.py"
SLOWEST_LINK_GB_PER_SECOND = 8.0
"""PCIe 3 with 16 lanes moves 12; two GPUs of one host are never further apart."""


def measure(
    nixl: tuple[str, ...], *, collectives: bool = True, devices: tuple[int, int] = (0, 1)
) -> list[str]:
    """What the processes of both nodes said, node by node. devices: the GPU of each node."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = []
    for node in range(2):
        order = {
            "node": node,
            "nodes": 2,
            "address": "127.0.0.1",
            "port": port,
            "token": "t",
            "gpus": 1,
            "largest_bytes": 1 << 30,
            "limit_seconds": 180,
            "nixl": nixl,
            "collectives": collectives,
        }
        env = os.environ | {
            "CUDA_VISIBLE_DEVICES": str(devices[node]),
            "NCCL_DEBUG": "INFO",
            "NCCL_DEBUG_SUBSYS": "INIT,NET",
        }
        command = [sys.executable, str(PROGRAM), json.dumps(order)]
        ranks.append(
            subprocess.Popen(
                command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    said = [rank.communicate(timeout=240)[0] for rank in ranks]
    for rank, text in zip(ranks, said, strict=True):
        assert rank.returncode == 0, text[-4000:]
    return said


def show(made, began: float) -> None:
    for item in made.items:
        size = item.payload_bytes / 2**20
        print(f"{item.name}: {item.gb_per_second:.1f} GB/s, {size:.0f} MiB, {item.times} times")
    print(f"network {made.network}; {time.monotonic() - began:.0f} s; faults {made.faults}")


def test_collectives_between_two_gpus_are_measured_and_judged(gpus, needs):
    needs("torch")
    began = time.monotonic()
    floors = dict.fromkeys(("all_reduce", "all_to_all"), SLOWEST_LINK_GB_PER_SECOND)
    wanted = Transfer("require", floors, gpus=1)
    said = measure(())
    made = outcome(wanted, said[0], 0.0, first=True)
    show(made, began)
    assert made.faults == ()
    assert made.network
    slow = Transfer("require", {"all_reduce": 1e6}, gpus=1)
    assert "the floor is 1e+06" in outcome(slow, said[0], 0.0, first=True).faults[0]
    on_efa = Transfer("require", floors, provider="efa", nics=32, gpus=1)
    assert outcome(on_efa, said[0], 0.0, first=True).faults, "this machine has no EFA"


def test_nixl_reads_host_and_gpu_memory_of_the_other(gpus, needs):
    needs("torch")
    if not has("nixl._api"):
        pytest.skip("needs NIXL: pip install nixl[cu13]")
    began = time.monotonic()
    floors = {"all_reduce": None, "all_to_all": None, "nixl_dram": 0.5, "nixl_vram": 0.5}
    wanted = Transfer("require", floors, gpus=1, nixl=("UCX",))
    made = outcome(wanted, measure(("UCX",))[0], 0.0, first=True)
    show(made, began)
    assert made.faults == ()


def test_a_pair_is_measured_with_nixl_alone_and_refused_below_its_floor(gpu, needs):
    needs("torch")
    if not has("nixl._api"):
        pytest.skip("needs NIXL: pip install nixl[cu13]")
    began = time.monotonic()
    # Two processes on one GPU take turns there: how fast says nothing, that it is measured does.
    floors = {"nixl_dram": 0.5, "nixl_vram": 0.5 if len(gpu) > 1 else 0.05}
    wanted = Transfer("require", floors, gpus=1, nixl=("UCX",))
    devices = (0, min(1, len(gpu) - 1))
    said = measure(("UCX",), collectives=False, devices=devices)
    made = outcome(wanted, said[0], 0.0, first=True)
    show(made, began)
    assert made.faults == ()
    assert {item.name for item in made.items} == set(floors)
    assert outcome(wanted, said[1], 0.0, first=False).faults == ()
    fast = Transfer("require", {"nixl_vram": 1e6}, gpus=1, nixl=("UCX",))
    assert "the floor is 1e+06" in outcome(fast, said[0], 0.0, first=True).faults[0]
    on_efa = Transfer("require", floors, gpus=1, nixl=("LIBFABRIC",))
    assert "the plan is LIBFABRIC" in outcome(on_efa, said[0], 0.0, first=True).faults[0]
