"""Prefill and decode must fit each other: NIXL compares most of this at the handshake."""

from __future__ import annotations

from infra.checks.finding import Severity
from infra.checks.rule import Hit, Hits, rule

_HANDSHAKE = "vllm kv_connector/v1/nixl@0.13.0 and later (compatibility hash)"
_REFUSED = (
    "The handshake is refused, or where it isn't enforced decode reads KV that means"
    " something else: wrong answers with status 200"
)


@rule(
    Severity.ERROR,
    "kv_cache_dtype",
    consequence=_REFUSED,
    remedy="the same kv_cache_dtype in both groups",
    source=_HANDSHAKE,
    example="prefill with `kv_cache_dtype: fp8`, decode with auto.",
    scope="pair",
    suppressible=False,
)
def pd_kv_cache_dtype(*, prefill_kv_cache_dtype: str, decode_kv_cache_dtype: str) -> Hits:
    """Both sides must keep KV in the same type."""
    if prefill_kv_cache_dtype != decode_kv_cache_dtype:
        yield Hit(
            f"prefill keeps KV as {prefill_kv_cache_dtype}, decode as {decode_kv_cache_dtype}"
        )


@rule(
    Severity.ERROR,
    "dtype",
    consequence=_REFUSED,
    remedy="the same dtype in both groups",
    source=_HANDSHAKE,
    example="prefill with `dtype: bfloat16`, decode with float16.",
    scope="pair",
    suppressible=False,
)
def pd_dtype(*, prefill_dtype: str, decode_dtype: str) -> Hits:
    """Both sides must compute in the same type."""
    if prefill_dtype != decode_dtype:
        yield Hit(f"prefill computes in {prefill_dtype}, decode in {decode_dtype}")


@rule(
    Severity.ERROR,
    "attention_backend",
    consequence=_REFUSED,
    remedy="the same attention_backend in both groups, or none in either",
    source=_HANDSHAKE,
    example="prefill with `attention_backend: FLASHINFER`, decode without one.",
    scope="pair",
    suppressible=False,
)
def pd_attention_backend(
    *, prefill_attention_backend: str | None, decode_attention_backend: str | None
) -> Hits:
    """Both sides must lay KV out for the same attention backend."""
    if prefill_attention_backend != decode_attention_backend:
        own = "vLLM's own choice"
        yield Hit(
            f"prefill's attention backend is {prefill_attention_backend or own}, decode's"
            f" {decode_attention_backend or own}"
        )


@rule(
    Severity.ERROR,
    "extra_args",
    consequence=_REFUSED,
    remedy="the same --speculative-config in both groups",
    source=_HANDSHAKE,
    example="`--speculative-config` in the decode group alone.",
    scope="pair",
    suppressible=False,
)
def pd_speculative(*, prefill_speculative: str | None, decode_speculative: str | None) -> Hits:
    """Both sides must speculate alike: a draft has KV of its own."""
    if prefill_speculative != decode_speculative:
        yield Hit(
            f"prefill's speculation is {prefill_speculative or 'off'}, decode's"
            f" {decode_speculative or 'off'}"
        )


@rule(
    Severity.ERROR,
    "kv_transfer.kv_connector",
    consequence="One side pushes while the other pulls: the handshake is refused",
    remedy="the same kv_connector in both groups",
    source=_HANDSHAKE,
    example="prefill with NixlPushConnector, decode with NixlConnector.",
    scope="pair",
    suppressible=False,
)
def pd_connector(*, prefill_connector: str | None, decode_connector: str | None) -> Hits:
    """Both sides must use one connector."""
    same = {"NixlPullConnector": "NixlConnector"}
    sides = [same.get(c or "", c) for c in (prefill_connector, decode_connector)]
    if sides[0] != sides[1]:
        yield Hit(f"prefill uses {prefill_connector}, decode {decode_connector}")


@rule(
    Severity.ERROR,
    "kv_transfer.backends",
    consequence="The two have no transport in common: no KV arrives",
    remedy="leave backends out in both groups",
    source="ai-dynamo/nixl: agents need a backend in common",
    example="prefill with [LIBFABRIC], decode with [UCX].",
    scope="pair",
)
def pd_kv_backends(
    *, prefill_kv_backends: tuple[str, ...], decode_kv_backends: tuple[str, ...]
) -> Hits:
    """Both sides need a NIXL backend in common."""
    both = set(prefill_kv_backends) & set(decode_kv_backends)
    if prefill_kv_backends and decode_kv_backends and not both:
        yield Hit(
            f"prefill's NIXL backends are {', '.join(prefill_kv_backends)}, decode's"
            f" {', '.join(decode_kv_backends)}"
        )


@rule(
    Severity.ERROR,
    "env.VLLM_KV_CACHE_LAYOUT",
    consequence=_REFUSED,
    remedy="the same VLLM_KV_CACHE_LAYOUT in both groups, or none in either",
    source="llm-d operations-vllm.md@10c22c5: P and D must be KV-layout compatible",
    example="`env: {VLLM_KV_CACHE_LAYOUT: NHD}` in the prefill group alone.",
    scope="pair",
    suppressible=False,
)
def pd_kv_layout(*, prefill_layout: str | None, decode_layout: str | None) -> Hits:
    """Both sides must lay KV out alike."""
    if prefill_layout != decode_layout:
        yield Hit(
            f"VLLM_KV_CACHE_LAYOUT is {prefill_layout or 'not set'} for prefill,"
            f" {decode_layout or 'not set'} for decode"
        )


