"""The shape of a model, read from the fields of its config.json.

`model(name)` knows a dozen families by name; `shape(config)` reads any other config.json of the
same forms. What the memory plan has no rule for is refused here, never guessed.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from infra.catalog.instances import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MISSING = object()
_DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}
_KINDS = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
}
_NO_RULE = {
    "compress_ratios": "compressed KV (DeepSeek-V4)",
    "hybrid_override_pattern": "Mamba-2 layers (Nemotron-H)",
    "linear_attn_config": "Kimi linear attention",
    "hybrid_layer_pattern": "sliding layers with their own number of KV heads (MiMo)",
    "ssm_state_size": "Mamba layers",
}


class ModelConfigError(ValueError):
    """A config.json lacks fields or has a form that no rule covers; lists every fault."""

    def __init__(self, name: str, faults: list[str]) -> None:
        self.faults = tuple(faults)
        lines = "\n".join(f"  - {fault}" for fault in faults)
        super().__init__(f"The config.json of {name} can't be planned with:\n{lines}")


@dataclass(frozen=True)
class Mla:
    """Multi-head latent attention: sizes per head or per token, in elements."""

    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int

    @property
    def cached(self) -> int:
        """Elements that one token keeps in the KV cache per layer."""
        return self.kv_lora_rank + self.qk_rope_head_dim


@dataclass(frozen=True)
class Indexer:
    """The selector of sparse attention (DeepSeek-V3.2, GLM-5)."""

    heads: int
    head_dim: int
    topk: int


@dataclass(frozen=True)
class LinearAttention:
    """Gated delta net: a state per sequence instead of a cache per token."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_kernel: int
    state_bytes: int

    @property
    def conv_channels(self) -> int:
        """Channels of the short convolution: queries, keys and values."""
        return 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim


@dataclass(frozen=True)
class Experts:
    """The experts of every MoE layer; `intermediate` is per expert."""

    count: int
    per_token: int
    intermediate: int
    shared_intermediate: int
    groups: int
    bias: bool


@dataclass(frozen=True)
class Quantization:
    """How the checkpoint stores weights: `method` none, fp8, mxfp4, int4 or nvfp4.

    `group` is the edge of an fp8 block (0: one scale per row or tensor) or the length of a 4-bit
    group. `kept` names the parts that stay in the model's dtype.
    """

    method: str
    group: int
    kept: frozenset[str]


@dataclass(frozen=True)
class ModelShape:
    """What memory and parallelism depend on. Sizes in elements unless a name says otherwise."""

    name: str
    architecture: str
    hidden_size: int
    vocab_size: int
    tied_embeddings: bool
    max_position: int
    dtype_bytes: int
    layer_kinds: tuple[str, ...]
    moe_layers: tuple[int, ...]
    dense_intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    attention_bias: bool
    attention_gate: bool
    sliding_window: int
    chunk_size: int
    mla: Mla | None
    indexer: Indexer | None
    linear: LinearAttention | None
    experts: Experts
    quantization: Quantization
    rope_fp32: bool

    @property
    def num_layers(self) -> int:
        """Layers that are served (next-token-prediction layers are not, unless asked for)."""
        return len(self.layer_kinds)

    def layers_of(self, kind: str) -> int:
        """How many layers have the attention `full`, `sliding`, `chunked` or `linear`."""
        return self.layer_kinds.count(kind)


def shape(config: Mapping[str, Any], name: str = "the model") -> ModelShape:
    """Read a config.json. ModelConfigError lists all that is missing or has no rule."""
    return _Reader(config, name).read()


def model(name: str) -> ModelShape:
    """The shape of a model of the catalog; UnknownNameError with near names otherwise."""
    configs = _configs()
    if name not in configs:
        raise UnknownNameError("model", name, sorted(configs))
    return shape(configs[name], name)


def model_names() -> tuple[str, ...]:
    """Every Hugging Face id that the catalog knows, sorted."""
    return tuple(sorted(_configs()))


@functools.cache
def _configs() -> dict[str, dict[str, Any]]:
    text = (resources.files(__package__ or "infra.catalog") / "models.toml").read_text()
    families = tomllib.loads(text)["family"]
    found: dict[str, dict[str, Any]] = {}
    for family in families:
        for entry in family["models"]:
            changes = {k: v for k, v in entry.items() if k != "name"}
            found[entry["name"]] = {**family["config"], **changes}
    return found


