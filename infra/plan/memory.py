"""What one GPU holds, item by item, before anything is bought.

`plan_memory` follows vLLM: `--gpu-memory-utilization` of the GPU's total is requested; weights, the
peak of the profiling run, CUDA graphs and what appears outside torch are taken from it; the rest is
KV cache. A plan that doesn't fit says why; `infra.plan.memory_nearest` says which near ones would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.plan import memory_runtime as runtime
from infra.plan.memory_activation import Profile, peak, second_model_runner
from infra.plan.memory_kv import DEFAULT_BLOCK_TOKENS, KvLayout, KvLimits, kv_layout
from infra.plan.memory_weights import Sharding, weights, with_online

if TYPE_CHECKING:
    from infra.catalog.gpus import Gpu
    from infra.catalog.models import ModelShape

GIB = 2**30
_LARGE_GPU_GIB = 70
_BATCHED_DEFAULT_SINCE = (0, 20)
_UTILIZATION_092_SINCE = (0, 20)
_LINEAR_TRANSIENT_SINCE = (0, 26)
_COUNTS_IN_FLIGHT_SINCE = (0, 26)
"""Of 0.26 it was measured and read; of 0.14 to 0.25, which schedule ahead as well, it was not."""


@dataclass(frozen=True)
class MemoryRequest:
    """A group's settings that decide memory. None leaves a setting to vLLM's own default."""

    model: ModelShape
    gpu: Gpu
    release: tuple[int, int]
    tensor_parallel_size: int = 1
    data_parallel_size: int = 1
    expert_parallel: bool = True
    nodes: int = 1
    all2all_backend: str = "allgather_reducescatter"
    max_model_len: int | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    gpu_memory_utilization: float | None = None
    kv_cache_memory_bytes: int | None = None
    """Taken as it is: vLLM then looks at no share of the GPU."""
    kv_cache_dtype: str = "auto"
    quantization: str | None = None
    enforce_eager: bool = False
    cudagraph_mode: str | None = None
    num_redundant_experts: int | None = None
    """None: EPLB off. 0: EPLB on without redundant experts."""
    dual_batch_overlap: bool = False
    block_size: int | None = None
    deepep_buffer_mib: int = 1024
    hybrid_kv_cache: bool = True
    transfers_kv: bool = False
    """A prefill or decode group: NIXL registers its KV cache."""

    @property
    def cut(self) -> Sharding:
        """The parallelism alone."""
        return Sharding(
            self.tensor_parallel_size,
            self.data_parallel_size,
            self.expert_parallel,
            self.num_redundant_experts,
        )


@dataclass(frozen=True)
class Effective:
    """The values vLLM ends up with where the settings left them open."""

    max_model_len: int
    max_num_batched_tokens: int
    max_num_seqs: int
    gpu_memory_utilization: float
    cudagraph_mode: str


@dataclass(frozen=True)
class MemoryItem:
    """One line of the plan. `part` is weights, activation, cuda_graph, non_torch or kv_cache."""

    part: str
    name: str
    gib: float


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of the fullest GPU of a group, in GiB (2^30 bytes)."""

    gpu_total_gib: float
    requested_gib: float
    free_at_start_gib: float
    weights_gib: float
    peak_activation_gib: float
    cuda_graph_gib: float
    non_torch_gib: float
    kv_cache_gib: float
    kv_cache_tokens: int
    kv_bytes_per_token: int
    kv_block_tokens: int
    full_length_requests: float
    effective: Effective
    peak_phase: str
    items: tuple[MemoryItem, ...]
    problems: tuple[str, ...]
    cautions: tuple[str, ...]
    """Where vLLM itself is known to come out lower than this plan."""

    @property
    def fits(self) -> bool:
        """Whether vLLM would start with this plan."""
        return not self.problems


