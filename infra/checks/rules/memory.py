"""Whether the model fits: GPU memory, host memory, disks."""

# ruff: noqa: PLR0913 - a rule takes each fact it depends on as a plain value

from __future__ import annotations

from infra.checks.finding import Severity
from infra.checks.rule import Hit, Hits, rule

_PROFILE = "vllm v1/worker/gpu_worker.py@0.26.0 (determine_available_memory)"


@rule(
    Severity.ERROR,
    "",
    consequence="vLLM stops after it has loaded the weights, minutes into paid time",
    remedy="fp8 weights, more nodes, fewer redundant experts, a smaller batch or a shorter context",
    source=_PROFILE,
    example="DeepSeek-V3 on one p5.48xlarge: 101 GiB of weights per GPU of 79 GiB.",
)
def memory_does_not_fit(*, memory_problems: tuple[str, ...], nearest: tuple[str, ...]) -> Hits:
    """Weights, activations, graphs and buffers must leave room for one request's KV cache."""
    remedy = "the nearest that fit: " + "; or ".join(nearest) if nearest else ""
    for problem in memory_problems:
        yield Hit(problem, remedy=remedy)


@rule(
    Severity.WARNING,
    "gpu_memory_utilization",
    consequence="The KV cache can come out smaller than planned",
    remedy="read the KV cache's size from vLLM's log at first start",
    source="vllm-project/vllm#50780",
    example="Qwen3-Next (linear attention) on vLLM 0.26 or later with CUDA graphs.",
)
def memory_uncertain(*, memory_cautions: tuple[str, ...]) -> Hits:
    """Where vLLM itself is known to come out lower than the memory plan."""
    for caution in memory_cautions:
        yield Hit(caution)


@rule(
    Severity.WARNING,
    "max_model_len",
    consequence="A second long request on that rank preempts the first, which starts over",
    remedy="a shorter max_model_len, kv_cache_dtype: fp8, or more nodes",
    source="vllm v1/core/kv_cache_utils.py@0.33.0 (maximum concurrency)",
    example="A context of 163840 tokens and a cache of 200000.",
)
def few_full_length_requests(
    *, full_length_requests: float | None, max_model_len: int | None,
    memory_problems: tuple[str, ...],
) -> Hits:  # fmt: skip
    """A rank's KV cache should hold at least two requests of full length."""
    count = full_length_requests
    if count is not None and not memory_problems and count < 2:
        yield Hit(f"the KV cache of a rank holds {count:.1f} requests of {max_model_len} tokens")


@rule(
    Severity.INFO,
    "model.config",
    consequence="Memory is not planned for this group: vLLM finds out at its first start",
    remedy="give the model's config.json with model.config",
    source=_PROFILE,
    example="A model whose config.json has a form that no memory rule covers.",
)
def memory_not_planned(*, gpus_per_node: int, experts: int, architecture: str) -> Hits:
    """The memory plan needs the model's shape."""
    if gpus_per_node and not experts:
        yield Hit(f"the shape of the model ({architecture}) isn't known")


@rule(
    Severity.ERROR,
    "kv_cache_memory_bytes",
    consequence="The kernel ends a rank when memory runs out, and with it the group",
    remedy="a larger type, fewer ranks per node, or a smaller kv_cache_memory_bytes",
    source="vllm platforms/cpu.py@0.33.0 L338-344; EC2 DescribeInstanceTypes",
    example="4 GiB of KV cache per rank and 2 ranks on c7i.large, which has 4 GiB.",
)
def host_memory_exceeded(
    *, gpus_per_node: int, host_memory_gib: float, kv_cache_memory_bytes: int | None,
    data_parallel_size_local: int, instance_type: str, weights_gib: float, nodes: int,
) -> Hits:  # fmt: skip
    """On CPU the KV caches of a node's ranks and its part of the weights share its memory."""
    if gpus_per_node or not host_memory_gib:
        return
    caches = (kv_cache_memory_bytes or 0) * data_parallel_size_local / 2**30
    needed = caches + weights_gib / max(nodes, 1)
    if needed > host_memory_gib:
        yield Hit(
            f"KV caches of {caches:.1f} GiB and weights of {weights_gib / max(nodes, 1):.1f} GiB"
            f" per node; {instance_type} has {host_memory_gib:.0f} GiB"
        )


@rule(
    Severity.WARNING,
    "instance_type",
    consequence="Weights go to the root volume, whose default 125 MB/s takes 93 minutes for 700 GB",
    remedy="a type with instance store large enough, or model.source on S3 with"
    " load_format: runai_streamer, which streams past the disk",
    source="EC2 user guide: instance store; run-ai streamer benchmarks.md",
    example="A 700 GiB model on a type with 2 x 450 GB of instance store.",
)
def weights_exceed_local_disks(
    *, weights_gib: float, local_disk_gb: int, instance_type: str, gpus_per_node: int
) -> Hits:
    """The model's files should fit the instance store of a node."""
    needed = weights_gib * 2**30 / 1e9
    if gpus_per_node and needed > local_disk_gb:
        yield Hit(f"{needed:.0f} GB of weights; {instance_type} has {local_disk_gb} GB of disks")


RULES = (
    memory_does_not_fit,
    memory_uncertain,
    few_full_length_requests,
    memory_not_planned,
    host_memory_exceeded,
    weights_exceed_local_disks,
)
