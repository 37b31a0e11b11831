"""Which groups measure the transfer between their nodes, of what, and against which floor."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from infra.catalog import instance_type
from infra.catalog.transfer_floors import ITEMS, transfer_floor
from infra.plan.kv_transfer import KvTransfer
from infra.plan.request import TransferOptions
from infra.plan.topology import transport
from infra.plan.transfer import pair_transfer, transfer


def asked(name="p5.48xlarge", nodes=2, kv=None, **options):
    instance = instance_type(name)
    return transfer(TransferOptions(**options), instance, nodes, transport(instance, nodes), kv)


def test_where_expert_tokens_cross_efa_it_is_required_against_the_types_floors():
    made = asked()
    assert made is not None
    assert made.mode == "require"
    assert made.floors == {"all_reduce": 200.0, "all_to_all": 200.0}
    assert (made.provider, made.nics, made.gpus, made.nixl) == ("efa", 32, 8, ())


@pytest.mark.parametrize(
    ("name", "nodes", "mode"),
    [("p5.48xlarge", 1, None), ("c7i.large", 2, None), ("p5.48xlarge", 2, "off")],
    ids=["one node", "a CPU type", "asked not to"],
)
def test_elsewhere_nothing_is_measured(name, nodes, mode):
    assert asked(name, nodes, mode=mode) is None


def test_a_cpu_type_is_measured_on_request_and_judged_by_given_floors_alone():
    made = asked("c7i.large", mode="measure", floors=(("nixl_dram", 2.5),))
    assert made is not None
    assert made.floors == {"all_reduce": None, "all_to_all": None, "nixl_dram": 2.5}
    assert (made.provider, made.nics, made.gpus, made.nixl) == ("", 0, 0, ("UCX",))


def test_a_given_floor_wins_over_the_types_own():
    made = asked(floors=(("all_reduce", 320.0),))
    assert made is not None
    assert made.floors == {"all_reduce": 320.0, "all_to_all": 200.0}


@pytest.mark.parametrize(
    "name", ["p4d.24xlarge", "p5.48xlarge", "p5en.48xlarge", "p6-b300.48xlarge"]
)
def test_a_floor_is_above_what_every_wrong_way_gives_and_below_what_the_type_has(name):
    instance = instance_type(name)
    node, gpu = instance.efa_gbps / 8, instance.efa_gbps / 8 / instance.gpu_count
    one_nic = node / instance.max_efa
    over_ena = instance.ena_gbps / 8
    for item in ITEMS:
        floor, whole = transfer_floor(instance, item), gpu if "nixl" in item else node
        assert floor is not None
        assert floor < 0.73 * whole
        if item in ("all_reduce", "all_to_all"):
            assert floor > max(0.47 * whole, one_nic, over_ena)


def test_a_type_without_a_known_figure_is_measured_and_not_judged():
    made = asked("g6e.48xlarge")
    assert made is not None
    assert made.floors == {"all_reduce": None, "all_to_all": None}


def of_pair(name="p5en.48xlarge", role="decode", **options):
    instance = instance_type(name)
    wire = "efa" if instance.max_efa else "tcp"
    backends = ("LIBFABRIC",) if instance.max_efa else ("UCX",)
    kv = KvTransfer("NixlConnector", backends, {}, {}, 5600, (5600,), transport=wire)
    place = SimpleNamespace(role=role, instance_type=instance)
    return pair_transfer(TransferOptions(**options), place, kv if role != "serve" else None)  # pyright: ignore[reportArgumentType]


def test_a_pair_that_hands_kv_over_efa_must_reach_one_gpus_part_of_it():
    made = of_pair()
    assert made is not None
    assert made.mode == "require"
    assert made.floors == {"nixl_dram": 2.5, "nixl_vram": 15.0}
    assert (made.nixl, made.gpus, made.provider) == (("LIBFABRIC",), 1, "")


@pytest.mark.parametrize(
    ("name", "role", "mode"),
    [
        ("p5en.48xlarge", "prefill", None),
        ("p5en.48xlarge", "serve", "require"),
        ("p5en.48xlarge", "decode", "off"),
        ("c7i.large", "decode", None),
    ],
    ids=["its decode side has it", "no pair", "asked not to", "a CPU type"],
)
def test_otherwise_no_pair_is_measured(name, role, mode):
    assert of_pair(name, role, mode=mode) is None


def test_a_pair_of_cpu_types_is_measured_on_request():
    made = of_pair("c7i.large", mode="require", floors=(("nixl_dram", 0.01),))
    assert made is not None
    assert (made.floors, made.gpus) == ({"nixl_dram": 0.01}, 0)
