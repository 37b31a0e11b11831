"""Faults to order, for drills: what goes wrong with instances, done to them from outside."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from rehearsal.machine import cgroups, host, inside, names
from rehearsal.machine.instance import Folder
from rehearsal.machine.interface import MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehearsal.paths import Home

DISABLED, FORWARDING = 0, 3
"""States of a bridge port."""


def cut_link(home: Home, instance_id: str) -> None:
    """Lose everything from and to an instance; its interface stays up and it is told nothing.

    Raises:
        MachineError: no such instance.
    """
    _set_port(home, instance_id, DISABLED)


def restore_link(home: Home, instance_id: str) -> None:
    """Undo `cut_link`.

    Raises:
        MachineError: no such instance.
    """
    _set_port(home, instance_id, FORWARDING)


def power_off(home: Home, instance_id: str) -> None:
    """Pull the plug: every process of an instance ends at once, nothing is written.

    Raises:
        MachineError: a process can't be killed.
    """
    cgroups.kill(home.tag, instance_id)


def kill(home: Home, instance_id: str, pattern: str) -> list[int]:
    """SIGKILL the processes of an instance whose command line matches; return their ids out here.

    Args:
        home: of the rehearsal.
        instance_id: of the instance.
        pattern: a regular expression, searched in the command line with spaces between words.

    Raises:
        MachineError: none matches: a drill that hits nothing proves nothing.
    """
    matching = [pid for pid, line in processes(home, instance_id) if re.search(pattern, line)]
    if not matching:
        lines = "\n".join(f"  {pid} {line}" for pid, line in processes(home, instance_id))
        raise MachineError(f"No process of {instance_id} matches {pattern!r}; it has:\n{lines}")
    for pid in matching:
        os.kill(pid, signal.SIGKILL)
    return matching


def processes(home: Home, instance_id: str) -> list[tuple[int, str]]:
    """Return process ids (as out here) and command lines (or [names]) of an instance."""
    found: list[tuple[int, str]] = []
    for pid in cgroups.processes(home.tag, instance_id):
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
            name = Path(f"/proc/{pid}/comm").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        line = raw.replace(b"\0", b" ").decode(errors="replace").strip()
        found.append((pid, line or f"[{name}]"))
    return found


def run(
    home: Home, instance_id: str, argv: Sequence[str], timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a command inside an instance and return its status and output.

    Raises:
        MachineError: the instance does not run.
        subprocess.TimeoutExpired: it took longer than `timeout_s`.
    """
    command = inside.command(home, instance_id, argv, term="dumb")
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def _set_port(home: Home, instance_id: str, state: int) -> None:
    spec = Folder(home.instances / instance_id).spec()
    if spec is None:
        raise MachineError(f"There is no instance {instance_id} on this machine.")
    namespace = names.vpc_netns(home.tag, spec.launch.vpc_id)
    port = names.port(instance_id)
    host.run(["bridge", "-n", namespace, "link", "set", "dev", port, "state", str(state)])
