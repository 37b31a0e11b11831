"""Pulumi's commands in the pipeline's example and on the deploy page exist with their options."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
from rehearsed import CHECKOUT

from rehearsal import engine

pytestmark = pytest.mark.e2e

TEXTS = ("docs/pipeline/github-actions.yml", "docs/deploy.md")
LINES = sorted(
    {
        line
        for text in TEXTS
        for line in re.findall(r"^ +(pulumi .+)$", (CHECKOUT / text).read_text(), re.MULTILINE)
    }
)


def test_there_are_commands() -> None:
    assert {line.split()[1] for line in LINES} >= {"up", "destroy", "stack", "config"}


@pytest.mark.parametrize("line", LINES)
def test_the_command_and_its_options_exist(line: str) -> None:
    words = shlex.split(line)[1:]
    path = words[: 2 if words[0] in ("stack", "config") else 1]
    shown = subprocess.run(
        [engine.ensure().pulumi, *path, "--help"], check=True, capture_output=True, text=True
    ).stdout
    # An unknown command of `stack` shows the help of `stack`.
    names = re.search(r"Usage:\n(?:.*\n)+?\n(?:Aliases:\n.*\n)?", shown)
    assert names
    assert re.search(rf"\b{path[-1]}\b", names.group())
    for option in (word for word in words if word.startswith("--")):
        assert re.search(rf"{option}\b", shown), f"{option} of `{line}`"