def effective(request: MemoryRequest) -> Effective:
    """Fill in vLLM's defaults: they depend on the release, the GPU and the backend."""
    large = request.gpu.total_gib >= _LARGE_GPU_GIB and request.gpu.name != "A100"
    tokens = request.max_num_batched_tokens
    if tokens is None:
        batched = (
            request.all2all_backend in ("deepep_low_latency", "nixl_ep")
            and request.data_parallel_size > 1
            and request.release >= _BATCHED_DEFAULT_SINCE
        )
        tokens = 256 if batched else 8192 if large else 2048
    seqs = request.max_num_seqs
    if seqs is None:
        seqs = min(1024 if large else 256, tokens)
    length = request.max_model_len or request.model.max_position
    mode = "NONE" if request.enforce_eager else request.cudagraph_mode or "FULL_AND_PIECEWISE"
    if request.all2all_backend == "deepep_high_throughput" and request.data_parallel_size > 1:
        mode = "NONE"  # vLLM turns graphs off itself: the kernels synchronise with the CPU
    default = 0.92 if request.release >= _UTILIZATION_092_SINCE else 0.9
    return Effective(length, tokens, seqs, request.gpu_memory_utilization or default, mode)


def plan_memory(request: MemoryRequest) -> MemoryPlan:
    """The memory of the fullest GPU of the group."""
    used = effective(request)
    highest = peak(request.model, request.cut, _profile(request, used))
    items = [
        *_weight_items(request),
        *(MemoryItem("activation", name, size / GIB) for name, size in highest.parts if size),
        *_graph_items(request, used),
        *_non_torch_items(request, used),
    ]
    parts = _sums(items)
    requested = used.gpu_memory_utilization * request.gpu.total_gib
    kv_gib = requested - sum(parts.values())
    if request.kv_cache_memory_bytes is not None:
        kv_gib = request.kv_cache_memory_bytes / GIB
        requested = kv_gib + sum(parts.values())
    layout = kv_layout(request.model, _limits(request, used))
    free = request.gpu.total_gib - runtime.before_start_bytes(request.cut) / GIB
    space = _Space(requested, free, kv_gib, request.kv_cache_memory_bytes is not None)
    kv_bytes = max(0.0, kv_gib) * GIB
    items.append(MemoryItem("kv_cache", "KV cache", max(0.0, kv_gib)))
    return MemoryPlan(
        gpu_total_gib=request.gpu.total_gib,
        requested_gib=requested,
        free_at_start_gib=free,
        weights_gib=parts["weights"],
        peak_activation_gib=parts["activation"],
        cuda_graph_gib=parts["cuda_graph"],
        non_torch_gib=parts["non_torch"],
        kv_cache_gib=kv_gib,
        kv_cache_tokens=layout.tokens(kv_bytes),
        kv_bytes_per_token=layout.bytes_per_token,
        kv_block_tokens=layout.block_tokens,
        full_length_requests=layout.blocks(kv_bytes) / layout.blocks_per_request,
        effective=used,
        peak_phase=highest.name,
        items=tuple(items),
        problems=tuple(_problems(space, layout, used)),
        cautions=tuple(_cautions(request, parts["cuda_graph"])),
    )


def requests_that_fit(request: MemoryRequest, plan: MemoryPlan, context_tokens: int) -> int:
    """Requests of `context_tokens` tokens that one GPU's cache holds at the same time."""
    layout = kv_layout(request.model, _limits(request, plan.effective))
    return layout.requests(max(0.0, plan.kv_cache_gib) * GIB, context_tokens)


def _limits(request: MemoryRequest, used: Effective) -> KvLimits:
    return KvLimits(
        max_model_len=used.max_model_len,
        max_num_batched_tokens=used.max_num_batched_tokens,
        tensor_parallel_size=request.tensor_parallel_size,
        kv_cache_dtype=request.kv_cache_dtype,
        block_tokens=request.block_size or DEFAULT_BLOCK_TOKENS,
        one_kind=not request.hybrid_kv_cache,
        batches_in_flight=2 if request.release >= _COUNTS_IN_FLIGHT_SINCE else 1,
    )


def _profile(request: MemoryRequest, used: Effective) -> Profile:
    return Profile(
        max_num_batched_tokens=used.max_num_batched_tokens,
        max_num_seqs=used.max_num_seqs,
        max_model_len=used.max_model_len,
        all2all_backend=request.all2all_backend,
        gpu_sms=request.gpu.sms,
        block_tokens=request.block_size or DEFAULT_BLOCK_TOKENS,
        release=request.release,
        quantization_method=with_online(request.model, request.quantization).method,
        dual_batch_overlap=request.dual_batch_overlap,
    )


