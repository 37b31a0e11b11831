"""UCCL-EP: its wheels built by the node's own installer, and its wrapper told from a stock DeepEP.

The repository has upstream's layout and packaging at the planned commit; its kernels are a few
lines of C.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import made_wheel
import pytest

from node_bootstrap.assignment import Backend, Component, Software
from node_bootstrap.steps import installers
from node_bootstrap.steps.installer import install
from node_bootstrap.steps.library import Imported, fault, parse, query

BACKEND = Backend("deepep_low_latency", "deep_ep")
WRAPPER = "/opt/vllm/lib/python3.12/site-packages/deep_ep/__init__.py"
KERNELS = "/opt/vllm/lib/python3.12/site-packages/uccl/ep.abi3.so"
FILES = {
    "setup.py": """
from setuptools import Extension, find_packages, setup
setup(
    name="uccl",
    version="0.1.1",
    packages=find_packages(),
    ext_modules=[Extension("uccl._platform_tag_stub", sources=["uccl/_platform_tag_stub.c"])],
    package_data={"uccl": ["lib/*.so", "p2p*.so", "ep*.so"]},
    install_requires=["intervaltree"],
)
""",
    "uccl/__init__.py": "",
    "uccl/_platform_tag_stub.c": """
#include <Python.h>
static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "_platform_tag_stub"};
PyMODINIT_FUNC PyInit__platform_tag_stub(void) { return PyModule_Create(&def); }
""",
    "ep/setup.py": """
import os, shutil
from pathlib import Path
import nanobind
from setuptools import Extension, setup
from setuptools.command.install import install

class CustomInstall(install):
    def run(self):
        self.run_command("build_ext")
        built = Path(self.get_finalized_command("build_ext").build_lib)
        os.makedirs(os.environ["INSTALL_DIR"], exist_ok=True)
        shutil.copy2(next(built.glob("ep*.so")), os.environ["INSTALL_DIR"])

setup(
    name="ep",
    version="0.0.1",
    ext_modules=[Extension("ep", sources=["ep.c"])],
    cmdclass={"install": CustomInstall},
)
""",
    "ep/ep.c": """
#include <Python.h>
static struct PyModuleDef def = {PyModuleDef_HEAD_INIT, "ep"};
PyMODINIT_FUNC PyInit_ep(void) {
  PyObject *m = PyModule_Create(&def);
  PyModule_AddObjectRef(m, "Config", (PyObject *)&PyBaseObject_Type);
  return m;
}
""",
    "ep/bench/buffer.py": "from uccl import ep\n\n\nclass Buffer:\n    pass\n",
    "ep/deep_ep_wrapper/setup.py": """
from setuptools import find_packages, setup
setup(name="deep_ep", version="0.1.0", packages=find_packages(), install_requires=["uccl"])
""",
    "ep/deep_ep_wrapper/deep_ep/__init__.py": (
        "from uccl.ep import Config\n\nfrom .buffer import Buffer\n"
    ),
}


def planned(source: str = "https://git.example/uccl", commit: str = "0dc87eb") -> Software:
    parts = (Component("UCCL-EP", commit, "venv", source),)
    return Software("venv", sys.executable, {}, None, parts)


@pytest.fixture
def repository(tmp_path) -> tuple[str, str]:
    folder = tmp_path / "repository"
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "ep/deep_ep_wrapper/deep_ep/buffer.py").symlink_to("../../bench/buffer.py")
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    return str(folder), head


@pytest.fixture
def site(tmp_path, repository, monkeypatch) -> Path:
    """The folder that the wheels of the node's installer were installed to."""
    for tool in ("apt-get", "dpkg"):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / tool).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / tool).chmod(0o755)
    nanobind = made_wheel.wheel(tmp_path, "nanobind", "2.12.0")
    pin = f"nanobind==2.12.0 --hash=sha256:{made_wheel.sha256(nanobind)}"
    monkeypatch.setattr(installers, "NANOBIND", pin)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    folder = tmp_path / "wheels"
    recipe = installers.wheels(planned(*repository), "H200", 13, tmp_path / "work", folder)
    install(recipe["UCCL-EP"], tmp_path / "scripts", time.monotonic() + 300)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
    wheels = [str(path) for path in folder.glob("*.whl")]
    subprocess.run([*pip, str(tmp_path / "site"), *wheels], check=True)
    return tmp_path / "site"


def test_the_wheels_that_the_node_builds_are_imported_as_the_planned_library(site):
    said = subprocess.run(
        query(planned(), BACKEND, {}),
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    found = parse(said.stdout)
    assert isinstance(found, Imported)
    assert (found.version, found.names, found.error) == ("0.1.0", ("Buffer",), "")
    assert Path(found.uccl).parent == site / "uccl"
    assert fault(BACKEND, planned(), found) == ""


def test_upstreams_wrapper_is_told_by_the_kernels_that_it_imports():
    found = Imported(WRAPPER, "0.1.0", KERNELS, names=("Buffer",))
    assert fault(BACKEND, planned(), found) == ""


def test_a_stock_deepep_in_place_of_the_wrapper_is_refused():
    found = Imported(WRAPPER, "1.2.1+73b6ea4", names=("Buffer",))
    assert "is not UCCL's wrapper" in fault(BACKEND, planned(), found)


def test_its_build_is_told_the_architecture_as_a_number():
    made = installers.wheels(planned(), "H200", 13, Path("/w"), Path("/w/wheels"))
    assert made["UCCL-EP"].values["CUDA_ARCHITECTURES"] == "9.0"
