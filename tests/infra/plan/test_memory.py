from __future__ import annotations

from dataclasses import replace

import pytest

from infra.catalog import gpu_of, instance_type, model
from infra.plan.memory import MemoryRequest, plan_memory, requests_that_fit
from infra.plan.memory_kv import KvLimits, kv_layout
from infra.plan.memory_runtime import capture_sizes, low_latency_bytes
from infra.plan.memory_weights import Sharding, weights

H100, H200 = gpu_of(instance_type("p5.48xlarge")), gpu_of(instance_type("p5en.48xlarge"))
GIB = 2**30
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


def expert_parallel(ranks, redundant=None):
    return Sharding(1, ranks, expert_parallel=True, num_redundant_experts=redundant)


@pytest.mark.parametrize("request_", [SIXTEEN_H100, EIGHT_H200])
def test_the_items_add_up_to_the_requested_memory(request_):
    plan = plan_memory(request_)

    assert sum(item.gib for item in plan.items) == pytest.approx(plan.requested_gib)


@pytest.mark.parametrize(
    ("name", "ranks", "experts_gb"),
    [
        ("deepseek-ai/DeepSeek-V3", 8, 81.7),
        ("deepseek-ai/DeepSeek-V3", 16, 40.9),
        ("moonshotai/Kimi-K2-Instruct", 16, 63.4),
        ("Qwen/Qwen3-235B-A22B", 8, 56.8),
        ("MiniMaxAI/MiniMax-M2", 8, 28.1),
    ],
)
def test_experts_are_shared_out_over_the_ranks(name, ranks, experts_gb):
    held = weights(model(name), expert_parallel(ranks))

    assert held.experts / 1e9 == pytest.approx(experts_gb, rel=0.01)


@pytest.mark.parametrize(
    ("name", "billions", "per_parameter"),
    [
        ("Qwen/Qwen3-30B-A3B", 30.5, 2),
        ("Qwen/Qwen3-235B-A22B", 235.1, 2),
        ("Qwen/Qwen3-Coder-480B-A35B-Instruct", 480.2, 2),
        ("zai-org/GLM-4.6", 352.8, 2),
        ("mistralai/Mixtral-8x7B-v0.1", 46.7, 2),
        ("mistralai/Mixtral-8x22B-Instruct-v0.1", 140.6, 2),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 400.7, 2),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 79.7, 2),
        ("deepseek-ai/DeepSeek-V3", 671.0, 1),
        ("moonshotai/Kimi-K2-Instruct", 1026.4, 1),
        ("MiniMaxAI/MiniMax-M2", 228.7, 1),
    ],
)
def test_weights_of_one_gpu_are_the_published_parameters(name, billions, per_parameter):
    held = weights(model(name), expert_parallel(1))

    assert held.total / 1e9 / per_parameter == pytest.approx(billions, rel=0.012)


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [
        ("deepseek-ai/DeepSeek-V3", 70272),
        ("deepseek-ai/DeepSeek-V2-Lite", 31104),
        ("Qwen/Qwen3-30B-A3B", 98304),
        ("Qwen/Qwen3-235B-A22B", 192512),
        ("zai-org/GLM-4.6", 376832),
        ("mistralai/Mixtral-8x7B-v0.1", 131072),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 24576),
    ],
)
def test_kv_bytes_of_a_token(name, bytes_per_token):
    layout = kv_layout(model(name), KvLimits(8192, 8192, 1, "auto"))

    assert layout.bytes_per_token == bytes_per_token


def test_sparse_mla_keeps_its_indexer_beside_a_packed_fp8_latent():
    layout = kv_layout(model("deepseek-ai/DeepSeek-V3.2"), KvLimits(8192, 8192, 1, "fp8"))

    assert layout.bytes_per_token == 48068


