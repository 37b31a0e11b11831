from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

PULUMI = """#!/bin/sh
echo "$@" > {arguments}
cat {answer}
exit {status}
"""


@pytest.fixture
def pulumi(tmp_path, monkeypatch, stack_file):
    """Puts a program on the PATH that answers as Pulumi did; returns what it was called with."""
    monkeypatch.setenv("MOE_SERVING_STACKS", str(stack_file.parent))
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "test")
    # Nothing answers there, so there is no record.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    folder = tmp_path / "bin"
    folder.mkdir()

    def answer(document: dict, status: int = 0) -> Path:
        (tmp_path / "answer").write_text(json.dumps(document))
        places = {"arguments": tmp_path / "arguments", "answer": tmp_path / "answer"}
        (folder / "pulumi").write_text(PULUMI.format(**places, status=status))
        (folder / "pulumi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return tmp_path / "arguments"

    return answer


def test_says_what_pulumi_says_in_words(moe, pulumi):
    arguments = pulumi({"steps": []})
    shown = moe("preview", "dev")
    assert shown.exit_code == 0, shown.output
    assert "- Nothing changes." in shown.stdout
    assert "The record of the last update can't be read" in shown.stderr
    assert arguments.read_text().startswith("preview --json --refresh --non-interactive")


def test_the_stack_file_is_not_given_to_pulumi_itself(moe, pulumi, stack_file):
    arguments = pulumi({"steps": []})
    moe("preview", "dev")
    assert "--config-file" in arguments.read_text()
    assert str(stack_file) not in arguments.read_text()


def test_json_has_the_words_too(moe, pulumi):
    pulumi({"steps": []})
    assert "Nothing changes." in json.loads(moe("preview", "dev", "--json").stdout)["words"]


def test_what_pulumi_refuses_is_told(moe, pulumi):
    pulumi({"steps": [], "diagnostics": [{"severity": "error", "message": "no such key"}]}, 1)
    shown = moe("preview", "dev")
    assert shown.exit_code == 2
    assert "pulumi preview of dev failed:\nno such key" in shown.output


def test_without_pulumi_it_says_how_to_get_it(moe, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    shown = moe("preview", "dev")
    assert shown.exit_code == 2
    assert 'eval "$(make -s env)" first' in shown.output


def test_the_record_is_asked_of_the_account_of_the_stacks_profile(moe, pulumi, stack_file):
    pulumi({"steps": []})
    stack_file.write_text(f"{stack_file.read_text()}  aws:profile: a-profile-nobody-has\n")
    shown = moe("preview", "dev")
    assert shown.exit_code == 2
    assert "The config profile (a-profile-nobody-has) could not be found" in shown.output
