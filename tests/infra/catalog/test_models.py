from __future__ import annotations

import pytest

from infra.catalog import ModelConfigError, UnknownNameError, model, model_names, shape

QWEN = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}


@pytest.mark.parametrize("name", model_names())
def test_every_model_of_the_catalog_can_be_read(name):
    read = model(name)

    assert read.num_layers > 0
    assert read.moe_layers
    assert read.experts.per_token <= read.experts.count


@pytest.mark.parametrize(
    ("name", "layers", "moe_layers", "experts", "shared"),
    [
        ("deepseek-ai/DeepSeek-V3", 61, 58, 256, 2048),
        ("deepseek-ai/DeepSeek-V2-Lite", 27, 26, 64, 2816),
        ("moonshotai/Kimi-K2-Instruct", 61, 60, 384, 2048),
        ("Qwen/Qwen3-235B-A22B", 94, 94, 128, 0),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", 48, 48, 512, 512),
        ("zai-org/GLM-4.5-Air", 46, 45, 128, 1408),
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", 48, 24, 128, 8192),
        ("mistralai/Mixtral-8x7B-v0.1", 32, 32, 8, 0),
        ("openai/gpt-oss-120b", 36, 36, 128, 0),
    ],
)
def test_shapes_follow_the_published_configs(name, layers, moe_layers, experts, shared):
    read = model(name)

    assert (read.num_layers, len(read.moe_layers)) == (layers, moe_layers)
    assert (read.experts.count, read.experts.shared_intermediate) == (experts, shared)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("openai/gpt-oss-20b", {"sliding": 12, "full": 12}),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", {"linear": 36, "full": 12}),
        ("Qwen/Qwen3.5-397B-A17B", {"linear": 45, "full": 15}),
        ("meta-llama/Llama-4-Scout-17B-16E-Instruct", {"chunked": 36, "full": 12}),
        ("deepseek-ai/DeepSeek-V3", {"full": 61}),
    ],
)
def test_attention_kinds_are_counted(name, kinds):
    read = model(name)

    assert {kind: read.layers_of(kind) for kind in set(read.layer_kinds)} == kinds


@pytest.mark.parametrize(
    ("name", "method", "group"),
    [
        ("deepseek-ai/DeepSeek-V3", "fp8", 128),
        ("openai/gpt-oss-20b", "mxfp4", 32),
        ("moonshotai/Kimi-K2.5", "int4", 32),
        ("zai-org/GLM-4.6-FP8", "fp8", 0),
        ("Qwen/Qwen3-30B-A3B", "none", 0),
    ],
)
def test_quantisation_is_read_from_the_checkpoint(name, method, group):
    quant = model(name).quantization

    assert (quant.method, quant.group) == (method, group)


def test_kimi_k2_5_keeps_all_but_the_experts_in_bf16():
    assert model("moonshotai/Kimi-K2.5").quantization.kept == {"attention", "dense", "shared"}


def test_a_config_of_any_other_model_of_these_forms_is_read():
    read = shape(QWEN, "my-model")

    assert (read.num_layers, read.experts.count, read.mla) == (8, 128, None)


def test_the_language_part_of_a_multimodal_config_is_read():
    assert shape({"architectures": ["X"], "text_config": QWEN}).hidden_size == 2048


def test_dense_layers_are_those_that_the_config_names():
    assert shape({**QWEN, "mlp_only_layers": [0, 3]}).moe_layers == (1, 2, 4, 5, 6, 7)
    assert shape({**QWEN, "first_k_dense_replace": 2}).moe_layers == (2, 3, 4, 5, 6, 7)


def test_all_faults_of_a_config_come_at_once():
    broken = {k: v for k, v in QWEN.items() if k not in ("hidden_size", "vocab_size")}

    with pytest.raises(ModelConfigError) as caught:
        shape({**broken, "torch_dtype": "int3", "layer_types": ["dream"] * 8}, "broken")

    assert len(caught.value.faults) == 4
    assert "broken" in str(caught.value)


@pytest.mark.parametrize(
    "extra",
    [{"compress_ratios": [4, 128]}, {"hybrid_override_pattern": "M-"}, {"ssm_state_size": 128}],
)
def test_a_form_without_a_rule_is_refused_and_not_guessed(extra):
    with pytest.raises(ModelConfigError, match="no memory rule"):
        shape({**QWEN, **extra})


def test_an_unknown_model_is_answered_with_near_names():
    with pytest.raises(UnknownNameError, match="DeepSeek-V3"):
        model("deepseek-ai/DeepSeek-V3-Base")
