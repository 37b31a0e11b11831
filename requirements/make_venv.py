# ruff: noqa: INP001 - a script, run before anything can be imported
"""Make or renew the checkout's virtual environment; standard library only, for any Python 3.

It installs requirements/dev.lock (by hash) and the checkout itself, and says what takes long.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

OLDEST = (3, 11)
CHECKOUT = Path(__file__).resolve().parent.parent
VENV = CHECKOUT / ".venv"
PYTHON = VENV / "bin" / "python"
LOCK = CHECKOUT / "requirements" / "dev.lock"
STAMP = VENV / ".installed"
"""Newer than the lock and pyproject.toml when all is installed; make compares the times."""


def main() -> None:
    """Do it, or end with a sentence on what is missing."""
    if sys.version_info < OLDEST:
        fail(
            "This needs Python 3.11 or newer, and `python3` is "
            f"{sys.version_info[0]}.{sys.version_info[1]}. Put a newer one on PATH, or name it: "
            "make PYTHON3=/path/to/python3.11"
        )
    if not PYTHON.exists():
        ensure_ensurepip()
        run("making .venv", 5, [sys.executable, "-m", "venv", str(VENV)])
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run("installing Python packages", 75, [*pip, "--require-hashes", "-r", str(LOCK)])
    here = [*pip, "--no-deps", "--no-build-isolation", "-e", str(CHECKOUT)]
    run("installing this checkout", 5, here)
    STAMP.touch()


def ensure_ensurepip() -> None:
    """Debian keeps the part of Python that fills a virtual environment in a package of its own."""
    asked = subprocess.run(
        [sys.executable, "-c", "import ensurepip"], capture_output=True, check=False
    )
    if asked.returncode == 0:
        return
    package = f"python3.{sys.version_info[1]}-venv"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        fail(f"Python's `venv` can't be used: ensurepip is missing. Install {package}.")
    run("asking for Debian's packages", 5, ["apt-get", "update", "-qq"])
    run(f"installing {package}", 5, ["apt-get", "install", "-qq", "-y", package])


def run(what: str, usual_seconds: int, command: list) -> None:
    """Run a command, showing what it does, how long so far and how long it usually takes."""
    started = time.monotonic()
    done = threading.Event()
    note = f"… {what} (usually {usual_seconds} s)"
    show(note)
    ticker = threading.Thread(target=tick, args=(note, started, done), daemon=True)
    ticker.start()
    ended = subprocess.run(
        command,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    done.set()
    ticker.join()
    if ended.returncode != 0:
        fail(f"`{' '.join(command)}` failed (exit status {ended.returncode}):\n{ended.stdout}")
    show(f"✓ {what}: {time.monotonic() - started:.1f} s")


def tick(note: str, started: float, done: threading.Event) -> None:
    """Count the seconds beside the note, where a person watches."""
    while sys.stderr.isatty() and not done.wait(1):
        print(f"\r{note} {time.monotonic() - started:.0f} s", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def show(line: str) -> None:
    """Write to stderr: stdout belongs to what make's target prints (`make -s env`)."""
    print(line, file=sys.stderr, flush=True)


def fail(message: str) -> None:
    """End with a message."""
    sys.exit(f"error: {message}")


if __name__ == "__main__":
    main()
