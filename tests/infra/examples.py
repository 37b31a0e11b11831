"""What the example stacks serve, as far as a test of the plan needs it: no weights, no files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra import catalog, model, sources
from infra.model import ModelFacts

if TYPE_CHECKING:
    from infra.settings import Settings

TINY: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "torch_dtype": "float32",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 1024,
    "max_position_embeddings": 512,
    "moe_intermediate_size": 64,
    "num_experts": 8,
    "num_experts_per_tok": 2,
}
"""config.json of the model that the stacks without GPUs serve; the rehearsal makes its files."""


def facts_of(settings: Settings) -> ModelFacts:
    """The facts of an example's model: those of the catalog, or TINY's where it is a folder."""
    if settings.model.source.startswith("s3://"):
        return model.facts(settings.model, sources.PROJECT)
    return ModelFacts(TINY, catalog.shape(TINY), (), None)
