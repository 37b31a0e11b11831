"""Has groups take up a new revision one after the other, each once it has ended what it began.

Whatever waits for the network works in threads of its own; `begin` never does.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from node_bootstrap.agent.protocol import LeaveOrder
from node_bootstrap.gateway import idle, peers, turns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from node_bootstrap.assignment import GatewayGroup
    from node_bootstrap.gateway.membership import GroupView
    from node_bootstrap.gateway.pairs import Access
    from node_bootstrap.gateway.turns import Moment, Turn

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
ORDER_AGAIN_SECONDS = 5.0


class Rolling:
    """See the module. All may be called from any thread."""

    def __init__(
        self,
        groups: Sequence[GatewayGroup],
        access: Access,
        routed: Callable[[], Sequence[str]],
        drain_seconds: float,
    ) -> None:
        """Nobody has a turn yet.

        Args:
            groups: of the stack.
            access: how they are spoken to.
            routed: groups that requests are sent to at this moment.
            drain_seconds: how long a group may end what it has begun.
        """
        self._groups = {group.name: group for group in groups}
        self._access, self._routed, self._drain_seconds = access, routed, drain_seconds
        self._lock = threading.Lock()
        self._turns: tuple[Turn, ...] = ()
        self._end = threading.Event()

    def without_leaving(self, views: Sequence[GroupView]) -> list[GroupView]:
        """What was just heard, with the groups that have their turn as good as gone."""
        with self._lock:
            self._turns = turns.still_due(self._turns, views)
            return turns.leaving(views, [turn.group for turn in self._turns])

    def begin(self, moment: Moment) -> bool:
        """Give those their turn who are next; whether there are any."""
        with self._lock:
            new = turns.begun(self._turns, moment)
            self._turns = (*self._turns, *new)
        for turn in new:
            log.info("%s is taken out of use, to take up %s", turn.group, turn.to)
            threading.Thread(target=self._let_go, args=(turn,), name="turn", daemon=True).start()
        return bool(new)

    def close(self) -> None:
        """Give nobody leave any more."""
        self._end.set()

    def _let_go(self, turn: Turn) -> None:
        """Wait until nothing runs in the group, then give it leave until it has gone."""
        group, began, looks = self._groups[turn.group], time.monotonic(), 0
        while not self._end.wait(LOOK_SECONDS) and turn in self._turns:
            routed = self._routed()
            looks = idle.looked(group, routed, looks)
            late = turn.group not in routed and time.monotonic() - began > self._drain_seconds
            if not idle.proven(looks) and not late:
                continue
            log.info("%s may take up %s%s", turn.group, turn.to, " (late)" if late else "")
            self._order(group, turn)
            self._end.wait(ORDER_AGAIN_SECONDS)

    def _order(self, group: GatewayGroup, turn: Turn) -> None:
        order = LeaveOrder(turn.life.revision, turn.life.generation, turn.to)
        access, primary = self._access, group.members[0].address
        try:
            peers.order_leave(primary, access.agent_port, access.token(), order)
        except peers.PeerError as error:
            log.warning("%s did not take its leave: %s", turn.group, error)
