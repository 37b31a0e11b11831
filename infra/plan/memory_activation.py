"""The most memory that vLLM's profiling run holds beside the weights.

vLLM runs the model once with `max_num_batched_tokens` tokens and the sampler once with
`max_num_seqs` rows, and keeps the peak of torch's allocator free. The peak is that of one phase:
dense MLP, attention, MoE or sampler, each on top of what stays allocated. Read from vLLM 0.26:
`v1/worker/gpu_worker.py` (determine_available_memory), `v1/worker/gpu_model_runner.py`
(profile_run), `v1/worker/workspace.py`, `fused_moe/experts/*` (workspace_shapes),
`layers/attention/mla_attention.py` (chunked prefill), `v1/sample/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.catalog.models import ModelShape
    from infra.plan.memory_weights import Sharding

CUBLAS_WORKSPACE_BYTES = 32 * 2**20
"""PyTorch gives cuBLAS 32 MiB from its own allocator on Hopper and later."""
MLA_CONTEXT_TOKENS = 64 * 1024
"""vLLM caps the context that one MLA prefill chunk expands at 64 Ki tokens."""
BATCHED_BACKENDS = ("deepep_low_latency", "nixl_ep")
"""Backends that hand each expert its own padded batch."""
DISPATCHING_BACKENDS = ("deepep_high_throughput", "deepep_v2", "mori_high_throughput")
"""Backends that send a token only to the ranks of its experts."""
BATCH_CHUNK_TOKENS, BATCH_UNCHUNKED_SINCE = 256, (0, 20)
"""Up to 0.19 such a backend worked through VLLM_MOE_DP_CHUNK_SIZE tokens of a rank at a time."""
MOE_CHUNK_TOKENS, UNCHUNKED_SINCE = 32 * 1024, (0, 18)
"""Up to 0.17 the experts worked through VLLM_FUSED_MOE_CHUNK_SIZE tokens at a time."""
V2_RUNNER_ARCHITECTURES = frozenset(
    {"DeepseekV2ForCausalLM", "GraniteMoeForCausalLM", "Qwen2MoeForCausalLM"}
)
"""MoE architectures that run on vLLM's second model runner, whose profiling skips top-k/top-p."""
V2_RUNNER_SINCE = (0, 26)


def second_model_runner(
    model: ModelShape, release: tuple[int, int], *, dual_batch_overlap: bool
) -> bool:
    """Whether vLLM serves this MoE model with model runner V2.

    V2 profiles its sampler without top-k, top-p and logprobs, and doesn't estimate CUDA graphs.
    """
    chosen = model.architecture in V2_RUNNER_ARCHITECTURES and release >= V2_RUNNER_SINCE
    return chosen and not dual_batch_overlap


@dataclass(frozen=True)
class Profile:
    """What the profiling run depends on beside the model and its sharding."""

    max_num_batched_tokens: int
    max_num_seqs: int
    max_model_len: int
    all2all_backend: str
    gpu_sms: int
    block_tokens: int
    release: tuple[int, int]
    quantization_method: str
    dual_batch_overlap: bool = False


@dataclass(frozen=True)
class Phase:
    """Bytes that one phase holds, by what holds them."""

    name: str
    parts: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        """Bytes of the phase."""
        return sum(size for _, size in self.parts)


def peak(model: ModelShape, cut: Sharding, run: Profile) -> Phase:
    """The phase that holds most."""
    return max(phases(model, cut, run), key=lambda phase: phase.total)


def phases(model: ModelShape, cut: Sharding, run: Profile) -> tuple[Phase, ...]:
    """Every phase of the profiling run with what it holds at its peak."""
    workspace = ("MoE kernel workspace", moe_workspace_bytes(model, cut, run))
    cublas = ("cuBLAS workspace", CUBLAS_WORKSPACE_BYTES)
    tokens = run.max_num_batched_tokens
    row = model.hidden_size * model.dtype_bytes
    stream = ("hidden states and residual", 2 * tokens * row)
    found = [
        Phase("attention", (workspace, cublas, stream, *_attention(model, cut, run))),
        Phase("MoE", (workspace, cublas, stream, *_moe(model, cut, run))),
        Phase(
            "sampler",
            (workspace, cublas, ("hidden states", tokens * row), *_sampler(model, run)),
        ),
    ]
    if len(model.moe_layers) < model.num_layers:
        inner = ceil(model.dense_intermediate / cut.tensor_parallel_size)
        mlp = ("dense MLP", 3 * tokens * inner * model.dtype_bytes)
        first_dense_only = model.moe_layers and max(
            i for i in range(model.num_layers) if i not in model.moe_layers
        ) < min(model.moe_layers)
        kept = () if first_dense_only else (workspace,)
        found.append(Phase("dense MLP", (*kept, cublas, stream, mlp)))
    return tuple(found)


def moe_tokens(cut: Sharding, run: Profile) -> int:
    """Tokens that the experts of one rank see in the profiling run."""
    # All-gather brings every rank all tokens. Dispatching backends do as well here: the profiling
    # run's tokens are all alike, so a rank that holds one of their experts gets every one of them.
    return _rank_tokens(run) * cut.data_parallel_size


def _rank_tokens(run: Profile) -> int:
    """Tokens that one rank hands to the experts at once."""
    tokens = run.max_num_batched_tokens
    chunked = run.all2all_backend in BATCHED_BACKENDS and run.release < BATCH_UNCHUNKED_SINCE
    return min(tokens, BATCH_CHUNK_TOKENS) if chunked else tokens


