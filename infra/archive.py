"""The bootstrap archive: one zipapp with the node's own code and all that it imports.

Built with pip and shiv from a lock file with hashes, and kept in `build/` under a name made from
what it was built from. The same sources give the same bytes in any checkout, so that an unchanged
node program never looks changed to a node.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from infra.sources import PROJECT

ENTRY_POINT = "node_bootstrap.cli:main"
INTERPRETER = "/usr/bin/python3"
SOURCE_DATE_EPOCH = "315532800"
"""1980-01-01, the first day that a zip file can hold."""

BOTOCORE_SERVICES = ("s3", "ssm", "sts")
"""API models that a node needs; all of botocore's would make the archive ten times as large."""

_RECIPE = "1"
_LEFT_OUT = ("__pycache__",)
_PIP_NOISE = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")

Say = Callable[[str], None]


class ArchiveError(RuntimeError):
    """The archive could not be built; the message has pip's or shiv's own words."""


@dataclass(frozen=True)
class BuiltArchive:
    """The archive on this machine."""

    path: Path
    sha256: str


def build(project: Path = PROJECT, say: Say = print) -> BuiltArchive:
    """Build the archive, or find it built: 15 s with dependencies, 2 s without, else nothing.

    Args:
        project: the checkout; `requirements/node.lock` and `node_bootstrap/` are read from it.
        say: called with a line when there is something to wait for.

    Raises:
        ArchiveError: pip or shiv failed.
    """
    lock = (project / "requirements" / "node.lock").read_bytes()
    sources = node_sources(project / "node_bootstrap")
    dependencies_key = _key([("recipe", _RECIPE.encode()), ("lock", lock)])
    key = _key(
        [("dependencies", dependencies_key.encode()), ("shiv", metadata.version("shiv").encode())]
        + [(path.as_posix(), (project / path).read_bytes()) for path in sources]
    )
    folder = project / "build" / "archive"
    target = folder / f"moe-node-{key}.pyz"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        dependencies = _dependencies(project, folder / f"dependencies-{dependencies_key}", say)
        _pack(project, sources, dependencies, target)
        say(f"bootstrap archive built in {time.monotonic() - began:.0f} s: {target.name}")
    return BuiltArchive(target, hashlib.sha256(target.read_bytes()).hexdigest())


def node_sources(package: Path) -> list[Path]:
    """Files of the node's package, from the checkout's root; vLLM's plugin is among them."""
    return sorted(
        path.relative_to(package.parent)
        for path in package.rglob("*")
        if path.is_file() and not any(part in _LEFT_OUT for part in path.parts)
    )


def _key(inputs: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, data in inputs:
        digest.update(f"{name}:{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:16]


def _dependencies(project: Path, kept: Path, say: Say) -> Path:
    if kept.exists():
        return kept
    say("installing the bootstrap archive's dependencies (usually 10 to 20 s)")
    with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
        tree = Path(scratch) / "site-packages"
        lock = project / "requirements" / "node.lock"
        _run(
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-compile", "--no-deps", "--require-hashes", "--only-binary", ":all:"),
            *("--target", str(tree), "--requirement", str(lock)),
        )
        trim(tree)
        try:
            tree.rename(kept)
        except OSError:
            # Another run was quicker; both hold the same.
            if not kept.exists():
                raise
    return kept


def trim(tree: Path) -> None:
    """Leave only what a node uses and what is the same wherever it was installed."""
    shutil.rmtree(tree / "bin", ignore_errors=True)
    for info in tree.glob("*.dist-info"):
        for name in _PIP_NOISE:
            (info / name).unlink(missing_ok=True)
    data = tree / "botocore" / "data"
    for service in data.iterdir() if data.exists() else ():
        if service.is_dir() and service.name not in BOTOCORE_SERVICES:
            shutil.rmtree(service)


def _pack(project: Path, sources: list[Path], dependencies: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        tree, made = Path(scratch) / "tree", Path(scratch) / target.name
        shutil.copytree(dependencies, tree)
        for path in sources:
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(project / path, tree / path)
        for path in tree.rglob("*"):
            # Modes are part of a zip file, and would follow the umask of who builds.
            path.chmod(0o755 if path.is_dir() else 0o644)
        _run(
            *(sys.executable, "-m", "shiv.cli", "--reproducible", "--entry-point", ENTRY_POINT),
            *("--python", INTERPRETER, "--site-packages", str(tree), "--output-file", str(made)),
        )
        made.replace(target)


def _run(*argv: str) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise ArchiveError(
            f"{' '.join(argv[1:4])} failed with status {done.returncode}:\n"
            f"{(done.stderr or done.stdout)[-2000:]}"
        )
