"""Limits of the all2all kernels: ranks, buffers, batch sizes, CUDA graphs, roles."""

# ruff: noqa: PLR0913 - a rule takes each fact it depends on as a plain value

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.checks.finding import Severity
from infra.checks.rule import Hit, Hits, rule

if TYPE_CHECKING:
    from collections.abc import Mapping

_BATCHED = ("deepep_low_latency", "nixl_ep")
_EP_BENCH = "awslabs/awsome-distributed-ai micro-benchmarks/expert-parallelism@95b939c"
_BUFFER_LIMIT_GIB = 32.0
_WORKSPACE_GIB = 12.0
"""A seventh of an H100: where the workspace starts to decide what is left for KV."""
_BATCH = "max_num_batched_tokens"


@rule(
    Severity.ERROR,
    "nodes",
    consequence="On EFA the kernels pass at 64 ranks and fail at 128: the group hangs or stops",
    remedy="groups of at most 64 GPUs, scaled with replicas behind the router",
    source=_EP_BENCH,
    example="deepep_low_latency (UCCL-EP) over 16 x p5en.48xlarge, 128 ranks.",
)
def low_latency_ranks_on_efa(*, backend: str, transport: str, ranks: int) -> Hits:
    """The low-latency kernels are known to work on EFA up to 64 ranks."""
    if backend == "deepep_low_latency" and transport == "efa" and ranks > 64:
        yield Hit(f"deepep_low_latency over {ranks} ranks on EFA")


@rule(
    Severity.ERROR,
    "nodes",
    consequence="The kernels stop with an assertion or an illegal address at their first batch",
    remedy="smaller groups, scaled with replicas behind the router",
    source=f"{_EP_BENCH}; DeepEP V1's cap of 160 ranks",
    example="deepep_high_throughput (UCCL-EP) over 128 ranks; stock DeepEP over 168.",
)
def high_throughput_ranks(*, backend: str, ranks: int, deepep: str, nodes: int) -> Hits:
    """High-throughput kernels: DeepEP V1 takes 160 ranks, UCCL-EP passes at 64, not at 128."""
    limit = 64 if deepep == "uccl" and nodes > 1 else 160
    if backend == "deepep_high_throughput" and ranks > limit:
        name = "UCCL-EP" if limit == 64 else "DeepEP V1"
        yield Hit(f"deepep_high_throughput over {ranks} ranks; {name} works up to {limit}")


