"""Every script that any example stack can run is checked by shellcheck, as it is rendered."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node_bootstrap.assignment import Component, Software
from node_bootstrap.steps import installers
from node_bootstrap.steps.installer import Installer, render

WORK = Path("/var/lib/moe/build")
ALL = Software(
    "venv",
    "/opt/vllm/bin/python",
    {},
    None,
    tuple(
        Component(name, version, place, source)
        for name, version, place, source in (
            ("EFA driver (installer)", "1.50.0", "host", "https://efa.example/i-1.50.0.tar.gz"),
            ("GDRCopy", "2.5.2", "host", f"https://gdr.example/gdrcopy@{'c' * 40}"),
            ("NCCL", "2.31.2", "venv", "PyPI"),
            ("NVSHMEM", "3.3.24", "venv", "PyPI: nvidia-nvshmem-cu13"),
            ("DeepEP", "874779c9", "venv", "https://git.example/DeepEP"),
            ("UCCL-EP", "0dc87eb", "venv", "https://git.example/uccl"),
        )
    ),
)
BUILT = Software(
    "container",
    "/opt/vllm/bin/python",
    {},
    "moe-serving/vllm-openai-efa:v0.29.0",
    (
        Component("vLLM", "0.29.0", "image", "vllm/vllm-openai:v0.29.0"),
        Component("EFA userspace (installer)", "1.50.0", "image", "https://efa.example/i.tar.gz"),
    ),
)


def part(name):
    found = installers.component(ALL, name)
    assert found is not None
    return found


def every_installer() -> dict[str, Installer]:
    nccl = installers.nccl(part("NCCL"), ALL.python, 13)
    assert nccl is not None
    return {
        "efa on the host": installers.efa(part(installers.EFA_DRIVER), WORK, kernel_module=True),
        "efa beside vLLM": installers.efa(part(installers.EFA_DRIVER), WORK, kernel_module=False),
        "gdrcopy": installers.gdrcopy(part("GDRCopy"), WORK),
        "host": installers.host(Path("/etc/x"), fabric_manager=True, new_options=True),
        "image": installers.image(BUILT, WORK),
        "nccl": nccl,
        "volume": installers.volume(["/dev/nvme1n1", "/dev/nvme2n1"], Path("/opt/dlami/nvme")),
        **installers.wheels(ALL, "H200", 13, WORK, WORK / "wheels"),
    }


def shellcheck() -> str:
    beside = Path(sys.executable).with_name("shellcheck")
    found = str(beside) if beside.exists() else shutil.which("shellcheck")
    assert found, "shellcheck is missing: `make venv` installs it"
    return found


def judge(script: str) -> str:
    command = [shellcheck(), "--shell=bash", "--severity=style", "-"]
    return subprocess.run(command, input=script, text=True, capture_output=True, check=False).stdout


@pytest.mark.parametrize("name", every_installer())
def test_shellcheck_has_nothing_against_a_rendered_script(name: str):
    assert judge(render(every_installer()[name])) == ""


def test_every_installer_file_is_among_those_that_are_checked():
    folder = Path(installers.__file__).parents[1] / "files/installers"
    files = {p.stem for p in folder.glob("*.sh")} - {"lib"}
    assert {i.name for i in every_installer().values()} == files


def test_shellcheck_would_have_found_an_unquoted_variable():
    assert "SC2086" in judge('#!/bin/bash\nx="$1"\nrm $x\n')


def test_a_value_can_not_break_out_of_its_quotes():
    script = render(Installer("nccl", {"PYTHON": "x'; touch /tmp/broken; '"}))
    line = next(line for line in script.splitlines() if line.startswith("readonly PYTHON"))
    echo = ["bash", "-c", f'{line}; printf %s "$PYTHON"']
    assert subprocess.check_output(echo, text=True) == "x'; touch /tmp/broken; '"
