"""Which steps the nodes of the example stacks run, and every script that these could run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from infra import model, sources
from infra.plan.assignments import Place, assignments
from infra.planning import make_plan
from node_bootstrap import runner
from node_bootstrap.assignment import Archive, Assignment
from node_bootstrap.places import Places
from node_bootstrap.runner import CommandError
from node_bootstrap.steps import container, disks, fabric, host, nccl, role_unit, wheels
from node_bootstrap.steps.base import StepError
from node_bootstrap.steps.choose import Node, steps
from node_bootstrap.steps.hardware import HardwareStep
from node_bootstrap.steps.installer import render
from node_bootstrap.steps.role_unit import RoleStep
from node_bootstrap.steps.software import SoftwareStep
from node_bootstrap.steps.weights import WeightsStep

GPU = ("single-node", "wide-ep", "pd", "p6-b200", "p6-b300")
GPU_IN_A_VENV = {"runtime": "venv", "deepep": "efa"}
UCCL_IN_A_VENV = {"runtime": "venv", "deepep": "uccl"}


def nodes_of(stack: str, **vllm: str) -> tuple[Assignment, ...]:
    source = sources.read_file(sources.stack_file(stack), sources.PROJECT)
    settings = sources.load(source, stack)
    settings = settings.model_copy(update={"vllm": settings.vllm.model_copy(update=vllm)})
    plan = make_plan(stack, settings, model.facts(settings.model, sources.PROJECT), source.region)
    addresses = {node.name: f"10.42.0.{10 + i}" for i, node in enumerate(plan.nodes)}
    place = Place("us-east-2", "bucket", Archive("bootstrap/a.pyz", "a"), addresses)
    return tuple(assignments(plan, place).values())


def node(root: Path, run) -> Node:
    return Node(
        places=Places(root),
        boot_id="boot-1",
        gate=lambda a, needs: HardwareStep(a.hardware, needs=needs),
        read=lambda *_: iter(()),
        interface=lambda: "ens5",
        parameters=lambda names: dict.fromkeys(names, "value"),
        systemd=False,
        run=run,
        shelf=wheels.Shelf(lambda _: None, lambda *_: True),
    )


def bare(command):
    """A node on which nothing is installed, with eight bare disks."""
    if command[0] == "lsblk":
        store = {"type": "disk", "size": 1, "model": "Amazon EC2 NVMe Instance Storage"}
        return json.dumps({"blockdevices": [{"name": f"nvme{n}n1"} | store for n in range(8)]})
    if command[0] == "findmnt":
        return json.dumps({"filesystems": []})
    if command[:2] == ("cat", "/proc/driver/nvidia/version"):
        return "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  595.91.07  Release"
    if command[0] == "uname":
        return "6.17.0-1014-aws"
    if command[0] in ("mkdir", "mount"):
        return ""
    raise CommandError(tuple(command), None, "No such file or directory")


def names(assignment: Assignment, root: Path) -> list[str]:
    return [step.name for step in steps(assignment, node(root, bare))]


def on_cpu(assignment: Assignment) -> Assignment:
    """What a CPU stack's node is told has no components, GPUs, disks or backend."""
    return dataclasses.replace(
        assignment,
        software=dataclasses.replace(
            assignment.software, runtime="venv", components=(), image=None
        ),
        hardware=dataclasses.replace(
            assignment.hardware, gpu_count=0, efa_devices=0, local_disks=0, nvlink=False
        ),
        backend=None,
    )


def test_a_node_without_gpus_runs_four_steps(tmp_path):
    assignment = on_cpu(nodes_of("single-node")[0])
    assert names(assignment, tmp_path) == ["hardware", "software", "weights", "role"]


@pytest.mark.parametrize(
    ("stack", "also"),
    [
        ("single-node", []),
        ("p6-b200", []),
        ("wide-ep", ["gdrcopy", "backend"]),
        ("pd", ["backend", "nixl"]),
    ],
)
def test_a_gpu_node_runs_what_its_plan_calls_for(stack, also, tmp_path):
    every = [
        "host",
        "efa",
        "gdrcopy",
        "hardware",
        "disks",
        "software",
        "backend",
        "nixl",
        "weights",
        "role",
    ]
    optional = {"gdrcopy", "backend", "nixl"}
    expected = [name for name in every if name not in optional or name in also]
    assert names(nodes_of(stack)[0], tmp_path) == expected


