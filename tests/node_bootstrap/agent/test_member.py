"""A headless member's rules."""

from __future__ import annotations

from node_bootstrap.agent.member import Member
from node_bootstrap.agent.protocol import Directive, Pair, RoleView, StartRole, StopRole

RUN = Directive("r1", 3, run=True)
PREPARED = Member(5.0).prepare("r1")


def test_it_starts_for_the_pair_it_is_told():
    assert PREPARED.hear(RUN, 0).actions(1) == (StartRole(Pair("r1", 3)),)


def test_it_starts_nothing_it_is_not_prepared_for():
    assert Member(5.0).prepare("r0").hear(RUN, 0).actions(1) == ()


def test_it_starts_nothing_before_it_is_told_to():
    assert PREPARED.hear(Directive("r1", 3, run=False), 0).actions(1) == ()


def test_it_starts_one_pair_at_most_once_and_says_that_it_failed():
    ended = PREPARED.hear(RUN, 0).observe(RoleView("absent", Pair("r1", 3)))
    assert ended.actions(1) == ()
    assert ended.phase() == "failed"


def test_it_refuses_a_generation_that_it_is_past():
    later = PREPARED.hear(RUN, 0).observe(RoleView("absent", Pair("r1", 4)))
    assert later.actions(1) == ()


def test_it_stops_what_it_is_not_told_to_run():
    running = PREPARED.hear(RUN, 0).observe(RoleView("running", Pair("r1", 2)))
    assert running.actions(1) == (StopRole("the group is at generation 3"),)


def test_it_stops_when_its_primary_has_been_silent_too_long():
    running = PREPARED.hear(RUN, 10).observe(RoleView("running", Pair("r1", 3)))
    assert running.actions(15) == ()
    assert running.actions(15.1) == (StopRole("the primary has not been heard for 5.1 s"),)


def test_it_goes_on_while_it_is_prepared_for_the_next_revision_already():
    running = PREPARED.hear(RUN, 0).observe(RoleView("running", Pair("r1", 3)))
    assert running.prepare("r2").actions(1) == ()


def test_its_restarted_agent_waits_a_silence_for_the_primary():
    adopted = Member(5.0).observe(RoleView("running", Pair("r1", 3))).resume(now=100)
    assert adopted.actions(105) == ()
    assert len(adopted.actions(105.1)) == 1


def test_its_phases():
    assert Member(5.0).phase() == "preparing"
    assert PREPARED.phase() == "stopped"
    assert PREPARED.observe(RoleView("running", Pair("r1", 1))).phase() == "running"
    assert PREPARED.observe(RoleView("stopping", Pair("r1", 1))).phase() == "running"
