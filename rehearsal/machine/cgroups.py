"""Control groups of instances: one branch per instance, for tracking, killing and limits.

systemd inside an instance wants a cgroup2 tree of its own. Limits go to whichever hierarchy holds
the controller: cgroup2 on most machines, cgroup v1 where both are mounted side by side.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rehearsal.machine import names
from rehearsal.machine.interface import MachineError
from rehearsal.machine.processes import send

if TYPE_CHECKING:
    from collections.abc import Iterator

V1_CONTROLLERS = ("memory", "cpu")
CPU_PERIOD_US = 100_000


@dataclass(frozen=True)
class Hierarchies:
    """Where the control groups of this machine are mounted."""

    unified: Path
    v1: dict[str, Path]

    @property
    def roots(self) -> tuple[Path, ...]:
        """All folders in which an instance gets a branch, the cgroup2 one first."""
        return (self.unified, *self.v1.values())


def hierarchies(mountinfo: str | None = None) -> Hierarchies:
    """Read the layout from this process' mount table.

    Raises:
        MachineError: no cgroup2 is mounted.
    """
    text = Path("/proc/self/mountinfo").read_text() if mountinfo is None else mountinfo
    unified: Path | None = None
    v1: dict[str, Path] = {}
    for line in text.splitlines():
        mount, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        point = Path(mount.split()[4])
        if kind == "cgroup2" and unified is None:
            unified = point
        elif kind == "cgroup":
            for controller in V1_CONTROLLERS:
                if controller in options.split(","):
                    v1.setdefault(controller, point)
    if unified is None:
        raise MachineError(
            "No cgroup2 is mounted, which systemd in an instance needs. Mount it: "
            "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
        )
    return Hierarchies(unified, v1)


def faults() -> list[str]:
    """Say why instances can get no control groups here; empty where they can."""
    try:
        root = hierarchies().unified
    except MachineError as error:
        return [str(error)]
    if not os.access(root, os.W_OK):
        return [f"{root} is read-only: a container that runs instances needs --privileged"]
    return []


def create(tag: str, instance_id: str, cpus: int, memory_mib: int) -> list[Path]:
    """Make an instance's branches with its limits; return them, the cgroup2 one first.

    Limits hold as far as the kernel has the controllers; a CPU limit is set only where the
    instance has fewer cores than this machine.
    """
    layout = hierarchies()
    quota = cpus * CPU_PERIOD_US if cpus < (os.cpu_count() or 1) else None
    memory = memory_mib << 20
    parent = layout.unified / names.prefix(tag)
    for folder in (layout.unified, parent):
        folder.mkdir(exist_ok=True)
        for controller in V1_CONTROLLERS:
            # Not there, or held by a v1 hierarchy: then the limit is set below, or not at all.
            with contextlib.suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
    branches = [root / names.prefix(tag) / instance_id for root in layout.roots]
    for branch in branches:
        branch.mkdir(parents=True, exist_ok=True)
        _limit(branch / "memory.max", str(memory))
        _limit(branch / "memory.limit_in_bytes", str(memory))
        if quota is not None:
            _limit(branch / "cpu.max", f"{quota} {CPU_PERIOD_US}")
            _limit(branch / "cpu.cfs_quota_us", str(quota))
    return branches


def processes(tag: str, instance_id: str | None = None) -> list[int]:
    """Return the process ids of an instance, or of all instances of a rehearsal."""
    found: set[int] = set()
    for branch in _branches(tag, instance_id):
        # os.walk passes over a folder that goes while it is walked, as a unit's does when the unit
        # ends; Path.rglob raises there.
        for folder in _deepest_first(branch):
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in (folder / "cgroup.procs").read_text().split())
    return sorted(found - {0})


def kill(tag: str, instance_id: str | None = None, patience_s: float = 60.0) -> None:
    """Kill every process of an instance (or of all of a rehearsal) and wait for their end.

    Raises:
        MachineError: a process did not die in time (it hangs in the kernel).
    """
    deadline = time.monotonic() + patience_s
    while left := processes(tag, instance_id):
        for pid in left:
            send(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise MachineError(f"Processes {left} can't be killed; they hang in the kernel.")
        time.sleep(0.02)


def remove(tag: str, instance_id: str | None = None) -> None:
    """Remove the branches of an instance, or of a whole rehearsal. Nothing may run in them."""
    for branch in _branches(tag, instance_id):
        for folder in _deepest_first(branch):
            _rmdir(folder)
        # The rehearsal's own level goes with its last instance.
        with contextlib.suppress(OSError):
            (branch if instance_id is None else branch.parent).rmdir()


def existing(tag: str) -> list[Path]:
    """Return the branches of a rehearsal that are there."""
    return [folder for branch in _branches(tag, None) for folder in _deepest_first(branch)]


def _branches(tag: str, instance_id: str | None) -> list[Path]:
    paths = [root / names.prefix(tag) for root in hierarchies().roots]
    if instance_id is not None:
        paths = [path / instance_id for path in paths]
    return [path for path in paths if path.is_dir()]


def _deepest_first(branch: Path) -> Iterator[Path]:
    for folder, _, _ in os.walk(branch, topdown=False):
        yield Path(folder)


def _rmdir(folder: Path, patience_s: float = 30.0) -> None:
    # A cgroup stays busy for a moment after its last process is gone.
    deadline = time.monotonic() + patience_s
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise MachineError(f"The cgroup {folder} can't be removed: {error}") from error
            time.sleep(0.02)
        else:
            return


def _limit(path: Path, value: str) -> None:
    if path.exists():
        # More than a parent allows, or less than is used now: the limit is an upper bound only.
        with contextlib.suppress(OSError):
            path.write_text(value)
