"""What a node lends to its part in the group: secrets, and its own role's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from node_bootstrap.agent.role import Supervisor


@dataclass(frozen=True)
class Desk:
    """All functions may be called from any thread.

    token: the stack's token; empty while it is not known.
    refresh_token: the primary did not accept it, read it again.
    secret: environment variable of the role -> its secret value; empty when not known.
    why_unprepared: why the steps are not done, in one sentence.
    read_tail: the end of the role's log, without secrets.
    kv_fault: why the role's KV doesn't move as planned; empty where it does.
    """

    supervisor: Supervisor
    token: Callable[[], str]
    refresh_token: Callable[[], None]
    secret: Callable[[str], str]
    why_unprepared: Callable[[], str]
    read_tail: Callable[[], str]
    kv_fault: Callable[[], str] = str