def moe_workspace_bytes(model: ModelShape, cut: Sharding, run: Profile) -> int:
    """Bytes of the two scratch tensors of the experts' kernels; they stay once allocated."""
    hidden, inner = model.hidden_size, model.experts.intermediate
    if not cut.expert_parallel:
        inner = ceil(inner / cut.expert_ranks)
    gate_up = 2 * inner
    buffers = 2 if run.dual_batch_overlap else 1
    if run.all2all_backend in BATCHED_BACKENDS and cut.data_parallel_size > 1:
        physical = model.experts.count + (cut.num_redundant_experts or 0)
        local = ceil(physical / cut.expert_ranks)
        rows = local * _rank_tokens(run) * cut.expert_ranks
        width = max(hidden, gate_up) + inner
        return buffers * rows * width * model.dtype_bytes
    tokens = moe_tokens(cut, run)
    if run.release < UNCHUNKED_SINCE:
        tokens = min(tokens, MOE_CHUNK_TOKENS)
    if run.quantization_method == "mxfp4":
        width = hidden + model.experts.per_token * inner
        return buffers * tokens * width * model.dtype_bytes
    rows = tokens * _experts_hit(model, cut, run)
    width = max(inner, hidden) + max(gate_up, hidden)
    return buffers * rows * width * model.dtype_bytes


def _experts_hit(model: ModelShape, cut: Sharding, run: Profile) -> int:
    """Rows per token: the kernels lay out every chosen expert, also remote ones.

    Only DeepGEMM's, for FP8 behind a backend that dispatches, are told how many rows came. Triton's
    for BF16 aren't: measured with deepep_high_throughput on two GPUs, where they took what they do
    behind all-gather.
    """
    chosen = model.experts.per_token
    dispatched = run.all2all_backend in DISPATCHING_BACKENDS and cut.data_parallel_size > 1
    if dispatched and run.quantization_method == "fp8":
        return ceil(chosen / cut.expert_ranks)
    return chosen


def _attention(model: ModelShape, cut: Sharding, run: Profile) -> list[tuple[str, int]]:
    tokens, size = run.max_num_batched_tokens, model.dtype_bytes
    heads = ceil(model.heads / cut.tensor_parallel_size)
    if model.mla:
        mla = model.mla
        query = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
        latent = mla.cached + (mla.q_lora_rank or 0)
        expanded = heads * (mla.qk_nope_head_dim + mla.v_head_dim)
        context = mla_context_tokens(run)
        return [
            ("MLA prefill context", 0 if model.indexer else context * expanded * size),
            ("queries and latents", tokens * (query + latent) * size),
            ("attention output", tokens * heads * mla.v_head_dim * size),
        ]
    key_value = max(1, model.kv_heads // cut.tensor_parallel_size)
    query = heads * (2 if model.attention_gate else 1)
    width = (query + 2 * key_value + heads) * model.head_dim
    if model.linear:
        linear = model.linear
        mixed = 2 * linear.conv_channels + 3 * linear.value_heads * linear.value_dim
        width = max(width, mixed // cut.tensor_parallel_size)
    return [("queries, keys, values and output", tokens * width * size)]


def mla_context_tokens(run: Profile) -> int:
    """Context tokens that vLLM expands at once in an MLA prefill."""
    wanted = max(8 * run.max_model_len, 4 * run.max_num_seqs * run.block_tokens)
    return max(min(wanted, MLA_CONTEXT_TOKENS), run.max_num_seqs * run.block_tokens)


def _moe(model: ModelShape, cut: Sharding, run: Profile) -> list[tuple[str, int]]:
    tokens, size = run.max_num_batched_tokens, model.dtype_bytes
    seen = moe_tokens(cut, run)
    hidden, inner = model.hidden_size, model.experts.intermediate
    gathered = seen * hidden * size if cut.data_parallel_size > 1 else 0
    routing = seen * (4 * model.experts.count + 8 * model.experts.per_token)
    quantised = 0
    if run.quantization_method == "fp8":
        quantised = seen * hidden + seen * _experts_hit(model, cut, run) * inner
    shared = model.experts.shared_intermediate
    shared = shared if cut.sequence_parallel_moe else ceil(shared / cut.tensor_parallel_size)
    return [
        ("gathered tokens", gathered),
        ("routing", routing),
        ("quantised activations", quantised),
        ("shared expert", tokens * (3 * shared + hidden) * size if shared else 0),
        ("MoE output", tokens * hidden * size),
    ]


def _sampler(model: ModelShape, run: Profile) -> list[tuple[str, int]]:
    rows = min(run.max_num_seqs, run.max_num_batched_tokens)
    logits = rows * model.vocab_size
    hidden = 2 * rows * model.hidden_size * model.dtype_bytes
    if second_model_runner(model, run.release, dual_batch_overlap=run.dual_batch_overlap):
        return [("logits", logits * model.dtype_bytes), ("sampled rows", hidden)]
    programs = min(_next_power_of_2(min(run.gpu_sms, rows)), run.gpu_sms)
    return [
        ("logits", logits * model.dtype_bytes),
        ("logits in fp32, probabilities and noise", 3 * 4 * logits),
        ("top-k/top-p buffer", programs * model.vocab_size * 4),
        ("sampled rows", hidden),
    ]


def _next_power_of_2(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
