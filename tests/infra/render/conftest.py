from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from infra import catalog, model, sources
from infra.model import ModelFacts
from infra.planning import make_plan

if TYPE_CHECKING:
    from infra.plan.plan import Plan

TINY = {
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
"""Of the model that cpu-smoke serves; its files are made by the rehearsal, not kept."""


@pytest.fixture
def plan_of():
    """Plans an example stack; further arguments change the settings of its group `serve`."""

    def make(stack: str, **changes) -> Plan:
        source = sources.read_file(sources.stack_file(stack), sources.PROJECT)
        settings = sources.load(source, stack)
        if settings.model.source.startswith("s3://"):
            facts = model.facts(settings.model, sources.PROJECT)
        else:
            facts = ModelFacts(TINY, catalog.shape(TINY), (), None)
        if changes:
            group = settings.groups["serve"].model_copy(update=changes)
            settings = settings.model_copy(update={"groups": {"serve": group}})
        return make_plan(stack, settings, facts, source.region)

    return make
