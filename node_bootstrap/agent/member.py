"""A headless member of a group, as a pure machine: no clock, no network, no process of its own.

The member runs its role only for the pair of its primary's last directive, and only while it
hears its primary: a headless vLLM outlives a dead primary and can never rejoin it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from node_bootstrap.agent.protocol import (
    Action,
    Directive,
    Measure,
    Pair,
    RoleView,
    StartRole,
    StopRole,
)

if TYPE_CHECKING:
    from node_bootstrap.status import MemberPhase


@dataclass(frozen=True)
class Member:
    """What a member knows.

    prepared: the revision that its steps are done for; empty when none.
    heard_at: when the request was sent whose answer is `directive` (monotonic seconds).
    silence_seconds: for so long it goes on without hearing its primary.
    """

    silence_seconds: float
    prepared: str = ""
    directive: Directive | None = None
    heard_at: float = 0.0
    role: RoleView = field(default_factory=RoleView)

    def hear(self, directive: Directive, sent_at: float) -> Member:
        """Take the primary's answer to a heartbeat sent at `sent_at` (monotonic seconds)."""
        return replace(self, directive=directive, heard_at=sent_at)

    def observe(self, role: RoleView) -> Member:
        """Take what the supervisor sees of the role."""
        return replace(self, role=role)

    def prepare(self, revision: str) -> Member:
        """The steps are done for this revision."""
        return replace(self, prepared=revision)

    def resume(self, now: float) -> Member:
        """After a restart of the agent: the primary gets a whole silence to be heard again."""
        started = self.role.started
        if self.role.state != "running" or started is None:
            return self
        return replace(
            self, directive=Directive(started.revision, started.generation, run=True), heard_at=now
        )

    def wanted(self, now: float) -> Pair | None:
        """The pair to run at this moment (monotonic seconds); None: nothing may run."""
        if self.directive is None or not self.directive.run or self.silent(now):
            return None
        return self.directive.pair

    def measures(self, now: float) -> bool:
        """Whether a transfer is measured that this member takes part in."""
        told = self.directive
        if told is None or not told.measure or self.silent(now):
            return False
        return self.role.state == "absent" and told.revision == self.prepared

    def silent(self, now: float) -> bool:
        """Whether the primary has not been heard for too long."""
        return now - self.heard_at > self.silence_seconds

    def actions(self, now: float) -> tuple[Action, ...]:
        """What to do now. Levels, not edges: an action that got lost comes again."""
        wanted, told = self.wanted(now), self.directive
        if self.role.state == "running":
            if self.role.started == wanted:
                return ()
            return (StopRole(self._why_stop(now)),)
        if self.measures(now) and told is not None:
            return (Measure(told.measure),)
        if wanted is None or self.role.state != "absent" or wanted.revision != self.prepared:
            return ()
        if self.role.started is not None and wanted.generation <= self.role.started.generation:
            return ()
        return (StartRole(wanted, *((told.backend, told.backend_why) if told else ())),)

    def phase(self) -> MemberPhase:
        """How this member presents itself to its primary."""
        if self.role.state != "absent":
            return "running"
        if self.directive is not None and self.directive.run and self._spent(self.directive.pair):
            return "failed"
        return "stopped" if self.prepared else "preparing"

    def _spent(self, pair: Pair) -> bool:
        started = self.role.started
        return started is not None and started.generation >= pair.generation

    def _why_stop(self, now: float) -> str:
        if self.directive is None:
            return "the primary has not been heard since the agent started"
        if self.silent(now):
            return f"the primary has not been heard for {now - self.heard_at:.1f} s"
        return f"the group is at generation {self.directive.generation}"
