"""Runs a node's part of a measured transfer, beside the agent's own work."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from node_bootstrap import durable, runner
from node_bootstrap.assignment import Assignment, Transfer
from node_bootstrap.steps import container
from node_bootstrap.steps.role_unit import USER, role_environment
from node_bootstrap.transfer.judge import Outcome, outcome

if TYPE_CHECKING:
    from node_bootstrap.places import Places

log = logging.getLogger(__name__)

UNIT, PAIR_UNIT = "moe-transfer", "moe-pair-transfer"
"""Of a measurement of a group's nodes; of a pair of groups, whose vLLM may run meanwhile."""
PROGRAM = "measure.py"
TAIL_CHARACTERS = 400
GRACE_SECONDS = 20.0
"""Beyond the measurement's own limit: interpreters start and end."""


@dataclass(frozen=True)
class Job:
    """One measurement: its token, and the process that takes part for this node."""

    token: str
    process: subprocess.Popen[bytes]
    contained: bool


class Measurer:
    """Takes part in one measurement at a time. All methods may be called from any thread."""

    def __init__(
        self, places: Places, tell: Callable[[], None], *, systemd: bool, unit: str = UNIT
    ) -> None:
        """`tell`: called when there is an outcome. unit: what the process is called."""
        self._places = places
        self._unit = unit
        self._tell = tell
        self._systemd = systemd
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._last = ("", Outcome())

    def start(self, assignment: Assignment, token: str, interface: str) -> None:
        """Begin, unless this one has begun or is done; another one that still runs is ended."""
        if assignment.transfer is None or token in (self._running(), self.last[0]):
            return
        self.stop()
        with self._lock:
            try:
                process = self._begin(assignment, assignment.transfer, token, interface)
            except (OSError, runner.CommandError) as error:
                self._last = token, Outcome(faults=(f"the measurement can't be started: {error}",))
                return
            contained = assignment.software.runtime == "container"
            self._job = job = Job(token, process, contained)
        watch = threading.Thread(
            target=self._watch, args=(assignment, job), name="transfer", daemon=True
        )
        watch.start()

    def stop(self) -> None:
        """End what runs; it has no outcome."""
        with self._lock:
            job, self._job = self._job, None
        if job is not None:
            self._kill(job)

    @property
    def last(self) -> tuple[str, Outcome]:
        """Token of the last measurement that is done, and what came of it."""
        return self._last

    def _running(self) -> str:
        job = self._job
        return job.token if job is not None else ""

    def _begin(
        self, assignment: Assignment, wanted: Transfer, token: str, interface: str
    ) -> subprocess.Popen[bytes]:
        program = self._places.transfer / PROGRAM
        text = resources.files("node_bootstrap.files").joinpath(PROGRAM).read_text()
        durable.write(program, text.encode(), mode=0o644)
        program.parent.chmod(0o755)
        env = environment(assignment, interface)
        contained = assignment.software.runtime == "container"
        self._clear(contained=contained)
        told = order(assignment, wanted, token)
        argv = command(assignment, told, self._places, tuple(env), self._unit)
        if self._systemd and not contained:
            argv = (*as_unit(self._unit, program.parent, tuple(env)), *argv)
        with self._log_path.open("wb") as output:
            return subprocess.Popen(
                argv,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def _log_path(self) -> Path:
        return self._places.transfer / f"{self._unit.removeprefix('moe-')}.log"

    def _watch(self, assignment: Assignment, job: Job) -> None:
        wanted = assignment.transfer
        if wanted is None:
            return
        began = time.monotonic()
        reason = ""
        try:
            code = job.process.wait(wanted.limit_seconds + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            code, reason = -1, f"not done after {wanted.limit_seconds + GRACE_SECONDS:.0f} s"
            self._kill(job)
        with self._lock:
            if self._job is not job:  # it was told to stop
                return
            output = self._log_path.read_text(errors="replace")
            first = assignment.node == assignment.primary.name
            if code == 0:
                made = outcome(wanted, output, time.monotonic() - began, first=first)
            else:
                made = Outcome(faults=(f"the measurement {reason or failure(code, output)}",))
            self._job, self._last = None, (job.token, made)
        log.info("measured transfer %s: %s", job.token, "; ".join(made.faults) or "as planned")
        self._tell()

    def _kill(self, job: Job) -> None:
        self._clear(contained=job.contained)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(job.process.pid, signal.SIGKILL)

    def _clear(self, *, contained: bool) -> None:
        """End what runs on the node, also what an agent before this one left."""
        words = (container.DOCKER, "rm", "--force", self._unit)
        if not contained:
            words = ("systemctl", "stop", f"{self._unit}.service")
        if contained or self._systemd:
            with contextlib.suppress(runner.CommandError):  # there was nothing
                runner.run(words, timeout_seconds=30)


def subject(assignment: Assignment) -> str:
    """Digest of what a measurement is about, the nodes apart: software, environment, floors.

    Empty where none is asked for.
    """
    a = assignment
    if a.transfer is None:
        return ""
    text = repr((a.transfer, a.software, sorted(a.env.items())))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def order(assignment: Assignment, wanted: Transfer, token: str) -> str:
    """What the program is told, as JSON."""
    names = [member.name for member in assignment.members]
    return json.dumps(
        {
            "node": names.index(assignment.node),
            "nodes": len(names),
            "address": assignment.primary.address,
            "port": wanted.port,
            "token": token,
            "gpus": wanted.gpus,
            "largest_bytes": wanted.largest_bytes,
            "limit_seconds": wanted.limit_seconds,
            "nixl": list(wanted.nixl),
            "collectives": any(not name.startswith("nixl_") for name in wanted.floors),
        }
    )


def environment(assignment: Assignment, interface: str) -> dict[str, str]:
    """The role's own, without its secrets; NCCL and NIXL say what they use."""
    env = role_environment(replace(assignment, secret_env={}), interface, {})
    loud = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET"} if assignment.transfer else {}
    return {"PYTHONUNBUFFERED": "1", **env, **loud, "NIXL_LOG_LEVEL": "INFO"}


def command(
    assignment: Assignment, told: str, places: Places, names: tuple[str, ...], unit: str = UNIT
) -> tuple[str, ...]:
    """The command of one node, where vLLM's own would run. names: of its environment."""
    program = str(places.transfer / PROGRAM)
    software = assignment.software
    if software.runtime == "venv":
        return (software.python, program, told)
    inside = replace(assignment, argv=("python3", program, told))
    return container.docker_run(
        inside, places, names, name=unit, folders=(f"{places.transfer}:{places.transfer}:ro",)
    )


def as_unit(unit: str, folder: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """What runs a command as a unit of the role's user, and waits for it."""
    properties = (f"User={USER}", "PrivateTmp=yes", "LimitMEMLOCK=infinity")
    return (
        *("systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={unit}"),
        *(f"--property={name}" for name in properties),
        f"--working-directory={folder}",
        # Only names: systemd-run takes the values from its own environment.
        *(f"--setenv={name}" for name in names),
    )


def failure(code: int, output: str) -> str:
    """How it ended, with the last of what it said that is about an error."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "error" in line]
    last = (errors or lines or ["it said nothing"])[-1]
    how = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"{how}: {last[:TAIL_CHARACTERS]}"
