"""What of the gateway itself is down, for how long, and what its agent does about it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from node_bootstrap import assignment as a
from node_bootstrap.gateway import layout, node, stalls
from node_bootstrap.gateway.node import GatewayNode, HungError, Lent
from node_bootstrap.gateway.units import Look, parse
from node_bootstrap.places import Places

UP, FAILED, OFF = Look("active"), Look("failed", 5), Look("inactive")
UNIT = layout.PROMETHEUS


def looked_at(*looks: Look) -> tuple[dict[str, float], dict[str, stalls.Seen]]:
    """What is down after one look after the other at one unit, half a second apart."""
    seen: dict[str, stalls.Seen] = {}
    now = 100.0
    for one in looks:
        now += 0.5
        seen = stalls.look(seen, (UNIT,), {UNIT: one}, now)
    return stalls.down(seen, now), seen


def over_time(*looks: Look) -> dict[str, float]:
    return looked_at(*looks)[0]


@pytest.mark.parametrize("state", ["failed", "inactive", "activating", "deactivating"])
def test_a_unit_that_is_not_up_for_long_is_down(state: str) -> None:
    assert not over_time(UP, *[Look(state)] * 15)
    assert over_time(UP, *[Look(state)] * 18) == {UNIT: 101.0}


def test_a_unit_that_died_once_and_is_back_is_not_down() -> None:
    assert not over_time(UP, Look("activating"), *[Look("active", 1)] * 60)


def test_a_unit_that_dies_soon_after_each_start_is_down_although_it_is_seen_running() -> None:
    looks = [Look("active", turn // 4) for turn in range(40)]
    assert UNIT in over_time(*looks)


def test_a_unit_that_came_back_is_up_once_it_has_run_for_a_while() -> None:
    failed = [FAILED] * 40
    assert over_time(*failed, *[UP] * 4)
    assert not over_time(*failed, *[UP] * 12)


def test_the_router_that_gets_requests_must_run_and_the_other_need_not() -> None:
    assert layout.router_unit("a") in stalls.needed("a")
    assert layout.router_unit("b") not in stalls.needed("a")
    assert not [unit for unit in stalls.needed(None) if "router" in unit]


def test_what_systemd_gave_up_is_started_now_and_then() -> None:
    downs, looks = {UNIT: 0.0}, {UNIT: FAILED}
    assert stalls.to_start(downs, looks, {}, 100.0) == (UNIT,)
    assert stalls.to_start(downs, looks, {UNIT: 90.0}, 100.0) == ()
    assert stalls.to_start(downs, looks, {UNIT: 60.0}, 100.0) == (UNIT,)
    assert stalls.to_start(downs, {UNIT: OFF}, {}, 100.0) == (UNIT,)


def test_what_systemd_starts_by_itself_and_routers_are_left_to_others() -> None:
    router = layout.router_unit("a")
    downs = {UNIT: 0.0, router: 0.0}
    assert stalls.to_start(downs, {UNIT: Look("activating"), router: FAILED}, {}, 100.0) == ()


@pytest.mark.parametrize("unit", stalls.needed("b"))
def test_each_unit_says_what_follows_and_what_to_do(unit: str) -> None:
    told = stalls.words({unit: 0.0}, {unit: stalls.Seen(0, None, 0.0, "failed")})
    assert f"{unit} is failed: " in told
    assert "reque" in told or "client" in told
    assert f"journalctl -u {unit}" in told
    assert "pulumi up --refresh" in told


def test_a_unit_that_systemd_starts_again_and_again_does_not_stay_up() -> None:
    told = stalls.words(*looked_at(*[Look("activating", turn // 4) for turn in range(40)]))
    assert f"{UNIT} does not stay up: " in told
    assert "systemd goes on" in told


def test_a_start_by_the_agent_changes_nothing_of_what_is_told_until_the_unit_has_stayed() -> None:
    before = stalls.words(*looked_at(UP, *[OFF] * 20))
    assert f"{UNIT} is inactive: " in before
    assert stalls.words(*looked_at(UP, *[OFF] * 20, Look("activating"), UP, UP)) == before


def test_a_unit_that_systemd_gave_up_in_the_end_is_told_as_such() -> None:
    assert "is failed" in stalls.words(*looked_at(*[Look("activating", 4)] * 20, FAILED))


def test_a_thread_that_does_not_come_round_hangs() -> None:
    rounds = {"the look": 100.0, "the proof": 290.0}
    assert stalls.hung(rounds, 270.0) == ""
    assert stalls.hung(rounds, 300.0).startswith("the look hung")


def test_systemds_words_are_read_with_and_without_a_count_of_restarts() -> None:
    shown = "Id=a.service\nActiveState=failed\nNRestarts=5\n\nId=b.socket\nActiveState=active\n"
    assert parse(shown.splitlines()) == {"a.service": FAILED, "b.socket": UP}


class Units:
    """systemd with one unit failed for good."""

    def __init__(self) -> None:
        self.acts: list[tuple[str, ...]] = []
        self.failed = {UNIT}

    def looks(self, names):
        return {name: FAILED if name in self.failed else UP for name in names}

    def states(self, names):
        return {name: look.state for name, look in self.looks(names).items()}

    def log(self, name):
        return f"{name}: bad config, key sk-secret"

    def act(self, verb, *names, wait=True):
        del wait
        self.acts.append((verb, *names))


@pytest.fixture
def told() -> a.Assignment:
    limits = a.GatewayLimits(1 << 20, 600.0, 60.0, 256, 600.0)
    gateway = a.Gateway(443, (), (), (), None, "", {}, limits)
    empty = {
        f.name: "" for f in dataclasses.fields(a.Assignment) if f.default is dataclasses.MISSING
    }
    member = a.Member("gateway", "127.0.0.1", "primary", 0, 0)
    known = {
        "node": "gateway",
        "members": (member,),
        "gateway": gateway,
        "probe": a.Probe("model", "Hello", 1, 5.0),
        "limits": a.Limits(60.0, 10.0, 5.0),
    }
    return a.Assignment(**empty | known)  # pyright: ignore[reportArgumentType] - only what is read


@pytest.fixture
def units() -> Units:
    return Units()


@pytest.fixture
def agent(told: a.Assignment, units: Units, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(node, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(stalls, "DOWN_SECONDS", 0.0)
    monkeypatch.setattr(stalls, "CALM_SECONDS", 0.0)
    lent = Lent(lambda: "token", lambda _: "sk-secret", lambda *_: None, lambda: None, lambda: None)
    made = GatewayNode(told, lent, Places(tmp_path), units)
    made.prepared(told)
    yield made
    made.close()


def test_the_agent_tells_of_a_failed_unit_and_starts_it(agent: GatewayNode, units: Units) -> None:
    agent.tick()
    assert agent.fault is not None
    assert f"{UNIT} is failed: no metrics are kept" in agent.fault.what
    assert agent.fault.log_tail == f"{UNIT}:\n{UNIT}: bad config, key ***"
    assert units.acts == [("reset-failed", UNIT), ("start", UNIT)]
    agent.tick()
    assert len(units.acts) == 2, "not at each look"


def test_the_fault_is_gone_once_the_unit_runs(agent: GatewayNode, units: Units) -> None:
    agent.tick()
    units.failed.clear()
    agent.tick()  # its count of restarts is another
    agent.tick()
    assert agent.fault is None


def test_an_agent_with_a_thread_that_hangs_ends(agent: GatewayNode, monkeypatch) -> None:
    agent.tick()
    monkeypatch.setattr(stalls, "HUNG_SECONDS", -1.0)
    time.sleep(0.01)
    with pytest.raises(HungError, match="this agent ends"):
        agent.tick()
