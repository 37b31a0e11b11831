"""Where a plan doesn't fit, the nearest ones that do."""

from __future__ import annotations

from dataclasses import replace

from infra.catalog import gpu_of, instance_type, model
from infra.plan.memory import MemoryRequest, plan_memory
from infra.plan.memory_nearest import nearest_plans

H100, H200 = gpu_of(instance_type("p5.48xlarge")), gpu_of(instance_type("p5en.48xlarge"))

SIXTEEN_H100 = MemoryRequest(
    model=model("deepseek-ai/DeepSeek-V3"),
    gpu=H100,
    release=(0, 33),
    data_parallel_size=16,
    nodes=2,
    max_model_len=16384,
    max_num_batched_tokens=1024,
    max_num_seqs=256,
)
EIGHT_H200 = replace(SIXTEEN_H100, gpu=H200, data_parallel_size=8, nodes=1)


def test_nearest_plans_all_fit_and_change_one_thing():
    eight_h100 = replace(SIXTEEN_H100, data_parallel_size=8, nodes=1, max_num_batched_tokens=512)
    near = nearest_plans(replace(eight_h100, enforce_eager=True))

    assert [plan.change for plan in near] == ["more nodes"]
    assert dict(near[0].settings)["nodes"] == "2"
    assert near[0].kv_cache_tokens > 16384


def test_fewer_redundant_experts_keep_the_even_split():
    tight = replace(
        EIGHT_H200, num_redundant_experts=64, max_num_batched_tokens=4096, max_model_len=8192
    )
    near = {plan.change: dict(plan.settings) for plan in nearest_plans(tight)}

    assert not plan_memory(tight).fits
    assert int(near["fewer redundant experts"]["num_redundant_experts"]) % 8 == 0
    assert int(near["fewer redundant experts"]["num_redundant_experts"]) < 64


def test_a_bf16_model_that_is_too_large_is_offered_fp8():
    request = replace(
        SIXTEEN_H100,
        model=model("zai-org/GLM-4.6"),
        data_parallel_size=8,
        nodes=1,
        max_model_len=8192,
    )
    changes = {plan.change for plan in nearest_plans(request)}

    assert not plan_memory(request).fits
    assert {"fp8 weights", "more nodes"} <= changes


def test_gathering_many_tokens_on_many_ranks_is_paired_with_a_smaller_batch():
    wide = replace(SIXTEEN_H100, max_num_batched_tokens=8192, data_parallel_size=8, nodes=1)
    near = {plan.change: dict(plan.settings) for plan in nearest_plans(wide)}

    assert near.keys() == {"more nodes and a smaller batch"}
    assert int(near["more nodes and a smaller batch"]["max_num_batched_tokens"]) < 8192


def test_a_group_too_large_to_gather_is_offered_as_smaller_ones():
    vast = replace(EIGHT_H200, data_parallel_size=512, nodes=64, max_num_batched_tokens=8192)
    near = {plan.change: dict(plan.settings) for plan in nearest_plans(vast)}

    assert plan_memory(vast).peak_activation_gib > 500
    assert near.keys() == {"smaller batch", "fewer nodes per group and more replicas"}
    assert near["fewer nodes per group and more replicas"] == {"nodes": "4"}


def test_a_long_context_and_many_ranks_take_three_changes():
    glm = MemoryRequest(model("zai-org/GLM-4.6"), H100, (0, 28), data_parallel_size=16, nodes=2)
    near = {plan.change: dict(plan.settings) for plan in nearest_plans(glm)}

    changed = near["fp8 weights, a smaller batch and a shorter context"]
    assert changed.keys() == {"quantization", "max_num_batched_tokens", "max_model_len"}
    assert "more nodes, a smaller batch and a shorter context" in near


def test_more_nodes_never_leave_a_rank_without_an_expert():
    mixtral = MemoryRequest(
        model("mistralai/Mixtral-8x22B-Instruct-v0.1"),
        H100,
        (0, 33),
        data_parallel_size=8,
        max_num_batched_tokens=65536,
    )

    assert not plan_memory(mixtral).fits
    assert not [p for p in nearest_plans(mixtral) if p.change.startswith("more nodes")]


def test_a_near_plan_names_only_settings_of_a_group():
    eight_h100 = replace(SIXTEEN_H100, data_parallel_size=8, nodes=1, max_num_batched_tokens=512)

    named = {key for plan in nearest_plans(eight_h100) for key, _ in plan.settings}
    assert named
    assert "data_parallel_size" not in named
