"""What vLLM said of itself when it started: read from its log once, remembered for its life."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from node_bootstrap import durable
from node_bootstrap.agent import logs
from node_bootstrap.agent.protocol import Pair
from node_bootstrap.status import Experts, Found

if TYPE_CHECKING:
    from pathlib import Path

    from node_bootstrap.agent.role import Supervisor

READ_LOG_SECONDS = 1.0
READ_LOG_TIMES = 600


@dataclass(frozen=True)
class RoleFacts:
    """What the role said in the life `pair`."""

    pair: Pair
    experts: tuple[Experts, ...] = ()
    all2all_backend: str | None = None


class RoleReader:
    """Reads from the role's log what vLLM says of itself, until it has said it."""

    def __init__(self, supervisor: Supervisor, path: Path) -> None:
        """Take up what was read before; `path`: file that remembers it.

        A restarted agent would not find those lines again: they are weeks back in the log.
        """
        self._supervisor = supervisor
        self._path = path
        self._facts = durable.load(path, RoleFacts)
        self._times = 0
        self._next = 0.0

    def read(self, pair: Pair | None) -> None:
        """Look once more if it is time and something is still unsaid; pair: what runs."""
        if pair is None:
            return
        if self._facts is None or self._facts.pair != pair:
            self._facts, self._times, self._next = RoleFacts(pair), 0, 0.0
        done = self._facts.experts or self._times >= READ_LOG_TIMES
        if done or time.monotonic() < self._next:
            return
        text = self._supervisor.log()
        self._facts = RoleFacts(pair, logs.experts(text), logs.all2all_backend(text))
        self._times += 1
        self._next = time.monotonic() + READ_LOG_SECONDS
        if self._facts.experts:
            durable.save(self._path, self._facts)

    def found(self, found: Found) -> Found:
        """The rest of what was found, completed with what the log says."""
        if self._facts is None:
            return found
        backend = self._facts.all2all_backend
        return replace(found, experts=self._facts.experts, all2all_backend=backend)
