"""What a node lends to its part in the group: secrets, and its own role's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from node_bootstrap.agent.events import Backend
from node_bootstrap.transfer.judge import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from node_bootstrap.agent.role import Supervisor


def _nothing(*_: str) -> None:
    """For a node whose role has neither."""


def _no_outcome() -> tuple[str, Outcome]:
    return "", Outcome()


@dataclass(frozen=True)
class Desk:
    """All functions may be called from any thread.

    token: the stack's token; empty while it is not known.
    refresh_token: the primary did not accept it, read it again.
    secret: environment variable of the role -> its secret value; empty when not known.
    why_unprepared: why the steps are not done, in one sentence.
    read_tail: the end of the role's log, without secrets.
    kv_fault: why the role's KV or its experts' tokens don't move as planned; empty where they do.
    able: the all2all backend that this node can run. use_backend: have the role start with this
        one (name and why; empty: as planned).
    measure: take part in the measured transfer of this token; empty: in none, end what runs.
    measured: the last one that is done, and what came of it.
    """

    supervisor: Supervisor
    token: Callable[[], str]
    refresh_token: Callable[[], None]
    secret: Callable[[str], str]
    why_unprepared: Callable[[], str]
    read_tail: Callable[[], str]
    kv_fault: Callable[[], str] = str
    able: Callable[[], Backend] = Backend
    use_backend: Callable[[str, str], None] = _nothing
    measure: Callable[[str], None] = _nothing
    measured: Callable[[], tuple[str, Outcome]] = _no_outcome
