from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from infra.catalog import all2all_backends, release, release_versions
from infra.plan.backends import BackendRequest, choose_all2all, emission

EFA = BackendRequest(
    "auto",
    "0.33.0",
    "serve",
    nodes=2,
    ranks=16,
    data_parallel_size=16,
    transport="efa",
    deepep="efa",
)
NVLINK = replace(EFA, nodes=1, ranks=8, data_parallel_size=8, transport="nvlink", deepep="stock")


def codes(choice):
    return [note.code for note in choice.notes]


@pytest.mark.parametrize(
    ("role", "chosen"),
    [
        ("prefill", "deepep_high_throughput"),
        ("decode", "deepep_low_latency"),
        ("serve", "allgather_reducescatter"),
    ],
)
@pytest.mark.parametrize("version", release_versions())
def test_auto_inside_one_nvlink_domain_follows_the_role(version, role, chosen):
    assert choose_all2all(replace(NVLINK, version=version, role=role)).chosen == chosen


@pytest.mark.parametrize("role", ["serve", "prefill", "decode"])
@pytest.mark.parametrize("version", release_versions())
def test_auto_across_efa_takes_deepep_v2_from_0_33_and_nccl_before(version, role):
    choice = choose_all2all(replace(EFA, version=version, role=role))

    assert choice.chosen == ("deepep_v2" if version == "0.33.0" else "allgather_reducescatter")
    assert not choice.notes


def test_auto_prefill_across_efa_runs_deepep_v2_eagerly():
    assert choose_all2all(replace(EFA, role="prefill")).enforce_eager
    assert not choose_all2all(replace(EFA, role="decode")).enforce_eager


@pytest.mark.parametrize(
    "change",
    [
        {"transport": "tcp"},
        {"capability": (8, 0)},
        {"deepep": "none"},
        {"nodes": 1, "transport": "pcie", "role": "decode"},
        {"nodes": 1, "transport": "nvlink", "role": "decode", "experts_per_token": 16},
        {"nodes": 1, "transport": "nvlink", "role": "decode", "hidden_size": 9216},
        {"nodes": 1, "transport": "none"},
        {"data_parallel_size": 1},
    ],
)
def test_auto_takes_the_default_where_nothing_else_can_work(change):
    choice = choose_all2all(replace(EFA, **change))

    assert choice.chosen == "allgather_reducescatter"
    assert not choice.refused
    assert choice.reason


def test_auto_uses_uccl_only_where_it_is_declared():
    request = replace(EFA, version="0.21.0", role="decode")

    assert choose_all2all(request).chosen == "allgather_reducescatter"
    assert choose_all2all(replace(request, deepep="uccl")).chosen == "deepep_low_latency"


@pytest.mark.parametrize("name", ["deepep_low_latency", "deepep_high_throughput", "nixl_ep"])
def test_backends_that_need_ibgda_are_refused_across_efa(name):
    choice = choose_all2all(replace(EFA, requested=name))

    assert choice.refused
    assert codes(choice) == ["ALL2ALL_NOT_ON_EFA"]
    assert "auto" in choice.notes[0].remedy


@pytest.mark.parametrize(
    ("name", "version", "chosen"),
    [
        ("pplx", "0.17.1", "allgather_reducescatter"),
        ("pplx", "0.33.0", "allgather_reducescatter"),
        ("pplx", "0.12.0", "allgather_reducescatter"),
        ("naive", "0.11.0", "allgather_reducescatter"),
        ("naive", "0.33.0", "allgather_reducescatter"),
    ],
)
def test_renamed_and_removed_backends_are_replaced_with_a_finding(name, version, chosen):
    choice = choose_all2all(replace(EFA, requested=name, version=version))

    assert (choice.requested, choice.chosen) == (name, chosen)
    assert codes(choice) == ["ALL2ALL_REPLACED"]
    assert not choice.refused


def test_the_old_flashinfer_name_becomes_the_new_one():
    choice = choose_all2all(replace(NVLINK, requested="flashinfer_all2allv"))

    assert choice.chosen == "flashinfer_nvlink_two_sided"
    assert codes(choice) == ["ALL2ALL_REPLACED"]


