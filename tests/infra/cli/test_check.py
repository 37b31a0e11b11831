from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.checks import ALL_RULES
from infra.faults import CODES

GOOD = """\
model: {name: Qwen/Qwen3-30B-A3B, source: hf}
vllm: {version: 0.33.0}
groups:
  serve: {instance_type: p5.48xlarge}
"""


@pytest.fixture
def settings_file(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_a_stack_that_can_run_ends_with_0(moe, settings_file):
    done = moe("check", "-f", settings_file(GOOD), "--stack", "dev")
    assert done.exit_code == 0
    assert "DRIVER_FLOOR" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("dev: ")


def test_an_error_ends_with_1_and_stands_under_its_group(moe, settings_file):
    text = GOOD.replace("p5.48xlarge", "p5.48xlarge, tensor_parallel_size: 3")
    done = moe("check", "-f", settings_file(text))
    lines = done.stdout.splitlines()
    assert done.exit_code == 1
    assert lines[0] == "groups.serve"
    assert "ERROR" in lines[1]
    assert "TENSOR_PARALLEL_HEADS" in lines[1]


def test_unreadable_settings_end_with_2_and_the_codes_of_their_faults(moe, settings_file):
    done = moe("check", "-f", settings_file(GOOD.replace("groups", "group")))
    assert done.exit_code == 2
    assert "SETTINGS_UNKNOWN_KEY" in done.stdout
    assert "SETTINGS_MISSING_KEY" in done.stdout


def test_findings_for_programs(moe, settings_file):
    found = json.loads(moe("check", "-f", settings_file(GOOD), "--json").stdout)
    assert set(found[0]) == {"code", "severity", "where", "message", "remedy"}


def test_messages_are_never_cut(moe, settings_file):
    text = GOOD.replace("p5.48xlarge", "p5.48xlarge, max_model_len: 65536")
    shown = " ".join(moe("check", "-f", settings_file(text)).stdout.split())
    assert "the length is greater than the derived max_model_len" in shown


@pytest.mark.parametrize("code", [*(rule.code for rule in ALL_RULES), *CODES])
def test_every_code_is_explained(moe, code):
    done = moe("explain", code)
    assert done.exit_code == 0
    assert done.stdout.startswith(code)
    assert "Do:" in done.stdout


def test_a_code_is_found_however_it_is_written(moe):
    assert moe("explain", "eplb-uneven-split").stdout.startswith("EPLB_UNEVEN_SPLIT")


def test_an_unknown_code_names_near_ones(moe):
    done = moe("explain", "EPLB_UNEVEN")
    assert done.exit_code == 2
    assert "EPLB_UNEVEN_SPLIT" in done.output
