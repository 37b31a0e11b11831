"""The commands of the documentation, as they stand there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rehearsed import CHECKOUT, Rehearsed

RUN_ELSEWHERE = {
    "make test": "this is it",
    "make down": "ends every run of these tests, with its own proof",
}


def blocks(stack: str = "") -> list[Any]:
    """The commands of every block of shell in the documentation that wants this stack to be up.

    The stack's name stands after `sh`; without one it is `rehearsal`.
    """
    opening = f"sh {stack}" if stack else "sh"
    found = []
    for page in [CHECKOUT / "README.md", *sorted(Path(CHECKOUT / "docs").glob("*.md"))]:
        for number, block in enumerate(
            re.findall(rf"^```{opening}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        ):
            found.append(pytest.param(block, id=f"{page.name}-{number}"))
    return found


def run(stack: Rehearsed, block: str) -> None:
    lines = [line for line in block.splitlines() if line not in RUN_ELSEWHERE]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
        cwd=CHECKOUT,
        env=stack.outer_env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