@rule(
    Severity.ERROR,
    "block_size",
    consequence="Decode can't cut the blocks that it pulls: the transfer is refused",
    remedy="the same block_size in both groups",
    source="vllm docs/features/nixl_connector_compatibility.md@0.33.0 (P smaller than D only)",
    example="prefill with `block_size: 64`, decode with 16.",
    scope="pair",
)
def pd_block_size(
    *, prefill_block_size: int | None, decode_block_size: int | None, linear_attention: bool
) -> Hits:
    """Blocks may differ only where prefill's are the smaller, and not on hybrid models."""
    sizes = (prefill_block_size or 16, decode_block_size or 16)
    if sizes[0] > sizes[1] or (linear_attention and sizes[0] != sizes[1]):
        yield Hit(f"prefill's blocks hold {sizes[0]} tokens, decode's {sizes[1]}")


@rule(
    Severity.WARNING,
    "tensor_parallel_size",
    consequence="There is an open report of failing handshakes between unequal sizes",
    remedy="the same tensor_parallel_size in both groups",
    source="vllm-project/vllm#50765",
    example="prefill with `tensor_parallel_size: 2`, decode with 4.",
    scope="pair",
)
def pd_tensor_parallel(
    *, prefill_tensor_parallel_size: int, decode_tensor_parallel_size: int, mla: bool
) -> Hits:
    """Unequal tensor parallelism is meant to work and was seen to fail."""
    sizes = (prefill_tensor_parallel_size, decode_tensor_parallel_size)
    if sizes[0] != sizes[1] and not mla:
        yield Hit(f"prefill's tensor_parallel_size is {sizes[0]}, decode's {sizes[1]}")


@rule(
    Severity.ERROR,
    "tensor_parallel_size",
    consequence="The states of linear attention can't be dealt out: the handshake is refused",
    remedy="sizes of which one is a multiple of the other",
    source="vllm docs/features/nixl_connector_compatibility.md@0.33.0",
    example="Qwen3-Next with `tensor_parallel_size: 2` for prefill and 3 for decode.",
    scope="pair",
)
def pd_tensor_parallel_hybrid(
    *, prefill_tensor_parallel_size: int, decode_tensor_parallel_size: int, linear_attention: bool
) -> Hits:
    """On hybrid models one side's tensor parallelism must be a multiple of the other's."""
    small, large = sorted((prefill_tensor_parallel_size, decode_tensor_parallel_size))
    if linear_attention and large % small:
        yield Hit(f"tensor_parallel_size {small} and {large} on a model with linear attention")


@rule(
    Severity.WARNING,
    "quantization",
    consequence="Prefill and decode answer as two slightly different models",
    remedy="the same quantization in both groups",
    source=_HANDSHAKE,
    example="decode with `quantization: fp8`, prefill with the bf16 checkpoint.",
    scope="pair",
)
def pd_quantization(*, prefill_quantization: str, decode_quantization: str) -> Hits:
    """Both sides should run the same weights."""
    if prefill_quantization != decode_quantization:
        yield Hit(f"prefill's weights are {prefill_quantization}, decode's {decode_quantization}")


@rule(
    Severity.ERROR,
    "instance_type",
    consequence="EFA on p4d and p4de talks to p4d and p4de alone: no KV arrives",
    remedy="p4d or p4de on both sides, or neither",
    source="EC2 user guide: Elastic Fabric Adapter",
    example="prefill on p4de.24xlarge, decode on p5.48xlarge.",
    scope="pair",
)
def pd_efa_generations(*, prefill_family: str, decode_family: str) -> Hits:
    """EFA of p4d and p4de can't reach other families."""
    old = ("p4d", "p4de")
    if (prefill_family in old) != (decode_family in old):
        yield Hit(f"prefill is on {prefill_family}, decode on {decode_family}")


@rule(
    Severity.WARNING,
    "max_model_len",
    consequence="Long requests are taken by one side and refused by the other",
    remedy="the same max_model_len in both groups",
    source="vllm-router 0.1.17: the prefill side is asked first, then decode",
    example="prefill with `max_model_len: 131072`, decode with 32768.",
    scope="pair",
)
def pd_context(*, prefill_max_model_len: int | None, decode_max_model_len: int | None) -> Hits:
    """Both sides should take requests of the same length."""
    if prefill_max_model_len != decode_max_model_len:
        yield Hit(f"max_model_len is {prefill_max_model_len} and {decode_max_model_len}")


RULES = (
    pd_kv_cache_dtype,
    pd_dtype,
    pd_attention_backend,
    pd_speculative,
    pd_connector,
    pd_kv_backends,
    pd_kv_layout,
    pd_block_size,
    pd_tensor_parallel,
    pd_tensor_parallel_hybrid,
    pd_quantization,
    pd_efa_generations,
    pd_context,
)
