"""What one cut of a group into ranks asks of the backends and of the memory plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra import catalog
from infra.plan import memory, software, topology
from infra.plan.backends import BackendChoice, BackendRequest

if TYPE_CHECKING:
    from infra.plan.request import GroupRequest, Request
    from infra.plan.topology import Cut

_MEMORY_SHARE = 0.9
"""Stated on GPU types: vLLM's own default was 0.9 and is 0.92 since 0.20."""


def backend_request(
    request: Request, group: GroupRequest, cut: Cut, library: software.DeepEp
) -> BackendRequest:
    """What chooses the all2all backend. library: the DeepEP that the runtime brings."""
    instance = catalog.instance_type(group.instance_type)
    shape = request.model_shape
    quantized = bool(group.options.quantization)
    sizes = {}
    if shape is not None:
        quantized = quantized or shape.quantization.method != "none"
        sizes = {
            "hidden_size": shape.hidden_size,
            "experts_per_token": shape.experts.per_token,
            "experts": shape.experts.count
            + (group.eplb.num_redundant_experts if group.eplb else 0),
        }
    return BackendRequest(
        requested=group.all2all_backend,
        version=request.vllm.version,
        role=group.role,
        nodes=group.nodes,
        ranks=cut.expert_parallel_size,
        data_parallel_size=cut.data_parallel_size,
        transport=topology.transport(instance, group.nodes),
        capability=catalog.gpu_of(instance).capability if instance.gpu_count else (0, 0),
        quantized=quantized,
        eplb=group.eplb is not None,
        enforce_eager=bool(group.options.enforce_eager),
        deepep=library,
        allow_fallback=group.allow_fallback,
        runtime=software.runtime(request.vllm, instance),
        **sizes,
    )


def memory_request(
    request: Request, group: GroupRequest, cut: Cut, backend: BackendChoice
) -> memory.MemoryRequest | None:
    """None on CPU types, and where the model's shape isn't known."""
    instance, options = catalog.instance_type(group.instance_type), group.options
    if not instance.gpu_count or request.model_shape is None:
        return None
    runs_eager = eager(group, backend, gpus=True)
    return memory.MemoryRequest(
        model=request.model_shape,
        gpu=catalog.gpu_of(instance),
        release=catalog.release(request.vllm.version).series,
        tensor_parallel_size=cut.tensor_parallel_size,
        data_parallel_size=cut.data_parallel_size,
        expert_parallel=cut.enable_expert_parallel,
        nodes=group.nodes,
        all2all_backend=backend.chosen,
        max_model_len=options.max_model_len,
        max_num_batched_tokens=options.max_num_batched_tokens,
        max_num_seqs=options.max_num_seqs,
        gpu_memory_utilization=utilization(group, gpus=True),
        kv_cache_memory_bytes=options.kv_cache_memory_bytes,
        kv_cache_dtype=options.kv_cache_dtype,
        quantization=options.quantization,
        enforce_eager=runs_eager,
        cudagraph_mode=graph_mode(group, backend, eager=runs_eager),
        num_redundant_experts=group.eplb.num_redundant_experts if group.eplb else None,
        dual_batch_overlap=options.enable_dbo,
        block_size=options.block_size,
        transfers_kv=group.role != "serve",
    )


def utilization(group: GroupRequest, *, gpus: bool) -> float | None:
    """What is stated: the memory plan relies on it. Nothing on CPU, or where the cache is given."""
    given = group.options.gpu_memory_utilization
    if given is not None or not gpus or group.options.kv_cache_memory_bytes is not None:
        return given
    return _MEMORY_SHARE


def eager(group: GroupRequest, backend: BackendChoice, *, gpus: bool) -> bool:
    """As asked for; else where the backend needs it, and on CPU types, which have no compiler."""
    given = group.options.enforce_eager
    if given is not None:
        return given or backend.enforce_eager
    return backend.enforce_eager or not gpus


def graph_mode(group: GroupRequest, backend: BackendChoice, *, eager: bool) -> str | None:
    """The CUDA-graph mode that is stated, by role; None leaves it to vLLM.

    Prefill on high-throughput kernels runs without graphs anyway: vLLM turns them off itself.
    """
    given = (group.options.compilation_config or {}).get("cudagraph_mode")
    if isinstance(given, str):
        return given
    if eager or group.role != "decode" or not backend.cuda_graphs:
        return None
    return "FULL_DECODE_ONLY"
