"""The primary's rules, one by one. (Their interplay: test_group_properties.py.)"""

from __future__ import annotations

from dataclasses import replace

import pytest

from node_bootstrap.agent import group as g
from node_bootstrap.agent.persisted import record, restore
from node_bootstrap.agent.protocol import (
    Now,
    Pair,
    RoleView,
    StartRole,
    StopRole,
)
from node_bootstrap.status import ProbeReport
from tests.node_bootstrap.agent.group_desk import PLAN, Desk


def test_nothing_starts_before_every_member_was_heard():
    desk = Desk()
    desk.feed(g.Prepared(PLAN))
    assert desk.tick() == ()
    assert g.waiting_for(desk.group, desk.now) == ("n1 has not been heard yet",)


@pytest.mark.parametrize(
    ("beat", "reason"),
    [
        ({"phase": "running"}, "n1 still runs its vLLM"),
        ({"phase": "preparing", "detail": "(weights)"}, "n1 is not prepared yet (weights)"),
        ({"revision": "r0"}, "n1 is prepared for revision r0, not r1"),
        ({"acknowledged": 0}, "n1 does not know of generation 1 yet"),
    ],
)
def test_nothing_starts_while_a_member(beat, reason):
    desk = Desk()
    desk.feed(g.Prepared(PLAN))
    desk.beat(**beat)
    assert desk.tick() == ()
    assert g.waiting_for(desk.group, desk.now) == (reason,)


def test_the_primary_starts_first_and_members_follow_once_its_process_exists():
    desk = Desk()
    desk.feed(g.Prepared(PLAN))
    assert not desk.beat().run
    assert desk.tick() == (StartRole(Pair("r1", 1)),)
    assert not desk.beat().run
    desk.tick(role=RoleView("running", Pair("r1", 1)))
    assert desk.beat().run


def test_it_is_ready_only_when_every_rank_has_answered():
    desk = Desk().start()
    desk.running()
    desk.answer(0)
    assert desk.phase == "starting"
    desk.answer(1)
    assert desk.phase == "ready"
    assert desk.group.restarts[-1].ready_at == desk.now.epoch


def test_an_answer_to_an_older_generation_does_not_count():
    desk = Desk().start()
    report = ProbeReport(0, "x", 0.1, 0)
    desk.feed(g.Probed(Pair("r1", 0), 0, report))
    assert desk.group.answers == {}


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        (lambda d: d.tick(role=RoleView("absent", d.group.pair, "by signal 9")),
         "n0: its vLLM ended by signal 9"),
        (lambda d: d.beat(phase="failed", started=d.group.pair, detail="with exit code 0"),
         "n1 failed: its vLLM ended with exit code 0"),
        (lambda d: d.beat(phase="stopped"), "n1 no longer runs its vLLM"),
        (lambda d: d.beat(instance_id="i-2"), "n1 is another instance (i-2 instead of i-1)"),
        (lambda d: d.beat(boot_id="b-2"), "n1 was rebooted"),
        (lambda d: d.answer(1, "no answer within 5 s"),
         "rank 1 did not answer: no answer within 5 s"),
    ],
)  # fmt: skip
def test_a_fault_begins_the_next_generation_and_stops_everybody(event, cause):
    desk = Desk().make_ready()
    event(desk)
    assert desk.group.generation == 2
    assert desk.cause == cause
    assert not g.directive(desk.group).run
    if desk.role.state == "running":
        assert isinstance(desk.tick()[0], StopRole)


def test_a_life_that_the_gateway_wants_ended_ends_with_its_words():
    desk = Desk().make_ready()
    desk.feed(g.Ordered(desk.group.pair, "prefill-0 started anew"))
    assert (desk.group.generation, desk.cause) == (2, "prefill-0 started anew")


def test_an_order_about_a_life_that_is_over_changes_nothing():
    desk = Desk().make_ready()
    desk.feed(g.Ordered(Pair("r1", 0), "prefill-0 started anew"))
    desk.tick(1)
    assert (desk.group.generation, desk.phase) == (1, "ready")


def test_a_silent_member_is_a_fault():
    desk = Desk().make_ready()
    for _ in range(11):
        desk.tick(0.5)
    assert desk.cause == "n1 has been silent for 5.5 s"


def test_an_agent_that_itself_stood_still_does_not_blame_its_members():
    desk = Desk().make_ready()
    desk.tick(30)
    assert desk.phase == "ready"


