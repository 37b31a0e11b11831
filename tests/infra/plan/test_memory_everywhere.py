"""Every model of the catalog on every GPU: the plan is whole, whatever is asked for."""

from __future__ import annotations

import math
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.catalog import (
    all2all_backends,
    gpu_of,
    instance_type,
    instance_types,
    model,
    model_names,
    release,
    release_versions,
)
from infra.plan.memory import MemoryRequest, plan_memory, requests_that_fit
from infra.plan.memory_nearest import nearest_plans

GPU_TYPES = sorted(name for name, kind in instance_types().items() if kind.gpus)


@cache
def known_model(name):
    return model(name)


@st.composite
def requests(draw):
    tensor_parallel = draw(st.sampled_from([1, 2, 4, 8]))
    nodes = draw(st.sampled_from([1, 2, 4, 16, 64]))
    return MemoryRequest(
        model=known_model(draw(st.sampled_from(model_names()))),
        gpu=gpu_of(instance_type(draw(st.sampled_from(GPU_TYPES)))),
        release=release(draw(st.sampled_from(release_versions()))).series,
        tensor_parallel_size=tensor_parallel,
        data_parallel_size=nodes * max(1, 8 // tensor_parallel),
        expert_parallel=draw(st.booleans()),
        nodes=nodes,
        all2all_backend=draw(st.sampled_from(sorted(all2all_backends()))),
        max_model_len=draw(st.none() | st.integers(1, 2_000_000)),
        max_num_batched_tokens=draw(st.none() | st.integers(1, 65536)),
        max_num_seqs=draw(st.none() | st.integers(1, 4096)),
        gpu_memory_utilization=draw(st.none() | st.floats(0.05, 1.0)),
        kv_cache_dtype=draw(st.sampled_from(["auto", "fp8"])),
        quantization=draw(st.sampled_from([None, "fp8", "fp8_per_block"])),
        enforce_eager=draw(st.booleans()),
        cudagraph_mode=draw(st.sampled_from([None, "FULL_DECODE_ONLY", "PIECEWISE", "NONE"])),
        num_redundant_experts=draw(st.none() | st.integers(0, 256)),
        dual_batch_overlap=draw(st.booleans()),
        hybrid_kv_cache=draw(st.booleans()),
    )


@settings(max_examples=150, deadline=None)
@given(requests())
def test_a_plan_is_whole_and_fits_only_with_room_for_one_request(request):
    plan = plan_memory(request)

    assert all(math.isfinite(item.gib) and item.gib >= 0 for item in plan.items)
    assert plan.kv_cache_tokens >= 0
    if plan.fits:
        assert plan.full_length_requests >= 1
        assert requests_that_fit(request, plan, plan.effective.max_model_len) >= 1


@settings(max_examples=25, deadline=None)
@given(requests())
def test_every_near_plan_that_is_offered_fits(request):
    assert all(near.kv_cache_tokens > 0 for near in nearest_plans(request))


@settings(max_examples=100, deadline=None)
@given(requests())
def test_more_batch_never_leaves_more_for_the_cache(request):
    small, large = (
        plan_memory(MemoryRequest(**{**vars(request), "max_num_batched_tokens": tokens}))
        for tokens in (1024, 8192)
    )

    assert large.peak_activation_gib >= small.peak_activation_gib
