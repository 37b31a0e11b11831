"""Artifacts built once and kept: keyed by what they were built from, whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from rehearsal.paths import cache_root

KEPT_DAYS = 30


def key_of(inputs: Mapping[str, str | bytes]) -> str:
    """Twelve hex digits that change when any input does."""
    digest = hashlib.sha256()
    for name in sorted(inputs):
        value = inputs[name]
        data = value.encode() if isinstance(value, str) else value
        digest.update(f"{name}:{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:12]


def artifact(
    kind: str,
    inputs: Mapping[str, str | bytes],
    build: Callable[[Path], None],
    usual_seconds: float,
) -> Path:
    """Return the folder of an artifact, building it where it is missing.

    Args:
        kind: what it is, for the folder's name and the progress line.
        inputs: everything that decides the result (versions, sources, lock files).
        build: fills an empty folder; what it raises is passed on and nothing is kept.
        usual_seconds: how long it takes on two cores, shown beside the time so far.

    Two processes that want the same artifact build it once: the second one waits.
    A folder's path while it is built is the one it keeps, so that absolute paths may be in it.
    One of the same kind that nobody has asked for in KEPT_DAYS goes when another is built.
    """
    folder = cache_root() / f"{kind}-{key_of(inputs)}"
    done = folder / ".complete"
    if done.exists():
        done.touch()
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_suffix(".lock")):
        if done.exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with progress(f"building {kind}", usual_seconds):
            build(folder)
        done.touch()
    _drop_unused(folder)
    return folder


def _drop_unused(built: Path) -> None:
    """Remove what another input once made and no checkout uses any more: gigabytes each."""
    kind = built.name.rpartition("-")[0]
    oldest = time.time() - KEPT_DAYS * 24 * 3600
    for done in built.parent.glob(f"{kind}-{'[0-9a-f]' * 12}/.complete"):
        if done.stat().st_mtime < oldest:
            shutil.rmtree(done.parent)
            done.parent.with_suffix(".lock").unlink(missing_ok=True)


def built(kind: str, inputs: Mapping[str, str | bytes]) -> Path | None:
    """The folder of an artifact where it is whole, else None; builds nothing."""
    folder = cache_root() / f"{kind}-{key_of(inputs)}"
    return folder if (folder / ".complete").exists() else None


@contextmanager
def progress(what: str, usual_seconds: float) -> Iterator[None]:
    """Show what runs, for how long, and how long it usually takes; one line each when not a tty."""
    console = Console(stderr=True)
    note = f"{what} (usually {usual_seconds:.0f} s)"
    started = time.monotonic()
    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            bar.add_task(note)
            yield
    else:
        console.print(f"… {note}", highlight=False)
        yield
    console.print(f"✓ {what}: {time.monotonic() - started:.1f} s", highlight=False)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, against every other process."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
