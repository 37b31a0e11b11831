"""The role as a plain process, where there is no systemd.

It reads the same unit and environment file that systemd would, keeps the role in a session of
its own so that it outlives the agent, and ends the whole process group as systemd ends a cgroup.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from node_bootstrap import durable
from node_bootstrap.agent.protocol import Pair, RoleView

if TYPE_CHECKING:
    from node_bootstrap.places import Places


@dataclass(frozen=True)
class ProcessRecord:
    """The role's main process; `began`: its start in clock ticks, so that a reused pid differs."""

    started: Pair
    pid: int
    began: int


class ProcessRole:
    """See Supervisor."""

    def __init__(self, record: Path, places: Places) -> None:
        """Take up what runs; `record`: file that remembers pair and process."""
        self._path = record
        self._places = places
        self._log = record.with_suffix(".log")
        self._record = durable.load(record, ProcessRecord)
        self._kill_at: float | None = None
        self._detail = ""
        self._child: subprocess.Popen[bytes] | None = None

    def view(self) -> RoleView:
        """How the role is at this moment."""
        record = self._record
        if record is None:
            return RoleView()
        if self._child is not None and self._child.poll() is not None:
            code = self._child.returncode
            self._detail = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        if _began(record.pid) != record.began:
            self._kill_group(record, signal.SIGKILL)
            self._kill_at = None
            return RoleView("absent", record.started, self._detail)
        if self._kill_at is None:
            return RoleView("running", record.started)
        if time.monotonic() > self._kill_at:
            self._kill_group(record, signal.SIGKILL)
        return RoleView("stopping", record.started)

    def start(self, pair: Pair) -> None:
        """Start what the unit says."""
        # Remembered first: a pair is never started twice, also when the agent dies right here.
        self._remember(ProcessRecord(pair, 0, -1))
        self._detail = ""
        try:
            argv, _ = read_unit(self._places.role_unit.read_text())
            env = os.environ | read_environment(self._places.role_env.read_text())
            with self._log.open("wb") as log:
                self._child = subprocess.Popen(
                    argv,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as error:
            self._detail = f"before it began: {error}"
            return
        self._remember(ProcessRecord(pair, self._child.pid, _began(self._child.pid)))

    def stop(self) -> None:
        """SIGTERM to the group; SIGKILL follows when it takes too long."""
        if self._record is not None and self._kill_at is None:
            _, stop_seconds = read_unit(self._places.role_unit.read_text())
            self._kill_at = time.monotonic() + stop_seconds
            self._kill_group(self._record, signal.SIGTERM)

    def log(self) -> str:
        """What it wrote since its start."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def _remember(self, record: ProcessRecord) -> None:
        self._record = record
        durable.save(self._path, record)

    def _kill_group(self, record: ProcessRecord, number: int) -> None:
        if record.pid > 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(record.pid, number)


def read_unit(text: str) -> tuple[list[str], float]:
    """(command line, TimeoutStopSec) of a unit that `role_unit.unit` wrote."""
    settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    words = shlex.split(settings["ExecStart"])
    argv = [w.replace("$$", "$").replace("%%", "%") for w in words]
    return argv, float(settings["TimeoutStopSec"])


def read_environment(text: str) -> dict[str, str]:
    """The variables of a file that `role_unit.environment_file` wrote."""
    pairs = (line.split("=", 1) for line in text.splitlines())
    return {name: re.sub(r"\\(.)", r"\1", value[1:-1]) for name, value in pairs}


def _began(pid: int) -> int:
    """Start of a living process in clock ticks since boot; 0 when it is gone or a zombie."""
    if pid <= 0:
        return 0
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in ("Z", "X") else int(fields[19])
