"""The model against the release, the parallelism and the GPUs."""

# ruff: noqa: PLR0913 - a rule takes each fact it depends on as a plain value

from __future__ import annotations

from infra.checks.finding import Severity
from infra.checks.rule import Hit, Hits, rule

_TP = "tensor_parallel_size"
_ARCHITECTURES = (
    ("MiniMaxM2ForCausalLM", "0.11.0", "0.11.2"),
    ("KimiLinearForCausalLM", "0.11.0", "0.11.2"),
    ("MiMoV2FlashForCausalLM", "0.13.0", "0.14.1"),
    ("KimiK25ForConditionalGeneration", "0.14.1", "0.15.1"),
    ("Glm4MoeLiteForCausalLM", "0.14.1", "0.15.1"),
    ("Step3p5ForCausalLM", "0.14.1", "0.15.1"),
    ("GlmMoeDsaForCausalLM", "0.15.1", "0.16.0"),
    ("Qwen3_5MoeForConditionalGeneration", "0.16.0", "0.17.1"),
    ("DeepseekV4ForCausalLM", "0.17.1", "0.20.2"),
    ("MiniMaxM3SparseForCausalLM", "0.21.0", "0.26.0"),
    ("MiniMaxM3SparseForConditionalGeneration", "0.21.0", "0.26.0"),
    ("Step3p7ForConditionalGeneration", "0.21.0", "0.26.0"),
    ("KimiK3ForConditionalGeneration", "0.26.0", "0.28.0"),
    ("Qwen3_5MoeForCausalLM", "0.26.0", "0.28.0"),
)
"""Architectures younger than the oldest release of the catalog: the last release that was read to
lack it, and the first that was read to have it. Between the two nothing is said."""
_FP8_SINCE, _FP4_SINCE = (8, 9), (10, 0)


@rule(
    Severity.ERROR,
    _TP,
    consequence="vLLM stops at start: attention heads must be divisible by the size",
    remedy="a tensor_parallel_size that divides the heads",
    source="vllm/config/model.py@0.33.0 (verify_with_parallel_config)",
    example="64 heads with `tensor_parallel_size: 6`.",
)
def tensor_parallel_heads(*, heads: int, tensor_parallel_size: int) -> Hits:
    """Tensor parallelism deals attention heads out evenly."""
    if heads and heads % tensor_parallel_size:
        yield Hit(f"{heads} attention heads over {tensor_parallel_size} tensor-parallel ranks")


@rule(
    Severity.ERROR,
    _TP,
    consequence="vLLM stops while it builds the attention layers",
    remedy="a tensor_parallel_size that divides the KV heads or is a multiple of them",
    source="vllm model_executor/models/qwen3_moe.py@0.33.0 (total_num_kv_heads asserts)",
    example="8 KV heads with `tensor_parallel_size: 6`.",
)
def tensor_parallel_kv_heads(*, kv_heads: int, mla: bool, tensor_parallel_size: int) -> Hits:
    """KV heads are dealt out evenly or copied evenly."""
    size = tensor_parallel_size
    if mla or not kv_heads:
        return
    if kv_heads % size and size % kv_heads:
        yield Hit(f"{kv_heads} KV heads over {size} tensor-parallel ranks")


@rule(
    Severity.WARNING,
    _TP,
    consequence="KV tokens per node fall by the same factor: every copy takes the same memory",
    remedy="a smaller tensor_parallel_size and more data-parallel ranks",
    source="vllm docs/serving/parallelism_scaling.md; MLA keeps 1 latent per token on every rank",
    example="DeepSeek-V3 (MLA) with `tensor_parallel_size: 8`: eight copies of the KV cache.",
)
def kv_cache_copied(
    *, mla: bool, kv_heads: int, heads: int, tensor_parallel_size: int, gpus_per_node: int
) -> Hits:
    """MLA's cache is whole on every tensor-parallel rank; so are KV heads beyond their number."""
    if not heads or not gpus_per_node or tensor_parallel_size < 2:
        return
    if mla:
        yield Hit(f"MLA with {tensor_parallel_size} tensor-parallel ranks, each with all the KV")
    elif tensor_parallel_size > kv_heads:
        copies = tensor_parallel_size // max(kv_heads, 1)
        yield Hit(
            f"{kv_heads} KV heads over {tensor_parallel_size} tensor-parallel ranks: each head"
            f" is held {copies} times"
        )


