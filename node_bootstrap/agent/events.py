"""What may happen to a group, and what it is asked to run: the input of its machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node_bootstrap.agent.protocol import Heartbeat, Pair, RoleView
    from node_bootstrap.status import ProbeReport


@dataclass(frozen=True)
class Plan:
    """What one revision asks of the group; `members` are the nodes beside the primary."""

    revision: str
    primary: str
    members: tuple[str, ...]
    ranks: int
    start_seconds: float
    silence_seconds: float


@dataclass(frozen=True)
class Tick:
    """Time went on; what the supervisor sees of the primary's own role."""

    role: RoleView


@dataclass(frozen=True)
class Heard:
    """A heartbeat came in."""

    beat: Heartbeat


@dataclass(frozen=True)
class Prepared:
    """The primary's own steps are done for this plan."""

    plan: Plan


@dataclass(frozen=True)
class Probed:
    """One rank was asked in the life `pair`: its answer, or the error instead of one."""

    pair: Pair
    rank: int
    report: ProbeReport | None
    error: str = ""


@dataclass(frozen=True)
class Ordered:
    """The gateway asks for an end of the life `pair`."""

    pair: Pair
    cause: str


Event = Tick | Heard | Prepared | Probed | Ordered
