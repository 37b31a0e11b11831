"""Faults to order, for drills: what goes wrong with instances, done to them from outside."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from rehearsal.machine import cgroups, firewall, host, inside, names
from rehearsal.machine.instance import Folder
from rehearsal.machine.interface import Launch, MachineError
from rehearsal.machine.processes import send

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rehearsal.paths import Home

FAULTS_TABLE = "inet moe_faults"
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


def drop_tcp(home: Home, source: str, target: str, first_port: int, last_port: int) -> None:
    """Lose what an instance sends to some TCP ports of another; nobody is told.

    Args:
        home: of the rehearsal.
        source: instance that sends.
        target: instance that no longer hears it; of the same VPC.
        first_port: of the ports of the target.
        last_port: of the ports of the target.

    Raises:
        MachineError: no such instance.
    """
    sender, hearer = _launch(home, source), _launch(home, target)
    firewall.apply(
        names.vpc_netns(home.tag, sender.vpc_id),
        f"""table {FAULTS_TABLE} {{
chain forward {{
type filter hook forward priority filter - 10; policy accept;
ip saddr {sender.private_ip} ip daddr {hearer.private_ip} tcp dport {first_port}-{last_port} drop
}}
}}
""",
    )


def drop_nothing(home: Home, instance_id: str) -> None:
    """Undo every `drop_tcp` in the VPC of an instance.

    Raises:
        MachineError: no such instance.
    """
    namespace = names.vpc_netns(home.tag, _launch(home, instance_id).vpc_id)
    firewall.apply(namespace, f"table {FAULTS_TABLE}\ndelete table {FAULTS_TABLE}\n")


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
        send(pid, signal.SIGKILL)  # its parent's end may have ended it already
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
    namespace = names.vpc_netns(home.tag, _launch(home, instance_id).vpc_id)
    port = names.port(instance_id)
    host.run(["bridge", "-n", namespace, "link", "set", "dev", port, "state", str(state)])


def _launch(home: Home, instance_id: str) -> Launch:
    spec = Folder(home.instances / instance_id).spec()
    if spec is None:
        raise MachineError(f"There is no instance {instance_id} on this machine.")
    return spec.launch
