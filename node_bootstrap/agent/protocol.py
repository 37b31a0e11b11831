"""What the agents of one group say to one another, and what they know of their own role.

A pair (revision, generation) names one life of the whole group. Every node runs its role for one
pair at a time, and starts it for a given pair at most once: an engine that left a group can't
rejoin it, only a new generation brings it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from node_bootstrap.status import MemberPhase


@dataclass(frozen=True)
class Now:
    """One moment: `mono` for durations (seconds since boot), `epoch` for reports (UTC)."""

    mono: float
    epoch: float


@dataclass(frozen=True)
class Pair:
    """One life of a group: what it runs, and the how-manieth start that is."""

    revision: str
    generation: int


RoleState = Literal["absent", "running", "stopping"]


@dataclass(frozen=True)
class RoleView:
    """The node's own role as its supervisor sees it.

    state: `stopping` while processes remain but the main process has ended or was told to.
    started: the last pair that the role was started for, also when it has ended since.
    detail, log_tail: how it ended, where that is known.
    """

    state: RoleState = "absent"
    started: Pair | None = None
    detail: str = ""
    log_tail: str = ""

    def runs(self, pair: Pair | None) -> bool:
        """Whether the role is running, and for this pair."""
        return pair is not None and self.state == "running" and self.started == pair

    def ended(self, pair: Pair | None) -> bool:
        """Whether the role was started for this pair and is no longer running."""
        return pair is not None and self.started == pair and self.state != "running"


@dataclass(frozen=True)
class Heartbeat:
    """What a member tells its primary, once a second and at every change.

    agent_started, sequence: order the heartbeats of one boot, so that a late one is dropped.
    revision: the revision that the member is prepared for; empty while its steps run.
    started: the last pair that its role was started for.
    acknowledged: generation of the last directive that it received.
    kv_fault: why its KV or its experts' tokens don't move as planned; empty where they do.
    backend, backend_why: the all2all backend that it can run, and why it is another than planned;
        empty where the role needs no library.
    measured: token of the last measured transfer that it is done with; transfer_faults: what was
        not as planned in it, transfer_nics: that NCCL found here.
    """

    name: str
    instance_id: str
    boot_id: str
    agent_started: float
    sequence: int
    phase: MemberPhase
    revision: str
    started: Pair | None
    acknowledged: int
    detail: str = ""
    log_tail: str = ""
    kv_fault: str = ""
    backend: str = ""
    backend_why: str = ""
    measured: str = ""
    transfer_faults: tuple[str, ...] = ()
    transfer_nics: int | None = None


@dataclass(frozen=True)
class Directive:
    """What the primary answers: the group's pair, and whether members run their role for it.

    backend, backend_why: the all2all backend that all run; empty: as planned.
    measure: token of the transfer that is measured now; empty: none is.
    """

    revision: str
    generation: int
    run: bool
    backend: str = ""
    backend_why: str = ""
    measure: str = ""

    @property
    def pair(self) -> Pair:
        """The pair that this directive is about."""
        return Pair(self.revision, self.generation)


@dataclass(frozen=True)
class RestartOrder:
    """The gateway's word that a group must start anew: the life that it is about, and why.

    A group that is past that life has done so already. measure: the transfer between its nodes is
    measured again on the way.
    """

    revision: str
    generation: int
    cause: str
    measure: bool = False

    @property
    def pair(self) -> Pair:
        """The life that must end."""
        return Pair(self.revision, self.generation)


@dataclass(frozen=True)
class LeaveOrder:
    """The gateway's leave: the life that it has taken out of use, and what may take over."""

    revision: str
    generation: int
    to: str

    @property
    def pair(self) -> Pair:
        """The life that may end."""
        return Pair(self.revision, self.generation)


@dataclass(frozen=True)
class StartRole:
    """Start the role for this pair, with this all2all backend; empty: as planned."""

    pair: Pair
    backend: str = ""
    backend_why: str = ""


@dataclass(frozen=True)
class StopRole:
    """Stop the role; why, for the log."""

    why: str


@dataclass(frozen=True)
class Measure:
    """Take part in the measured transfer of this token."""

    token: str


Action = StartRole | StopRole | Measure