class _Reader:
    """One pass over one config.json, gathering all faults."""

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        # Multimodal checkpoints keep the language model's fields one level down.
        inner = config.get("text_config")
        self.config = {**config, **inner} if isinstance(inner, dict) else dict(config)
        self.name, self.faults = name, list[str]()

    def read(self) -> ModelShape:
        self.faults += [
            f"{key}: {what}; no memory rule covers it"
            for key, what in _NO_RULE.items()
            if self.config.get(key)
        ]
        layers = self.need("num_hidden_layers")
        hidden, heads = self.need("hidden_size"), self.need("num_attention_heads")
        kinds = self.layer_kinds(layers)
        mla = self.mla()
        read = ModelShape(
            name=self.name,
            architecture=str((self.config.get("architectures") or ["unknown"])[0]),
            hidden_size=hidden,
            vocab_size=self.need("vocab_size"),
            tied_embeddings=bool(self.config.get("tie_word_embeddings", False)),
            max_position=self.need("max_position_embeddings"),
            dtype_bytes=self.dtype_bytes(),
            layer_kinds=kinds,
            moe_layers=self.moe_layers(layers),
            dense_intermediate=self.dense_intermediate(),
            heads=heads,
            kv_heads=self.number("num_key_value_heads", default=heads),
            head_dim=self.number("head_dim", default=hidden // max(heads, 1)),
            attention_bias=bool(self.config.get("attention_bias", False)),
            attention_gate=bool(self.config.get("attn_output_gate", "linear" in kinds)),
            sliding_window=self.number("sliding_window", default=0),
            chunk_size=self.number("attention_chunk_size", default=0),
            mla=mla,
            indexer=self.indexer(),
            linear=self.linear() if "linear" in kinds else None,
            experts=self.experts(),
            quantization=quantization(self.config.get("quantization_config")),
            rope_fp32=(self.config.get("rope_scaling") or {}).get(
                "type", (self.config.get("rope_scaling") or {}).get("rope_type")
            )
            == "yarn",
        )
        if self.faults:
            raise ModelConfigError(self.name, self.faults)
        return read

    def number(self, *names: str, default: Any = _MISSING) -> int:
        for key in names:
            value = self.config.get(key)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
        if default is _MISSING:
            self.faults.append(f"{' or '.join(names)}: missing or not a whole number")
            return 1
        return default

    def need(self, *names: str) -> int:
        value = self.number(*names)
        if value < 1:
            self.faults.append(f"{names[0]}: {value}, must be at least 1")
            return 1
        return value

    def dtype_bytes(self) -> int:
        named = str(self.config.get("torch_dtype") or self.config.get("dtype") or "bfloat16")
        if named not in _DTYPE_BYTES:
            self.faults.append(f"torch_dtype: {named!r} is none of {', '.join(_DTYPE_BYTES)}")
        return _DTYPE_BYTES.get(named, 2)

    def layer_kinds(self, layers: int) -> tuple[str, ...]:
        named = self.config.get("layer_types")
        if named:
            unknown = sorted({str(n) for n in named} - _KINDS.keys())
            if unknown:
                self.faults.append(f"layer_types: {', '.join(unknown)}; no memory rule covers it")
            if len(named) != layers:
                self.faults.append(f"layer_types: {len(named)} entries for {layers} layers")
            return tuple(_KINDS.get(str(n), "full") for n in named)
        interval = self.number("full_attention_interval", default=0)
        if interval:  # Qwen3-Next: every interval-th layer attends, the others keep a state
            return tuple("linear" if (i + 1) % interval else "full" for i in range(layers))
        no_rope = self.config.get("no_rope_layers")
        if self.config.get("attention_chunk_size"):  # Llama-4: layers with rope attend in chunks
            step = self.number("no_rope_layer_interval", default=4)
            rope = no_rope or [int((i + 1) % step != 0) for i in range(layers)]
            return tuple("chunked" if r else "full" for r in rope)
        if self.config.get("sliding_window") and self.config.get("use_sliding_window", True):
            return ("sliding",) * layers
        return ("full",) * layers

    def moe_layers(self, layers: int) -> tuple[int, ...]:
        if self.config.get("mlp_layer_types"):
            named = self.config["mlp_layer_types"]
            return tuple(i for i, kind in enumerate(named) if kind == "sparse")
        if "interleave_moe_layer_step" in self.config:
            step = self.need("interleave_moe_layer_step")
            return tuple(i for i in range(layers) if (i + 1) % step == 0)
        dense_first = self.number("first_k_dense_replace", default=0)
        frequency = self.config.get("moe_layer_freq", 1)
        if isinstance(frequency, list):
            return tuple(i for i, moe in enumerate(frequency) if moe)
        step = self.number("decoder_sparse_step", default=1)
        dense = set(self.config.get("mlp_only_layers") or ())
        return tuple(
            i
            for i in range(dense_first, layers)
            if i not in dense and i % max(frequency, 1) == 0 and (i + 1) % max(step, 1) == 0
        )

    def dense_intermediate(self) -> int:
        return self.number("intermediate_size_mlp", "intermediate_size", default=0)

    def mla(self) -> Mla | None:
        if not self.config.get("kv_lora_rank"):
            return None
        return Mla(
            q_lora_rank=self.number("q_lora_rank", default=0) or None,
            kv_lora_rank=self.need("kv_lora_rank"),
            qk_nope_head_dim=self.need("qk_nope_head_dim"),
            qk_rope_head_dim=self.need("qk_rope_head_dim"),
            v_head_dim=self.need("v_head_dim"),
        )

    def indexer(self) -> Indexer | None:
        if not self.config.get("index_topk"):
            return None
        heads, dim = self.need("index_n_heads"), self.need("index_head_dim")
        return Indexer(heads, dim, self.need("index_topk"))

    def linear(self) -> LinearAttention:
        # vLLM keeps the recurrent state in the model's dtype unless the model asks for more.
        wide = self.config.get("mamba_ssm_dtype") == "float32"
        return LinearAttention(
            key_heads=self.need("linear_num_key_heads"),
            value_heads=self.need("linear_num_value_heads"),
            key_dim=self.need("linear_key_head_dim"),
            value_dim=self.need("linear_value_head_dim"),
            conv_kernel=self.number("linear_conv_kernel_dim", default=4),
            state_bytes=4 if wide else 2,
        )

    def experts(self) -> Experts:
        names = ("n_routed_experts", "num_experts", "num_local_experts")
        intermediate = self.need("moe_intermediate_size", "intermediate_size")
        shared = self.number("shared_expert_intermediate_size", default=0)
        shared = shared or self.number("n_shared_experts", default=0) * intermediate
        if "interleave_moe_layer_step" in self.config:  # Llama-4 has one, of the experts' size
            shared = intermediate
        return Experts(
            count=self.need(*names),
            per_token=self.need("num_experts_per_tok", "top_k_experts", "experts_per_token"),
            intermediate=intermediate,
            shared_intermediate=shared,
            groups=self.number("n_group", default=1),
            bias=str(self.config.get("model_type")) == "gpt_oss",
        )


_PARTS = {
    "attention": ("self_attn", "attn"),
    "linear_attention": ("linear_attn",),
    "shared": ("shared_expert",),
    "dense": ("mlp.gate_proj", "mlp.gate_up_proj", "mlp.(gate", ".mlp."),
}


def quantization(config: Mapping[str, Any] | None) -> Quantization:
    """Read `quantization_config`; a method without a rule is taken as bf16-sized `none`."""
    if not config:
        return Quantization("none", 0, frozenset())
    excluded = [
        str(e).replace("\\", "")
        for key in ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules")
        for e in config.get(key) or ()
    ]
    kept = frozenset(
        part for part, marks in _PARTS.items() if any(m in e for m in marks for e in excluded)
    )
    method = str(config.get("quant_method", "none"))
    if method == "compressed-tensors":
        return _compressed_tensors(config, kept)
    if method == "fp8":
        block = config.get("weight_block_size") or [0, 0]
        return Quantization("fp8", int(block[0]), kept)
    if method == "modelopt":
        fp4 = "FP4" in str(config.get("quant_algo", ""))
        return Quantization("nvfp4", 16, kept) if fp4 else Quantization("fp8", 0, kept)
    return {
        # gpt-oss: experts alone are quantised
        "mxfp4": Quantization("mxfp4", 32, frozenset(_PARTS)),
        "awq": Quantization("int4", int(config.get("group_size", 128)), kept),
        "gptq": Quantization("int4", int(config.get("group_size", 128)), kept),
    }.get(method, Quantization("none", 0, frozenset()))


def _compressed_tensors(config: Mapping[str, Any], kept: frozenset[str]) -> Quantization:
    groups = config.get("config_groups") or {}
    weights: Mapping[str, Any] = next(iter(groups.values()), {}).get("weights") or {}
    bits, size = weights.get("num_bits", 16), weights.get("group_size") or 0
    if bits == 4:
        return Quantization("nvfp4" if weights.get("type") == "float" else "int4", size, kept)
    if bits == 8:
        block = weights.get("block_structure") or [0, 0]
        return Quantization("fp8", int(block[0]), kept)
    return Quantization("none", 0, frozenset())