def test_kv_of_gqa_is_split_over_tp_up_to_its_heads_and_mla_is_not():
    qwen, deepseek = model("Qwen/Qwen3-30B-A3B"), model("deepseek-ai/DeepSeek-V3")
    per_token = [
        [kv_layout(m, KvLimits(8192, 8192, tp, "auto")).bytes_per_token for tp in (1, 2, 4, 8)]
        for m in (qwen, deepseek)
    ]

    assert per_token == [[98304, 49152, 24576, 24576], [70272] * 4]


def test_fp8_kv_holds_twice_the_tokens():
    request = replace(EIGHT_H200, model=model("Qwen/Qwen3-235B-A22B"), max_model_len=8192)
    plain, fp8 = (
        plan_memory(replace(request, kv_cache_dtype=d)).kv_cache_tokens for d in ("auto", "fp8")
    )

    assert fp8 == pytest.approx(2 * plain, rel=0.001)


def test_sliding_layers_hold_a_window_once_the_context_is_longer():
    oss = replace(EIGHT_H200, model=model("openai/gpt-oss-120b"), max_model_len=131072)
    windowed = plan_memory(oss)
    whole = plan_memory(replace(oss, hybrid_kv_cache=False))

    assert windowed.full_length_requests > 1.8 * whole.full_length_requests


def test_a_block_of_a_hybrid_model_holds_the_state_of_a_linear_layer():
    layout = kv_layout(model("Qwen/Qwen3-Next-80B-A3B-Instruct"), KvLimits(262144, 8192, 1, "auto"))

    assert layout.block_tokens % 16 == 0
    assert layout.block_tokens > 16
    assert dict(layout.kinds) == {"linear": 3, "full": 1}


def test_requests_that_fit_shrink_with_the_context():
    plan = plan_memory(EIGHT_H200)
    held = [requests_that_fit(EIGHT_H200, plan, n) for n in (1024, 4096, 16384)]

    assert held == sorted(held, reverse=True)
    assert held[2] == int(plan.full_length_requests)


@pytest.mark.parametrize(
    ("name", "tokens", "redundant", "gib"),
    [
        ("deepseek-ai/DeepSeek-V3", 128, None, 1.8),
        ("deepseek-ai/DeepSeek-V3", 256, None, 3.6),
        ("deepseek-ai/DeepSeek-V3", 1024, 32, 16.0),
        ("moonshotai/Kimi-K2-Instruct", 512, None, 10.7),
        ("Qwen/Qwen3-235B-A22B", 256, None, 1.0),
    ],
)
def test_low_latency_buffer_follows_deepep(name, tokens, redundant, gib):
    cut = expert_parallel(16, redundant)

    assert low_latency_bytes(model(name), cut, tokens) / GIB == pytest.approx(gib, rel=0.03)


def test_low_latency_defaults_to_256_tokens_from_0_20():
    decode = replace(EIGHT_H200, all2all_backend="deepep_low_latency", max_num_batched_tokens=None)

    assert plan_memory(decode).effective.max_num_batched_tokens == 256
    before = plan_memory(replace(decode, release=(0, 19))).effective
    assert before.max_num_batched_tokens == 8192


def test_high_throughput_turns_graphs_off_when_tokens_change_ranks():
    prefill = replace(EIGHT_H200, all2all_backend="deepep_high_throughput")

    assert plan_memory(prefill).effective.cudagraph_mode == "NONE"
    assert plan_memory(replace(prefill, data_parallel_size=1)).effective.cudagraph_mode != "NONE"


def test_full_decode_only_graphs_leave_more_for_kv():
    decode = replace(EIGHT_H200, all2all_backend="deepep_low_latency")
    both, one = (
        plan_memory(replace(decode, cudagraph_mode=m)).cuda_graph_gib
        for m in (None, "FULL_DECODE_ONLY")
    )

    assert 0 < one < both


def test_capture_sizes_are_vllms():
    assert capture_sizes(1024, 8192)[:5] == (1, 2, 4, 8, 16)
    assert capture_sizes(1024, 8192)[-1] == 512
    assert len(capture_sizes(1024, 8192)) == 51
    assert capture_sizes(256, 100)[-1] == 100


