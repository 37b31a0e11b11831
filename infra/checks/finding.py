"""One result of one check: what is wrong, what follows from it, how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is. An ERROR stops `up`; a WARNING costs speed or money; INFO is advice."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"

    @property
    def rank(self) -> int:
        """0 for INFO, 1 for WARNING, 2 for ERROR: StrEnum itself would sort by letters."""
        return tuple(Severity).index(self)


@dataclass(frozen=True)
class Finding:
    """What one rule found.

    `code` is stable over releases of the project. `where` names the settings key to look at, such
    as `moe-serving:groups.decode.eplb.num_redundant_experts`. `message` holds the fact, with the
    values that it was found with, and the consequence; `remedy` says what to change.
    """

    code: str
    severity: Severity
    where: str
    message: str
    remedy: str


def in_order(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The worst first, then by place and code; equal findings once."""
    unique = dict.fromkeys(findings)
    return tuple(
        sorted(unique, key=lambda f: (-f.severity.rank, f.where, f.code, f.message, f.remedy))
    )
