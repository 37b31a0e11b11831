"""Reads facts off the machine: runs the command, gives its output to the parser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from node_bootstrap import runner
from node_bootstrap.facts.base import Unknown

T = TypeVar("T")
Run = Callable[[Sequence[str]], str]
"""Runs a command to its end and gives what it wrote; CommandError when it can't or fails."""

TIMEOUT_SECONDS = 60
LONGER_SECONDS = {"dcgmi": 600}
"""A diagnosis of level 2 loads eight GPUs for minutes."""


def run(command: Sequence[str]) -> str:
    """The runner, as the facts use it."""
    limit = LONGER_SECONDS.get(command[0], TIMEOUT_SECONDS)
    return runner.run(command, timeout_seconds=limit)


def read(command: Sequence[str], parse: Callable[[str], T | Unknown], run: Run) -> T | Unknown:
    """One fact. A tool that is missing or fails without a word gives an Unknown that says so.

    What a failing tool wrote is still given to the parser: `fi_info` without devices and
    `dcgmi diag` with a failed test say by their exit code too what their output says.
    """
    try:
        return parse(run(command))
    except runner.CommandError as error:
        said = "\n".join(filter(None, (error.stdout.strip(), error.stderr.strip())))
        if error.exit_code is None or not said:
            return Unknown(f"{command[0]}: {error.reason}")
        return parse(said)