@rule(
    Severity.ERROR,
    _TP,
    consequence="vLLM stops while it builds the expert layers: the size isn't divisible by block_n",
    remedy="enable_expert_parallel: true keeps experts whole; or a smaller tensor_parallel_size",
    source="vllm quantization/fp8.py@0.33.0 (Fp8MoEMethod.create_weights)",
    example="Qwen3-30B-A3B-FP8 (experts of 768, blocks of 128) cut over 8 ranks: 96.",
)
def fp8_block_split(
    *, quantization: str, weight_block: int, expert_parallel: bool, expert_intermediate: int,
    tensor_parallel_size: int, data_parallel_size: int, experts: int,
) -> Hits:  # fmt: skip
    """Experts cut by tensor parallelism must keep whole blocks of fp8 scales."""
    cut = tensor_parallel_size * data_parallel_size
    if expert_parallel or not experts or quantization != "fp8" or not weight_block or cut < 2:
        return
    part = expert_intermediate / cut
    if part % weight_block:
        yield Hit(
            f"experts of {expert_intermediate} cut over {cut} ranks are {part:g} wide, with fp8"
            f" blocks of {weight_block}"
        )


@rule(
    Severity.ERROR,
    "max_model_len",
    consequence="vLLM stops at start: the length is greater than the derived max_model_len",
    remedy="a max_model_len up to the model's, or rope scaling through --hf-overrides with"
    " VLLM_ALLOW_LONG_MAX_MODEL_LEN=1",
    source="vllm/config/model.py@0.33.0 (_get_and_verify_max_len)",
    example="`max_model_len: 65536` for Qwen3-235B-A22B, which has 40960.",
)
def context_too_long(
    *, max_model_len: int | None, model_max_len: int, env_given: dict[str, str]
) -> Hits:
    """The context can't be longer than the one the model was trained for."""
    allowed = env_given.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") == "1"
    if max_model_len and model_max_len and max_model_len > model_max_len and not allowed:
        yield Hit(f"max_model_len {max_model_len}; the model's is {model_max_len}")


@rule(
    Severity.ERROR,
    "vllm.version",
    consequence="vLLM stops at start: model architectures are not supported for now",
    remedy="a later vllm.version",
    source="vllm model_executor/models/registry.py@0.11.0 to @0.32.0",
    example="GLM-5 (GlmMoeDsaForCausalLM) with vLLM 0.14.1.",
)
def model_too_new(*, architecture: str, version: str) -> Hits:
    """The release must know the model's architecture."""
    for name, lacks, has in _ARCHITECTURES:
        if architecture == name and _number(version) <= _number(lacks):
            yield Hit(
                f"vLLM {version} doesn't have {architecture}; {has} does",
                remedy=f"vllm.version: {has} or later",
            )


@rule(
    Severity.WARNING,
    "quantization",
    consequence="Weights are unpacked to 16 bits in the kernels: memory is saved, time is not",
    remedy="H100 or later (fp8), B200 or later (fp4), or the bf16 checkpoint",
    source="vllm quantization/utils/marlin_utils_fp8.py and marlin_utils_fp4.py@0.33.0",
    example="DeepSeek-V3 (fp8) on p4de.24xlarge; an NVFP4 checkpoint on p5.48xlarge.",
)
def quantization_hardware(
    *, quantization: str, capability: tuple[int, int], gpu_name: str, gpus_per_node: int
) -> Hits:
    """fp8 arithmetic needs compute capability 8.9, nvfp4 needs 10.0 (Blackwell)."""
    if not gpus_per_node:
        return
    need = {"fp8": _FP8_SINCE, "nvfp4": _FP4_SINCE}.get(quantization)
    if need and capability < need:
        have, wanted = (".".join(map(str, pair)) for pair in (capability, need))
        yield Hit(f"{quantization} weights on {gpu_name} ({have}); its arithmetic needs {wanted}")


@rule(
    Severity.ERROR,
    "kv_cache_dtype",
    consequence="vLLM stops at start: no attention backend takes that cache on these GPUs",
    remedy="kv_cache_dtype: auto",
    source="vllm v1/attention/backends (supports_kv_cache_dtype)@0.33.0",
    example="`kv_cache_dtype: fp8` on p4d.24xlarge (A100).",
)
def kv_cache_dtype_hardware(
    *, kv_cache_dtype: str, capability: tuple[int, int], gpu_name: str, gpus_per_node: int
) -> Hits:
    """An fp8 KV cache needs fp8 arithmetic."""
    if gpus_per_node and kv_cache_dtype.startswith("fp8") and capability < _FP8_SINCE:
        yield Hit(f"kv_cache_dtype {kv_cache_dtype} on {gpu_name}")


@rule(
    Severity.WARNING,
    "quantization",
    consequence="vLLM reads the method from config.json; a second one is refused or ignored",
    remedy="leave quantization out",
    source="vllm/config/model.py@0.33.0 (_verify_quantization)",
    example="`quantization: fp8` for DeepSeek-V3, whose checkpoint is fp8 already.",
)
def quantization_not_needed(
    *, online_quantization: str | None, checkpoint_quantization: str
) -> Hits:
    """A checkpoint that is quantised already needs no --quantization."""
    if online_quantization and checkpoint_quantization != "none":
        yield Hit(
            f"quantization {online_quantization} for a checkpoint that is"
            f" {checkpoint_quantization} already"
        )


