"""The tiny model: the same bytes each time, whole or not at all."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from rehearsal.image import model, reference, vllm


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    sums = []
    for name, text in files.items():
        (folder / name).write_text(text)
        sums.append(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n")
    (folder / model.CHECKSUMS).write_text("".join(sums))
    return folder


@pytest.fixture
def made(tmp_path, monkeypatch) -> Path:
    """A small folder in place of the generated one: these tests are about copying."""
    folder = write(tmp_path / "made", config="new", weights="new")
    monkeypatch.setattr(model, "_made", lambda: folder)
    return folder


def test_a_missing_folder_is_made_with_all_files(made, tmp_path):
    destination = model.ensure(tmp_path / "models" / "tiny")
    assert model.complete(destination)
    assert (destination / "config").read_text() == "new"
    beside = {p.name for p in destination.parent.iterdir()} - {"tiny.lock"}
    assert beside == {"tiny"}


def test_a_complete_folder_is_left_as_it_is(made, tmp_path):
    destination = model.ensure(tmp_path / "tiny")
    before = (destination / "weights").stat()
    model.ensure(destination)
    assert (destination / "weights").stat().st_ino == before.st_ino


@pytest.mark.parametrize("fault", ["lost", "changed", "of another recipe"])
def test_a_folder_that_holds_something_else_is_replaced(made, tmp_path, fault):
    destination = model.ensure(tmp_path / "tiny")
    if fault == "lost":
        (destination / "weights").unlink()
    elif fault == "changed":
        (destination / "weights").write_text("damaged")
    else:
        write(destination, config="old", weights="old")
    model.ensure(destination)
    assert (destination / "weights").read_text() == "new"
    assert model.complete(destination)


def test_an_empty_folder_is_not_complete(tmp_path):
    assert not model.complete(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return model.ensure(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.e2e
class TestGenerated:
    def test_two_runs_give_the_same_bytes(self, folder, tmp_path):
        again = tmp_path / "again"
        again.mkdir()
        model.generate(vllm.ensure(), again)
        assert (again / model.CHECKSUMS).read_text() == (folder / model.CHECKSUMS).read_text()

    def test_it_is_small(self, folder):
        assert 1.5e6 < sum(path.stat().st_size for path in folder.iterdir()) < 3e6

    def test_it_has_what_a_published_model_has(self, folder):
        config = json.loads((folder / "config.json").read_text())
        assert config["architectures"] == ["Qwen3MoeForCausalLM"]
        assert (config["num_experts"], config["num_experts_per_tok"]) == (8, 2)
        assert json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
        assert (folder / "generation_config.json").exists()

    def test_greedy_text_is_varied_readable_and_depends_on_the_whole_prompt(self, folder):
        prompts = ["The first machine is the", "One last machine is the", "Hello"]
        answers = reference.completion(vllm.ensure(), folder, prompts, max_tokens=64)
        for answer in answers:
            assert len(set(answer.token_ids)) > 32  # of 64
            assert answer.text.replace("\n", " ").isprintable()
        # Both end in the same three words: only attention tells them apart.
        assert answers[0].token_ids != answers[1].token_ids


def test_a_failed_script_is_reported_with_its_output(tmp_path):
    runtime = tmp_path / "runtime"
    (runtime / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("false") or "/bin/false", runtime / "bin" / "python")
    with pytest.raises(model.ModelBuildError, match="exit status 1"):
        model.generate(runtime, tmp_path)
