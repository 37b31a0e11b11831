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
from node_bootstrap.agent import logs
from node_bootstrap.agent.protocol import RoleView
from node_bootstrap.gateway import front, layout, render, routers, stalls
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
    from node_bootstrap.gateway.units import Look, Units
    from node_bootstrap.leaving import Leaving
    from node_bootstrap.places import Places

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
ASK_SECONDS, ASK_AGAIN_SECONDS = 5.0, 0.5
CHANGES_KEPT = 50
UNITS = (
    layout.DESK_LISTENER,
    layout.DESK,
    layout.RELAY_LISTENER,
    layout.RELAY,
    layout.CADDY,
    layout.PROMETHEUS,
    *(router_unit(slot) for slot in SLOTS),
)


@dataclass(frozen=True)
class Lent:
    """What the agent lends; all may be called from any thread.

    publish: put a text into the stack's bucket; StoreError when that fails.
    leaving: groups to let go of, as the bucket says; StoreError when it can't be read.
    """

    token: Callable[[], str]
    secret: Callable[[str], str]
    publish: Callable[[str, str], None]
    wake: Callable[[], None]
    leaving: Callable[[], Leaving | None]


@dataclass(frozen=True)
class _Asked:
    """The last completion through the front. why: there was none."""

    why: str = "no completion came through yet"
    since: float = 0.0


class HungError(Exception):
    """A thread of this agent doesn't come round any more: only another agent helps."""


class GatewayNode:
    """Stands where a primary or a headless node has its part in a group.

    fault: what of the gateway itself is down, and what to do; None where all runs.
    """

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
        self._looks: dict[str, Look] = {}
        self._seen: dict[str, stalls.Seen] = {}
        self._started: dict[str, float] = {}
        self._changes: tuple[Change, ...] = ()
        self._asked, self._asked_at = _Asked(since=time.time()), time.monotonic()
        self._certificate = ""
        self._scraped: frozenset[str] | None = None
        self._end = threading.Event()
        state = places.state
        key = lambda: lent.secret("OPENAI_API_KEY")  # noqa: E731 - one line says it all
        self._watch = Watch(
            assignment,
            lent.token,
            key,
            state,
            lent.wake,
            routed=self._routed,
            leaving=lent.leaving,
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
            self._watch.came_round_at = self._asked_at = time.monotonic()
            self._watch.start()
            threading.Thread(target=self._ask_on, name="front", daemon=True).start()
        self._watch.assign(assignment)

    def tick(self) -> None:
        """Look at groups and routers, decide, act. Called a few times a second from one thread.

        HungError where a thread of this agent hangs.
        """
        if self._prepared is None or time.monotonic() - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        rounds = {"the look at the groups": self._watch.came_round_at, "the proof": self._asked_at}
        if hung := stalls.hung(rounds, self._looked_at):
            raise HungError(f"{hung}: this agent ends, systemd starts another")
        self._looks = self._units.looks(UNITS)
        self._judge(self._looked_at)
        if not self._watch.view().groups:
            return  # a new agent: what the routers have stands until the groups were asked
        looks: dict[Slot, SlotLook] = {slot: self._look(slot) for slot in SLOTS}
        before = self._held
        wanted = self._wanted()
        self._held, actions = routers.advance(before, wanted, looks, time.monotonic())
        self._have_scraped()
        for action in actions:
            self._act(action)
        # Saved last: an agent that dies in between does the same again, which changes nothing.
        if self._held != before:
            durable.save(self._files.routers, _Saved.of(self._held))

    def report(self) -> GatewayReport:
        """The gateway for the status document."""
        seen, asked = self._watch.view(), self._asked
        routed = self._routed()
        return GatewayReport(
            serving=not asked.why and self._held.active is not None,
            since=asked.since,
            why=asked.why,
            groups=tuple(replace(g, routed=g.name in routed) for g in seen.groups),
            units={unit: look.state for unit, look in self._looks.items()},
            pairs=seen.pairs,
            changes=self._changes,
            certificate=self._certificate,
        )

    def close(self) -> None:
        """Ask no more; everything goes on."""
        self._end.set()
        self._watch.close()

    def _routed(self) -> tuple[str, ...]:
        held = self._held
        return held.lineups[held.active].groups if held.active is not None else ()

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
        look = self._looks.get(router_unit(slot))
        state = look.state if look else "inactive"
        up = state == "active"
        return SlotLook(state, up and front.ready(("127.0.0.1", layout.ROUTER_PORTS[slot])))

    def _judge(self, now: float) -> None:
        """Tell what of the gateway itself is down; start what systemd has given up."""
        self._seen = stalls.look(self._seen, stalls.needed(self._held.active), self._looks, now)
        downs = stalls.down(self._seen, now)
        what = stalls.words(downs, self._seen)
        if what != (self.fault.what if self.fault else ""):
            self.fault = self._fault(what, downs, now) if what else None
            log.warning("%s", what or "every unit of the gateway runs again")
        for unit in stalls.to_start(downs, self._looks, self._started, now):
            self._started[unit] = now
            if self._looks[unit].state == "failed":  # else systemd may not know it any more
                self._units.act("reset-failed", unit)
            self._units.act("start", unit, wait=False)

    def _fault(self, what: str, downs: dict[str, float], now: float) -> Fault:
        tails = "\n".join(f"{unit}:\n{self._units.log(unit)}" for unit in sorted(downs))
        secret = self._lent.secret("OPENAI_API_KEY")
        since = time.time() - (now - min(downs.values()))
        return Fault(round(since, 1), what, 0, logs.redact(tails, (secret,)))

    def _act(self, action: Action) -> None:
        log.info("%s", action)
        if isinstance(action, Start):
            self._list(action.slot, action.lineup)
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
                "retries": limits.retries,
                "body_bytes": limits.body_bytes,
            }
        )
        durable.write(self._files.route, text.encode())
        self._note("requests wait" if action.slot is None else f"router {action.slot} took over")

    def _have_scraped(self) -> None:
        """A router that was ended is no target: it would look like one that broke."""
        running = frozenset(self._held.lineups)
        if running != self._scraped:
            text = render.router_targets(running)
            durable.write(self._files.router_targets, text.encode(), mode=0o644)
            self._scraped = running

    def _list(self, slot: Slot, lineup: Lineup) -> None:
        """What the router of a slot is started with, by systemd too when it died."""
        text = render.workers(self._gateway, lineup.groups, slot)
        durable.write(self._files.router_workers(slot), text.encode())

    def _remove(self, action: Remove) -> None:
        self._list(action.slot, self._held.lineups[action.slot])
        address = ("127.0.0.1", layout.ROUTER_PORTS[action.slot])
        urls = [u for g in self._gateway.groups if g.name in action.groups for u in g.urls]
        whys = {url: front.put(address, f"/remove_worker?url={url}") for url in urls}
        for url, why in whys.items():
            if why:
                log.warning("%s could not be taken from router %s: %s", url, action.slot, why)
        if any(whys.values()):
            self._held = routers.unsure(self._held, action.slot)
        self._note(f"left: {', '.join(action.groups)}")

    def _note(self, cause: str) -> None:
        change = Change(time.time(), self._routed(), cause)
        self._changes = (*self._changes, change)[-CHANGES_KEPT:]

    def _ask_on(self) -> None:
        """Prove again and again that a client would be served."""
        while not self._end.is_set():
            self._asked_at = time.monotonic()
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
