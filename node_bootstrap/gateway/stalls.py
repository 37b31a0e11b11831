"""What of the gateway itself is down, what follows, and what to do: pure, no clock, no process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from node_bootstrap.gateway import layout
from node_bootstrap.gateway.units import Look

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from node_bootstrap.gateway.layout import Slot

DOWN_SECONDS = 8.0
"""A unit that is not up for so long is down; one that died once is back in half a second."""
CALM_SECONDS = 4.0
"""A unit is up once it has run so long without a restart: some die a second after each start."""
START_AGAIN_SECONDS = 30.0
"""Between two starts of a unit that systemd has given up."""
GIVEN_UP = ("failed", "inactive")
HUNG_SECONDS = 180.0
"""A thread of the agent that has not come round for so long hangs: all its waits end sooner."""

_FOLLOWS = {
    layout.CADDY: "no client gets in",
    layout.DESK_LISTENER: "no request is let in",
    layout.DESK: "no request is let in",
    layout.RELAY_LISTENER: "no request reaches a router",
    layout.RELAY: "no request reaches a router",
    layout.PROMETHEUS: "no metrics are kept; requests go on",
    **{layout.router_unit(slot): "requests wait" for slot in layout.SLOTS},
}
_ALWAYS = tuple(unit for unit in _FOLLOWS if "router" not in unit)


@dataclass(frozen=True)
class Seen:
    """A unit over time, in monotonic seconds. restarts: as systemd counted them at the last look.

    up_since: it runs since then, None while it doesn't. down_since: it was not calm since then.
    given_up: the state in which systemd left it alone, empty where systemd starts it again.
    """

    restarts: int
    up_since: float | None
    down_since: float | None
    given_up: str = ""


def needed(active: Slot | None) -> tuple[str, ...]:
    """Units that must run; active: the router that gets requests."""
    return _ALWAYS if active is None else (*_ALWAYS, layout.router_unit(active))


def look(
    before: Mapping[str, Seen], units: Sequence[str], looks: Mapping[str, Look], now: float
) -> dict[str, Seen]:
    """Take one more look at the units that must run."""
    return {unit: _look(before.get(unit), looks.get(unit), now) for unit in units}


def _look(before: Seen | None, now_is: Look | None, now: float) -> Seen:
    now_is = now_is or Look()
    since, given_up = (before.down_since, before.given_up) if before else (None, "")
    if now_is.state in GIVEN_UP:
        given_up = now_is.state
    elif before and now_is.restarts > before.restarts:
        given_up = ""
    if now_is.state != "active" or (before and now_is.restarts != before.restarts):
        return Seen(now_is.restarts, None, now if since is None else since, given_up)
    up = before.up_since if before and before.up_since is not None else now
    if now - up >= CALM_SECONDS:
        return Seen(now_is.restarts, up, None)
    return Seen(now_is.restarts, up, since, given_up)


def down(seen: Mapping[str, Seen], now: float) -> dict[str, float]:
    """Unit -> since when it is down."""
    return {
        unit: one.down_since
        for unit, one in seen.items()
        if one.down_since is not None and now - one.down_since >= DOWN_SECONDS
    }


def to_start(
    downs: Mapping[str, float],
    looks: Mapping[str, Look],
    tried: Mapping[str, float],
    now: float,
) -> tuple[str, ...]:
    """Units to start: systemd starts those that die, but not what it gave up or was told to stop.

    tried: unit -> when it was last started so. Routers have a start of their own.
    """
    return tuple(
        unit
        for unit in downs
        if unit in _ALWAYS
        and unit in looks
        and looks[unit].state in GIVEN_UP
        and now - tried.get(unit, now - START_AGAIN_SECONDS) >= START_AGAIN_SECONDS
    )


def words(downs: Mapping[str, float], seen: Mapping[str, Seen]) -> str:
    """What is down and what to do, one line a unit; it stays the same while nothing changes."""
    return "\n".join(_words(unit, seen[unit].given_up) for unit in sorted(downs))


def _words(unit: str, given_up: str) -> str:
    how = f"is {given_up}" if given_up else "does not stay up"
    who = f"the agent starts it every {START_AGAIN_SECONDS:g} s" if given_up else "systemd goes on"
    return (
        f"{unit} {how}: {_FOLLOWS[unit]}; {who}. `journalctl -u {unit}` on the gateway "
        "says why; if it doesn't come back, terminate the gateway's instance and run "
        "`pulumi up --refresh`"
    )


def hung(rounds: Mapping[str, float], now: float) -> str:
    """Which threads of the agent hang; empty where none does. rounds: when each last came round."""
    late = [name for name, at in rounds.items() if now - at > HUNG_SECONDS]
    return f"{' and '.join(late)} hung for {HUNG_SECONDS:g} s" if late else ""
