"""The role's process as the agent sees it: started, stopped and watched, never its child.

The role outlives the agent: a restarted agent adopts what runs.
"""

from __future__ import annotations

import os
import select
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from node_bootstrap import durable, runner
from node_bootstrap.agent.protocol import Pair, RoleView
from node_bootstrap.agent.role_parts import Parts
from node_bootstrap.steps.role_unit import UNIT

if TYPE_CHECKING:
    from pathlib import Path

SHOW_SECONDS = 5.0
"""How often systemd is asked although the main process is known to live."""
ABSENT_SECONDS = 2.0
TAIL_LINES = 60


class Supervisor(Protocol):
    """Runs the role's process for one pair at a time."""

    def view(self) -> RoleView:
        """How the role is at this moment."""
        ...

    def start(self, pair: Pair) -> None:
        """Start it; `view` tells whether that worked. The pair is remembered before."""
        ...

    def stop(self) -> None:
        """Begin to stop it, and return at once."""
        ...

    def log(self) -> str:
        """What it wrote since it was last started; the end of it when that is much."""
        ...


@dataclass(frozen=True)
class RoleRecord:
    """What is remembered of the role over the agent's death."""

    started: Pair


class SystemdRole:
    """The role as `moe-role.service`."""

    def __init__(self, record: Path) -> None:
        """Take up what runs; `record`: file that remembers the pair."""
        self._record = record
        saved = durable.load(record, RoleRecord)
        self._started = saved.started if saved else None
        self._stopping = False
        self._detail = ""
        self._invocation = ""
        self._pidfd = -1
        self._parts = Parts()
        self._asked_at = 0.0
        self._seen: RoleView | None = None

    def view(self) -> RoleView:
        """See Supervisor. Asks systemd only when the main process has ended, or now and then."""
        age = time.monotonic() - self._asked_at
        if not self._stopping and (part := self._parts.ended()):
            self._end(part)
        if self._main_lives() and age < SHOW_SECONDS:
            return RoleView("stopping" if self._stopping else "running", self._started)
        # Nobody but this agent starts the unit: when it is absent it stays so.
        if self._seen is None or self._seen.state != "absent" or age > ABSENT_SECONDS:
            self._seen = self._ask()
        return self._seen

    def start(self, pair: Pair) -> None:
        """See Supervisor."""
        durable.save(self._record, RoleRecord(pair))
        self._started, self._stopping, self._detail = pair, False, ""
        try:
            runner.run(["systemctl", "start", UNIT], timeout_seconds=30)
        except runner.CommandError as error:
            self._detail = f"before it began: {error}"
        self._forget_main()
        self._parts.forget()
        self._seen = None

    def stop(self) -> None:
        """See Supervisor. systemd kills what does not end within TimeoutStopSec."""
        if not self._stopping:
            runner.run(["systemctl", "stop", "--no-block", UNIT], timeout_seconds=30)
            self._stopping = True

    def _end(self, part: str) -> None:
        """End what is left of a role that has lost one of its processes."""
        self._parts.forget()
        if self._main_lives():
            self._detail = f"because its process {part} did"
            runner.run(["systemctl", "kill", "--signal=KILL", UNIT], timeout_seconds=30)

    def log(self) -> str:
        """See Supervisor."""
        which = f"_SYSTEMD_INVOCATION_ID={self._invocation}" if self._invocation else f"-u{UNIT}"
        command = ["journalctl", "--no-pager", "-q", "-o", "cat", "-n", "2000", which]
        try:
            return runner.run(command, timeout_seconds=10)
        except runner.CommandError as error:
            return str(error)

    def _ask(self) -> RoleView:
        names = "ActiveState,ControlGroup,MainPID,ExecMainCode,ExecMainStatus,Result,InvocationID"
        output = runner.run(["systemctl", "show", UNIT, f"--property={names}"], timeout_seconds=10)
        shown = parse_show(output)
        self._asked_at = time.monotonic()
        self._invocation = shown.get("InvocationID") or self._invocation
        state = shown.get("ActiveState", "")
        if state in ("active", "activating", "reloading"):
            self._watch_main(int(shown.get("MainPID", "0")))
            self._parts.look(shown.get("ControlGroup", ""))
            return RoleView("stopping" if self._stopping else "running", self._started)
        self._forget_main()
        self._parts.forget()
        detail = self._detail or ending(shown)
        if state == "deactivating":
            return RoleView("stopping", self._started, detail)
        self._stopping = False
        return RoleView("absent", self._started, detail)

    def _watch_main(self, pid: int) -> None:
        self._forget_main()
        if pid:
            try:
                self._pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                self._pidfd = -1

    def _forget_main(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pidfd = -1

    def _main_lives(self) -> bool:
        # A pidfd becomes readable when its process ends.
        return self._pidfd >= 0 and not select.select([self._pidfd], [], [], 0)[0]


def parse_show(output: str) -> dict[str, str]:
    """The properties of `systemctl show`."""
    pairs = (line.partition("=") for line in output.splitlines())
    return {name: value for name, separator, value in pairs if separator}


def ending(shown: dict[str, str]) -> str:
    """How the main process ended, for a person; empty when it never ran."""
    code, status = shown.get("ExecMainCode", "0"), shown.get("ExecMainStatus", "0")
    # CLD_EXITED, CLD_KILLED, CLD_DUMPED of waitid(2)
    words = {
        "1": f"with exit code {status}",
        "2": f"by signal {status}",
        "3": f"by signal {status}",
    }
    result = shown.get("Result", "success")
    extra = "" if result in ("success", "exit-code", "signal") else f" ({result})"
    return words.get(code, "") + extra


def tail(log: str, lines: int = TAIL_LINES) -> str:
    """The last lines of a log."""
    return "\n".join(log.splitlines()[-lines:])
