"""What may happen to a group, and what it is asked to run: the input of its machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node_bootstrap.agent.protocol import Heartbeat, Pair, RoleView
    from node_bootstrap.status import ProbeReport
    from node_bootstrap.transfer.judge import Outcome


@dataclass(frozen=True)
class Plan:
    """What one revision asks of the group; `members` are the nodes beside the primary.

    transfer: of the software that a measured transfer is about; empty: none is measured.
    transfer_required: nothing starts before one went as planned. transfer_seconds: its limit.
    """

    revision: str
    primary: str
    members: tuple[str, ...]
    ranks: int
    start_seconds: float
    silence_seconds: float
    transfer: str = ""
    transfer_required: bool = False
    transfer_seconds: float = 0.0


@dataclass(frozen=True)
class Backend:
    """The all2all backend that one node can run, and why it is another than planned.

    name: empty where the role needs no library.
    """

    name: str = ""
    why: str = ""


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
    """The primary's own steps are done for this plan; what it can run itself.

    asks: it takes over from a life that is ready only with the gateway's leave.
    """

    plan: Plan
    backend: Backend = Backend()
    asks: bool = False


@dataclass(frozen=True)
class Probed:
    """One rank was asked in the life `pair`: its answer, or the error instead of one."""

    pair: Pair
    rank: int
    report: ProbeReport | None
    error: str = ""


@dataclass(frozen=True)
class Ordered:
    """The gateway asks for an end of the life `pair`. measure: the transfer is measured again."""

    pair: Pair
    cause: str
    measure: bool = False


@dataclass(frozen=True)
class Measured:
    """The primary's own part of the measured transfer `token` is done."""

    token: str
    outcome: Outcome


@dataclass(frozen=True)
class Left:
    """The gateway has taken the life `pair` out of use: `revision` may take over from it."""

    pair: Pair
    revision: str


Event = Tick | Heard | Prepared | Probed | Ordered | Measured | Left
