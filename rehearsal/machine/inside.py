"""Running a command inside an instance, from outside."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from rehearsal.machine.instance import Folder
from rehearsal.machine.interface import MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehearsal.paths import Home

ENVIRONMENT = (
    "container=ec2-node",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
)


def enter(home: Home, instance_id: str, argv: Sequence[str]) -> int:
    """Run a command as root in an instance, on this terminal; return its exit status.

    Raises:
        MachineError: no such instance, or it does not run.
    """
    return subprocess.call(command(home, instance_id, argv))


def command(home: Home, instance_id: str, argv: Sequence[str], term: str = "xterm") -> list[str]:
    """Return the argv with which this machine runs a command in an instance.

    Raises:
        MachineError: no such instance, or it does not run.
    """
    init = str(init_pid(home, instance_id))
    spaces = ("-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w")
    return ["nsenter", "-t", init, *spaces, "env", "-i", *ENVIRONMENT, f"TERM={term}", *argv]


def init_pid(home: Home, instance_id: str) -> int:
    """Return the process id of an instance's process 1, as this machine counts.

    Raises:
        MachineError: no such instance, or it does not run.
    """
    folder = Folder(home.instances / instance_id)
    if folder.spec() is None:
        known = ", ".join(path.name for path in sorted(home.instances.glob("i-*"))) or "none"
        raise MachineError(
            f"There is no instance {instance_id} on this machine; there are: {known}"
        )
    progress = folder.progress()
    if folder.supervisor_pid() is None or progress.phase != "running" or not progress.init_pid:
        why = f": {progress.end}" if progress.end else ""
        raise MachineError(f"The instance {instance_id} does not run{why}.")
    return progress.init_pid
