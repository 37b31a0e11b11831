"""Every command of the README and of docs/ runs as it stands there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from rehearsed import CHECKOUT, Rehearsed

pytestmark = pytest.mark.e2e

RUN_ELSEWHERE = {
    "make test": "this is it",
    "make down": "ends every run of these tests, with its own proof",
}


def blocks() -> list[tuple[str, str]]:
    """(where, commands) of every block of shell in the documentation."""
    found = []
    for page in [CHECKOUT / "README.md", *sorted(Path(CHECKOUT / "docs").glob("*.md"))]:
        for number, block in enumerate(
            re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        ):
            found.append((f"{page.name}-{number}", block))
    return found


@pytest.mark.parametrize("block", [b for _, b in blocks()], ids=[where for where, _ in blocks()])
def test_the_commands_of_the_documentation_run(stack: Rehearsed, block: str) -> None:
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
