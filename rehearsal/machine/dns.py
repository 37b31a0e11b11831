"""DHCP and names of a VPC: one dnsmasq, a process of its own that outlives the account's."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

from rehearsal.machine import processes
from rehearsal.machine.interface import RESOLVER_ADDRESS, Launch, MachineError

if TYPE_CHECKING:
    from collections.abc import Sequence

LEASE = "1h"
MTU_BYTES = 9001
"""What EC2 gives inside a VPC."""


def configuration(folder: Path, domain: str, subnet_cidrs: Sequence[str]) -> str:
    """Return dnsmasq's configuration file.

    Args:
        folder: holds the files that the other functions write.
        domain: of the instances' names; dnsmasq alone answers for it.
        subnet_cidrs: each gets leases, only for instances that are listed.
    """
    lines = [
        "no-hosts",
        "no-resolv",  # an instance has no other names than the VPC's: refused at once, no waiting
        "no-ping",
        "bind-dynamic",
        "interface=br-*",
        "interface=lo",
        f"pid-file={folder / 'dnsmasq.pid'}",
        "user=root",
        f"addn-hosts={folder / 'hosts'}",
        f"domain={domain}",
        f"local=/{domain}/",
        f"dhcp-hostsfile={folder / 'dhcp-hosts'}",
        f"dhcp-leasefile={folder / 'leases'}",
        "dhcp-authoritative",
        "dhcp-rapid-commit",
        f"dhcp-option=option:dns-server,{RESOLVER_ADDRESS}",
        f"dhcp-option=option:mtu,{MTU_BYTES}",
    ]
    for cidr in sorted(subnet_cidrs):
        network = IPv4Network(cidr)
        lines.append(f"dhcp-range={network.network_address},static,{network.netmask},{LEASE}")
    return "\n".join(lines) + "\n"


def dhcp_hosts(launches: Sequence[Launch]) -> str:
    """Return the leases: hardware address, address, name."""
    return "".join(f"{item.mac},{item.private_ip},{short_name(item)}\n" for item in launches)


def hosts(launches: Sequence[Launch]) -> str:
    """Return the names, known from the moment of launch and not only from the first lease."""
    return "".join(f"{item.private_ip} {item.hostname} {short_name(item)}\n" for item in launches)


def short_name(launch: Launch) -> str:
    """Return the first label of an instance's host name."""
    return launch.hostname.partition(".")[0]


def domain_of(launch: Launch) -> str:
    """Return the domain of an instance's host name (ec2.internal in us-east-1)."""
    return launch.hostname.partition(".")[2] or "ec2.internal"


def update(folder: Path, netns: str, launches: Sequence[Launch]) -> None:
    """Give a VPC's dnsmasq these instances; start it, or start it anew where subnets changed.

    Raises:
        MachineError: dnsmasq does not start; its words are told.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "hosts").write_text(hosts(launches))
    (folder / "dhcp-hosts").write_text(dhcp_hosts(launches))
    path = folder / "dnsmasq.conf"
    cidrs = sorted({item.subnet_cidr for item in launches})
    text = configuration(folder, domain_of(launches[0]), cidrs)
    pid = _pid(folder)
    if pid is not None and path.exists() and path.read_text() == text:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGHUP)
            return
    stop(folder)
    path.write_text(text)
    _start(folder, netns)


def stop(folder: Path, patience_s: float = 5.0) -> None:
    """End a VPC's dnsmasq and wait for it; none running is no error."""
    pid = _pid(folder)
    if pid is not None:
        # Its process, not its pid-file: dnsmasq removes that first, its sockets close later.
        processes.end(pid, signal.SIGTERM, patience_s)


def _start(folder: Path, netns: str) -> None:
    # It puts itself into the background once its sockets are open.
    command = [
        "nsenter",
        f"--net=/run/netns/{netns}",
        "dnsmasq",
        f"--conf-file={folder / 'dnsmasq.conf'}",
    ]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise MachineError(f"dnsmasq (DHCP and names of the VPC) fails: {done.stderr.strip()}")


def _pid(folder: Path) -> int | None:
    """Return the running dnsmasq's process id: a number from the file alone may be another's."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((folder / "dnsmasq.pid").read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if os.fsencode(f"--conf-file={folder / 'dnsmasq.conf'}") in arguments:
            return pid
    return None
