"""What the account would refuse, asked before anything is made: AWS reads alone."""

from __future__ import annotations

from infra.preflight.asked import Asked, asked_of
from infra.preflight.result import Result, State
from infra.preflight.run import run

__all__ = ["Asked", "Result", "State", "asked_of", "run"]
