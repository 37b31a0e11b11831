"""What vLLM said of itself since it started: read from its log, remembered for its life."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from node_bootstrap import durable
from node_bootstrap.agent import logs, signs, transport
from node_bootstrap.agent.protocol import Pair
from node_bootstrap.agent.transport import KvWords
from node_bootstrap.status import Experts, Found, Sign

if TYPE_CHECKING:
    from pathlib import Path

    from node_bootstrap.agent.role import Supervisor

READ_LOG_SECONDS = 1.0
READ_LOG_TIMES = 600
RARELY_SECONDS = 15.0
"""After so many times in vain; the first peer of a prefill or decode group may come hours later."""
SIGNS_SECONDS = 60.0
"""Once all is said the log is read so often, for signs of trouble."""


@dataclass(frozen=True)
class RoleFacts:
    """What the role said in the life `pair`.

    read_at, kv_at: when its log was first read, and its words of KV (seconds since the epoch).
    """

    pair: Pair
    experts: tuple[Experts, ...] = ()
    all2all_backend: str | None = None
    kv: KvWords = KvWords()  # noqa: RUF009 - frozen, so sharing it is safe
    kv_at: float = 0.0
    read_at: float = 0.0


class RoleReader:
    """Reads from the role's log what vLLM says of itself, and what is a sign of trouble."""

    def __init__(self, supervisor: Supervisor, path: Path) -> None:
        """Take up what was read before; `path`: file that remembers it.

        A restarted agent would not find those lines again: they are weeks back in the log.
        """
        self._supervisor = supervisor
        self._path = path
        self._facts = durable.load(path, RoleFacts)
        self._times = 0
        self._next = 0.0
        self.signs: tuple[Sign, ...] = ()

    def read(self, pair: Pair | None, *, moves_kv: bool = False) -> None:
        """Look once more if it is time.

        Args:
            pair: what runs.
            moves_kv: it is a prefill or decode group, which names its peers' transport.
        """
        if pair is None:
            return
        if self._facts is None or self._facts.pair != pair:
            self._facts, self._times, self._next = RoleFacts(pair), 0, 0.0
            self.signs = ()
        if time.monotonic() < self._next:
            return
        facts, often = self._facts, self._times < READ_LOG_TIMES
        done = (facts.experts or not often) and (facts.kv.whole or not moves_kv)
        text = self._supervisor.log()
        self.signs = signs.lines(text, self.signs, time.time())
        if done:
            self._next = time.monotonic() + SIGNS_SECONDS
            return
        # What was said once stays said: the log that is read is only the end of it.
        kv = facts.kv.join(transport.words(text)) if moves_kv else facts.kv
        self._facts = RoleFacts(
            pair,
            logs.experts(text) or facts.experts,
            logs.all2all_backend(text) or facts.all2all_backend,
            kv,
            facts.kv_at if kv == facts.kv else time.time(),
            facts.read_at or time.time(),
        )
        self._times += 1
        self._next = time.monotonic() + (READ_LOG_SECONDS if often else RARELY_SECONDS)
        if self._facts.experts and self._facts != facts:
            durable.save(self._path, self._facts)

    def kv(self) -> tuple[KvWords, float]:
        """What the role said of how it moves KV, and when it was read (seconds since the epoch)."""
        facts = self._facts
        return (facts.kv, facts.kv_at) if facts is not None else (KvWords(), 0.0)

    @property
    def all2all_backend(self) -> str | None:
        """The all2all backend by the role's own words; None while it said nothing of it."""
        return self._facts.all2all_backend if self._facts is not None else None

    @property
    def said_at(self) -> float:
        """When the last of it was read, in seconds since the epoch."""
        facts = self._facts
        return (facts.kv_at or facts.read_at) if facts is not None else 0.0

    def found(self, found: Found) -> Found:
        """The rest of what was found, completed with what the log says."""
        if self._facts is None:
            return found
        facts = self._facts
        return replace(
            found,
            experts=facts.experts,
            all2all_backend=facts.all2all_backend,
            kv_transport=str(facts.kv) or None,
        )
