"""What a decision of the plan wants a person to know; the checks turn notes into findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["INFO", "WARNING", "ERROR"]


@dataclass(frozen=True)
class Note:
    """Something a person must know of a choice; an ERROR means that the plan can't run."""

    code: str
    severity: Severity
    message: str
    remedy: str
