"""Experts over ranks: even splits, load balancing, placement, dual-batch overlap."""

# ruff: noqa: PLR0913 - a rule takes each fact it depends on as a plain value

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.checks.finding import Severity
from infra.checks.rule import Hit, Hits, rule

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEEPEP = ("deepep_high_throughput", "deepep_low_latency", "deepep_v2")
_OVERLAPPING = ("deepep_low_latency", "deepep_high_throughput", "nixl_ep")
_REDUNDANT = "eplb.num_redundant_experts"
_EPLB_CHECKS = "vllm/config/parallel.py@0.33.0 L559-594"


@rule(
    Severity.ERROR,
    _REDUNDANT,
    consequence="vLLM stops at start: `EPLB currently only supports even distribution`",
    remedy="choose num_redundant_experts so that experts + redundant is a multiple of the ranks",
    source="vllm fused_moe/layer.py@0.33.0 L272-279",
    example="256 experts + 10 redundant over 16 ranks: 266 / 16 is no whole number; 0 or 16 are.",
)
def eplb_uneven_split(*, eplb: bool, experts: int, redundant: int, ranks: int) -> Hits:
    """With EPLB, experts plus redundant experts must be a multiple of the expert-parallel size."""
    if not eplb or not experts or ranks < 2 or (experts + redundant) % ranks == 0:
        return
    lower = redundant - (experts + redundant) % ranks
    upper = lower + ranks
    near = f"{lower} or {upper}" if lower >= 0 else f"{upper}"
    yield Hit(
        f"{experts} experts + {redundant} redundant = {experts + redundant} can't be split evenly"
        f" over {ranks} expert-parallel ranks",
        remedy=f"set num_redundant_experts to {near}",
    )


@rule(
    Severity.ERROR,
    "enable_expert_parallel",
    consequence="vLLM stops at start: EPLB needs --enable-expert-parallel and more than one rank",
    remedy="leave enable_expert_parallel on and give the group more than one GPU, or drop eplb",
    source=_EPLB_CHECKS,
    example="`eplb: {num_redundant_experts: 0}` with `enable_expert_parallel: false`.",
)
def eplb_without_expert_parallel(
    *, eplb: bool, expert_parallel: bool, ranks: int, tensor_parallel_size: int,
    data_parallel_size: int,
) -> Hits:  # fmt: skip
    """EPLB moves whole experts between ranks, so it needs expert parallelism over several GPUs."""
    gpus = tensor_parallel_size * data_parallel_size
    if eplb and not expert_parallel:
        yield Hit("EPLB is on and expert parallelism is off")
    elif eplb and max(ranks, gpus) < 2:
        yield Hit("EPLB is on and the group has one rank, which holds every expert", where="eplb")


@rule(
    Severity.ERROR,
    "eplb",
    consequence="vLLM stops at start: EPLB is only supported on CUDA, ROCm or XPU devices",
    remedy="drop the eplb section of this group",
    source="vllm/config/parallel.py@0.33.0 L564-568",
    example="`eplb: {}` on c7i.large.",
)
def eplb_on_cpu(*, eplb: bool, gpus_per_node: int, instance_type: str) -> Hits:
    """EPLB needs GPUs."""
    if eplb and gpus_per_node == 0:
        yield Hit(f"EPLB is on and {instance_type} has no GPU")


@rule(
    Severity.WARNING,
    "eplb",
    consequence="The plan leaves it out, since vLLM would refuse it: what it was to do isn't done",
    remedy="leave the field out, or take a release that has it",
    source="vllm/config/parallel.py (EPLBConfig) of 24 releases",
    example="`eplb: {communicator: torch_gloo}` with vLLM 0.19.1: the field came with 0.20.",
)
def eplb_field_not_in_release(
    *, eplb_given: tuple[str, ...], eplb_fields: tuple[str, ...], version: str
) -> Hits:
    """Each release knows its own fields of --eplb-config and refuses others."""
    for name in eplb_given:
        if name not in eplb_fields:
            yield Hit(f"vLLM {version} has no EPLB field {name}", where=f"eplb.{name}")


@rule(
    Severity.ERROR,
    "eplb.communicator",
    consequence="vLLM stops at start with a validation error of --eplb-config",
    remedy="leave communicator out: the plan picks one that works on the transport",
    source="vllm/config/parallel.py (EPLBConfig.communicator)@0.20.2 to @0.33.0",
    example="`eplb: {communicator: gloo}`; torch_gloo is one.",
)
def eplb_communicator_unknown(
    *, communicator_given: str | None, eplb_communicators: tuple[str, ...], version: str
) -> Hits:
    """The communicator must be one of the release's."""
    known = eplb_communicators
    if communicator_given and known and communicator_given not in known:
        yield Hit(
            f"vLLM {version} has no EPLB communicator {communicator_given}",
            remedy=f"leave it out, or take one of {', '.join(known)}",
        )


