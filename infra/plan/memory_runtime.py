"""Memory that is neither weights nor activations nor KV: CUDA graphs, kernels, communication."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from infra.plan.memory_activation import BATCHED_BACKENDS

if TYPE_CHECKING:
    from infra.catalog.models import ModelShape
    from infra.plan.memory_weights import Sharding

GIB = 2**30
GRAPH_NODE_BYTES = 13824
"""Device memory of one kernel in a captured graph, with the kernel counts below.

One set of numbers for all models, from three of vLLM's own estimates: Qwen3-8B 0.52 GiB (51 + 35
graphs), Qwen3.5-35B-A3B 1.62 GiB (51 + 35), Qwen3-30B-A3B with data parallelism 2.18 GiB (51 + 51).
"""
ATTENTION_KERNELS, LINEAR_ATTENTION_KERNELS, MLP_KERNELS = 9, 16, 4
MOE_KERNELS, DISPATCH_KERNELS = 20, 6
"""Routing, alignment and expert kernels; collectives around them where tokens change ranks."""
KERNEL_CODE_BYTES = int(0.07 * GIB)
"""Code of the kernels that the profiling run loads (measured, eager)."""
COMPILED_CODE_BYTES = int(0.07 * GIB)
"""Code that torch.compile adds (measured)."""
NCCL_COMMUNICATOR_BYTES = int(0.47 * GIB)
"""One NCCL communicator with its channels' buffers (measured on NVLink, NCCL 2.28)."""
CUDA_CONTEXT_BYTES = int(0.50 * GIB)
"""CUDA context of the worker process."""
GRAPHS_COUNTED_SINCE = (0, 21)
"""Before, vLLM captured graphs into the memory outside `--gpu-memory-utilization`."""


def capture_sizes(max_num_seqs: int, max_num_batched_tokens: int) -> tuple[int, ...]:
    """Batch sizes that vLLM captures graphs for by default, rising."""
    top = min(max_num_seqs * 2, 512, max_num_batched_tokens)
    sizes = {size for size in (1, 2, 4) if size <= top}
    sizes.update(range(8, min(top + 1, 256), 8))
    sizes.update(range(256, top + 1, 16))
    if max_num_batched_tokens <= top:
        sizes.add(max_num_batched_tokens)
    return tuple(sorted(sizes))


def graph_count(mode: str, max_num_seqs: int, max_num_batched_tokens: int) -> int:
    """Graphs that a CUDA-graph mode captures.

    Args:
        mode: `NONE`, `PIECEWISE`, `FULL`, `FULL_DECODE_ONLY` or `FULL_AND_PIECEWISE` (default).
        max_num_seqs: `--max-num-seqs`; bounds the full graphs, which hold one token a request.
        max_num_batched_tokens: `--max-num-batched-tokens`.
    """
    sizes = capture_sizes(max_num_seqs, max_num_batched_tokens)
    full = len([size for size in sizes if size <= max_num_seqs])
    counts = {
        "NONE": 0,
        "PIECEWISE": len(sizes),
        "FULL": full,
        "FULL_DECODE_ONLY": full,
        "FULL_AND_PIECEWISE": full + len(sizes),
    }
    return counts[mode]


def graph_bytes(model: ModelShape, cut: Sharding, graphs: int) -> int:
    """Device memory of the captured graphs, as vLLM estimates it."""
    moe, linear = len(model.moe_layers), model.layers_of("linear")
    in_moe = MOE_KERNELS + (DISPATCH_KERNELS if cut.data_parallel_size > 1 else 0)
    in_moe += MLP_KERNELS if model.experts.shared_intermediate else 0
    nodes = linear * LINEAR_ATTENTION_KERNELS + (model.num_layers - linear) * ATTENTION_KERNELS
    nodes += (model.num_layers - moe) * MLP_KERNELS + moe * in_moe
    return graphs * nodes * GRAPH_NODE_BYTES


@dataclass(frozen=True)
class All2AllUse:
    """How a group uses its backend.

    `tokens`: those of one rank in one dispatch (`--max-num-batched-tokens`, or
    VLLM_MOE_DP_CHUNK_SIZE up to 0.19). `staged_bytes`: VLLM_DEEPEP_BUFFER_SIZE_MB in bytes.
    """

    backend: str
    nodes: int
    tokens: int
    staged_bytes: int


def all2all_buffers(
    model: ModelShape, cut: Sharding, use: All2AllUse
) -> tuple[tuple[str, int], ...]:
    """Buffers that a backend allocates outside torch's allocator, in bytes per GPU."""
    if not cut.expert_parallel or cut.data_parallel_size == 1:
        return ()
    nvlink = ("DeepEP NVLink buffer", use.staged_bytes)
    if use.backend in BATCHED_BACKENDS:
        return (
            nvlink,
            ("low-latency dispatch buffer", low_latency_bytes(model, cut, use.tokens)),
        )
    if use.backend == "deepep_high_throughput":
        # Between nodes the high-throughput kernels stage in a second buffer for RDMA.
        return (nvlink, ("DeepEP RDMA buffer", use.staged_bytes)) if use.nodes > 1 else (nvlink,)
    if use.backend == "deepep_v2":
        # Every rank may send all its tokens here: a row of hidden states each way.
        rows = use.tokens * cut.expert_ranks
        return (("DeepEP V2 elastic buffer", 2 * rows * model.hidden_size * 2),)
    return ()


def low_latency_bytes(model: ModelShape, cut: Sharding, tokens: int) -> int:
    """DeepEP `LowLatencyLayout`: two send and two receive buffers of every expert's tokens."""
    experts = model.experts.count + (cut.num_redundant_experts or 0)
    per_token = 2 * model.hidden_size + 4 * ceil(model.hidden_size / 128)
    return 4 * experts * tokens * per_token


def before_start_bytes(cut: Sharding) -> int:
    """Memory that is gone before vLLM looks: CUDA context and the communicators of the groups."""
    opened = 3 * int(cut.tensor_parallel_size > 1) + 2 * int(cut.data_parallel_size > 1)
    opened += int(cut.expert_parallel and cut.expert_ranks > 1)
    opened += int(cut.num_redundant_experts is not None)
    return CUDA_CONTEXT_BYTES + opened * NCCL_COMMUNICATOR_BYTES


def non_torch_parts(cut: Sharding, *, eager: bool) -> list[tuple[str, int]]:
    """Memory outside torch that appears between vLLM's first look and the end of profiling."""
    parts = [("kernel code", KERNEL_CODE_BYTES)]
    if not eager:
        parts.append(("compiled kernel code", COMPILED_CODE_BYTES))
    if cut.num_redundant_experts is not None:
        # EPLB moves experts point to point: two more communicators open in the profiling run.
        parts.append(("EPLB communicators", 2 * NCCL_COMMUNICATOR_BYTES))
    return parts