def test_graphs_of_a_hybrid_model_are_near_vllms_own_estimate():
    hybrid = MemoryRequest(
        model=model("Qwen/Qwen3.5-35B-A3B"), gpu=H100, release=(0, 26), max_num_seqs=256
    )

    assert plan_memory(hybrid).cuda_graph_gib == pytest.approx(1.62, rel=0.05)


def test_graphs_count_from_0_21():
    by_release = [
        plan_memory(replace(EIGHT_H200, release=(0, minor))).cuda_graph_gib for minor in (20, 21)
    ]

    assert by_release[0] == 0 < by_release[1]


def test_model_runner_v2_leaves_graphs_and_filters_out_of_its_profile():
    lite = MemoryRequest(
        model=model("deepseek-ai/DeepSeek-V2-Lite"), gpu=H100, release=(0, 26), max_model_len=8192
    )
    first, second = plan_memory(replace(lite, dual_batch_overlap=True)), plan_memory(lite)

    assert second.cuda_graph_gib == 0 < first.cuda_graph_gib


def test_linear_attention_carries_a_caution_from_0_26():
    hybrid = MemoryRequest(
        model=model("Qwen/Qwen3-Next-80B-A3B-Instruct"), gpu=H200, release=(0, 26)
    )

    assert "vllm#50780" in plan_memory(hybrid).cautions[0]
    assert plan_memory(replace(hybrid, release=(0, 25))).cautions == ()
    assert plan_memory(replace(hybrid, enforce_eager=True)).cautions == ()


def test_deepseek_v3_fits_eight_h200_and_sixteen_h100_but_not_eight_h100():
    eight_h100 = replace(SIXTEEN_H100, data_parallel_size=8, nodes=1)

    assert plan_memory(EIGHT_H200).fits
    assert plan_memory(replace(SIXTEEN_H100, enforce_eager=True)).fits
    assert not plan_memory(eight_h100).fits


def test_a_plan_that_does_not_fit_says_how_far_off_it_is():
    eight_h100 = replace(SIXTEEN_H100, data_parallel_size=8, nodes=1)
    problems = plan_memory(eight_h100).problems

    assert len(problems) == 1
    assert "nothing is left for the KV cache" in problems[0]
    assert f"{-plan_memory(eight_h100).kv_cache_gib:.1f} GiB" in problems[0]


def test_a_context_that_no_request_can_use_is_a_problem():
    request = replace(EIGHT_H200, model=model("Qwen/Qwen3-235B-A22B"), max_model_len=2_000_000)

    assert "one request of 2000000 tokens needs" in plan_memory(request).problems[0]


def test_more_memory_than_is_free_at_start_is_a_problem():
    assert (
        "are free once CUDA and NCCL"
        in plan_memory(replace(EIGHT_H200, gpu_memory_utilization=0.999)).problems[0]
    )


def test_up_to_0_17_the_experts_worked_in_chunks():
    wide = replace(SIXTEEN_H100, max_num_batched_tokens=8192)

    assert (
        plan_memory(replace(wide, release=(0, 17))).peak_activation_gib
        < plan_memory(replace(wide, release=(0, 18))).peak_activation_gib
    )


def test_the_same_request_gives_the_same_plan():
    assert plan_memory(SIXTEEN_H100) == plan_memory(SIXTEEN_H100)


def test_low_latency_kernels_took_256_tokens_at_a_time_before_the_default_did():
    shape_, gpu = model("deepseek-ai/DeepSeek-V3"), gpu_of(instance_type("p5en.48xlarge"))
    older, newer = (
        plan_memory(
            MemoryRequest(
                shape_, gpu, release, data_parallel_size=8, max_model_len=8192,
                all2all_backend="deepep_low_latency",
            )
        )
        for release in ((0, 19), (0, 20))
    )  # fmt: skip
    sizes = [
        {item.name: item.gib for item in plan.items}["MoE kernel workspace"]
        for plan in (older, newer)
    ]
    assert older.effective.max_num_batched_tokens == 8192
    assert newer.effective.max_num_batched_tokens == 256
    assert sizes[0] == sizes[1]
