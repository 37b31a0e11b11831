"""The gateway's part of its agent: groups in and out of the routers, and proof that it serves."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from node_bootstrap import durable
from node_bootstrap.agent.protocol import RoleView
from node_bootstrap.gateway import front, layout, render, routers
from node_bootstrap.gateway.layout import SLOTS, Files, router_unit
from node_bootstrap.gateway.routers import Lineup, Open, Remove, Routers, SlotLook, Start
from node_bootstrap.gateway.step import probe_key
from node_bootstrap.gateway.watch import Watch
from node_bootstrap.status import Change, Fault, GatewayReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from node_bootstrap.assignment import Assignment, Gateway
    from node_bootstrap.gateway.layout import Slot
    from node_bootstrap.gateway.routers import Action
    from node_bootstrap.gateway.units import Units
    from node_bootstrap.places import Places

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
ASK_SECONDS, ASK_AGAIN_SECONDS = 5.0, 0.5
CHANGES_KEPT = 50
UNITS = (
    layout.DESK_LISTENER,
    layout.DESK,
    layout.CADDY,
    layout.PROMETHEUS,
    *(router_unit(slot) for slot in SLOTS),
)


@dataclass(frozen=True)
class Lent:
    """What the agent lends; all may be called from any thread.

    publish: put a text into the stack's bucket; StoreError when that fails.
    """

    token: Callable[[], str]
    secret: Callable[[str], str]
    publish: Callable[[str, str], None]
    wake: Callable[[], None]


@dataclass(frozen=True)
class _Asked:
    """The last completion through the front. why: there was none."""

    why: str = "no completion came through yet"
    since: float = 0.0


class GatewayNode:
    """Stands where a primary or a headless node has its part in a group."""

    fault: Fault | None = None

    def __init__(self, assignment: Assignment, lent: Lent, places: Places, units: Units) -> None:
        """Take up the routers where the last agent left them."""
        self.role = RoleView()
        self._assignment = assignment
        self._lent = lent
        self._units = units
        self._files = Files(places)
        self._routers = durable.load(self._files.routers, _Saved) or _Saved()
        self._held = self._routers.restore()
        self._prepared: Assignment | None = None
        self._looked_at = 0.0
        self._states: dict[str, str] = {}
        self._changes: tuple[Change, ...] = ()
        self._asked = _Asked(since=time.time())
        self._certificate = ""
        self._end = threading.Event()
        state = places.state
        self._watch = Watch(
            assignment, lent.token, lambda: lent.secret("OPENAI_API_KEY"), state, lent.wake
        )

    def assign(self, assignment: Assignment) -> None:
        """A new assignment came."""
        self._assignment = assignment

    def prepared(self, assignment: Assignment) -> None:
        """The steps are done for an assignment: units and files are as it says."""
        first = self._prepared is None
        self._prepared = assignment
        if first:
            if (active := self._held.active) is not None:
                self._route(Open(active, active))  # in this agent's own form
            self._watch.start()
            threading.Thread(target=self._ask_on, name="front", daemon=True).start()
        self._watch.assign(assignment)

    def tick(self) -> None:
        """Look at groups and routers, decide, act. Called a few times a second from one thread."""
        if self._prepared is None or time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        self._states = self._units.states(UNITS)
        if not self._watch.view().groups:
            return  # a new agent: what the routers have stands until the groups were asked
        looks: dict[Slot, SlotLook] = {slot: self._look(slot) for slot in SLOTS}
        before = self._held
        wanted = self._wanted()
        self._held, actions = routers.advance(before, wanted, looks, time.monotonic())
        if self._held != before:
            durable.save(self._files.routers, _Saved.of(self._held))
        for action in actions:
            self._act(action)

    def report(self) -> GatewayReport:
        """The gateway for the status document."""
        seen, asked = self._watch.view(), self._asked
        active = self._held.active
        routed = self._held.lineups[active].groups if active is not None else ()
        return GatewayReport(
            serving=not asked.why and active is not None,
            since=asked.since,
            why=asked.why,
            groups=tuple(replace(g, routed=g.name in routed) for g in seen.groups),
            units=dict(self._states),
            pairs=seen.pairs,
            changes=self._changes,
            certificate=self._certificate,
        )

    def close(self) -> None:
        """Ask no more; everything goes on."""
        self._end.set()
        self._watch.close()

    @property
    def _gateway(self) -> Gateway:
        told = (self._prepared or self._assignment).gateway
        if told is None:
            raise RuntimeError("the gateway's assignment has no gateway in it")
        return told

    def _wanted(self) -> Lineup:
        members, gateway = self._watch.view().membership, self._gateway
        known = {group.name for group in gateway.groups}
        # Another command line or another key to the engines is another router.
        basis = [*gateway.router_argv, self._lent.secret("OPENAI_API_KEY")]
        digest = hashlib.sha256(json.dumps(basis).encode()).hexdigest()[:16]
        return Lineup(
            prefill=tuple(n for n in members.prefill if n in known),
            decode=tuple(n for n in members.decode if n in known),
            serve=tuple(n for n in members.serve if n in known),
            digest=digest,
        )

    def _look(self, slot: Slot) -> SlotLook:
        state = self._states.get(router_unit(slot), "inactive")
        up = state == "active"
        return SlotLook(state, up and front.ready(("127.0.0.1", layout.ROUTER_PORTS[slot])))

    def _act(self, action: Action) -> None:
        log.info("%s", action)
        if isinstance(action, Start):
            text = render.workers(self._gateway, action.lineup.groups, action.slot)
            durable.write(self._files.router_workers(action.slot), text.encode())
            self._units.act("restart", router_unit(action.slot), wait=False)
        elif isinstance(action, Open):
            self._route(action)
        elif isinstance(action, Remove):
            self._remove(action)
        else:
            self._units.act("stop", router_unit(action.slot), wait=False)

    def _route(self, action: Open) -> None:
        limits = self._gateway.limits
        text = json.dumps(
            {
                "open": action.slot is not None,
                "upstream": layout.router_address(action.next),
                "wait_seconds": limits.wait_seconds,
                "waiting": limits.waiting_requests,
                "body_bytes": limits.body_bytes,
            }
        )
        durable.write(self._files.route, text.encode())
        self._note("requests wait" if action.slot is None else f"router {action.slot} took over")

    def _remove(self, action: Remove) -> None:
        address = ("127.0.0.1", layout.ROUTER_PORTS[action.slot])
        for group in self._gateway.groups:
            for url in group.urls if group.name in action.groups else ():
                why = front.put(address, f"/remove_worker?url={url}")
                if why:
                    log.warning("%s could not be taken from router %s: %s", url, action.slot, why)
        self._note(f"left: {', '.join(action.groups)}")

    def _note(self, cause: str) -> None:
        active = self._held.active
        groups = self._held.lineups[active].groups if active is not None else ()
        self._changes = (*self._changes, Change(time.time(), groups, cause))[-CHANGES_KEPT:]

    def _ask_on(self) -> None:
        """Prove again and again that a client would be served."""
        while not self._end.is_set():
            try:
                self._publish()
                why = self._ask()
            except Exception as error:  # this thread is the only proof
                log.exception("unexpected")
                why = f"unexpected: {error!r}"
            if bool(why) != bool(self._asked.why) or why != self._asked.why:
                since = time.time() if bool(why) != bool(self._asked.why) else self._asked.since
                self._asked = _Asked(why, since)
                self._lent.wake()
            self._end.wait(ASK_SECONDS if not why else ASK_AGAIN_SECONDS)

    def _ask(self) -> str:
        if self._held.active is None:
            return "; ".join(self._watch.view().membership.reasons) or "no group is ready yet"
        gateway, assignment = self._gateway, self._prepared or self._assignment
        path, model = self._files.authority, assignment.probe.model
        way = front.way(gateway, assignment.me.address, path, probe_key(self._files), model)
        return front.ask(way, tls=gateway.tls is not None)

    def _publish(self) -> None:
        gateway, path = self._gateway, self._files.authority
        if gateway.tls is None or gateway.tls.issuer != "internal" or not path.is_file():
            return
        text = path.read_text()
        if text != self._certificate:
            self._lent.publish(gateway.ca_key, text)
            self._certificate = text


@dataclass(frozen=True)
class _Saved:
    """Routers as they are remembered over the agent's death: JSON has no unions."""

    active: str = ""
    lineups: dict[str, Lineup] | None = None

    @staticmethod
    def of(held: Routers) -> _Saved:
        """For the file."""
        return _Saved(held.active or "", dict(held.lineups))

    def restore(self) -> Routers:
        """From the file. Start times are left out: a router that is not ready gets a new start."""
        lineups = self.lineups or {}
        active: Slot | None = "a" if self.active == "a" else "b" if self.active == "b" else None
        return Routers(active if active in lineups else None, lineups)
