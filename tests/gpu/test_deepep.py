"""DeepEP built by the node's own installer, and its own test of two GPUs passed with it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from node_bootstrap.assignment import Backend, Component, Software
from node_bootstrap.steps import installers
from node_bootstrap.steps.installer import install
from node_bootstrap.steps.library import parse, query

pytestmark = pytest.mark.gpu

COMMIT = "73b6ea4"
"""That vLLM 0.12 to 0.26 build."""
NVSHMEM = "3.3.24"
BUILD_SECONDS = 560.0


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("deepep")


@pytest.fixture(scope="module")
def index(work) -> dict[str, str]:
    """Where pip finds NVSHMEM: a wheel of what torch brought, where it is there.

    A machine without a way out has no other; any other machine has its own package index.
    """
    spec = importlib.util.find_spec("nvidia.nvshmem")
    if spec is None or not spec.submodule_search_locations:
        return {}
    tree = Path(next(iter(spec.submodule_search_locations)))
    served = work / "served"
    served.mkdir()
    for major in (12, 13):
        name = f"nvidia_nvshmem_cu{major}"
        info = f"{name}-{NVSHMEM}.dist-info"
        texts = {
            "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {NVSHMEM}\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }
        with zipfile.ZipFile(served / f"{name}-{NVSHMEM}-py3-none-any.whl", "w") as made:
            for path in filter(Path.is_file, tree.rglob("*")):
                made.write(path, f"nvidia/nvshmem/{path.relative_to(tree)}")
            for file, text in texts.items():
                made.writestr(f"{info}/{file}", text)
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(served)}


@pytest.fixture(scope="module")
def built(work, index, gpus, needs) -> Path:
    """The folder that the wheel was installed to."""
    needs("torch")
    for tool in ("git", "curl", "nvcc"):
        if shutil.which(tool) is None and not Path(installers.CUDA_HOME, "bin", tool).exists():
            pytest.skip(f"the installer needs {tool}")
    import torch  # noqa: PLC0415 - only here is it known to be there

    source = os.environ.get("MOE_GPU_DEEPEP", "https://github.com/deepseek-ai/DeepEP")
    parts = (
        Component("DeepEP", COMMIT, "venv", source),
        Component("NVSHMEM", NVSHMEM, "venv", "PyPI: nvidia-nvshmem"),
    )
    software = Software("venv", sys.executable, {}, None, parts)
    major = int(torch.version.cuda.split(".")[0])
    name = next(n for n in installers.ARCHITECTURES if n in gpus[0])
    made = installers.wheels(software, name, major, work / "build", work / "wheels")["DeepEP"]
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in index.items():
            patch.setenv(variable, value)
        said = install(made, work / "scripts", began + BUILD_SECONDS)
    print(f"DeepEP {COMMIT} built in {time.monotonic() - began:.0f} s\n{said[-600:]}")
    (wheel,) = (work / "wheels").glob("deep_ep*.whl")
    site = Path(os.environ.get("MOE_GPU_SITE", work / "site"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--upgrade", "--target", str(site), str(wheel)], check=True)
    return site


def environment(site: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path}


def test_what_python_imports_is_the_library_that_was_built(built):
    backend = Backend("deepep_high_throughput", "deep_ep")
    command = query(Software("venv", sys.executable, {}), backend, {})
    said = subprocess.run(
        command, env=environment(built), capture_output=True, text=True, check=False
    )
    found = parse(said.stdout)
    print(found, said.stderr[-500:])
    assert Path(found.file).is_relative_to(built)
    assert "Buffer" in found.names
    assert COMMIT in found.version


def test_its_own_test_passes_on_two_gpus(built, work):
    tests = work / "build/DeepEP/tests"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "test_intranode.py", "--num-processes", "2"],
        cwd=tests,
        env=environment(built),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    lines = done.stdout.splitlines()
    passed = sum(line.rstrip().endswith("passed") for line in lines)
    best = [line for line in lines if "Best" in line]
    print(f"{passed} cases passed in {time.monotonic() - began:.0f} s", *best, sep="\n")
    assert done.returncode == 0, done.stdout[-4000:]
    assert passed >= 24
    assert best