@rule(
    Severity.ERROR,
    "eplb.communicator",
    consequence="Experts would travel over UCX, which has no GPU RDMA on EFA: rearranging stalls",
    remedy="communicator: torch_gloo (it stages through the CPU and works on EFA)",
    source="vllm distributed/eplb/eplb_communicator.py@0.33.0 L359-365; ai-dynamo/nixl#909",
    example="`eplb: {communicator: nixl}` with `nodes: 2` on p5en.48xlarge.",
)
def eplb_communicator_on_efa(
    *, eplb: bool, communicator: str | None, nodes: int, transport: str, series: tuple[int, int]
) -> Hits:
    """EPLB's nixl communicator always uses NIXL's default backend, UCX, which EFA can't carry."""
    if not eplb or nodes < 2 or transport != "efa" or series < (0, 20):
        return
    if communicator == "nixl":
        yield Hit("EPLB's communicator is nixl and the group's nodes are joined by EFA")
    elif communicator is None and series >= (0, 22):
        yield Hit("EPLB's communicator is left to vLLM, which takes nixl wherever it's installed")


@rule(
    Severity.ERROR,
    "eplb.use_async",
    consequence="vLLM stops at start: the communicator can't work beside the engine's own",
    remedy="use_async: false, or communicator: torch_gloo",
    source="vllm/config/parallel.py@0.33.0 (EPLBConfig validation)",
    example="`eplb: {communicator: pynccl, use_async: true}`.",
)
def eplb_async_communicator(*, eplb: bool, communicator: str | None, use_async: bool) -> Hits:
    """Asynchronous EPLB can't use torch_nccl or pynccl."""
    if eplb and use_async and communicator in ("torch_nccl", "pynccl"):
        yield Hit(f"asynchronous EPLB with the communicator {communicator}")


@rule(
    Severity.WARNING,
    "eplb.use_async",
    consequence="Rearranging can stall in silence: requests go on hanging while /health says 200",
    remedy="use_async: false, or communicator: torch_gloo",
    source="vllm-project/vllm#57883",
    example="`eplb: {communicator: nixl, use_async: true}` over 16 ranks of two nodes.",
)
def eplb_async_nixl_stall(
    *, eplb: bool, communicator: str | None, use_async: bool, nodes: int
) -> Hits:
    """Asynchronous EPLB over nixl has an open report of stalling between nodes."""
    if eplb and use_async and communicator == "nixl" and nodes > 1:
        yield Hit("asynchronous EPLB with the communicator nixl over several nodes")


@rule(
    Severity.ERROR,
    "eplb.log_balancedness_interval",
    consequence="vLLM stops at start with a validation error of --eplb-config",
    remedy="log_balancedness_interval: 1 or more",
    source="vllm/config/parallel.py (EPLBConfig)@0.14.1",
    example="`eplb: {log_balancedness_interval: 0}`.",
)
def eplb_log_interval(*, log_balancedness_interval: int | None) -> Hits:
    """The interval of the balancedness line must be above 0."""
    if log_balancedness_interval is not None and log_balancedness_interval <= 0:
        yield Hit(f"log_balancedness_interval is {log_balancedness_interval}")


@rule(
    Severity.INFO,
    _REDUNDANT,
    consequence="That memory is gone for the KV cache of every GPU of the group",
    remedy="fewer redundant experts, if the KV cache is what runs out",
    source="vllm docs/serving/expert_parallel_deployment.md@0.33.0; vllm-project/vllm#25597",
    example="32 redundant experts of DeepSeek-V3 over 16 ranks take 4.8 GiB of each GPU.",
)
def eplb_redundant_memory(
    *, eplb: bool, redundant: int, ranks: int, memory_items: Mapping[str, float]
) -> Hits:
    """Redundant experts are whole copies of experts in GPU memory."""
    gib = memory_items.get("redundant experts", 0.0)
    if eplb and redundant and gib:
        yield Hit(f"{redundant} redundant experts over {ranks} ranks take {gib:.1f} GiB per GPU")


