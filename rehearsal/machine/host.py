"""What this machine must have and allow for instances to run on it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from rehearsal.machine import cgroups
from rehearsal.machine.interface import MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE_OF = {
    "ip": "iproute2",
    "bridge": "iproute2",
    "nft": "nftables",
    "dnsmasq": "dnsmasq-base",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "bash": "bash",
}
TIMEOUT_S = 60
CAPABILITIES = {12: "CAP_NET_ADMIN", 21: "CAP_SYS_ADMIN", 27: "CAP_MKNOD", 18: "CAP_SYS_CHROOT"}
"""Bits of linux/capability.h: links and nftables, mounts, device nodes, chroot."""


def check() -> None:
    """Find out whether instances can run here.

    Raises:
        MachineError: names everything that is missing, with what to do about each.
    """
    faults = [*_privilege_faults(Path("/proc/self/status").read_text()), *_program_faults()]
    if not faults:
        faults = cgroups.faults()
    if faults:
        raise MachineError("Instances can't run on this machine:\n- " + "\n- ".join(faults))


def run(argv: Sequence[str], stdin: str | None = None) -> str:
    """Run a system program and return what it wrote.

    Raises:
        MachineError: it failed; the message has the command and its words.
    """
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MachineError(f"`{' '.join(argv)}` did not end within {TIMEOUT_S} s.") from error
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}"
        lines = f"\nIts input was:\n{stdin}" if stdin and len(stdin) < 2000 else ""
        raise MachineError(f"`{' '.join(argv)}` failed: {said}{lines}")
    return done.stdout


def _privilege_faults(status: str) -> list[str]:
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    bits = int(effective.split()[1], 16)
    missing = [name for bit, name in CAPABILITIES.items() if not bits >> bit & 1]
    if not missing:
        return []
    return [
        (
            f"this process lacks {', '.join(missing)}: run as root (in a Docker container: "
            "with --privileged), or use BOOT=no to apply a stack without booting it"
        )
    ]


def _program_faults() -> list[str]:
    missing = [program for program in PACKAGE_OF if shutil.which(program) is None]
    if not missing:
        return []
    packages = sorted({PACKAGE_OF[program] for program in missing})
    return [
        (
            f"missing programs: {', '.join(missing)}; "
            f"apt-get install --no-install-recommends {' '.join(packages)}"
        )
    ]