def test_a_start_that_takes_too_long_is_a_fault_that_names_the_silent_ranks():
    desk = Desk().start()
    desk.answer(0)
    desk.answer(1, "connection refused")
    for _ in range(61):
        desk.running()
        desk.tick(1)
    assert desk.cause == (
        "not ready after 61 s: no answer of ranks [1] "
        "(last: rank 1 did not answer: connection refused)"
    )


def test_generations_that_never_get_ready_are_begun_at_growing_intervals():
    desk = Desk().make_ready()
    waits = []
    for _ in range(9):
        desk.tick(role=RoleView("absent", desk.group.pair))
        waits.append(desk.group.not_before - desk.t)
        desk.t = max(desk.t, desk.group.not_before)
        desk.beat()
        desk.start()
    assert waits == [0, 0, 5, 10, 20, 40, 60, 60, 60]


def test_a_late_heartbeat_is_dropped():
    desk = Desk().make_ready()
    desk.beat(phase="failed", sequence=1)
    assert desk.phase == "ready"


def test_a_new_revision_waits_for_every_member_to_be_prepared():
    desk = Desk().make_ready()
    desk.feed(g.Prepared(replace(PLAN, revision="r2")))
    assert desk.phase == "ready"
    assert desk.running().run
    desk.beat(phase="running", started=desk.group.pair, revision="r2")
    assert (desk.group.generation, desk.group.plan.revision) == (2, "r2")
    assert desk.cause == "new revision"


def test_a_primary_on_a_new_disk_goes_on_from_the_latest_generation_of_its_members():
    desk = Desk()
    desk.feed(g.Prepared(PLAN))
    desk.beat(started=Pair("r1", 7))
    assert desk.group.generation == 8


def test_a_restarted_agent_adopts_a_running_group():
    desk = Desk().make_ready()
    back = Desk(restore(record(desk.group, "b0"), "b0", desk.role, desk.now))
    back.role = desk.role
    assert back.tick() == ()
    assert back.phase == "ready"
    assert g.directive(back.group).run


def test_a_rebooted_primary_begins_the_next_generation():
    desk = Desk().make_ready()
    gone = RoleView("absent", desk.group.pair)
    back = Desk(restore(record(desk.group, "b0"), "b1", gone, desk.now))
    back.tick(role=gone)
    assert back.group.generation == 2


def test_a_group_of_one_node_needs_nobody():
    plan = replace(PLAN, members=(), ranks=1)
    desk = Desk(g.new(plan, Now(100, 0)))
    desk.feed(g.Prepared(plan))
    assert desk.tick() == (StartRole(Pair("r1", 1)),)


def test_the_last_fault_keeps_the_end_of_the_log_of_who_failed():
    desk = Desk().make_ready()
    desk.beat(phase="failed", started=desk.group.pair, log_tail="Gloo: connection closed")
    assert desk.group.fault.log_tail == "Gloo: connection closed"
    assert desk.group.fault.generation == 1


NEXT = replace(PLAN, revision="r2")


def asking():
    """A group that serves r1, is prepared for r2 and must ask for leave."""
    desk = Desk().make_ready()
    desk.feed(g.Prepared(NEXT, asks=True))
    desk.beat(phase="running", started=desk.group.pair, revision="r2")
    return desk


def test_a_group_that_takes_turns_serves_on_until_it_has_leave():
    desk = asking()
    assert (desk.group.generation, g.wants(desk.group, desk.now)) == (1, "r2")
    desk.feed(g.Left(desk.group.pair, "r2"))
    assert (desk.group.generation, desk.cause) == (2, "new revision")
    assert g.wants(desk.group, desk.now) == ""


@pytest.mark.parametrize("leave", [g.Left(Pair("r1", 0), "r2"), g.Left(Pair("r1", 1), "r0")])
def test_leave_for_another_life_or_another_revision_is_none(leave):
    desk = asking()
    desk.feed(leave)
    assert (desk.group.generation, g.wants(desk.group, desk.now)) == (1, "r2")


def test_it_asks_only_once_every_member_is_prepared():
    desk = Desk().make_ready()
    desk.feed(g.Prepared(NEXT, asks=True))
    assert g.wants(desk.group, desk.now) == ""


def test_a_group_that_serves_nobody_asks_for_no_leave():
    desk = Desk().start()
    desk.running()
    desk.feed(g.Prepared(NEXT, asks=True))
    desk.beat(phase="running", started=desk.group.pair, revision="r2")
    assert (desk.group.generation, desk.group.plan.revision) == (2, "r2")