@rule(
    Severity.ERROR,
    "all2all_backend",
    consequence="DeepEP's host code asserts num_experts % num_ranks == 0: every rank stops",
    remedy="another number of nodes or ranks, EPLB with redundant experts that fill up, or"
    " all2all_backend: allgather_reducescatter",
    source="DeepEP csrc/deep_ep.cpp@567632d; awslabs/awsome-distributed-ai expert-parallelism",
    example="160 experts with deepep_high_throughput over 64 ranks.",
)
def deepep_uneven_experts(*, backend: str, experts: int, redundant: int, ranks: int) -> Hits:
    """DeepEP needs the same number of experts on every rank."""
    uneven = experts and ranks > 1 and (experts + redundant) % ranks
    if backend in _DEEPEP and uneven:
        yield Hit(f"{backend} with {experts + redundant} experts over {ranks} ranks")


@rule(
    Severity.ERROR,
    "nodes",
    consequence="Some ranks hold no expert: they are paid for and the kernels have no such case",
    remedy="fewer ranks per group and more replicas, or EPLB with redundant experts",
    source="vllm fused_moe/layer.py@0.33.0 (determine_expert_map)",
    example="Mixtral's 8 experts over 16 ranks.",
)
def more_ranks_than_experts(
    *, expert_parallel: bool, experts: int, redundant: int, ranks: int
) -> Hits:
    """Every expert-parallel rank needs at least one expert."""
    if expert_parallel and experts and ranks > experts + redundant:
        yield Hit(f"{ranks} expert-parallel ranks share {experts + redundant} experts")


@rule(
    Severity.WARNING,
    "expert_placement_strategy",
    consequence="vLLM warns in its log and places experts linearly",
    remedy="leave expert_placement_strategy out",
    source="vllm fused_moe/expert_map_manager.py@0.33.0 L116-148",
    example="`expert_placement_strategy: round_robin` for Qwen3 (one expert group), or with EPLB.",
)
def placement_without_effect(
    *, placement: str, expert_groups: int, eplb: bool, redundant: int, backend: str, ranks: int,
    data_parallel_size: int, experts: int,
) -> Hits:  # fmt: skip
    """round_robin needs several expert groups, no EPLB and a backend that keeps its order."""
    if placement != "round_robin":
        return
    reasons = []
    if experts and expert_groups < 2:
        reasons.append("the model has one expert group")
    if eplb or redundant:
        reasons.append("EPLB places experts itself")
    if data_parallel_size > 1 and backend not in ("deepep_low_latency", "nixl_ep"):
        reasons.append(f"{backend} wants experts in order")
    if ranks < 2:
        reasons.append("one rank holds every expert")
    if reasons:
        yield Hit(f"expert_placement_strategy round_robin has no effect: {'; '.join(reasons)}")


@rule(
    Severity.ERROR,
    "enable_dbo",
    consequence="vLLM stops at start: dual-batch overlap is only supported with other backends",
    remedy="enable_dbo: false, or one of deepep_low_latency, deepep_high_throughput, nixl_ep",
    source="vllm/config/vllm.py@0.33.0 L2180-2203",
    example="`enable_dbo: true` with allgather_reducescatter.",
)
def dbo_backend(*, dual_batch_overlap: bool, backend: str, gpus_per_node: int) -> Hits:
    """Dual-batch overlap needs a backend whose dispatch can run beside the other half's compute."""
    if dual_batch_overlap and gpus_per_node and backend not in _OVERLAPPING:
        yield Hit(f"dual-batch overlap is on and the backend is {backend}")


@rule(
    Severity.WARNING,
    "enable_dbo",
    consequence="vLLM turns it off with a warning",
    remedy="enable_dbo: false",
    source="vllm platforms/cpu.py@0.33.0 L363-365",
    example="`enable_dbo: true` on c7i.large.",
)
def dbo_on_cpu(*, dual_batch_overlap: bool, gpus_per_node: int) -> Hits:
    """Dual-batch overlap is for GPUs."""
    if dual_batch_overlap and gpus_per_node == 0:
        yield Hit("dual-batch overlap is on and the group has no GPU")


RULES = (
    eplb_uneven_split,
    eplb_without_expert_parallel,
    eplb_on_cpu,
    eplb_field_not_in_release,
    eplb_communicator_unknown,
    eplb_communicator_on_efa,
    eplb_async_communicator,
    eplb_async_nixl_stall,
    eplb_log_interval,
    eplb_redundant_memory,
    deepep_uneven_experts,
    more_ranks_than_experts,
    placement_without_effect,
    dbo_backend,
    dbo_on_cpu,
)
