"""The hardware gate: a node that is not what the plan counted on never starts to serve."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from node_bootstrap import durable
from node_bootstrap.facts import addresses, memory
from node_bootstrap.facts.base import Unknown
from node_bootstrap.facts.read import Run, read
from node_bootstrap.facts.read import run as run_fact
from node_bootstrap.gate.decide import ORDER, Attempts, GateRecord, after, escalate, worst
from node_bootstrap.gate.observe import FABRIC_MANAGER, observe
from node_bootstrap.gate.rules import judge
from node_bootstrap.status import Found, HardwareFinding, HardwareReport, NodePhase
from node_bootstrap.steps.base import Check, Frequency, StepError, key_of

if TYPE_CHECKING:
    from pathlib import Path

    from node_bootstrap.assignment import Hardware

T = TypeVar("T")


def look(private_ip: str, run: Run = run_fact) -> Found:
    """What this node has; `interface` is the one that carries `private_ip`, empty when none does.

    Raises:
        StepError: addresses or memory can't be learnt.
    """
    interfaces = _known(read(addresses.COMMAND, addresses.parse, run)).interfaces
    return Found(
        hostname=socket.gethostname(),
        cpus=len(os.sched_getaffinity(0)),
        memory_gib=_known(read(memory.COMMAND, memory.parse, run)).total_gib,
        addresses=tuple(interfaces),
        interface=_carrier(private_ip, interfaces),
    )


def _known(fact: T | Unknown) -> T:
    if isinstance(fact, Unknown):
        raise StepError(f"this node can't be compared with the plan: {fact.unknown}")
    return fact


def _carrier(address: str, interfaces: dict[str, str]) -> str:
    # Every address of 127.0.0.0/8 is this machine's own, though only 127.0.0.1 is listed.
    known = "127.0.0.1" if address.startswith("127.") else address
    return interfaces.get(known, "")


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
    """Compares the node with the plan and does what the gate says, at most one reboot.

    node: its name and instance, for whoever has to replace it. record: file of what was done
    already; None to remember nothing. run: how facts are read and GPUs reset. tell: is given each
    verdict.
    """

    wanted: Hardware
    node: str = "this node"
    boot_id: str = ""
    record: Path | None = None
    run: Run = run_fact
    tell: Callable[[HardwareReport], None] = lambda _: None
    name: str = "hardware"
    phase: NodePhase = "hardware"
    frequency: Frequency = "boot"
    timeout_seconds: float = 900
    needs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Digest of what must be found."""
        return key_of(self.wanted)

    def check(self) -> Check:
        """Compare; what is wrong is the detail. What only wants watching lets the node pass."""
        found = look(self.wanted.private_ip)
        wrong = faults(self.wanted, found)
        if wrong:
            return Check(done=False, detail="; ".join(wrong))
        detail = (
            f"{found.cpus} CPUs, {found.memory_gib:.1f} GiB, "
            f"{self.wanted.private_ip} on {found.interface}"
        )
        if not self.wanted.gpu_count:
            return Check(done=True, detail=detail)
        report = self.judged()
        if report.action in ("OK", "MONITOR"):
            self._remember(report)
            w = self.wanted
            gpus = f"{w.gpu_count} x {w.gpu_name}, {w.efa_devices} EFA, {report.action}"
            watch = f": {_words(report.findings)}" if report.findings else ""
            return Check(done=True, detail=f"{detail}, {gpus}{watch}")
        return Check(done=False, detail=f"{report.action}: {_words(report.findings)}")

    def apply(self, deadline: float) -> None:
        """Reset, reboot, or refuse and say which node to replace.

        Raises:
            StepError: the node can't serve as it is.
        """
        del deadline
        wrong = faults(self.wanted, look(self.wanted.private_ip))
        if wrong:
            raise StepError(
                f"{self.node} is not what the plan counted on: {'; '.join(wrong)}. "
                "Choose an instance type that has it, or replace the node if its type should"
            )
        report = self.judged()
        self._remember(report)
        if report.action == "RESET":
            self._reset(report.findings)
        elif report.action == "REBOOT":
            self.run(("systemctl", "reboot"))
            raise StepError(f"REBOOT: {_words(report.findings)}; {self.node} is rebooting for it")
        elif report.action == "ISOLATE":
            raise StepError(
                f"ISOLATE: {_words(report.findings)}. vLLM is not started; replace {self.node}: "
                "terminate the instance, then `pulumi up --refresh` makes it anew on another host"
            )

    def judged(self) -> HardwareReport:
        """What the GPUs show now, and the action that follows; nothing is done or remembered."""
        attempts = self._attempts()
        same = attempts.reset_in_boot == self.boot_id or not attempts.reset_in_boot
        seen = observe(self.wanted, self.run, attempts.reset_at_seconds if same else 0.0)
        findings = judge(self.wanted, seen)
        return HardwareReport(escalate(worst(findings), attempts, self.boot_id), findings)

    def _attempts(self) -> Attempts:
        known = durable.load(self.record, GateRecord) if self.record else None
        return known.attempts if known else Attempts()

    def _remember(self, report: HardwareReport) -> None:
        self.tell(report)
        if self.record:
            done = after(report.action, self._attempts(), self.boot_id, time.monotonic())
            durable.save(self.record, GateRecord(done, report))

    def _reset(self, findings: tuple[HardwareFinding, ...]) -> None:
        """Each GPU that asks for it, then the fabric manager, which has to see them again."""
        asked = [f.device for f in findings if f.action == "RESET"]
        for device in sorted(set(asked) - {FABRIC_MANAGER, ""}):
            self.run(("nvidia-smi", "--gpu-reset", "-i", device))
        if self.wanted.nvlink and self.wanted.gpu_count > 1:
            self.run(("systemctl", "restart", FABRIC_MANAGER))


def _words(findings: tuple[HardwareFinding, ...]) -> str:
    """The findings in one line, the gravest first."""
    ordered = sorted(findings, key=lambda f: -ORDER.index(f.action))
    return "; ".join(f"{f.device} {f.what}".strip() for f in ordered)
