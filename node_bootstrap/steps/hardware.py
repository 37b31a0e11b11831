"""The hardware gate: a node that is not what the plan counted on never starts to serve."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from node_bootstrap import runner
from node_bootstrap.status import Found, NodePhase
from node_bootstrap.steps.base import Check, Frequency, StepError

if TYPE_CHECKING:
    from node_bootstrap.assignment import Hardware


def look(private_ip: str) -> Found:
    """What this node has; `interface` is the one that carries `private_ip`, empty when none does.

    Raises:
        CommandError: iproute2's `ip` is missing or broken.
    """
    interfaces = parse_interfaces(runner.run(["ip", "-json", "address"], timeout_seconds=10))
    return Found(
        hostname=socket.gethostname(),
        cpus=len(os.sched_getaffinity(0)),
        memory_gib=parse_memory_gib(Path("/proc/meminfo").read_text()),
        addresses=tuple(interfaces),
        interface=_carrier(private_ip, interfaces),
    )


def _carrier(address: str, interfaces: dict[str, str]) -> str:
    # Every address of 127.0.0.0/8 is this machine's own, though only 127.0.0.1 is listed.
    known = "127.0.0.1" if address.startswith("127.") else address
    return interfaces.get(known, "")


def parse_interfaces(output: str) -> dict[str, str]:
    """From `ip -json address`: IPv4 address -> interface."""
    return {
        address["local"]: link["ifname"]
        for link in json.loads(output)
        for address in link.get("addr_info", [])
        if address.get("family") == "inet"
    }


def parse_memory_gib(meminfo: str) -> float:
    """From `/proc/meminfo`: MemTotal in GiB, 0 when the line is missing."""
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return round(int(value.split()[0]) / 2**20, 2)
    return 0.0


def faults(wanted: Hardware, found: Found) -> list[str]:
    """All that differs from what the plan counted on, one sentence each."""
    result = []
    if found.cpus < wanted.cpus_min:
        result.append(f"{found.cpus} CPUs, the plan needs {wanted.cpus_min}")
    if found.memory_gib < wanted.memory_gib_min:
        result.append(
            f"{found.memory_gib:.1f} GiB of memory, the plan needs {wanted.memory_gib_min:.1f}"
        )
    if not found.interface:
        have = ", ".join(found.addresses) or "none"
        result.append(f"no interface carries {wanted.private_ip} (addresses: {have})")
    return result


@dataclass(frozen=True)
class HardwareStep:
    """Compares the node with the plan; it can only refuse, never mend."""

    wanted: Hardware
    name: str = "hardware"
    phase: NodePhase = "hardware"
    frequency: Frequency = "boot"
    timeout_seconds: float = 30
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Digest of what must be found."""
        w = self.wanted
        return f"{w.private_ip} {w.cpus_min} {w.memory_gib_min}"

    def check(self) -> Check:
        """Compare; the faults are the detail."""
        found = look(self.wanted.private_ip)
        wrong = faults(self.wanted, found)
        if wrong:
            return Check(done=False, detail="; ".join(wrong))
        return Check(
            done=True,
            detail=f"{found.cpus} CPUs, {found.memory_gib:.1f} GiB, "
            f"{self.wanted.private_ip} on {found.interface}",
        )

    def apply(self, deadline: float) -> None:
        """Refuse: hardware is mended by another instance type or by replacing the node."""
        del deadline
        raise StepError(
            f"this node is not what the plan counted on: {self.check().detail}. "
            "Choose an instance type that has it, or replace the node if its type should"
        )
