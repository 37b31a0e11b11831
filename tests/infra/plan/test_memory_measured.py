"""The memory plan against what vLLM measured on two H100.

The first file was there while the plan was written; the second file's runs were planned before they
were made, and hold what was planned then.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from infra.catalog import gpu_of, instance_type, shape
from infra.plan.memory import MemoryRequest, plan_memory
from infra.plan.memory_weights import weights

DATA = Path(__file__).parent / "data"
MEASURED = json.loads((DATA / "memory-2xh100.json").read_text())
LATER = json.loads((DATA / "memory-2xh100-later.json").read_text())
MODELS = MEASURED["models"] | LATER["models"]
CALIBRATION = {"qwen3-30b__ep2_eager", "qwen3-30b__ep2", "q30_eplb"}
"""The runs that the constants of memory_runtime were read from; the others are held out."""
H100 = gpu_of(instance_type("p5.48xlarge"))
GIB = 2**30


def option(args, name, default=None):
    return args[args.index(name) + 1] if name in args else default


def as_request(run):
    """The settings that a run's command line stands for."""
    quoted = run["vllm_args"].replace("{", "'{").replace("}", "}'")
    args = shlex.split(quoted)
    eplb = json.loads(option(args, "--eplb-config", "{}"))
    tokens = option(args, "--max-num-batched-tokens")
    return MemoryRequest(
        model=shape(MODELS[args[0]], args[0]),
        gpu=H100,
        release=(0, 26),
        tensor_parallel_size=int(option(args, "--tensor-parallel-size")),
        data_parallel_size=int(option(args, "--data-parallel-size", 1)),
        expert_parallel="--enable-expert-parallel" in args,
        all2all_backend=option(args, "--all2all-backend", "allgather_reducescatter"),
        max_model_len=int(option(args, "--max-model-len")),
        max_num_batched_tokens=int(tokens) if tokens else None,
        gpu_memory_utilization=float(option(args, "--gpu-memory-utilization")),
        enforce_eager="--enforce-eager" in args,
        num_redundant_experts=eplb.get("num_redundant_experts"),
    )


RUNS = {run["case"]: run for run in MEASURED["runs"]}
SERVED = [case for case, run in RUNS.items() if run["served"]]
LATER_RUNS = {run["case"]: run for run in LATER["runs"]}
WRONG_BEFORE = {"gptoss_tp2"}
"""Planned 20 % too high: the blocks of a sliding window were counted for one batch, not for two."""


@pytest.mark.parametrize("case", SERVED)
def test_kv_tokens_are_within_3_percent_of_the_measured_ones(case):
    planned = plan_memory(as_request(RUNS[case])).kv_cache_tokens

    assert planned == pytest.approx(RUNS[case]["kv_tokens"], rel=0.03)


@pytest.mark.parametrize("case", [case for case in SERVED if case not in CALIBRATION])
def test_kv_tokens_of_runs_held_out_are_within_1_percent(case):
    planned = plan_memory(as_request(RUNS[case])).kv_cache_tokens

    assert planned == pytest.approx(RUNS[case]["kv_tokens"], rel=0.01)


@pytest.mark.parametrize("case", LATER_RUNS)
def test_kv_tokens_of_runs_planned_beforehand_are_within_1_percent(case):
    run = LATER_RUNS[case]

    assert plan_memory(as_request(run)).kv_cache_tokens == pytest.approx(run["kv_tokens"], rel=0.01)


@pytest.mark.parametrize("case", sorted(LATER_RUNS.keys() - WRONG_BEFORE))
def test_what_was_planned_before_a_run_was_within_3_percent(case):
    run = LATER_RUNS[case]

    assert run["kv_tokens_planned_before"] == pytest.approx(run["kv_tokens"], rel=0.03)


@pytest.mark.parametrize("case", LATER_RUNS)
def test_weights_of_later_runs_are_within_1_percent(case):
    run = LATER_RUNS[case]

    assert plan_memory(as_request(run)).weights_gib == pytest.approx(run["weights_gib"], rel=0.01)


@pytest.mark.parametrize("case", RUNS)
def test_weights_are_within_1_percent_of_the_measured_ones(case):
    assert plan_memory(as_request(RUNS[case])).weights_gib == pytest.approx(
        RUNS[case]["weights_gib"], rel=0.01
    )


@pytest.mark.parametrize("case", SERVED)
def test_peak_activation_is_within_2_percent_of_the_measured_one(case):
    assert plan_memory(as_request(RUNS[case])).peak_activation_gib == pytest.approx(
        RUNS[case]["peak_activation_gib"], rel=0.02
    )


@pytest.mark.parametrize("case", SERVED)
def test_memory_free_at_start_is_within_half_a_gib_of_the_measured_one(case):
    assert plan_memory(as_request(RUNS[case])).free_at_start_gib == pytest.approx(
        RUNS[case]["free_at_start_gib"], abs=0.5
    )


def test_eplb_costs_the_redundant_experts_and_one_staged_layer():
    plain = as_request(RUNS["dsv3_tri"])
    held = weights(plain.model, replace(plain, num_redundant_experts=32).cut)

    assert held.redundant_experts / GIB == pytest.approx(1.97, abs=0.01)
    assert held.eplb / GIB == pytest.approx(5.9, abs=0.02)
