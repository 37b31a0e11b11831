"""The all2all backend of this node's role: what the node can run, and what its group agreed on."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from node_bootstrap.agent import transport
from node_bootstrap.agent.events import Backend
from node_bootstrap.steps import library
from node_bootstrap.steps.role_unit import RoleStep

if TYPE_CHECKING:
    from node_bootstrap.agent.preparer import Preparer
    from node_bootstrap.assignment import Assignment
    from node_bootstrap.places import Places
    from node_bootstrap.status import BackendReport

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OwnBackend:
    """See the module. systemd: False where the role is no unit."""

    places: Places
    preparer: Preparer
    systemd: bool

    def report(self) -> BackendReport | None:
        """What vLLM is started with; None where the role needs no library."""
        return library.decided(self.places) if self._prepared() else None

    def able(self) -> Backend:
        """What this node can run, whatever the others can."""
        own = library.able(self.places) if self._prepared() else None
        return Backend(own.in_effect, own.why) if own else Backend()

    def use(self, name: str, why: str) -> None:
        """Before vLLM starts: the role's files name the backend that all nodes agreed on."""
        assignment = self._prepared()
        if assignment is None:
            return
        if library.agree(self.places, name, why):
            log.warning("all2all backend %s: %s", name, why or "as planned")
        interface, secret = self.preparer.progress.found.interface, self.preparer.parameter
        role = RoleStep(
            assignment,
            self.places,
            lambda: interface,
            lambda names: {n: secret(n) for n in names},
            self.systemd,
        )
        if not role.check().done:
            role.apply(0.0)

    def fault(self, said: str | None) -> str:
        """Why the role that runs has not the manager it was started with. said: by its own log."""
        prepared = self.preparer.progress.prepared
        if prepared is None:
            return ""
        argv, env = library.in_effect(prepared.argv, prepared.env, self.report())
        return transport.manager_fault(argv, env, said)

    def _prepared(self) -> Assignment | None:
        """The assignment whose steps are done, where its role needs a library."""
        prepared = self.preparer.progress.prepared
        return prepared if prepared and prepared.backend else None
