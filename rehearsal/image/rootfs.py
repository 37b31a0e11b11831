"""The root file system of instances: Debian 13 with systemd and cloud-init, as in an AMI.

Made by mmdebstrap with this machine's own apt settings, so that it talks to no server that the
machine's owner has not chosen, and kept in the cache.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from rehearsal import cache
from rehearsal.hub import PREFIX as HUB
from rehearsal.machine.interface import (
    ACCOUNT_ADDRESS,
    ACCOUNT_PORT,
    INDEX_ADDRESS,
    INDEX_PORT,
    METADATA_ADDRESS,
    RESOLVER_ADDRESS,
)

if TYPE_CHECKING:
    from pathlib import Path

RECIPE = "1"
"""Raised with any change of the functions here that changes what they make."""
SUITE = "trixie"
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "cloud-init",
    "dhcpcd-base",  # cloud-init's client for the lease it takes before it knows the instance
    "python3",
    "iproute2",
    "procps",
    "curl",
    "ca-certificates",
    "libnuma1",  # vLLM's CPU build links both
    "libgomp1",
    "caddy",  # of the gateway; its units are masked, the node's own ones run them
    "prometheus",
)
LEFT_OUT = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")

QUIET_UNITS = (
    # Work that an instance does by itself, hours after boot or on a login nobody makes.
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "man-db.timer",
    "systemd-tmpfiles-clean.timer",
    "console-getty.service",
    "getty.target",
    # Only the gateway runs them, with units and files of its own.
    "caddy.service",
    "caddy-api.service",
    "prometheus.service",
    # Hardware and boot media that a container has not.
    "cloud-init-hotplugd.socket",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-pcrphase.service",
    "systemd-networkd-persistent-storage.service",
)

ACCOUNT = f"http://{ACCOUNT_ADDRESS}:{ACCOUNT_PORT}"
FILES = {
    # Only EC2, and the address alone: without metadata_urls cloud-init also asks DNS for
    # `instance-data`. Host keys need ssh-keygen, which is not in the image. networkd starts after
    # cloud-init wrote its settings; activating them would restart it, and a resolved there isn't.
    "etc/cloud/cloud.cfg.d/90_ec2.cfg": f"""\
datasource_list: [Ec2]
datasource: {{Ec2: {{metadata_urls: ["http://{METADATA_ADDRESS}"]}}}}
ssh_genkeytypes: []
disable_network_activation: true
""",
    # What an interface endpoint does on AWS: every unit finds the account by itself.
    "etc/systemd/system.conf.d/10-account.conf": f"""\
[Manager]
DefaultEnvironment=UV_DEFAULT_INDEX=http://{INDEX_ADDRESS}:{INDEX_PORT}/simple/
DefaultEnvironment=PIP_INDEX_URL=http://{INDEX_ADDRESS}:{INDEX_PORT}/simple/
DefaultEnvironment=PIP_TRUSTED_HOST={INDEX_ADDRESS}
DefaultEnvironment=AWS_ENDPOINT_URL={ACCOUNT}
DefaultEnvironment=HF_ENDPOINT={ACCOUNT}{HUB}
""",
    # All instances of a rehearsal share one disk.
    "etc/systemd/journald.conf.d/10-limits.conf": """\
