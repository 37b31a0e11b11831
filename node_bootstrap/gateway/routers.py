"""Two routers in turn: the list of groups changes without a request that fails. Pure.

vllm-router takes no new groups while it runs. So a second one is started with the new list; once it
is ready, requests go to it, and the first one ends what it has begun: on SIGTERM it closes its port
and answers what it took. A group that left is taken from the running one at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from node_bootstrap.gateway.layout import SLOTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from node_bootstrap.gateway.layout import Slot

START_SECONDS = 30.0
"""A router that is not ready after so long is started anew."""


@dataclass(frozen=True)
class Lineup:
    """What a router is started for. digest: of its command line and its key to the engines."""

    prefill: tuple[str, ...] = ()
    decode: tuple[str, ...] = ()
    serve: tuple[str, ...] = ()
    digest: str = ""

    @property
    def groups(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.serve, *self.prefill, *self.decode)

    @property
    def answers(self) -> bool:
        """Whether a request can be answered by it."""
        return bool(self.serve) or (bool(self.prefill) and bool(self.decode))


@dataclass(frozen=True)
class SlotLook:
    """How a slot is now. state: systemd's ActiveState. ready: its router takes requests."""

    state: str = "inactive"
    ready: bool = False


@dataclass(frozen=True)
class Routers:
    """What is remembered. active: the slot that gets requests. lineups: of each started slot.

    started: when a slot was started (monotonic seconds).
    """

    active: Slot | None = None
    lineups: Mapping[str, Lineup] = field(default_factory=dict)
    started: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """Start the router of a slot with a list."""

    slot: Slot
    lineup: Lineup


@dataclass(frozen=True)
class Stop:
    """Let the router of a slot end what it has begun, then end."""

    slot: Slot


@dataclass(frozen=True)
class Open:
    """Requests go to this slot; None: they wait. `next`: where a router will come back."""

    slot: Slot | None
    next: Slot


@dataclass(frozen=True)
class Remove:
    """Take groups from the running router of a slot."""

    slot: Slot
    groups: tuple[str, ...]


Action = Start | Stop | Open | Remove


def advance(
    routers: Routers, wanted: Lineup, looks: Mapping[Slot, SlotLook], now: float
) -> tuple[Routers, tuple[Action, ...]]:
    """One step towards what is wanted.

    Args:
        routers: what is remembered.
        wanted: the groups that are proven.
        looks: how both slots are.
        now: monotonic seconds.
    """
    if not wanted.answers:
        return _close(routers, looks)
    active = routers.active
    if active is not None and routers.lineups.get(active) == wanted:
        return _tidy(routers, looks, keep=active)
    actions: list[Action] = []
    if active is not None and (gone := _gone(routers.lineups[active], wanted)):
        actions.append(Remove(active, gone))
        left = _without(routers.lineups[active], gone)
        routers = replace(routers, lineups={**routers.lineups, active: left})
        if left == wanted:
            return routers, tuple(actions)
    slot = _free(routers, wanted, looks)
    if slot is None:
        return routers, tuple(actions)
    routers, more = _bring(routers, wanted, looks[slot], slot, now)
    return routers, (*actions, *more)


def unsure(routers: Routers, slot: Slot) -> Routers:
    """A router may have other groups than it was told: another one takes over."""
    doubted = replace(routers.lineups[slot], digest="")
    return replace(routers, lineups={**routers.lineups, slot: doubted})


def _bring(
    routers: Routers, wanted: Lineup, look: SlotLook, slot: Slot, now: float
) -> tuple[Routers, tuple[Action, ...]]:
    """Start a slot for a list, or open it once it is ready."""
    begun = routers.lineups.get(slot) == wanted
    if begun and look.ready:
        old = routers.active
        lineups = {s: made for s, made in routers.lineups.items() if s != old}
        opened: tuple[Action, ...] = (Open(slot, slot),)
        stop: tuple[Action, ...] = (Stop(old),) if old is not None else ()
        return replace(routers, active=slot, lineups=lineups), (*opened, *stop)
    if begun and now - routers.started.get(slot, now) < START_SECONDS:
        return routers, ()
    routers = replace(
        routers,
        lineups={**routers.lineups, slot: wanted},
        started={**routers.started, slot: now},
    )
    start: tuple[Action, ...] = (Start(slot, wanted),)
    return routers, (*((Open(None, slot),) if routers.active is None else ()), *start)


def _close(routers: Routers, looks: Mapping[Slot, SlotLook]) -> tuple[Routers, tuple[Action, ...]]:
    """Nobody can answer: requests wait in front, what was begun goes on to its end."""
    stops = tuple(Stop(slot) for slot in SLOTS if slot in routers.lineups and _up(looks[slot]))
    opened = (Open(None, _other(routers.active)),) if routers.active is not None else ()
    return replace(routers, active=None, lineups={}), (*opened, *stops)


def _tidy(
    routers: Routers, looks: Mapping[Slot, SlotLook], keep: Slot
) -> tuple[Routers, tuple[Action, ...]]:
    """The right one serves: whatever else runs ends, whatever should run does."""
    other = _other(keep)
    actions: list[Action] = []
    if looks[other].state in ("active", "activating"):
        actions.append(Stop(other))
    if looks[keep].state in ("inactive", "failed"):
        actions.append(Start(keep, routers.lineups[keep]))
    lineups = {keep: routers.lineups[keep]}
    return replace(routers, lineups=lineups), tuple(actions)


def _free(routers: Routers, wanted: Lineup, looks: Mapping[Slot, SlotLook]) -> Slot | None:
    """Where the next router goes: begun already, or a slot that has ended its work."""
    candidates: list[Slot] = [slot for slot in SLOTS if slot != routers.active]
    for slot in candidates:
        if routers.lineups.get(slot) == wanted:
            return slot
    idle: list[Slot] = [slot for slot in candidates if looks[slot].state != "deactivating"]
    # With nobody serving, whoever drains must make room: waiting requests come first.
    return next(iter(idle), None) or (candidates[0] if routers.active is None else None)


def _gone(have: Lineup, wanted: Lineup) -> tuple[str, ...]:
    """Groups that left, where the rest still answers."""
    gone = tuple(name for name in have.groups if name not in wanted.groups)
    return gone if gone and _without(have, gone).answers else ()


def _without(lineup: Lineup, gone: tuple[str, ...]) -> Lineup:
    return replace(
        lineup,
        prefill=tuple(n for n in lineup.prefill if n not in gone),
        decode=tuple(n for n in lineup.decode if n not in gone),
        serve=tuple(n for n in lineup.serve if n not in gone),
    )


def _up(look: SlotLook) -> bool:
    return look.state in ("active", "activating")


def _other(slot: Slot | None) -> Slot:
    return "b" if slot == "a" else "a"
