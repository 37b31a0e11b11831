"""Two routers in turn: when which is started, opened and stopped."""

from __future__ import annotations

from dataclasses import replace

from node_bootstrap.gateway.routers import (
    Lineup,
    Open,
    Remove,
    Routers,
    SlotLook,
    Start,
    Stop,
    advance,
)

ONE = Lineup(prefill=("p-0",), decode=("d-0",), digest="x")
TWO = Lineup(prefill=("p-0", "p-1"), decode=("d-0", "d-1"), digest="x")
OFF, UP, READY = SlotLook("inactive"), SlotLook("active"), SlotLook("active", ready=True)
DRAINS = SlotLook("deactivating")


def serving(lineup: Lineup = ONE) -> Routers:
    return Routers("a", {"a": lineup}, {"a": 0.0})


def test_the_first_router_is_started_and_opened_once_it_is_ready() -> None:
    held, actions = advance(Routers(), ONE, {"a": OFF, "b": OFF}, 1.0)
    assert actions == (Open(None, "a"), Start("a", ONE))
    held, actions = advance(held, ONE, {"a": UP, "b": OFF}, 2.0)
    assert actions == ()
    held, actions = advance(held, ONE, {"a": READY, "b": OFF}, 3.0)
    assert actions == (Open("a", "a"),)
    assert held.active == "a"


def test_nothing_is_done_while_the_right_one_serves() -> None:
    assert advance(serving(), ONE, {"a": READY, "b": OFF}, 9.0) == (serving(), ())


def test_a_group_more_goes_through_a_second_router_and_the_first_ends_its_work() -> None:
    held, actions = advance(serving(), TWO, {"a": READY, "b": OFF}, 1.0)
    assert actions == (Start("b", TWO),)
    assert held.active == "a"
    held, actions = advance(held, TWO, {"a": READY, "b": READY}, 2.0)
    assert actions == (Open("b", "b"), Stop("a"))
    assert held.active == "b"


def test_a_group_less_is_taken_from_the_running_router_at_once() -> None:
    held, actions = advance(serving(TWO), ONE, {"a": READY, "b": OFF}, 1.0)
    assert actions == (Remove("a", ("p-1", "d-1")),)
    assert held.lineups["a"] == ONE
    assert held.active == "a"


def test_without_a_whole_side_requests_wait_and_what_was_begun_goes_on() -> None:
    held, actions = advance(serving(), Lineup(prefill=("p-0",)), {"a": READY, "b": OFF}, 1.0)
    assert actions == (Open(None, "b"), Stop("a"))
    assert held.active is None


def test_the_wait_ends_on_the_slot_that_was_named_for_it() -> None:
    held, _ = advance(serving(), Lineup(), {"a": READY, "b": OFF}, 1.0)
    _, actions = advance(held, ONE, {"a": DRAINS, "b": OFF}, 2.0)
    assert actions[-1] == Start("b", ONE)


def test_another_command_line_is_another_router() -> None:
    _, actions = advance(serving(), replace(ONE, digest="y"), {"a": READY, "b": OFF}, 1.0)
    assert actions == (Start("b", replace(ONE, digest="y")),)


def test_a_third_list_waits_for_the_one_that_ends_its_work() -> None:
    _, actions = advance(serving(), TWO, {"a": READY, "b": DRAINS}, 1.0)
    assert actions == ()


def test_a_router_that_never_gets_ready_is_started_anew() -> None:
    held, _ = advance(serving(), TWO, {"a": READY, "b": OFF}, 1.0)
    _, actions = advance(held, TWO, {"a": READY, "b": UP}, 40.0)
    assert actions == (Start("b", TWO),)


def test_a_dead_router_that_systemd_gave_up_is_started() -> None:
    _, actions = advance(serving(), ONE, {"a": SlotLook("failed"), "b": OFF}, 1.0)
    assert actions == (Start("a", ONE),)