[Journal]
Storage=persistent
SystemMaxUse=64M
RuntimeMaxUse=16M
""",
    "etc/resolv.conf": f"nameserver {RESOLVER_ADDRESS}\nsearch ec2.internal\n",
    # Empty, not missing: systemd then makes the id of the machine at the first boot.
    "etc/machine-id": "",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
    "etc/apt/sources.list": "",
}
APPENDED = {
    # dhcpcd waits up to two seconds, so that many machines don't ask at once; cloud-init runs it
    # up to three times in a boot.
    "etc/dhcpcd.conf": "\nnodelay\n",
}
REMOVED = ("etc/hostname", "etc/apt/apt.conf.d/99mmdebstrap")


class RootfsError(RuntimeError):
    """The image could not be built; the message says what to do about it."""


def ensure() -> Path:
    """Return the folder of the image's root, building it where the cache lacks it (about 30 s).

    Raises:
        RootfsError: not root, mmdebstrap missing, or mmdebstrap failed (its last lines are told).
    """
    return cache.artifact("rootfs", _inputs(), build, usual_seconds=30) / "root"


def build(folder: Path) -> None:
    """Fill `folder/root`.

    Raises:
        RootfsError: see `ensure`.
    """
    if os.geteuid() != 0:
        raise RootfsError(
            "The image of the rehearsal's instances is built as root (it holds files of many "
            "owners); run this as root, or use BOOT=no to apply a stack without booting it."
        )
    if shutil.which("mmdebstrap") is None:
        raise RootfsError(
            "mmdebstrap is missing, and with it the image that instances boot from. "
            "Install it: apt-get install --no-install-recommends mmdebstrap"
        )
    root = folder / "root"
    targets = _apt("apt-get", "indextargets", "--format", "$(CREATED_BY)|$(ORIGIN)|$(SITE)")
    command = mmdebstrap_command(
        root, mirror_of(targets), apt_options_of(_apt("apt-config", "dump"))
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.splitlines()[-15:])
        raise RootfsError(
            f"mmdebstrap could not build the image (exit {done.returncode}). It uses this "
            f"machine's apt settings, so `apt-get update` must work here. Its last lines:\n{tail}"
        )
    configure(root)


def mmdebstrap_command(root: Path, mirror: str | None, apt_options: list[str]) -> list[str]:
    """Return mmdebstrap's argv; without a mirror it takes the suite's default one."""
    return [
        "mmdebstrap",
        "--variant=apt",
        "--mode=root",
        f"--include={','.join(PACKAGES)}",
        '--aptopt=APT::Install-Recommends "false"',
        *(f"--aptopt={option}" for option in apt_options),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        SUITE,
        str(root),
        *([mirror] if mirror else []),
    ]


def mirror_of(index_targets: str) -> str | None:
    """Return the address from which this machine takes Debian's main archive, if it does.

    Args:
        index_targets: lines `kind|origin|site` of `apt-get indextargets`.
    """
    for line in index_targets.splitlines():
        kind, origin, site = line.split("|", 2)
        # Security is an archive of its own, with other suites.
        if kind == "Packages" and origin == "Debian" and "security" not in site:
            return site
    return None


def apt_options_of(dump: str) -> list[str]:
    """Return the lines of `apt-config dump` that say how to reach and trust a mirror."""
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
    return [line for line in dump.splitlines() if line.startswith(wanted)]


def configure(root: Path) -> None:
    """Turn a fresh Debian into the image: datasource, network, quiet units."""
    for name in REMOVED:
        (root / name).unlink(missing_ok=True)
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
    for name, text in APPENDED.items():
        with (root / name).open("a") as file:
            file.write(text)
    # Newer than /usr: or the first boot of every instance would rebuild what the image has.
    for name in ("etc/.updated", "var/.updated"):
        (root / name).touch()
    _systemctl(root, "enable", "systemd-networkd.service")
    _systemctl(root, "mask", *QUIET_UNITS)
    for pattern in ("var/cache/apt/*.bin", "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*"):
        for path in root.glob(pattern):
            path.unlink()


def _inputs() -> dict[str, str | bytes]:
    return {
        "recipe": RECIPE,
        "suite": SUITE,
        "packages": repr(PACKAGES),
        "left out": repr(LEFT_OUT),
        "removed": repr(REMOVED),
        "quiet units": repr(QUIET_UNITS),
        "files": repr((FILES, APPENDED)),
    }


def _apt(*argv: str) -> str:
    if shutil.which(argv[0]) is None:
        return ""  # not a Debian: mmdebstrap's own defaults are all there is
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def _systemctl(root: Path, *arguments: str) -> None:
    command = ("chroot", str(root), "systemctl", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RootfsError(f"systemctl {arguments[0]} failed in the image: {done.stderr.strip()}")
