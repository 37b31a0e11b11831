"""The role's Python environment: found, or installed by pip from its configured index."""

from __future__ import annotations

import sys
import time
from importlib.metadata import version

import pytest
from made_wheel import wheel

from node_bootstrap.assignment import Software
from node_bootstrap.steps.base import StepError
from node_bootstrap.steps.software import SoftwareStep, differences, installed


def test_what_is_missing_or_of_another_version_is_told():
    wanted = {"vllm": "0.32.0", "torch": "2.13.0", "Nixl.Cu13": "1.5.0"}
    assert differences(wanted, {"torch": "2.11.0", "nixl-cu13": "1.5.0"}) == [
        "torch is 2.11.0, not 2.13.0",
        "vllm 0.32.0 is missing",
    ]


def test_an_environment_is_asked_without_importing_what_it_has():
    began = time.monotonic()
    assert installed(sys.executable)["boto3"] == version("boto3")
    assert time.monotonic() - began < 20


def test_an_environment_that_has_the_versions_is_left_alone():
    check = SoftwareStep(Software("venv", sys.executable, {"boto3": version("boto3")})).check()
    assert check.done


def test_an_interpreter_that_is_not_there_is_missing_software_not_a_crash(tmp_path):
    check = SoftwareStep(Software("venv", str(tmp_path / "bin/python"), {"x": "1"})).check()
    assert not check.done
    assert "does not run: No such file or directory" in check.detail


def test_a_bare_node_gets_an_environment_with_the_exact_versions(tmp_path, monkeypatch):
    for number in ("1.0", "1.1"):
        wheel(tmp_path, "moe_sample", number)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    python = str(tmp_path / "venv/bin/python")
    for number in ("1.0", "1.1"):  # the second time the environment is there, of another version
        step = SoftwareStep(Software("venv", python, {"moe-sample": number}))
        step.apply(time.monotonic() + 120)
        assert step.check().done
        assert installed(python)["moe-sample"] == number


def test_what_no_index_has_fails_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    step = SoftwareStep(Software("venv", sys.executable, {"no-such-distribution": "1"}))
    with pytest.raises(StepError, match=r"no-such-distribution 1 is missing(.|\n)*use an image"):
        step.apply(time.monotonic() + 60)
