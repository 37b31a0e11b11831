"""Settings as Hypothesis draws them: every key, every release, backend, role and type."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from infra import catalog

VERSIONS = catalog.release_versions()
TYPES = sorted(n for n, t in catalog.instance_types().items() if t.architecture == "x86_64")
GPU_TYPES = [name for name in TYPES if catalog.instance_type(name).gpu_count]
BACKENDS = ["auto", *sorted(catalog.all2all_backends()), "passthrough", "unheard_of"]
MODELS = catalog.model_names()
SMALL = ["Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V2-Lite", "Qwen/Qwen3-235B-A22B-FP8"]


def maybe(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any subset of these keys."""
    return st.fixed_dictionaries({}, optional=keys)


count = st.integers(1, 9)
eplb = maybe(
    num_redundant_experts=st.sampled_from([0, 1, 8, 16, 32]),
    window_size=st.integers(1, 5000),
    step_interval=st.integers(1, 5000),
    log_balancedness=st.booleans(),
    log_balancedness_interval=st.integers(1, 10),
    use_async=st.booleans(),
    policy=st.sampled_from(["default", "other"]),
    communicator=st.sampled_from(["torch_nccl", "torch_gloo", "nixl", "pynccl", "carrier_pigeon"]),
    enable_migration_batching=st.booleans(),
)
kv_transfer = maybe(
    kv_connector=st.sampled_from(["NixlConnector", "NixlPullConnector", "NixlPushConnector"]),
    backends=st.sampled_from([["LIBFABRIC"], ["UCX"], ["UCX", "LIBFABRIC"]]),
    kv_load_failure_policy=st.sampled_from(["fail", "recompute"]),
    kv_lease_duration=count,
    num_threads=count,
    side_channel_port=st.sampled_from([1024, 5557, 5600, 7999, 9395, 13340, 65535]),
)
options = maybe(
    quantization=st.sampled_from(["fp8", "mxfp4", "awq", "no_such_method"]),
    kv_cache_dtype=st.sampled_from(["auto", "fp8", "fp8_e4m3", "no_such_type"]),
    dtype=st.sampled_from(["auto", "bfloat16", "float16", "float32"]),
    max_model_len=st.sampled_from([1, 4096, 131072, 10_000_000]),
    max_num_batched_tokens=st.sampled_from([1, 256, 8192, 65536]),
    max_num_seqs=st.sampled_from([1, 256, 4096]),
    gpu_memory_utilization=st.sampled_from([0.01, 0.5, 0.95, 1.0]),
    kv_cache_memory_bytes=st.sampled_from([1 << 20, 1 << 30, 1 << 45]),
    block_size=st.sampled_from([1, 16, 64, 128]),
    enforce_eager=st.booleans(),
    compilation_config=st.sampled_from([{}, {"cudagraph_mode": "FULL"}, {"mode": 3}]),
    enable_dbo=st.booleans(),
    dbo_decode_token_threshold=count,
    dbo_prefill_token_threshold=count,
    attention_backend=st.sampled_from(["FLASHMLA", "FLASH_ATTN"]),
    moe_backend=st.sampled_from(["auto", "deep_gemm", "flashinfer_b12x", "no_such_kernel"]),
    load_format=st.sampled_from(["auto", "runai_streamer", "dummy"]),
    numa_bind=st.booleans(),
    enable_ep_weight_filter=st.booleans(),
    extra_args=st.sampled_from([["--seed", "7"], ["--no-such-flag"], ["-tp=4"], ["--async"]]),
    env=st.sampled_from([{"NCCL_DEBUG": "INFO"}, {"VLLM_ALL2ALL_BACKEND": "pplx"}]),
    api_server_count=count,
)
placement = maybe(
    replicas=st.integers(1, 3),
    network_interfaces=st.sampled_from(["one-ip", "ip-bandwidth"]),
    tensor_parallel_size=st.sampled_from(["auto", 1, 2, 3, 8, 16, 32]),
    data_parallel_size_local=st.integers(1, 16),
    enable_expert_parallel=st.sampled_from(["auto", True, False]),
    load_balancing=st.sampled_from(["internal", "hybrid", "external"]),
    all2all_backend=st.sampled_from(BACKENDS),
    allow_fallback=st.booleans(),
    eplb=eplb,
    expert_placement_strategy=st.sampled_from(["linear", "round_robin"]),
    kv_transfer=kv_transfer,
)


@st.composite
def groups(draw: st.DrawFn) -> dict[str, Any]:
    """One group."""
    kinds = st.sampled_from(GPU_TYPES) | st.sampled_from(TYPES)
    return {
        "role": draw(st.sampled_from(["serve", "prefill", "decode"])),
        "instance_type": draw(kinds),
        "nodes": draw(st.integers(1, 4)),
        **draw(placement),
        **draw(options),
    }


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """The settings of a stack."""
    capacity = ["on-demand", "reserve", "reservation", "capacity-block", "spot"]
    return {
        "model": {
            "name": draw(st.sampled_from(MODELS)),
            "source": draw(st.sampled_from(["hf", "s3://bucket/model"])),
        },
        "vllm": {
            "version": draw(st.sampled_from(VERSIONS)),
            **draw(
                maybe(
                    runtime=st.sampled_from(["auto", "venv", "container"]),
                    deepep=st.sampled_from(["auto", "stock", "efa", "uccl", "none"]),
                    image=st.sampled_from(["registry.example/vllm:1", "registry.example/vllm-efa"]),
                )
            ),
        },
        "groups": draw(st.dictionaries(st.sampled_from("abc"), groups(), min_size=1, max_size=3)),
        "capacity": draw(maybe(kind=st.sampled_from(capacity), id=st.just("cr-0123456789abcdef0"))),
    }


PAIR = {"a": "prefill", "b": "decode"}


@st.composite
def likely_files(draw: st.DrawFn) -> dict[str, Any]:
    """Settings that a person would write: most of their plans can be built."""
    kind = draw(st.sampled_from(["p5.48xlarge", "p5en.48xlarge", "p6-b200.48xlarge", "p4d.24xlarge",
                                 "p6-b300.48xlarge", "g6e.48xlarge", "c7i.4xlarge"]))  # fmt: skip
    group: dict[str, Any] = {
        "instance_type": kind,
        "nodes": draw(st.integers(1, 3)),
        "network_interfaces": draw(st.sampled_from(["one-ip", "one-ip", "ip-bandwidth"])),
        "replicas": draw(st.integers(1, 2)),
        "all2all_backend": draw(st.sampled_from(["auto", "allgather_reducescatter"])),
        "tensor_parallel_size": draw(st.sampled_from([1, 1, 2, "auto"])),
        "load_balancing": draw(st.sampled_from(["internal", "internal", "hybrid", "external"])),
        "max_model_len": draw(st.sampled_from([2048, 8192])),
        **draw(maybe(enforce_eager=st.booleans(), env=st.just({"NCCL_DEBUG": "INFO"}))),
    }
    pair = draw(st.booleans())
    gpus = catalog.instance_type(kind).gpu_count
    capacity = draw(st.sampled_from(["on-demand", "reserve", "reservation", "capacity-block"]))
    named = capacity in ("reservation", "capacity-block")
    return {
        "model": {"name": draw(st.sampled_from(SMALL)), "source": "s3://bucket/model"},
        "vllm": {"version": draw(st.sampled_from(VERSIONS)) if gpus else "0.32.0"},
        "groups": {n: group | {"role": r} for n, r in PAIR.items()} if pair else {"a": group},
        "capacity": {"kind": capacity, **({"id": "cr-0123456789abcdef0"} if named else {})},
    }