@rule(
    Severity.ERROR,
    _BATCH,
    consequence="The buffer's offsets overflow: ranks stop or exchange each other's bytes",
    remedy="lower max_num_batched_tokens",
    source="vllm-project/vllm#57894; DeepEP csrc/config.hpp@567632d (LowLatencyLayout)",
    example="DeepSeek-V3 with `max_num_batched_tokens: 4096` on deepep_low_latency: 56.9 GiB.",
    suppressible=False,
)
def low_latency_buffer(
    *, backend: str, experts: int, redundant: int, hidden_size: int, batched_tokens: int,
    data_parallel_size: int, series: tuple[int, int],
) -> Hits:  # fmt: skip
    """The low-latency buffer must stay below 32 GiB; redundant experts count in it."""
    if backend not in _BATCHED or data_parallel_size < 2 or not experts:
        return
    per_token = 4 * (experts + redundant) * (2 * hidden_size + 4 * -(-hidden_size // 128))
    if series < (0, 20):  # VLLM_MOE_DP_CHUNK_SIZE: tokens are handed over 256 at a time
        batched_tokens = min(batched_tokens, 256)
    gib = per_token * batched_tokens / 2**30
    if gib >= _BUFFER_LIMIT_GIB:
        fits = int(_BUFFER_LIMIT_GIB * 2**30 / per_token) // 128 * 128
        yield Hit(
            f"{batched_tokens} tokens a step for {experts} + {redundant} experts need a buffer of"
            f" {gib:.1f} GiB per GPU; the limit is {_BUFFER_LIMIT_GIB:.0f}",
            remedy=f"max_num_batched_tokens: {fits} or less",
        )


@rule(
    Severity.WARNING,
    _BATCH,
    consequence="Prompts are worked through 256 tokens a step: time to the first token suffers",
    remedy="set max_num_batched_tokens; every 256 more cost buffer memory (the plan counts it), or"
    " give prefill to a group of its own",
    source="vllm/config/scheduler.py (DEFAULT_MAX_NUM_BATCHED_TOKENS_FOR_BATCHED_DP)@0.20.2",
    example="`role: serve` with deepep_low_latency on vLLM 0.33.0 and no max_num_batched_tokens.",
)
def low_latency_default_batch(
    *, backend: str, series: tuple[int, int], role: str, batched_tokens_given: int | None,
    data_parallel_size: int,
) -> Hits:  # fmt: skip
    """From 0.20 the low-latency backends lower max_num_batched_tokens to 256 unless it is set."""
    lowered = backend in _BATCHED and data_parallel_size > 1 and series >= (0, 20)
    if lowered and role != "decode" and batched_tokens_given is None:
        yield Hit(
            f"a {role} group on {backend} leaves max_num_batched_tokens to vLLM, which is 256"
        )


@rule(
    Severity.WARNING,
    _BATCH,
    consequence="That is GPU memory that the KV cache doesn't get, or that isn't there at all",
    remedy="lower max_num_batched_tokens: the workspace grows with it times the ranks",
    source="vllm v1/worker/workspace.py and fused_moe/experts (workspace_shapes)@0.26.0",
    example="DeepSeek-V3 over 16 ranks at 8192 tokens: 28 GiB of every GPU.",
)
def gathered_workspace(
    *, backend: str, ranks: int, batched_tokens: int, memory_items: Mapping[str, float]
) -> Hits:
    """With all-gather the experts' workspace holds every rank's tokens."""
    gib = memory_items.get("MoE kernel workspace", 0.0)
    if backend == "allgather_reducescatter" and ranks > 1 and gib > _WORKSPACE_GIB:
        half = max(256, batched_tokens // 2)
        yield Hit(
            f"{batched_tokens} tokens a step on each of {ranks} ranks need a workspace of"
            f" {gib:.1f} GiB per GPU",
            remedy=f"max_num_batched_tokens: {half} halves it",
        )


@rule(
    Severity.WARNING,
    "compilation_config.cudagraph_mode",
    consequence="vLLM turns the graphs off itself: its kernels synchronise with the CPU",
    remedy="leave cudagraph_mode out; for decode take a backend that keeps graphs",
    source="vllm/config/compilation.py@0.33.0 L1244; platforms/cuda.py@0.11.0 L190",
    example="`compilation_config: {cudagraph_mode: FULL}` with deepep_high_throughput.",
)
def graphs_with_high_throughput(
    *, backend: str, cudagraph_mode_given: str | None, data_parallel_size: int
) -> Hits:
    """deepep_high_throughput has no CUDA graphs when there are several data-parallel ranks."""
    asked = cudagraph_mode_given not in (None, "NONE")
    if backend == "deepep_high_throughput" and data_parallel_size > 1 and asked:
        yield Hit(f"cudagraph_mode {cudagraph_mode_given} with deepep_high_throughput")


@rule(
    Severity.WARNING,
    "all2all_backend",
    consequence="Every token of a decode step waits for the CPU to launch each kernel",
    remedy="all2all_backend: auto, or one with CUDA graphs, and enforce_eager: false",
    source="vllm docs/serving/expert_parallel_deployment.md@0.33.0; awslabs dsv3-uccl-nixl@95b939c",
    example="`role: decode` with deepep_high_throughput, or with `enforce_eager: true`.",
)
def decode_without_graphs(
    *, role: str, gpus_per_node: int, backend: str, data_parallel_size: int, enforce_eager: bool
) -> Hits:
    """Decode steps are short: without CUDA graphs launching them takes longer than running them."""
    if role != "decode" or gpus_per_node == 0:
        return
    if backend == "deepep_high_throughput" and data_parallel_size > 1:
        yield Hit("the decode group's backend is deepep_high_throughput, which has no CUDA graphs")
    elif enforce_eager:
        yield Hit("the decode group runs eagerly", where="enforce_eager")


@rule(
    Severity.WARNING,
    "all2all_backend",
    consequence="Its buffers are padded per expert: large prompts need far more memory and time",
    remedy="all2all_backend: auto, deepep_high_throughput or deepep_v2",
    source="vllm docs/serving/expert_parallel_deployment.md@0.33.0; awslabs dsv3-uccl-nixl@95b939c",
    example="`role: prefill` with deepep_low_latency.",
)
def prefill_low_latency(*, role: str, backend: str, data_parallel_size: int) -> Hits:
    """The low-latency backends are made for the small batches of decode."""
    if role == "prefill" and backend in _BATCHED and data_parallel_size > 1:
        yield Hit(f"the prefill group's backend is {backend}")


@rule(
    Severity.WARNING,
    "all2all_backend",
    consequence="There are open reports of hangs and illegal addresses; a probe finds them, late",
    remedy="vLLM 0.33 with deepep_v2, or groups that fit one node",
    source="vllm-project/vllm#41855, uccl-project/uccl#734, #923",
    example="`deepep: uccl` with `nodes: 2`.",
)
def uccl_between_nodes(*, backend: str, deepep: str, nodes: int) -> Hits:
    """UCCL-EP carries DeepEP's API over EFA, with faults still open."""
    if deepep == "uccl" and nodes > 1 and backend.startswith("deepep"):
        yield Hit(f"{backend} runs between {nodes} nodes on UCCL-EP")


@rule(
    Severity.WARNING,
    "all2all_backend",
    consequence="AWS measured 17.2 requests/s with DeepEP kernels and 10.6 with this one",
    remedy="a group that fits one node, more replicas; or vLLM 0.33 with deepep_v2",
    source="awslabs/awsome-distributed-ai dsv3-uccl-nixl README@95b939c",
    example="allgather_reducescatter over 4 nodes.",
)
def gather_between_nodes(
    *, backend: str, nodes: int, gpus_per_node: int, data_parallel_size: int
) -> Hits:
    """allgather_reducescatter always works, but sends every token to every rank."""
    spread = nodes > 1 and gpus_per_node and data_parallel_size > 1
    if backend == "allgather_reducescatter" and spread:
        yield Hit(f"allgather_reducescatter sends every token to all ranks of {nodes} nodes")


@rule(
    Severity.ERROR,
    "env.NCCL_GIN_TYPE",
    consequence="NCCL refuses the mode at start: DeepEP V2 finds no GIN",
    remedy="leave NCCL_GIN_TYPE out (host-proxy mode works on every EFA type)",
    source="aws/aws-ofi-nccl doc/gin-getting-started.md@2daf7d3",
    example="`env: {NCCL_GIN_TYPE: '5'}` on p5.48xlarge.",
)
def kernel_initiated_efa_type(
    *, env_given: Mapping[str, str], kernel_initiated_efa: bool, instance_type: str
) -> Hits:
    """Kernel-initiated EFA (GIN type 5) is for p5en, p6-b200 and p6-b300 alone."""
    if env_given.get("NCCL_GIN_TYPE") == "5" and not kernel_initiated_efa:
        yield Hit(f"NCCL_GIN_TYPE=5 on {instance_type}")


@rule(
    Severity.INFO,
    "allow_fallback",
    consequence="One node without the library: its whole group starts slower instead of failing",
    remedy="allow_fallback: false, to be told at the start",
    source="the plan: allgather_reducescatter needs no library",
    example="`allow_fallback: true` with deepep_low_latency.",
)
def fallback_allowed(*, fallback: str | None, backend: str) -> Hits:
    """A fallback hides a missing library."""
    if fallback and fallback != backend:
        yield Hit(f"a group with a node without the library of {backend} starts with {fallback}")


RULES = (
    low_latency_ranks_on_efa,
    high_throughput_ranks,
    low_latency_buffer,
    low_latency_default_batch,
    gathered_workspace,
    graphs_with_high_throughput,
    decode_without_graphs,
    prefill_low_latency,
    uccl_between_nodes,
    gather_between_nodes,
    kernel_initiated_efa_type,
    fallback_allowed,
)
