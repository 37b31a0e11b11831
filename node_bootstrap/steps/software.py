"""The Python environment of the role: distributions at exact versions, found or installed."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from node_bootstrap import runner
from node_bootstrap.steps import locks
from node_bootstrap.steps.base import Check, Frequency, StepError
from node_bootstrap.steps.environment import Environment, distributions, python_of_node

if TYPE_CHECKING:
    from node_bootstrap.assignment import Software
    from node_bootstrap.status import NodePhase

# Asks the metadata on disk; importing torch or vLLM for their version would take seconds.
_QUERY = """
import importlib.metadata as m, json
print(json.dumps({d.metadata["Name"]: d.version for d in m.distributions() if d.metadata["Name"]}))
"""


def normalized(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(python: str) -> dict[str, str]:
    """Normalized name -> version of all distributions of an environment.

    Raises:
        CommandError: the interpreter is missing or does not run.
    """
    output = runner.run([python, "-c", _QUERY], timeout_seconds=30)
    return {normalized(name): version for name, version in json.loads(output).items()}


def differences(wanted: dict[str, str], have: dict[str, str]) -> list[str]:
    """What is missing or of another version, one sentence each, sorted."""
    result = []
    for name, version in sorted(wanted.items()):
        found = have.get(normalized(name))
        if found is None:
            result.append(f"{name} {version} is missing")
        elif found != version:
            result.append(f"{name} is {found}, not {version}")
    return result


@dataclass(frozen=True)
class SoftwareStep:
    """Finds the distributions in the environment, or makes it: from a lock, where there is one.

    An environment that an image brought is left alone while its versions are the planned ones.
    """

    wanted: Software
    name: str = "software"
    phase: NodePhase = "software"
    frequency: Frequency = "change"
    timeout_seconds: float = 3600
    needs: tuple[str, ...] = ("hardware",)

    @property
    def key(self) -> str:
        """The environment and its pins."""
        return f"{self.wanted.python} {sorted(self.wanted.distributions.items())}"

    def check(self) -> Check:
        """Compare versions by the metadata on disk, and the lock that it was made from."""
        locked = self._locked()
        marked = locked.marked() if locked else None
        if locked and marked not in (None, locked.mark):
            return Check(done=False, detail=f"{locked.home} was made from another lock: {marked}")
        try:
            if locked and marked:
                have = {normalized(n): v for n, v in distributions(locked.home).items()}
            else:
                have = installed(self.wanted.python)
        except runner.CommandError as error:
            return Check(done=False, detail=f"{self.wanted.python} does not run: {error.reason}")
        wrong = differences(self.wanted.distributions, have)
        if wrong:
            return Check(done=False, detail="; ".join(wrong))
        pins = " ".join(f"{n}=={v}" for n, v in sorted(self.wanted.distributions.items()))
        of = f" from {locked.lock.name}" if locked and marked else ""
        return Check(done=True, detail=f"{pins} in {self.wanted.python}{of}")

    def apply(self, deadline: float) -> None:
        """Make the environment where it is missing or another, else install what differs."""
        locked = self._locked()
        if locked and (locked.marked() or not Path(self.wanted.python).exists()):
            locked.build(deadline)
        else:
            self._install(deadline)

    def _locked(self) -> Environment | None:
        lock = locks.find(self.wanted.distributions, *python_of_node())
        if lock is None:
            return None
        return Environment(Path(self.wanted.python).parent.parent, lock, self.wanted.distributions)

    def _install(self, deadline: float) -> None:
        """By pip, at exact versions: of what there is no lock for, no file's digest is known."""
        found = self.check().detail
        python = Path(self.wanted.python)
        try:
            if not python.exists():
                runner.run(
                    [_system_python(), "-m", "venv", str(python.parent.parent)],
                    timeout_seconds=_left(deadline),
                )
            pins = [f"{n}=={v}" for n, v in sorted(self.wanted.distributions.items())]
            options = ["--no-input", "--disable-pip-version-check", "--no-cache-dir"]
            runner.run(
                [str(python), "-m", "pip", "install", *options, *pins],
                timeout_seconds=_left(deadline),
            )
        except runner.CommandError as error:
            raise StepError(
                f"software is not as planned ({found}) and could not be installed. There is a lock "
                f"of {', '.join(locks.names())}, none for this; without one, use an image that has "
                f"it under {python.parent.parent}, or give the node python3-venv and a package "
                f"index that has these versions (pip's own configuration).\n{error}"
            ) from error


def _system_python() -> str:
    """The interpreter that runs this archive: the node's own."""
    return sys.executable or "/usr/bin/python3"


def _left(deadline: float) -> float:
    return max(1.0, deadline - time.monotonic())
