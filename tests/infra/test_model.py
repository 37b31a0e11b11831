from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from infra import model
from infra.faults import SettingsError
from infra.settings import ModelSettings
from node_bootstrap.assignment import WeightFile


def test_files_are_sorted_with_size_and_digest(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"num_experts": 8}')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.bin").write_bytes(b"12")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x").write_text("hidden")
    read = model.read(".", tmp_path)
    assert read.config == {"num_experts": 8}
    assert [file.path for file in read.files] == ["config.json", "sub/a.bin"]
    assert read.files[1] == WeightFile("sub/a.bin", 2, hashlib.sha256(b"12").hexdigest())


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("absent", "there is no folder"),
        (".", "no readable config.json"),
    ],
)
def test_what_is_no_model(tmp_path: Path, source: str, sentence: str):
    with pytest.raises(SettingsError, match=sentence) as raised:
        model.read(source, tmp_path)
    assert raised.value.faults[0].startswith("moe-serving:model.source: ")


@pytest.mark.parametrize(("text", "sentence"), [("{", "is not JSON"), ("[]", "no JSON object")])
def test_config_that_is_no_config(tmp_path: Path, text: str, sentence: str):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SettingsError, match=sentence):
        model.read(".", tmp_path)


TINY = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 1024,
    "max_position_embeddings": 512,
    "moe_intermediate_size": 128,
    "num_experts": 8,
    "num_experts_per_tok": 2,
}
DEEPSEEK = "deepseek-ai/DeepSeek-V3-0324"


@pytest.mark.parametrize("source", ["hf", "s3://bucket/prefix"])
def test_a_model_of_the_catalog_needs_no_files(tmp_path: Path, source: str):
    found = model.facts(ModelSettings(name=DEEPSEEK, source=source), tmp_path)
    assert (found.files, found.shape and found.shape.experts.count) == ((), 256)


def test_any_other_model_elsewhere_needs_its_config(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"model\.config: missing"):
        model.facts(ModelSettings(name="org/own", source="hf"), tmp_path)


def test_a_config_json_takes_the_place_of_the_catalog(tmp_path: Path):
    path = tmp_path / "own.json"
    path.write_text(json.dumps(TINY | {"num_experts": 12}))
    asked = ModelSettings(name="org/own", source="hf", config="own.json")
    assert model.facts(asked, tmp_path).shape.experts.count == 12
    by_option = model.facts(ModelSettings(name="org/own", source="hf"), tmp_path, path)
    assert by_option.shape.experts.count == 12


def test_a_config_that_no_rule_covers_leaves_the_shape_open(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"num_experts": 8}')
    found = model.facts(ModelSettings(name="org/own", source="."), tmp_path)
    assert found.shape is None
    assert any("hidden_size" in fault for fault in found.faults)
    assert found.require_folder().config == {"num_experts": 8}


def test_another_kind_of_source(tmp_path: Path):
    with pytest.raises(SettingsError, match="wanted a folder, s3://bucket/prefix, or hf"):
        model.facts(ModelSettings(name="org/own", source="gs://x"), tmp_path)
