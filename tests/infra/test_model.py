from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from infra import model
from infra.faults import SettingsError
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
        ("hf", "Hugging Face is not built yet"),
        ("s3://bucket/model", "s3:// is not built yet"),
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