def test_pplx_is_kept_inside_one_node_while_vllm_has_it():
    choice = choose_all2all(replace(NVLINK, requested="pplx", version="0.16.0"))

    assert (choice.chosen, choice.notes) == ("pplx", ())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"requested": "deepep_v2", "version": "0.23.0"}, "ALL2ALL_NOT_IN_RELEASE"),
        ({"requested": "deepep_v2", "version": "0.27.1"}, "ALL2ALL_V2_NEEDS_EAGER"),
        (
            {
                "requested": "deepep_v2",
                "version": "0.26.0",
                "enforce_eager": True,
                "deepep": "stock",
            },
            "ALL2ALL_V2_NOT_IN_IMAGE",
        ),
        (
            {"requested": "deepep_v2", "version": "0.29.0", "deepep": "stock"},
            "ALL2ALL_V2_NO_EFA_IMAGE",
        ),
        ({"requested": "deepep_v2", "deepep": "uccl"}, "ALL2ALL_V2_NOT_UCCL"),
        ({"requested": "deepep_v2", "transport": "tcp"}, "ALL2ALL_NOT_ON_TCP"),
        ({"requested": "deepep_v2", "capability": (8, 0)}, "ALL2ALL_OLD_GPU"),
        ({"requested": "moonep", "enforce_eager": True}, "ALL2ALL_NOT_ACROSS_NODES"),
        ({"requested": "flashinfer_nvlink_one_sided"}, "ALL2ALL_NOT_ACROSS_NODES"),
        ({"requested": "mori_low_latency"}, "ALL2ALL_WRONG_GPU"),
        ({"requested": "warp_drive"}, "ALL2ALL_UNKNOWN"),
        ({"requested": "passthrough"}, "ALL2ALL_UNKNOWN"),
        ({"requested": "deepep_v2", "transport": "none"}, "ALL2ALL_NEEDS_GPU"),
    ],
)
def test_what_cannot_work_is_refused_with_its_code(change, code):
    choice = choose_all2all(replace(EFA, **change))

    assert choice.refused
    assert code in codes(choice)
    assert choice.reason.startswith("refused: ")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"requested": "deepep_low_latency", "hidden_size": 9216}, "ALL2ALL_HIDDEN_SIZE"),
        ({"requested": "deepep_low_latency", "experts_per_token": 16}, "ALL2ALL_TOP_K"),
        ({"requested": "deepep_low_latency", "transport": "pcie"}, "ALL2ALL_NEEDS_NVLINK"),
        ({"requested": "deepep_low_latency", "deepep": "none"}, "ALL2ALL_NO_LIBRARY"),
        (
            {"requested": "pplx", "version": "0.16.0", "runtime": "venv"},
            "ALL2ALL_NO_LIBRARY",
        ),
        (
            {"requested": "deepep_low_latency", "version": "0.11.2", "runtime": "venv"},
            "ALL2ALL_NO_LIBRARY",
        ),
        ({"requested": "moonep", "quantized": True}, "ALL2ALL_QUANTIZED"),
        ({"requested": "moonep", "eplb": True}, "ALL2ALL_NO_EPLB"),
        ({"requested": "moonep"}, "ALL2ALL_NEEDS_EAGER"),
    ],
)
def test_what_a_single_node_cannot_carry_is_refused_with_its_code(change, code):
    assert code in codes(choose_all2all(replace(NVLINK, **change)))


@pytest.mark.parametrize(
    "change",
    [
        {"version": "0.12.0", "runtime": "venv"},
        {"version": "0.11.2", "runtime": "venv", "deepep": "uccl"},
        {"version": "0.11.2", "runtime": "container"},
    ],
)
def test_a_library_that_a_node_can_build_or_need_not_build_is_no_fault(change):
    assert not choose_all2all(replace(NVLINK, requested="deepep_low_latency", **change)).refused


def test_a_hidden_size_is_rounded_up_except_on_0_11_0():
    request = replace(NVLINK, requested="deepep_low_latency", hidden_size=2880)

    assert codes(choose_all2all(replace(request, version="0.11.0"))) == ["ALL2ALL_HIDDEN_SIZE"]
    assert not choose_all2all(replace(request, version="0.12.0")).notes


def test_an_explicit_choice_that_works_is_kept():
    choice = choose_all2all(replace(NVLINK, requested="deepep_low_latency"))

    assert (choice.chosen, choice.reason, choice.notes) == (
        "deepep_low_latency",
        "as asked for",
        (),
    )


def test_fallback_is_named_only_where_allowed_and_needed():
    asked = replace(NVLINK, role="decode")

    assert choose_all2all(asked).fallback is None
    assert choose_all2all(replace(asked, allow_fallback=True)).fallback == "allgather_reducescatter"
    assert choose_all2all(replace(NVLINK, allow_fallback=True)).fallback is None


def test_needs_name_versions_for_deepep_v2_on_efa():
    needs = " ".join(choose_all2all(EFA).needs)

    assert "aws-ofi-nccl >= 1.21" in needs
    assert "NCCL >= 2.31.2" in needs
    assert "GDRCopy >= 2.5" in needs


def test_the_choice_is_written_as_a_variable_on_0_11_0_and_as_a_flag_after():
    choice = choose_all2all(NVLINK)

    assert emission(choice, "0.11.0") == (
        (),
        {"VLLM_ALL2ALL_BACKEND": "allgather_reducescatter"},
    )
    assert emission(choice, "0.33.0") == (("--all2all-backend", "allgather_reducescatter"), {})


@pytest.mark.parametrize("version", release_versions())
def test_whatever_is_asked_for_the_choice_is_one_the_release_has(version):
    for place, name in itertools.product((EFA, NVLINK), [*all2all_backends(), "auto"]):
        request = replace(place, requested=name, version=version, enforce_eager=True)
        choice = choose_all2all(request)

        assert choice.refused or choice.chosen in release(version).all2all.choices


@pytest.mark.parametrize("version", release_versions())
def test_every_choice_of_every_release_has_an_entry(version):
    assert set(release(version).all2all.choices) <= set(all2all_backends())
