"""What one check of the account answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from infra.checks.finding import Finding, Severity


class State(StrEnum):
    """PASS; WARN: it would work, with a catch; FAIL: it would not; SKIPPED: it can't be told."""

    PASS = "PASS"  # noqa: S105 - no password
    WARN = "WARN"
    FAIL = "FAIL"
    SKIPPED = "SKIPPED"


_SEVERITIES = {State.WARN: Severity.WARNING, State.FAIL: Severity.ERROR}


@dataclass(frozen=True)
class Verdict:
    """What a check says of one thing that it looked at: a sentence, and what to do about it."""

    state: State
    message: str
    remedy: str = ""


def passed(message: str) -> Verdict:
    """It is as the stack needs it."""
    return Verdict(State.PASS, message)


def warned(message: str, remedy: str) -> Verdict:
    """It would work, with a catch."""
    return Verdict(State.WARN, message, remedy)


def failed(message: str, remedy: str) -> Verdict:
    """It would not work."""
    return Verdict(State.FAIL, message, remedy)


def skipped(message: str, remedy: str = "") -> Verdict:
    """It can't be told."""
    return Verdict(State.SKIPPED, message, remedy)


@dataclass(frozen=True)
class Result:
    """A verdict with the check that it is of.

    code: of the check, stable over releases. where: the settings key to look at.
    permission: the IAM action that was missing, where that is why it was skipped.
    seconds: how long AWS took to answer.
    """

    code: str
    state: State
    where: str
    message: str
    remedy: str = ""
    permission: str = ""
    seconds: float = 0.0

    @property
    def finding(self) -> Finding | None:
        """As a finding of the checks; None where there is nothing to mend."""
        severity = _SEVERITIES.get(self.state)
        if severity is None:
            return None
        return Finding(self.code, severity, self.where, self.message, self.remedy)
