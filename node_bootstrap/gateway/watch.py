"""The gateway's eyes: asks every group's primary once a second, has pairs tried, says who is in."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from node_bootstrap.gateway import membership as rules
from node_bootstrap.gateway import peers
from node_bootstrap.gateway.cut import Cutter
from node_bootstrap.gateway.handover import Handover
from node_bootstrap.gateway.membership import GroupView, Membership
from node_bootstrap.gateway.pairs import Access, Pairs, why_out
from node_bootstrap.gateway.rolling import Rolling
from node_bootstrap.gateway.turns import Moment
from node_bootstrap.status import PairReport, RoutedGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from node_bootstrap.assignment import Assignment, GatewayGroup
    from node_bootstrap.leaving import Leaving

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
POLLERS = 16


@dataclass(frozen=True)
class Seen:
    """What the gateway knows of its groups at a moment.

    groups: every group, with what keeps it out; `routed` is for the router's side to fill in.
    pairs: the last trial of each pair.
    """

    membership: Membership = Membership()  # noqa: RUF009 - frozen, so sharing it is safe
    groups: tuple[RoutedGroup, ...] = ()
    pairs: tuple[PairReport, ...] = ()


class Watch:
    """See the module. `view` may be read from any thread."""

    def __init__(  # noqa: PLR0913 - what it looks at and whom it tells
        self,
        assignment: Assignment,
        token: Callable[[], str],
        api_key: Callable[[], str],
        state: Path,
        tell: Callable[[], None],
        *,
        routed: Callable[[], Sequence[str]] = tuple,
        leaving: Callable[[], Leaving | None] = lambda: None,
    ) -> None:
        """Nothing is asked before `start`.

        Args:
            assignment: of the gateway.
            token: the stack's, which agents show one another.
            api_key: the one that vLLM asks for.
            state: folder for what is remembered over the agent's death.
            tell: called when the view may have changed.
            routed: groups that requests are sent to at this moment.
            leaving: groups to let go of, as the program said last.
        """
        self._routed = routed
        self._token, self._api_key = token, api_key
        self._path = state / "pairs.json"
        self._tell = tell
        self._wake, self._end = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._views: dict[str, GroupView] = {}
        self._pairs: Pairs | None = None
        self._rolling: Rolling | None = None
        self._handover, self._cutter = Handover(leaving, routed), Cutter()
        self._seen = Seen()
        self.came_round_at = time.monotonic()
        self.assign(assignment)

    def start(self) -> None:
        """Begin to ask."""
        self._handover.start()
        threading.Thread(target=self._work, name="watch", daemon=True).start()

    def close(self) -> None:
        """Ask no more."""
        self._end.set()
        self._wake.set()
        if self._pairs is not None:
            self._pairs.close()
        if self._rolling is not None:
            self._rolling.close()
        self._handover.close()
        self._cutter.close()

    def assign(self, assignment: Assignment) -> None:
        """A new assignment: groups may come and go; what is known of the others stays."""
        gateway = assignment.gateway
        groups = {group.name: group for group in (gateway.groups if gateway else ())}
        access = Access(assignment.probe.model, assignment.agent_port, self._token, self._api_key)
        with self._lock:
            if self._pairs is not None:
                self._pairs.close()
            if self._rolling is not None:
                self._rolling.close()
            drain = gateway.limits.drain_seconds if gateway else 0.0
            self._rolling = Rolling(tuple(groups.values()), access, self._routed, drain)
            self._pairs = Pairs(tuple(groups.values()), access, self._path, self._wake.set)
            self._groups, self._agent_port = groups, assignment.agent_port
            self._silence = assignment.limits.silence_seconds
            self._views = {
                name: self._views.get(name, _unheard(group)) for name, group in groups.items()
            }
        self._wake.set()

    def view(self) -> Seen:
        """The groups as last seen."""
        return self._seen

    def _work(self) -> None:
        with ThreadPoolExecutor(POLLERS, thread_name_prefix="poll") as pool:
            while not self._end.is_set():
                self._wake.clear()
                self.came_round_at = began = time.monotonic()
                try:
                    self._look(pool)
                except Exception:  # without eyes the gateway would keep dead groups
                    log.exception("a look at the groups broke off")
                self._wake.wait(max(0.1, POLL_SECONDS - (time.monotonic() - began)))

    def _look(self, pool: ThreadPoolExecutor) -> None:
        with self._lock:
            groups, before = dict(self._groups), dict(self._views)
        heard = pool.map(lambda group: self._ask(group, before[group.name]), groups.values())
        views = {view.name: view for view in heard}
        with self._lock:
            pairs, rolling = self._pairs, self._rolling
            if set(views) != set(self._groups) or pairs is None or rolling is None:
                return  # another assignment came meanwhile
            self._views, silence = views, self._silence
        staying = self._handover.without_leaving(list(views.values()), groups)
        known = rolling.without_leaving(staying)
        decided = pairs.tick(known, self._seen.membership, silence)
        now, routed = time.monotonic(), self._routed()
        self._cutter.look(
            {name: groups[name] for name, v in views.items() if rules.silent(v, now, silence)}
        )
        if rolling.begin(Moment(known, pairs.proofs(), decided, now, silence, routed)):
            self._wake.set()
        seen = Seen(decided, _shown(known, decided, self._handover.drained()), pairs.reports())
        changed = seen != self._seen
        self._seen = seen
        if changed:
            self._tell()

    def _ask(self, group: GatewayGroup, before: GroupView) -> GroupView:
        try:
            report = peers.group_of(group.members[0].address, self._agent_port, self._token())
        except peers.PeerError:
            return replace(before, answered=False)
        restarts = group.kv_transfer is not None and group.kv_transfer.restart_with_peer
        now = time.monotonic()
        return rules.view(group.name, _role(group), report, now, restart_with_peer=restarts)


def _unheard(group: GatewayGroup) -> GroupView:
    return GroupView(group.name, _role(group), None, "", 0.0)


def _role(group: GatewayGroup) -> rules.Role:
    if group.role == "gateway":
        raise ValueError(f"{group.name}: a gateway is no group that it routes to")
    return group.role


def _shown(
    views: list[GroupView], decided: Membership, drained: frozenset[str]
) -> tuple[RoutedGroup, ...]:
    inside = {*decided.serve, *decided.prefill, *decided.decode}
    return tuple(
        RoutedGroup(
            name=view.name,
            role=view.role,
            revision=view.life.revision if view.life else "",
            generation=view.life.generation if view.life else 0,
            routed=False,
            why="" if view.name in inside else why_out(view.name, decided.reasons),
            drained=view.name in drained,
        )
        for view in sorted(views, key=lambda view: view.name)
    )
