"""`moe bake` as a user runs it on a rehearsal's stack."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rehearsed import CHECKOUT, Rehearsed

MOE = [str(CHECKOUT / ".venv/bin/moe")]


@dataclass(frozen=True)
class Bake:
    """What a bake printed, the image that it made, and the instance that was its builder."""

    said: str
    image: str
    built_on: str


def moe(
    stack: Rehearsed, *arguments: str, timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """Run `moe` on the rehearsal's account."""
    return subprocess.run(
        [*MOE, *arguments],
        cwd=CHECKOUT,
        env=stack.tool_env,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def bake(stack: Rehearsed, *, timeout: float = 900) -> Bake:
    """Make an image; timeout in seconds."""
    done = moe(stack, "bake", "rehearsal", timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    (image,) = re.findall(r"moe-serving:ami: (ami-\w+)", done.stdout)
    (built_on,) = re.findall(r"builder \S+: (i-\w+)", done.stdout)
    return Bake(done.stdout, image, built_on)


def name_image(file: Path, image: str) -> None:
    """Put the line into the stack's file that the bake says to put there."""
    file.write_text(f"{file.read_text()}  moe-serving:ami: {image}\n")
