"""Which Python runs a program, and what that Python says about itself and what it has installed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from pulumi.runtime.proto import language_pb2

ABOUT = """
import json, platform, sys
print(json.dumps([sys.executable, platform.python_version()]))
"""
PLUGINS = """
import glob, json, os, sys
print(json.dumps([
    json.load(open(found))
    for folder in sys.path
    for found in sorted(
        glob.glob(os.path.join(glob.escape(folder or "."), "*", "pulumi-plugin.json")))
]))
"""
DISTRIBUTIONS = """
import importlib.metadata, json
print(json.dumps(sorted(
    {(d.metadata["Name"], d.version) for d in importlib.metadata.distributions()})))
"""


class InterpreterError(Exception):
    """The program's Python is missing or can't run; the message says what to do."""


@dataclass(frozen=True)
class Interpreter:
    """A Python: its program, and its virtual environment where it is in one."""

    executable: str
    virtualenv: Path | None

    def environment(self) -> dict[str, str]:
        """Return this process's environment as `activate` of the virtual environment leaves it."""
        changed = dict(os.environ)
        if self.virtualenv is not None:
            changed["VIRTUAL_ENV"] = str(self.virtualenv)
            changed["PATH"] = f"{self.virtualenv / 'bin'}{os.pathsep}{changed.get('PATH', '')}"
            changed.pop("PYTHONHOME", None)
        return changed

    def ask(self, code: str, folder: str) -> Any:
        """Run code that prints one JSON document, and return the document.

        Args:
            code: one of ABOUT, PLUGINS, DISTRIBUTIONS.
            folder: where it runs: packages beside the program count as installed.

        Raises:
            InterpreterError: it could not run, or failed.
        """
        try:
            done = subprocess.run(
                [self.executable, "-c", code],
                env=self.environment(),
                cwd=folder,
                check=True,
                capture_output=True,
                text=True,
            )
        except OSError as problem:
            raise InterpreterError(f"{self.executable} can't be run: {problem}") from problem
        except subprocess.CalledProcessError as problem:
            raise InterpreterError(
                f"{self.executable} failed when asked for its packages:\n{problem.stderr}"
            ) from problem
        return json.loads(done.stdout)


def options_of(info: language_pb2.ProgramInfo) -> Mapping[str, Any]:
    """Return `runtime.options` of Pulumi.yaml."""
    return json_format.MessageToDict(info.options)


def virtualenv_of(info: language_pb2.ProgramInfo) -> Path | None:
    """Return the folder that `options: virtualenv` names (it may not exist yet), if it does."""
    named = options_of(info).get("virtualenv")
    return Path(info.root_directory) / named if named else None


def interpreter_of(info: language_pb2.ProgramInfo) -> Interpreter:
    """Return the Python that a program asks for: its virtual environment's, else PATH's.

    Raises:
        InterpreterError: the virtual environment isn't there.
    """
    folder = virtualenv_of(info)
    if folder is None:
        return Interpreter("python3", None)
    executable = folder / "bin" / "python"
    if not executable.exists():
        raise InterpreterError(
            f"The virtual environment {folder} that Pulumi.yaml names has no bin/python. "
            "Make it with `pulumi install` (in this project: `make venv`)."
        )
    return Interpreter(str(executable), folder)