@rule(
    Severity.WARNING,
    _TP,
    consequence="Every layer waits for its sum to cross the network: tokens come far slower",
    remedy="tensor_parallel_size up to the GPUs of a node, and expert parallelism between nodes",
    source="vllm docs/serving/parallelism_scaling.md@0.33.0",
    example="`tensor_parallel_size: 16` on types with 8 GPUs.",
)
def tensor_parallel_between_nodes(*, tensor_parallel_nodes: int, tensor_parallel_size: int) -> Hits:
    """Tensor parallelism is for one NVLink domain."""
    if tensor_parallel_nodes > 1:
        yield Hit(
            f"{tensor_parallel_size} tensor-parallel ranks span {tensor_parallel_nodes} nodes"
        )


@rule(
    Severity.ERROR,
    _TP,
    consequence="A rank would lack GPUs, so the group would wait for it until vLLM gives up",
    remedy="a tensor_parallel_size that is a multiple of the GPUs of a node, and nodes in multiples"
    " of the nodes of a rank",
    source="vllm docs/serving/parallelism_scaling.md@0.33.0; --nnodes since 0.11.1",
    example="`tensor_parallel_size: 16, nodes: 3` on types with 8 GPUs.",
)
def tensor_parallel_span(
    *, tensor_parallel_size: int, tensor_parallel_nodes: int, nodes: int, gpus_per_node: int,
    flags: frozenset[str], version: str,
) -> Hits:  # fmt: skip
    """A rank that spans nodes takes whole nodes, and needs a release that can do it."""
    if tensor_parallel_nodes < 2:
        return
    if tensor_parallel_size % gpus_per_node or nodes % tensor_parallel_nodes:
        yield Hit(
            f"{tensor_parallel_size} tensor-parallel ranks on nodes of {gpus_per_node} GPUs, in a"
            f" group of {nodes}"
        )
    elif "--nnodes" not in flags:
        yield Hit(
            f"vLLM {version} has no --nnodes: a rank can't span nodes without Ray",
            where="vllm.version",
            remedy="vLLM 0.11.1 or later",
        )


@rule(
    Severity.ERROR,
    _TP,
    consequence="The group can't be laid out over its nodes: ranks would lack GPUs",
    remedy="a tensor_parallel_size that divides the GPUs of a node, and at most as many ranks as"
    " they make",
    source="vllm docs/serving/data_parallel_deployment.md@0.33.0",
    example="`tensor_parallel_size: 4, data_parallel_size_local: 4` on 8 GPUs.",
)
def gpus_exceeded(
    *, gpus_per_node: int, tensor_parallel_size: int, tensor_parallel_nodes: int,
    data_parallel_size_local: int, instance_type: str,
) -> Hits:  # fmt: skip
    """A node's ranks times their tensor parallelism can't exceed its GPUs."""
    if not gpus_per_node or tensor_parallel_nodes > 1:
        return
    wanted = tensor_parallel_size * data_parallel_size_local
    if wanted > gpus_per_node:
        yield Hit(
            f"{data_parallel_size_local} ranks x {tensor_parallel_size} need {wanted} GPUs;"
            f" {instance_type} has {gpus_per_node}"
        )


@rule(
    Severity.WARNING,
    "data_parallel_size_local",
    consequence="The idle GPUs cost as much as the others",
    remedy="data_parallel_size_local x tensor_parallel_size equal to the GPUs of the type",
    source="AWS bills instances, not GPUs",
    example="`data_parallel_size_local: 4` at TP 1 on 8 GPUs.",
)
def gpus_unused(
    *, gpus_per_node: int, tensor_parallel_size: int, tensor_parallel_nodes: int,
    data_parallel_size_local: int, instance_type: str,
) -> Hits:  # fmt: skip
    """Every GPU of a node should have a rank."""
    if tensor_parallel_nodes > 1:
        return
    used = tensor_parallel_size * data_parallel_size_local
    if 0 < used < gpus_per_node:
        yield Hit(f"{used} of the {gpus_per_node} GPUs of {instance_type} are used")


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


RULES = (
    tensor_parallel_heads,
    tensor_parallel_kv_heads,
    kv_cache_copied,
    fp8_block_split,
    context_too_long,
    model_too_new,
    quantization_hardware,
    kv_cache_dtype_hardware,
    quantization_not_needed,
    tensor_parallel_between_nodes,
    tensor_parallel_span,
    gpus_exceeded,
    gpus_unused,
)
