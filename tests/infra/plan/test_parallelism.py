from __future__ import annotations

import pytest

from infra.plan.parallelism import WAYS, way
from infra.plan.request import EngineOptions

AUTO = {"tensor_parallel_size": None, "enable_expert_parallel": None}


@pytest.fixture
def pick(gpu_plan):
    def of(model: str, instance_type: str, **changes):
        asked = AUTO | {"instance_type": instance_type, **changes}
        return gpu_plan(asked, model=model).groups[0]

    return of


def test_many_experts_over_many_gpus_are_spread(pick):
    options = EngineOptions(max_model_len=32768)
    group = pick("deepseek-ai/DeepSeek-V3-0324", "p5en.48xlarge", options=options)
    assert (group.parallelism.mode, group.tensor_parallel_size) == ("ep", 1)
    assert (group.data_parallel_size, group.expert_parallel_size) == (8, 8)
    assert "97% of the weights and 8 GPUs share them" in group.parallelism.reason
    assert "each GPU has room for the layers outside the experts" in group.parallelism.reason


def test_attention_is_sliced_where_it_does_not_fit_one_gpu(pick):
    # 34 GB of bf16 outside the experts beside 84 GB of experts: too much for an H200 at TP 1.
    options = EngineOptions(max_model_len=8192)
    group = pick("zai-org/GLM-4.6", "p5en.48xlarge", options=options)
    assert group.parallelism.mode == "ep+tp"
    assert group.tensor_parallel_size > 1
    assert group.memory.fits
    assert f"from TP {group.tensor_parallel_size} on" in group.parallelism.reason


def test_fewer_experts_than_gpus_are_sliced(pick):
    options = EngineOptions(max_model_len=4096)
    group = pick("mistralai/Mixtral-8x7B-v0.1", "p5.48xlarge", nodes=2, options=options)
    assert (group.parallelism.mode, group.enable_expert_parallel) == ("tp", False)
    assert "8 experts are fewer than the 16 GPUs" in group.parallelism.reason


def test_one_gpu_has_nothing_to_spread(pick):
    group = pick("openai/gpt-oss-20b", "g6e.8xlarge")
    assert (group.parallelism.mode, group.expert_parallel_size) == ("single", 1)


def test_where_nothing_fits_the_memory_plan_says_so(pick):
    group = pick("moonshotai/Kimi-K2-Instruct", "p5.48xlarge")
    assert "no tensor-parallel size of this type makes it fit" in group.parallelism.reason
    assert group.memory.problems


def test_what_is_asked_for_is_kept(gpu_plan):
    group = gpu_plan({"tensor_parallel_size": 4}).groups[0]
    assert (group.tensor_parallel_size, group.parallelism.mode) == (4, "ep+tp")
    assert "as asked for" in group.parallelism.reason


@pytest.mark.parametrize("mode", [w.mode for w in WAYS])
def test_the_table_says_when_each_way_fits_and_what_it_costs(mode):
    assert way(mode).use_when
    assert way(mode).trade_off


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_expert_parallel_size_is_tensor_times_data_parallel_size(gpu_plan, tp: int):
    group = gpu_plan({"tensor_parallel_size": tp, "nodes": 2}).groups[0]
    assert group.expert_parallel_size == tp * group.data_parallel_size == 16
