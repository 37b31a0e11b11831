"""Lets go of groups whose nodes are about to be replaced: no new requests, and word when idle."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from node_bootstrap.agent.store import StoreError
from node_bootstrap.gateway import idle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from node_bootstrap.assignment import GatewayGroup
    from node_bootstrap.gateway.membership import GroupView
    from node_bootstrap.leaving import Leaving

log = logging.getLogger(__name__)

READ_SECONDS = 3.0
LOOK_SECONDS = 0.5
FAULT = "its nodes are about to be replaced"


class Handover:
    """See the module. All may be called from any thread."""

    def __init__(
        self, read: Callable[[], Leaving | None], routed: Callable[[], Sequence[str]]
    ) -> None:
        """Nothing is read before `start`.

        Args:
            read: the document of the bucket; StoreError where it can't be read.
            routed: groups that requests are sent to at this moment.
        """
        self._read, self._routed = read, routed
        self._said: Leaving | None = None
        self._due: dict[str, GatewayGroup] = {}
        self._looks: dict[str, int] = {}
        self._end = threading.Event()

    def start(self) -> None:
        """Begin to read."""
        threading.Thread(target=self._work, name="handover", daemon=True).start()

    def close(self) -> None:
        """Read no more."""
        self._end.set()

    def without_leaving(
        self, views: Sequence[GroupView], groups: dict[str, GatewayGroup]
    ) -> list[GroupView]:
        """What was just heard, with the groups that are let go of as good as gone.

        groups: name -> group, of the stack.
        """
        said = self._said
        meant = said.groups if said and time.time() < said.until else {}
        due = {g.name for g in views if g.begun_at and meant.get(g.name) == g.begun_at}
        self._due = {name: groups[name] for name in due if name in groups}
        return [replace(g, fault=FAULT) if g.name in due and not g.fault else g for g in views]

    def drained(self) -> frozenset[str]:
        """Groups that were let go of and that work for nobody any more."""
        looks, due = self._looks, self._due
        return frozenset(name for name in due if idle.proven(looks.get(name, 0)))

    def _work(self) -> None:
        read_at = 0.0
        while not self._end.wait(LOOK_SECONDS):
            if time.monotonic() - read_at >= READ_SECONDS:
                read_at = time.monotonic()
                self._take_up()
            routed = self._routed()
            self._looks = {
                name: idle.looked(group, routed, self._looks.get(name, 0))
                for name, group in self._due.items()
            }

    def _take_up(self) -> None:
        try:
            said = self._read()
        except StoreError as error:  # what was said before holds
            log.warning("%s", error)
            return
        if said != self._said and said is not None:
            log.info("let go of, for their nodes are about to be replaced: %s", list(said.groups))
        self._said = said