def _weight_items(request: MemoryRequest) -> list[MemoryItem]:
    held = weights(request.model, request.cut, request.quantization)
    named = (
        ("experts", held.experts),
        ("redundant experts", held.redundant_experts),
        ("EPLB transfer buffer and load window", held.eplb),
        ("attention, dense and shared layers", held.shared),
        ("embeddings", held.embeddings),
    )
    return [MemoryItem("weights", name, size / GIB) for name, size in named if size]


def _graph_items(request: MemoryRequest, used: Effective) -> list[MemoryItem]:
    overlap = request.dual_batch_overlap
    if request.release < runtime.GRAPHS_COUNTED_SINCE or second_model_runner(
        request.model, request.release, dual_batch_overlap=overlap
    ):
        return []
    graphs = runtime.graph_count(
        used.cudagraph_mode, used.max_num_seqs, used.max_num_batched_tokens
    )
    size = runtime.graph_bytes(request.model, request.cut, graphs)
    return [MemoryItem("cuda_graph", f"{graphs} CUDA graphs", size / GIB)] if graphs else []


def _non_torch_items(request: MemoryRequest, used: Effective) -> list[MemoryItem]:
    parts = runtime.non_torch_parts(request.cut, eager=request.enforce_eager)
    tokens = used.max_num_batched_tokens
    if request.release < _BATCHED_DEFAULT_SINCE:
        tokens = min(tokens, 256)  # VLLM_MOE_DP_CHUNK_SIZE
    staged = request.deepep_buffer_mib * 2**20
    use = runtime.All2AllUse(request.all2all_backend, request.nodes, tokens, staged)
    buffers = runtime.all2all_buffers(request.model, request.cut, use)
    # vLLM's connector registers the KV cache where it lies: no copy, no further memory of the GPU.
    registered = (("NIXL registration, in place", 0),) if request.transfers_kv else ()
    every = (*parts, *buffers, *registered)
    return [MemoryItem("non_torch", name, size / GIB) for name, size in every]


def _sums(items: list[MemoryItem]) -> dict[str, float]:
    parts: dict[str, float] = {"weights": 0, "activation": 0, "cuda_graph": 0, "non_torch": 0}
    for item in items:
        parts[item.part] += item.gib
    return parts


def _cautions(request: MemoryRequest, cuda_graph_gib: float) -> list[str]:
    if not (request.model.linear and cuda_graph_gib and request.release >= _LINEAR_TRANSIENT_SINCE):
        return []
    caution = (
        "vLLM 0.26 and later counts a transient of its profiling run as CUDA graphs on models"
        " with linear attention: the KV cache can come out 18 to 24 % smaller (vllm#50780);"
        " VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0 with a lower gpu_memory_utilization avoids it"
    )
    return [caution]


@dataclass(frozen=True)
class _Space:
    """GiB of a GPU: asked for, free at start, left for KV; given: KV was set, not what is left."""

    requested: float
    free: float
    kv_cache: float
    given: bool


def _problems(space: _Space, layout: KvLayout, used: Effective) -> list[str]:
    requested, free, kv_gib, given = space.requested, space.free, space.kv_cache, space.given
    problems = []
    if requested > free:
        asks = f"gpu_memory_utilization {used.gpu_memory_utilization} asks"
        if given:
            asks = "kv_cache_memory_bytes with weights, activations and buffers asks"
        problems.append(
            f"{asks} for {requested:.1f} GiB,"
            f" but only about {free:.1f} GiB are free once CUDA and NCCL have started"
        )
    needed = layout.blocks_per_request * layout.bytes_per_block / GIB
    if kv_gib <= 0:
        problems.append(
            f"weights, activations and buffers exceed the {requested:.1f} GiB of the GPU that vLLM"
            f" may use by {-kv_gib:.1f} GiB; nothing is left for the KV cache"
        )
    elif kv_gib < needed:
        problems.append(
            f"{kv_gib:.1f} GiB are left for the KV cache, but one request of"
            f" {used.max_model_len} tokens needs {needed:.1f} GiB"
        )
    return problems
