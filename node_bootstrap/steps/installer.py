"""Installers: bash scripts made from data, kept on the node, run as a whole.

A script is written out before it runs, so that what ran on a node can be read and run by hand.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from node_bootstrap import durable, runner

_FILES = "node_bootstrap.files.installers"


@dataclass(frozen=True)
class Installer:
    """One script. name: of its file, without `.sh`. values: shell variable -> value."""

    name: str
    values: Mapping[str, str] = field(default_factory=dict)


def render(installer: Installer) -> str:
    """The script: same input, same text. Values are quoted, whatever is in them."""
    values = "".join(
        f"readonly {name}={shlex.quote(value)}\n"
        for name, value in sorted(installer.values.items())
    )
    body = f"{_text('lib')}\n{_text(installer.name)}"
    return f"#!/usr/bin/env bash\nset -euo pipefail\n\n{values}\n{body}"


def install(installer: Installer, folder: Path, deadline: float) -> str:
    """Write the script to the folder and run it; returns what it wrote to stdout.

    Args:
        installer: which, with what.
        folder: for scripts; it stays.
        deadline: in monotonic seconds.

    Raises:
        CommandError: it failed or took too long; the message has the end of its output.
    """
    script = folder / f"{installer.name}.sh"
    durable.write(script, render(installer).encode(), mode=0o700)
    left = max(1.0, deadline - time.monotonic())
    # `timeout` ends the whole process group: killing bash alone would leave its compilers.
    command = ["timeout", "--kill-after=10", f"{left:.0f}", "bash", str(script)]
    return runner.run(command, timeout_seconds=left + 30)


def _text(name: str) -> str:
    return resources.files(_FILES).joinpath(f"{name}.sh").read_text()
