"""The form of a check of the account."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from infra.preflight.asked import Asked
from infra.preflight.aws import Aws
from infra.preflight.result import Verdict

Look = Callable[[Aws, Asked], Iterable[Verdict]]


@dataclass(frozen=True)
class Check:
    """One check: what it is about, which permissions it takes, how it looks.

    where: the settings key that it is about. applies: whether a stack needs it at all.
    """

    code: str
    where: str
    about: str
    permissions: tuple[str, ...]
    applies: Callable[[Asked], bool]
    look: Look


def always(asked: Asked) -> bool:
    """Every stack needs it."""
    return bool(asked.nodes)
