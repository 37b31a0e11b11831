"""A tiny Qwen3-MoE for the rehearsal: random weights with a fixed seed, its own tokenizer, 2.3 MB.

Eight experts, two per token, so that two to eight ranks hold some; see inside/tiny_model.py for its
shape.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from rehearsal.cache import artifact, locked
from rehearsal.image import vllm

HERE = Path(__file__).resolve().parent
SCRIPT = HERE / "inside" / "tiny_model.py"
CORPUS = HERE / "inside" / "corpus.txt"
CHECKSUMS = "SHA256SUMS"
USUAL_SECONDS = 5.0


class ModelBuildError(RuntimeError):
    """The tiny model couldn't be made: the message has the output of the script that makes it."""


def ensure(destination: Path) -> Path:
    """Make the folder hold the model; returns it.

    A folder that holds something else is replaced, whole: another process sees the old files or the
    new ones.

    Raises:
        ModelBuildError: the script that makes it failed.
        vllm.RuntimeBuildError: the vLLM runtime, which makes it, can't be built.
    """
    made = _made()
    wanted = (made / CHECKSUMS).read_text()
    destination.parent.mkdir(parents=True, exist_ok=True)
    with locked(destination.with_suffix(".lock")):
        if not complete(destination) or (destination / CHECKSUMS).read_text() != wanted:
            _put(made, wanted, destination)
    return destination


def _put(made: Path, wanted: str, destination: Path) -> None:
    with tempfile.TemporaryDirectory(
        prefix=f".{destination.name}-", dir=destination.parent
    ) as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        for name in [*_checksums(wanted), CHECKSUMS]:
            shutil.copyfile(made / name, fresh / name)
        if destination.exists():
            destination.rename(Path(scratch) / "old")
        fresh.rename(destination)


def complete(folder: Path) -> bool:
    """Whether a model folder has every file that its SHA256SUMS names, unchanged."""
    try:
        sums = _checksums((folder / CHECKSUMS).read_text())
        return bool(sums) and all(_sha256(folder / name) == digest for name, digest in sums.items())
    except OSError:
        return False


def generate(runtime: Path, folder: Path) -> None:
    """Write the model's files and their checksums into an existing folder.

    Raises:
        ModelBuildError: the script failed.
    """
    argv = [str(vllm.python(runtime)), str(SCRIPT), str(CORPUS), str(folder)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise ModelBuildError(
            f"{' '.join(argv)}\nended with exit status {done.returncode}:\n{done.stderr}"
        )
    sums = {
        path.name: _sha256(path)
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".")
    }
    (folder / CHECKSUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))


def _made() -> Path:
    inputs: dict[str, str | bytes] = {
        "script": SCRIPT.read_bytes(),
        "corpus": CORPUS.read_bytes(),
        "runtime": vllm.LOCK.read_bytes(),
    }
    return artifact(
        "tiny-qwen3-moe", inputs, lambda folder: generate(vllm.ensure(), folder), USUAL_SECONDS
    )


def _checksums(text: str) -> dict[str, str]:
    pairs = (line.split("  ", 1) for line in text.splitlines())
    return {name: digest for digest, name in pairs}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
