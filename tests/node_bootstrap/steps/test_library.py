"""The library of the all2all backend as a real Python imports it, with the role's environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from node_bootstrap.assignment import Backend, Software
from node_bootstrap.places import Places
from node_bootstrap.steps.library import LibraryStep, agree, decided

V2 = Backend("deepep_v2", "deep_ep")
OWN_CHECK = "def deep_ep_v2_unavailable_reason():\n    return {}\n"
TAKEN = OWN_CHECK.format("None")
OLDER_CHECK = "def has_deep_ep_v2():\n    return {}\n"


@pytest.fixture
def home(tmp_path) -> Path:
    """A virtual environment as far as its mark and its Python go."""
    home = tmp_path / "vllm"
    (home / "bin").mkdir(parents=True)
    (home / "pyvenv.cfg").touch()
    (home / "bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (home / "bin/python").chmod(0o755)
    return home


@pytest.fixture
def step(tmp_path, home):
    """Makes the step of a role whose PYTHONPATH has a deep_ep and a vLLM of this text."""

    def make(
        deep_ep: str, own: str = OWN_CHECK.format("None"), backend: Backend = V2
    ) -> LibraryStep:
        for name, text in (("deep_ep/__init__", deep_ep), ("vllm/utils/import_utils", own)):
            path = tmp_path / f"in-front/{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        software = Software("venv", str(home / "bin/python"), {})
        env = {"PYTHONPATH": str(tmp_path / "in-front"), "HF_HOME": "/x"}
        return LibraryStep(backend, software, Places(tmp_path), "boot-1", env=env)

    return make


ELASTIC = "ElasticBuffer = Buffer = object\n"


def test_what_the_roles_environment_puts_in_front_is_what_is_looked_at(tmp_path, step):
    check = step("Buffer = object\n").check()
    assert not check.done
    assert f"{tmp_path}/in-front/deep_ep/__init__.py" in check.detail


@pytest.mark.parametrize("own", [TAKEN, OLDER_CHECK.format("True")])
def test_a_library_that_vllms_own_check_takes_is_the_right_one(step, own):
    assert step(ELASTIC, own).check().done


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (OWN_CHECK.format("'NCCL >= 2.30.4 but found 2.29.7'"), "vLLM: NCCL >= 2.30.4 but found"),
        (OLDER_CHECK.format("False"), "has_deep_ep_v2() is False"),
        ("import missing\n", "ModuleNotFoundError: No module named 'missing'"),
    ],
)
def test_a_library_that_vllms_own_check_refuses_is_refused_before_vllm_starts(step, own, says):
    check = step(ELASTIC, own).check()
    assert not check.done
    assert says in check.detail


def test_an_environment_made_anew_is_looked_at_in_the_same_boot(home, step):
    assert step(ELASTIC).check().done
    missing = step("raise ImportError('gone')\n")
    assert missing.check().done
    (home / "pyvenv.cfg").rename(home / "old")
    (home / "pyvenv.cfg").touch()
    assert "gone" in missing.check().detail


def test_what_the_group_agreed_on_stands_where_the_next_look_finds_the_same(tmp_path, home, step):
    places = Places(tmp_path)
    made = step(ELASTIC, backend=Backend("deepep_v2", "deep_ep", "allgather_reducescatter"))
    made.check()
    agree(places, "allgather_reducescatter", "n1: no deep_ep")
    (home / "pyvenv.cfg").rename(home / "old")
    (home / "pyvenv.cfg").touch()
    made.check()
    known = decided(places)
    assert known is not None
    assert known.in_effect == "allgather_reducescatter"
