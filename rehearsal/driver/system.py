"""What booting needs of the machine itself: root, and a few system packages."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from rehearsal import machine
from rehearsal.cache import progress
from rehearsal.driver.errors import DriverError
from rehearsal.machine.host import PACKAGE_OF

PACKAGES: Mapping[str, str] = {**PACKAGE_OF, "mmdebstrap": "mmdebstrap"}
"""The programs that boot nodes and build their image, each with the Debian package of it."""


def missing_packages(which: Callable[[str], str | None]) -> list[str]:
    """Return the Debian packages whose programs aren't on this machine, in order, each once.

    Args:
        which: says where a program is, like shutil.which.
    """
    return sorted({package for name, package in PACKAGES.items() if which(name) is None})


def require_bootable() -> None:
    """Make sure that this machine can boot nodes; install what is missing where that is possible.

    Raises:
        DriverError: not Linux, not root, or packages that can't be installed here. Nothing was
            made or changed then.
        MachineError: root is not all-powerful here (a container without privileges).
    """
    if platform.system() != "Linux":
        raise DriverError(
            "Booting nodes needs Linux: they are system containers. "
            "`make up BOOT=no` applies the stack without booting any."
        )
    if os.geteuid() != 0:
        raise DriverError(
            "Booting nodes needs root (mounts, network namespaces, cgroups), and this is user "
            f"{os.geteuid()}. Nothing was made. Run it as root, or apply the stack without "
            "booting: `make up BOOT=no`."
        )
    lacking = missing_packages(shutil.which)
    if lacking:
        _install(lacking)
    machine.check()


def is_debian_like(os_release: str) -> bool:
    """Tell whether an /etc/os-release is Debian's, Ubuntu's, or of a child of theirs."""
    fields = dict(line.split("=", maxsplit=1) for line in os_release.splitlines() if "=" in line)
    families = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()
    return bool({"debian", "ubuntu"} & set(families))


def _install(packages: list[str]) -> None:
    wanted = " ".join(packages)
    release = Path("/etc/os-release")
    if shutil.which("apt-get") is None or not is_debian_like(
        release.read_text() if release.exists() else ""
    ):
        programs = ", ".join(name for name, package in PACKAGES.items() if package in packages)
        raise DriverError(
            f"This machine lacks {programs}. Install what brings them "
            f"(on Debian the packages {wanted}) and run it again. Nothing was made."
        )
    apt = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with progress(f"installing {wanted} with apt-get", usual_seconds=20):
        for arguments in (
            ["update", "-qq"],
            ["install", "-qq", "-y", "--no-install-recommends", *packages],
        ):
            done = subprocess.run(
                ["apt-get", *arguments],
                env=apt,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                raise DriverError(
                    f"`apt-get {' '.join(arguments)}` failed "
                    f"(exit status {done.returncode}):\n{done.stderr.strip()}\n"
                    f"Install {wanted} yourself and run it again."
                )
