"""What the output of a measured transfer says: figures, floors, and the way that bytes went."""

from __future__ import annotations

import json

import pytest

from node_bootstrap.assignment import Transfer
from node_bootstrap.transfer.judge import outcome

ON_EFA = Transfer(
    "require",
    {"all_reduce": 200.0, "nixl_vram": 15.0},
    provider="efa",
    nics=32,
    nixl=("LIBFABRIC",),
    gpus=8,
)
NCCL = """ip:1:1 [0] NCCL INFO NCCL version 2.30.7+cuda13.0
ip:1:1 [0] NCCL INFO NET/OFI Selected provider is efa, fabric is efa (found 32 nics)
ip:1:1 [0] NCCL INFO Using network Libfabric
"""
SOCKETS = """ip:1:1 [0] NCCL INFO NET/Plugin: Could not find: libnccl-net-ofi.so
ip:1:1 [0] NCCL INFO Using network Socket
"""
NIXL = """2026-11-25 NIXL INFO _api.py:405 Backend LIBFABRIC was instantiated
NIXL {"missing": false, "plugins": ["/x/plugins/libplugin_LIBFABRIC.so"]}
"""


def figures(all_reduce=310.0, **more) -> str:
    made = {"all_reduce": all_reduce, "nixl_vram": 31.0} | more
    items = [
        {"name": n, "gb_per_second": v, "payload_bytes": 1 << 30, "times": 9}
        for n, v in made.items()
        if v is not None
    ]
    return f"TRANSFER {json.dumps(items)}\n"


def faults(output: str, wanted: Transfer = ON_EFA, *, first: bool = True) -> tuple[str, ...]:
    return outcome(wanted, output, 12.34, first=first).faults


def test_a_transfer_as_planned_has_figures_beside_their_floors():
    made = outcome(ON_EFA, NCCL + NIXL + figures(), 12.34, first=True)
    assert made.faults == ()
    assert [(i.name, i.gb_per_second, i.floor) for i in made.items] == [
        ("all_reduce", 310.0, 200.0),
        ("nixl_vram", 31.0, 15.0),
    ]
    assert (made.network, made.nics, made.seconds) == ("Libfabric", 32, 12.3)


def test_below_the_floor_the_number_is_told():
    assert faults(NCCL + NIXL + figures(all_reduce=12.1)) == (
        "all_reduce moves 12.1 GB/s, the floor is 200",
    )


def test_without_a_floor_nothing_is_judged():
    wanted = Transfer("require", {"all_reduce": None})
    made = outcome(wanted, figures(all_reduce=0.001), 1, first=True)
    assert made.faults == ()
    assert made.network == "Gloo"


def test_what_was_to_be_measured_and_was_not_is_a_fault():
    assert faults(NCCL + NIXL + figures(nixl_vram=None)) == ("nixl_vram was not measured",)
    assert faults(NCCL + NIXL + "TRANSFER [not JSON\n")[0] == "all_reduce was not measured"


def test_a_further_node_judges_its_way_and_no_figures():
    made = outcome(ON_EFA, NCCL + NIXL, 1, first=False)
    assert (made.faults, made.items) == ((), ())


@pytest.mark.parametrize(
    ("nccl", "fault"),
    [
        (
            SOCKETS,
            "NCCL uses sockets, the plan is efa (NET/Plugin: Could not find: libnccl-net-ofi.so)",
        ),
        (
            NCCL.replace("is efa, fabric is efa (found 32 nics)", "is tcp"),
            "NCCL's libfabric provider is tcp, the plan is efa",
        ),
        (
            "ip:1:1 [0] NCCL INFO Using network IB\n",
            "NCCL's libfabric provider is none, the plan is efa",
        ),
        (NCCL.replace("32 nics", "1 nics"), "NCCL found 1 NICs, the plan has 32"),
        (
            NCCL.replace(" (found 32 nics)", ""),
            "NCCL did not say how many NICs it found, the plan has 32",
        ),
        (
            "",
            "NCCL wrote nothing: NCCL_DEBUG=INFO is not set, or no communicator yet",
        ),
    ],
    ids=["sockets", "tcp", "infiniband", "one of many NICs", "NICs not counted", "silent"],
)
def test_nccl_on_another_way_is_a_fault_however_fast(nccl, fault):
    assert faults(nccl + NIXL + figures()) == (fault,)


@pytest.mark.parametrize(
    ("nixl", "fault"),
    [
        ('NIXL {"missing": true}\n', "NIXL can't be imported where vLLM runs"),
        ("", "NIXL can't be imported where vLLM runs"),
        (NIXL.replace("LIBFABRIC", "UCX"), "NIXL made UCX, the plan is LIBFABRIC"),
        (
            NIXL.replace('["/x/plugins/libplugin_LIBFABRIC.so"]', "[]"),
            "NIXL's plugin LIBFABRIC is not in its process",
        ),
        (
            NIXL.splitlines()[1] + "\n",
            "NIXL did not say which backend it made, the plan is LIBFABRIC",
        ),
    ],
    ids=["missing", "silent", "ucx", "not mapped", "no backend"],
)
def test_nixl_on_another_way_is_a_fault_however_fast(nixl, fault):
    assert fault in faults(NCCL + nixl + figures())
