from __future__ import annotations

from pathlib import Path

import pytest

from infra import sources
from infra.faults import SettingsError


def write(folder: Path, text: str, name: str = "Pulumi.dev.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_stack_file_gives_our_keys_and_the_region(tmp_path: Path):
    path = write(
        tmp_path,
        "config:\n  aws:region: eu-west-1\n  aws:profile: x\n  moe-serving:ready_timeout: 5m\n",
    )
    source = sources.read_file(path)
    assert (dict(source.values), source.region) == ({"ready_timeout": "5m"}, "eu-west-1")
    assert (source.base, source.profile) == (tmp_path, "x")


def test_settings_file_holds_the_keys_alone(tmp_path: Path):
    path = write(tmp_path, "model: {name: m, source: s}\n", "settings.yaml")
    assert sources.read_file(path).values == {"model": {"name": "m", "source": "s"}}


def test_unknown_keys_are_kept_for_the_judge(tmp_path: Path):
    path = write(tmp_path, "config:\n  moe-serving:grops: 1\n")
    assert sources.read_file(path).values == {"grops": 1}


def test_two_groups_of_one_name_are_a_fault_with_both_lines(tmp_path: Path):
    path = write(
        tmp_path,
        "config:\n  moe-serving:groups:\n    serve: {nodes: 1}\n    serve: {nodes: 2}\n",
    )
    with pytest.raises(
        SettingsError, match=r"Pulumi.dev.yaml:4: 'serve' is given twice \(first in line 3\)"
    ):
        sources.read_file(path)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("a: [", "is not YAML"), ("- a", "wanted a map of settings, got list"), ("", "got NoneType")],
)
def test_what_is_no_settings_file(tmp_path: Path, text: str, sentence: str):
    with pytest.raises(SettingsError, match=sentence):
        sources.read_file(write(tmp_path, text))


def test_missing_file_names_its_path(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"absent\.yaml: can't be read"):
        sources.read_file(tmp_path / "absent.yaml")


def test_yaml_can_make_no_objects(tmp_path: Path):
    with pytest.raises(SettingsError, match="is not YAML"):
        sources.read_file(write(tmp_path, "a: !!python/object/apply:os.getcwd []\n"))


def test_pulumi_config_objects_are_json_and_texts_are_texts(tmp_path: Path):
    source = sources.from_pulumi(
        {
            "aws:region": "us-east-1",
            "aws:profile": "work",
            "moe-serving:groups": '{"serve": {"nodes": 2}}',
            "moe-serving:ready_timeout": "30m",
            "other:key": "1",
        },
        "dev",
        tmp_path,
    )
    assert source.values == {"groups": {"serve": {"nodes": 2}}, "ready_timeout": "30m"}
    assert (source.region, source.profile) == ("us-east-1", "work")


def test_a_pulumi_run_reads_the_stack_file_for_names_given_twice(tmp_path: Path):
    write(tmp_path, "config:\n  moe-serving:ami: a\n  moe-serving:ami: b\n")
    with pytest.raises(SettingsError, match="given twice"):
        sources.from_pulumi({}, "dev", tmp_path)


@pytest.mark.parametrize(
    ("of_stack", "environment", "region"),
    [
        ("eu-west-1", {"AWS_REGION": "us-east-1"}, "eu-west-1"),
        (None, {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "x"}, "us-east-1"),
        (None, {"AWS_DEFAULT_REGION": "us-west-2"}, "us-west-2"),
    ],
)
def test_region_of_the_stack_comes_before_the_shells(of_stack, environment, region, tmp_path: Path):
    source = sources.Source({}, of_stack, tmp_path)
    assert sources.require_region(source, environment) == region


def test_no_region_is_a_fault(tmp_path: Path):
    with pytest.raises(SettingsError, match="aws:region: missing"):
        sources.require_region(sources.Source({}, None, tmp_path), {})


def test_a_token_in_plain_text_is_refused_and_not_repeated(tmp_path):
    (tmp_path / "s.yaml").write_text("huggingface_token: hf_secret\n")
    with pytest.raises(SettingsError, match="is written in plain text") as raised:
        sources.read_file(tmp_path / "s.yaml")
    assert "hf_secret" not in str(raised.value)


def test_settings_know_that_there_is_a_token_and_never_the_token(tmp_path):
    (tmp_path / "s.yaml").write_text("moe-serving:huggingface_token: {secure: v1:abc}\n")
    assert sources.read_file(tmp_path / "s.yaml").values == {"huggingface_token": True}
    run = sources.from_pulumi({"moe-serving:huggingface_token": "hf_secret"}, "none", tmp_path)
    assert run.values == {"huggingface_token": True}
