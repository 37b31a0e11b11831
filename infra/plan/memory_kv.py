"""The KV cache: bytes per block, blocks in a given space, tokens and requests that fit.

Follows vLLM's `v1/core/kv_cache_utils.py`: layers of one kind share a block table; different kinds
are split into groups of equally many layers that draw from one pool of blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from infra.catalog.models import ModelShape

DEFAULT_BLOCK_TOKENS = 16
_FP8_DS_MLA_BYTES = 656
_INDEXER_BYTES_PER_TOKEN_DIM128 = 132


@dataclass(frozen=True)
class KvLimits:
    """What decides how many blocks a request may hold."""

    max_model_len: int
    max_num_batched_tokens: int
    tensor_parallel_size: int
    kv_cache_dtype: str
    block_tokens: int = DEFAULT_BLOCK_TOKENS
    one_kind: bool = False
    """The hybrid manager is off: every layer keeps the whole context."""
    batches_in_flight: int = 1
    """Batches whose blocks behind a window are not freed yet: 2 with async scheduling."""


@dataclass(frozen=True)
class KvLayout:
    """The pool of blocks of one GPU."""

    block_tokens: int
    bytes_per_block: int
    blocks_per_request: int
    """Blocks of one request of `max_model_len` tokens, all groups together."""
    bytes_per_token: int
    """Bytes that one more token costs while every layer keeps it."""
    limits: KvLimits
    kinds: tuple[tuple[str, int], ...]
    """Attention kinds with the number of block tables each has."""
    window: int

    def blocks(self, space_bytes: float) -> int:
        """Whole blocks in a space."""
        return max(0, int(space_bytes // self.bytes_per_block))

    def tokens(self, space_bytes: float) -> int:
        """KV tokens as vLLM logs them: full-length requests times `max_model_len`."""
        share = self.blocks(space_bytes) / self.blocks_per_request
        return int(share * self.limits.max_model_len)

    def requests(self, space_bytes: float, context_tokens: int) -> int:
        """Requests of `context_tokens` tokens that are held at the same time."""
        return self.blocks(space_bytes) // self.blocks_for(context_tokens)

    def blocks_for(self, context_tokens: int) -> int:
        """Blocks that one request of that length holds at most."""
        return sum(tables * _blocks(kind, context_tokens, self) for kind, tables in self.kinds)


def _blocks(kind: str, context: int, layout: KvLayout) -> int:
    in_flight = layout.limits.batches_in_flight * layout.limits.max_num_batched_tokens
    if kind == "linear":
        return 1
    if kind == "sliding":
        held = min(layout.window - 1 + in_flight, context)
        return ceil(held / layout.block_tokens) + 1  # a window need not begin with a block
    if kind == "chunked":
        return ceil(min(layout.window + in_flight, context) / layout.block_tokens)
    return ceil(context / layout.block_tokens)


def kv_layout(model: ModelShape, limits: KvLimits) -> KvLayout:
    """How vLLM lays the cache of this model out on one GPU."""
    kinds = {kind: model.layers_of(kind) for kind in dict.fromkeys(model.layer_kinds)}
    if limits.one_kind and "linear" not in kinds:
        kinds = {"full": model.num_layers}
    per_token = layer_bytes_per_token(model, limits)
    block_tokens = limits.block_tokens
    if "linear" in kinds:
        # A block must be able to hold the state of a linear layer, so it grows until it does.
        state = state_bytes(model, limits.tensor_parallel_size)
        block_tokens *= max(1, ceil(state / (per_token * block_tokens)))
    group = _group_size(list(kinds.values()))
    tables = tuple((kind, ceil(count / group)) for kind, count in kinds.items())
    window = model.chunk_size if "chunked" in kinds else model.sliding_window
    attending = sum(count for kind, count in kinds.items() if kind != "linear")
    partial = KvLayout(
        block_tokens=block_tokens,
        bytes_per_block=group * per_token * block_tokens,
        blocks_per_request=1,
        bytes_per_token=attending * per_token,
        limits=limits,
        kinds=tables,
        window=window,
    )
    needed = partial.blocks_for(limits.max_model_len)
    return KvLayout(**{**_fields(partial), "blocks_per_request": needed})


def _fields(layout: KvLayout) -> dict[str, object]:
    return {name: getattr(layout, name) for name in layout.__dataclass_fields__}


def _group_size(counts: list[int]) -> int:
    """Layers per block table: the rarest kind's, unless the kinds are nearly equally many."""
    least, most = min(counts), max(counts)
    return most if most < least * 1.5 else least


def layer_bytes_per_token(model: ModelShape, limits: KvLimits) -> int:
    """Bytes that one token keeps in one attending layer on one GPU."""
    fp8 = limits.kv_cache_dtype.startswith("fp8")
    element = 1 if fp8 else model.dtype_bytes
    if model.mla:  # one latent for all heads: not divided by TP
        cached = model.mla.cached * element
        if model.indexer:
            cached = _FP8_DS_MLA_BYTES if fp8 else cached
            cached += model.indexer.head_dim * _INDEXER_BYTES_PER_TOKEN_DIM128 // 128
        return cached
    heads = max(1, model.kv_heads // limits.tensor_parallel_size)
    return 2 * heads * model.head_dim * element


def state_bytes(model: ModelShape, tensor_parallel_size: int) -> int:
    """Bytes of the state of one sequence in one linear layer on one GPU."""
    linear = model.linear
    if linear is None:
        return 0
    conv = linear.conv_channels * (linear.conv_kernel - 1) * model.dtype_bytes
    recurrent = linear.value_heads * linear.value_dim * linear.key_dim * linear.state_bytes
    return (conv + recurrent) // tensor_parallel_size