@pytest.mark.parametrize("stack", GPU)
def test_a_step_needs_only_steps_before_it(stack, tmp_path):
    for assignment in nodes_of(stack):
        before: set[str] = set()
        for step in steps(assignment, node(tmp_path, bare)):
            assert before.issuperset(step.needs), step.name
            before.add(step.name)


def built_for(assignment: Assignment) -> Assignment:
    """The same software, for an image."""
    return dataclasses.replace(assignment, target="image", agent_token_parameter="", members=())


@pytest.mark.parametrize(
    ("stack", "vllm", "expected"),
    [
        ("single-node", {}, ["host", "efa", "software"]),
        ("wide-ep", {}, ["host", "efa", "gdrcopy", "software"]),
        ("wide-ep", GPU_IN_A_VENV, ["host", "efa", "gdrcopy", "software", "nccl", "wheels"]),
        ("pd", UCCL_IN_A_VENV, ["host", "efa", "software", "wheels"]),
    ],
)
def test_an_image_gets_the_software_of_a_node_and_nothing_of_its_own(
    stack, vllm, expected, tmp_path
):
    made = steps(built_for(nodes_of(stack, **vllm)[0]), node(tmp_path, bare))
    assert [step.name for step in made] == expected
    before: set[str] = set()
    for step in made:
        assert before.issuperset(step.needs), step.name
        before.add(step.name)


def test_an_image_for_nodes_without_gpus_gets_their_software_alone(tmp_path):
    assert names(built_for(on_cpu(nodes_of("single-node")[0])), tmp_path) == ["software"]


@pytest.mark.parametrize("vllm", [{}, GPU_IN_A_VENV], ids=["container", "venv"])
def test_the_scripts_of_a_builder_start_and_load_nothing_that_takes_a_gpu(
    vllm, tmp_path, monkeypatch
):
    made = scripts(built_for(nodes_of("wide-ep", **vllm)[0]), tmp_path, monkeypatch)
    assert "readonly START=no" in made["host"]
    assert "readonly LOAD=no" in made["gdrcopy"]
    assert {name: judge(text) for name, text in made.items()} == dict.fromkeys(made, "")


def test_the_script_that_clears_a_builder_has_nothing_against_it():
    script = resources.files("node_bootstrap.files").joinpath("seal.sh").read_text()
    assert judge(script) == ""


def scripts(assignment: Assignment, root: Path, monkeypatch) -> dict[str, str]:
    """What the steps of a bare node would run, in place of running it."""
    found: dict[str, str] = {}

    def keep(installer, folder, deadline):
        found[installer.name] = render(installer)
        return ""

    for module in (container, disks, fabric, host, nccl, wheels):
        monkeypatch.setattr(module, "install", keep)
    for step in steps(assignment, node(root, bare)):
        if not isinstance(step, (HardwareStep, SoftwareStep, WeightsStep, RoleStep)):
            with contextlib.suppress(StepError, CommandError):
                step.apply(1e12)
    return found


def judge(script: str) -> str:
    beside = Path(sys.executable).with_name("shellcheck")
    program = str(beside) if beside.exists() else shutil.which("shellcheck")
    assert program, "shellcheck is missing: `make venv` installs it"
    command = [program, "--shell=bash", "--severity=style", "-"]
    return subprocess.run(command, input=script, text=True, capture_output=True, check=False).stdout


@pytest.mark.parametrize("stack", GPU)
def test_shellcheck_has_nothing_against_any_script_of_an_example(stack, tmp_path, monkeypatch):
    made: dict[str, str] = {}
    for assignment in nodes_of(stack):
        made |= scripts(assignment, tmp_path, monkeypatch)
    assert {"host", "efa", "image", "volume"} <= made.keys()
    assert {name: judge(text) for name, text in made.items()} == dict.fromkeys(made, "")


@pytest.mark.parametrize("vllm", [GPU_IN_A_VENV, UCCL_IN_A_VENV], ids=["deepep", "uccl"])
def test_a_library_that_no_image_brings_is_built_by_a_clean_script(vllm, tmp_path, monkeypatch):
    made = scripts(nodes_of("pd", **vllm)[0], tmp_path, monkeypatch)
    assert ("uccl" if vllm["deepep"] == "uccl" else "deepep") in made
    assert {name: judge(text) for name, text in made.items()} == dict.fromkeys(made, "")


