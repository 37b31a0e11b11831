"""Bytes of the weights that one GPU holds, part by part, as vLLM lays them out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.catalog.models import ModelShape, Quantization

EPLB_WINDOW_STEPS = 1000
"""Steps of expert load that EPLB keeps on the GPU by default (`window_size`)."""


@dataclass(frozen=True)
class Sharding:
    """How a group splits the model over its GPUs."""

    tensor_parallel_size: int
    data_parallel_size: int
    expert_parallel: bool
    num_redundant_experts: int | None

    @property
    def expert_ranks(self) -> int:
        """GPUs that share the experts: EP = TP x DP, also where they are cut instead."""
        return self.tensor_parallel_size * self.data_parallel_size

    @property
    def sequence_parallel_moe(self) -> bool:
        """With TP and DP together vLLM splits tokens, not shared experts, over the TP ranks."""
        return (
            self.expert_parallel and self.tensor_parallel_size > 1 and self.data_parallel_size > 1
        )


@dataclass(frozen=True)
class Weights:
    """Bytes per GPU; `shared` is everything but routed experts and embeddings."""

    experts: int
    redundant_experts: int
    eplb: int
    shared: int
    embeddings: int

    @property
    def total(self) -> int:
        """All of it: what vLLM logs as `Model loading took …`."""
        return self.experts + self.redundant_experts + self.eplb + self.shared + self.embeddings


def linear_bytes(rows: int, columns: int, method: str, group: int, dtype_bytes: int) -> int:
    """Bytes of one weight of `rows` outputs by `columns` inputs with its scales."""
    elements = rows * columns
    if method == "fp8":
        blocks = ceil(rows / group) * ceil(columns / group) if group else rows
        return elements + 4 * blocks
    if method == "mxfp4":
        return elements // 2 + elements // 32
    if method == "nvfp4":
        return elements // 2 + elements // 16
    if method == "int4":
        return elements // 2 + 2 * elements // (group or columns)
    return elements * dtype_bytes


def mxfp4_hopper_bytes(rows: int, columns: int) -> int:
    """An mxfp4 expert weight after Triton's swizzle for Hopper.

    The packed inputs are padded to 64 bytes, the scales' outputs to 256 (2 x 8 warps x 16).
    """
    values = rows * ceil(columns / 2 / 64) * 64
    return values + ceil(rows / 256) * 256 * ceil(columns / 32)


def with_online(model: ModelShape, quantization: str | None) -> Quantization:
    """The quantisation in effect: `--quantization fp8` changes only an unquantised checkpoint."""
    own = model.quantization
    if own.method == "none" and quantization and quantization.startswith("fp8"):
        block = 128 if quantization == "fp8_per_block" else 0
        return replace(own, method="fp8", group=block)
    return own


def weights(model: ModelShape, cut: Sharding, quantization: str | None = None) -> Weights:
    """Bytes per GPU of the heaviest rank.

    Args:
        model: the shape, with the checkpoint's own quantisation.
        cut: parallelism of the group.
        quantization: value of `--quantization`, if given.
    """
    quant = with_online(model, quantization)
    expert = expert_bytes(model, cut, quant)
    moe = len(model.moe_layers)
    held = _experts_per_rank(model, cut, redundant=0)
    with_redundant = _experts_per_rank(model, cut, redundant=cut.num_redundant_experts or 0)
    eplb = 0
    if cut.num_redundant_experts is not None:
        physical = model.experts.count + cut.num_redundant_experts
        # One layer is staged while experts move; the load of every expert is kept per step.
        eplb = with_redundant * expert + EPLB_WINDOW_STEPS * moe * physical * 4
    return Weights(
        experts=moe * held * expert,
        redundant_experts=moe * (with_redundant - held) * expert,
        eplb=eplb,
        shared=_shared(model, cut, quant),
        embeddings=_embeddings(model, cut),
    )


def expert_bytes(model: ModelShape, cut: Sharding, quant: Quantization) -> int:
    """Bytes of one expert of one layer on one GPU (a slice of it without expert parallelism)."""
    inner, hidden = model.experts.intermediate, model.hidden_size
    if not cut.expert_parallel:
        inner = ceil(inner / cut.expert_ranks)
    if quant.method == "mxfp4":
        total = mxfp4_hopper_bytes(2 * inner, hidden) + mxfp4_hopper_bytes(hidden, inner)
    else:
        form = (quant.method, quant.group, model.dtype_bytes)
        total = linear_bytes(2 * inner, hidden, *form) + linear_bytes(hidden, inner, *form)
    # The kernels of gpt-oss take their biases in fp32.
    return total + (4 * (2 * inner + hidden) if model.experts.bias else 0)


def _experts_per_rank(model: ModelShape, cut: Sharding, redundant: int) -> int:
    count = model.experts.count + redundant
    return ceil(count / cut.expert_ranks) if cut.expert_parallel else count


def _embeddings(model: ModelShape, cut: Sharding) -> int:
    padded = ceil(model.vocab_size / 64) * 64
    one = ceil(padded / cut.tensor_parallel_size) * model.hidden_size * model.dtype_bytes
    return one if model.tied_embeddings else 2 * one


def _shared(model: ModelShape, cut: Sharding, quant: Quantization) -> int:
    tp, hidden = cut.tensor_parallel_size, model.hidden_size

    def mlp(inner: int, part: str, split: int) -> int:
        method = "none" if part in quant.kept else quant.method
        inner = ceil(inner / split)
        form = (method, quant.group, model.dtype_bytes)
        return linear_bytes(2 * inner, hidden, *form) + linear_bytes(hidden, inner, *form)

    dense_layers = model.num_layers - len(model.moe_layers)
    shared_split = 1 if cut.sequence_parallel_moe else tp
    total = dense_layers * mlp(model.dense_intermediate, "dense", tp)
    if model.experts.shared_intermediate:
        total += len(model.moe_layers) * mlp(
            model.experts.shared_intermediate, "shared", shared_split
        )
    router = hidden * model.experts.count * model.dtype_bytes + 4 * model.experts.count
    norms = (2 * model.num_layers + 1) * hidden * model.dtype_bytes
    total += len(model.moe_layers) * router + norms + rope_bytes(model)
    for kind in ("full", "sliding", "chunked"):
        total += model.layers_of(kind) * attention_bytes(model, tp, quant)
    return total + model.layers_of("linear") * linear_attention_bytes(model, tp, quant)


def rope_bytes(model: ModelShape) -> int:
    """The table of cosines and sines, one for the whole model; YaRN keeps it in fp32."""
    width = model.mla.qk_rope_head_dim if model.mla else model.head_dim
    return model.max_position * width * (4 if model.rope_fp32 else model.dtype_bytes)


def attention_bytes(model: ModelShape, tp: int, quant: Quantization) -> int:
    """Bytes per GPU of one attention layer."""
    method = "none" if "attention" in quant.kept else quant.method
    form = (method, quant.group, model.dtype_bytes)
    heads, hidden = ceil(model.heads / tp), model.hidden_size
    if model.mla:
        return _mla_bytes(model, heads, form)
    query = heads * model.head_dim * (2 if model.attention_gate else 1)
    # With more ranks than KV heads each rank keeps a copy of one head.
    key_value = max(1, model.kv_heads // tp) * model.head_dim
    total = linear_bytes(query + 2 * key_value, hidden, *form)
    total += linear_bytes(hidden, heads * model.head_dim, *form)
    biases = query + 2 * key_value + hidden if model.attention_bias else 0
    return total + (biases + 2 * model.head_dim) * model.dtype_bytes


def _mla_bytes(model: ModelShape, heads: int, form: tuple[str, int, int]) -> int:
    mla, hidden = model.mla, model.hidden_size
    assert mla is not None  # noqa: S101  # narrowing for the type checker
    query = heads * (mla.qk_nope_head_dim + mla.qk_rope_head_dim)
    # The down-projections are on every rank, the up-projections are split by heads.
    total = linear_bytes(mla.cached, hidden, *form)
    if mla.q_lora_rank:
        total += linear_bytes(mla.q_lora_rank, hidden, *form)
        total += linear_bytes(query, mla.q_lora_rank, *form)
    else:
        total += linear_bytes(query, hidden, *form)
    expanded = heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    total += linear_bytes(expanded, mla.kv_lora_rank, *form)
    total += linear_bytes(hidden, heads * mla.v_head_dim, *form)
    # vLLM keeps kv_b_proj a second time in the model's dtype, split into W_UK^T and W_UV.
    total += expanded * mla.kv_lora_rank * model.dtype_bytes
    if model.indexer:
        index = model.indexer
        width = index.heads * index.head_dim
        total += linear_bytes(width, mla.q_lora_rank or hidden, *form)
        total += (index.head_dim + index.heads) * hidden * model.dtype_bytes
    return total


def linear_attention_bytes(model: ModelShape, tp: int, quant: Quantization) -> int:
    """Bytes per GPU of one gated-delta-net layer."""
    linear = model.linear
    if linear is None:
        return 0
    method = "none" if "linear_attention" in quant.kept else quant.method
    form = (method, quant.group, model.dtype_bytes)
    value = linear.value_heads * linear.value_dim // tp
    mixed = linear.conv_channels // tp + value
    small = 2 * linear.value_heads // tp * model.hidden_size + linear.conv_channels * 4 // tp
    total = linear_bytes(mixed, model.hidden_size, *form)
    total += linear_bytes(model.hidden_size, value, *form)
    return total + small * model.dtype_bytes
