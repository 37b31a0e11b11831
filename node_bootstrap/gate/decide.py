"""From findings to one action, and from one that did not help to the next."""

from __future__ import annotations

import typing
from dataclasses import dataclass

from node_bootstrap.status import HardwareAction, HardwareFinding, HardwareReport

ORDER: tuple[HardwareAction, ...] = typing.get_args(HardwareAction)


@dataclass(frozen=True)
class Attempts:
    """What was done already: the boot in which GPUs were reset, whether the node was rebooted.

    reset_at_seconds: since that boot; what the kernel's log says of before is dealt with.
    """

    reset_in_boot: str = ""
    rebooted_from_boot: str = ""
    reset_at_seconds: float = 0.0


@dataclass(frozen=True)
class GateRecord:
    """Remembered over restarts and reboots."""

    attempts: Attempts
    report: HardwareReport


def worst(findings: tuple[HardwareFinding, ...]) -> HardwareAction:
    """The gravest action that a finding asks for."""
    worst_yet: HardwareAction = "OK"
    for finding in findings:
        if ORDER.index(finding.action) > ORDER.index(worst_yet):
            worst_yet = finding.action
    return worst_yet


def escalate(action: HardwareAction, attempts: Attempts, boot_id: str) -> HardwareAction:
    """The action to take: a reset that did not help becomes a reboot, that one another node.

    A node is rebooted once for its hardware: what comes back after that is replaced, not repaired.
    """
    if action == "RESET" and attempts.reset_in_boot == boot_id:
        action = "REBOOT"
    # The same boot: the reboot is still on its way down, or was never begun.
    if action == "REBOOT" and attempts.rebooted_from_boot not in ("", boot_id):
        action = "ISOLATE"
    return action


def after(
    action: HardwareAction, attempts: Attempts, boot_id: str, uptime_seconds: float
) -> Attempts:
    """What is remembered once the action is taken.

    A healthy node starts with a clean slate, but for what its kernel's log still holds.
    """
    if action in ("OK", "MONITOR"):
        same = attempts.reset_in_boot == boot_id
        return Attempts(reset_at_seconds=attempts.reset_at_seconds if same else 0.0)
    if action == "RESET":
        return Attempts(boot_id, attempts.rebooted_from_boot, uptime_seconds)
    if action == "REBOOT":
        return Attempts(attempts.reset_in_boot, boot_id)
    return attempts