def test_a_release_of_cuda_12_builds_its_library_with_cuda_12(tmp_path, monkeypatch):
    (assignment, *_) = nodes_of("pd", runtime="venv", deepep="stock", version="0.16.0")
    made = scripts(assignment, tmp_path, monkeypatch)["deepep"]
    assert re.search(r"'nvidia-nvshmem-cu12==3.3.24 --hash=sha256:0032831c[0-9a-f]{56}'", made)
    assert "readonly CUDA_HOME=/usr/local/cuda-12.9\n" in made
    (step,) = [s for s in steps(built_for(assignment), node(tmp_path, bare)) if s.name == "wheels"]
    assert "-cu12-sm" in step.key


def test_deepep_v2_in_an_environment_gets_its_nccl_before_the_library(tmp_path, monkeypatch):
    assignment = nodes_of("wide-ep", **GPU_IN_A_VENV)[0]
    found = names(assignment, tmp_path)
    assert found.index("software") < found.index("nccl") < found.index("backend")
    made = scripts(assignment, tmp_path, monkeypatch)
    # Shell quotes it: only with its digest does pip check what the index serves.
    assert re.search(r"'nvidia-nccl-cu13==2.31.2 --hash=sha256:[0-9a-f]{64}'", made["nccl"])
    assert judge(made["nccl"]) == ""


def test_the_role_runs_in_its_container_with_devices_and_without_secrets_in_sight(tmp_path):
    assignment = nodes_of("wide-ep")[0]
    (tmp_path / "dev/infiniband").mkdir(parents=True)
    for name in ("gdrdrv", "infiniband/uverbs0", "infiniband/uverbs1"):
        (tmp_path / "dev" / name).touch()
    argv = container.docker_run(assignment, Places(), ("VLLM_API_KEY",), tmp_path / "dev")
    words = " ".join(argv)
    for part in (
        "--network host --ipc host --gpus all --ulimit memlock=-1:-1",
        "--device /dev/gdrdrv --device /dev/infiniband/uverbs0 --device /dev/infiniband/uverbs1",
        "--env VLLM_API_KEY --stop-timeout",
        "--entrypoint vllm vllm/vllm-openai:v0.33.0-efa serve s3://",
    ):
        assert part in words
    role = steps(assignment, node(tmp_path, bare))[-1]
    assert isinstance(role, RoleStep)
    texts = {path.name: text for path, text, _ in role._files()}
    assert "ExecStopPost=-/usr/bin/docker rm --force moe-role" in texts["moe-role.service"]
    assert "value" not in texts["moe-role.service"].replace("value=", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_cache_that_root_made_on_the_local_disks_is_given_to_the_role(tmp_path, monkeypatch):
    assignment = nodes_of("pd", **GPU_IN_A_VENV)[0]
    monkeypatch.setattr(role_unit, "USER", "nobody")
    monkeypatch.setattr(runner, "run", lambda *_, **__: "")
    made = dataclasses.replace(node(tmp_path, bare), systemd=True)
    role = steps(assignment, made)[-1]
    made.places.cache.mkdir(parents=True)
    assert "cache does not belong to nobody" in role.check().detail
    role.apply(1e12)
    assert role.check().done
    assert made.places.cache.owner() == "nobody"


def test_a_unit_that_was_written_and_never_told_to_systemd_is_told_again(tmp_path, monkeypatch):
    """A run that was killed between the two left an old command line in systemd's memory."""
    told: list[str] = []

    def systemd(command, **_):
        told.append(command[1])
        return "" if "daemon-reload" in told else "yes\n"

    monkeypatch.setattr(role_unit, "USER", "nobody")
    monkeypatch.setattr(runner, "run", systemd)
    assignment = nodes_of("single-node")[0]
    role = steps(assignment, dataclasses.replace(node(tmp_path, bare), systemd=True))[-1]
    assert isinstance(role, RoleStep)
    role.places.cache.mkdir(parents=True)
    for path, text, mode in role._files():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    assert role.check().detail == "systemd has not read moe-role.service yet"
    role.apply(1e12)
    assert role.check().done
    assert told == ["show", "daemon-reload", "show"]
