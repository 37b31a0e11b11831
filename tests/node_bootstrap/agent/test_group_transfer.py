"""When a group measures the transfer between its nodes, and what it does with the figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node_bootstrap.agent import group as g
from node_bootstrap.agent.group_report import report
from node_bootstrap.agent.group_transfer import LATE_SECONDS, OTHERS_SECONDS, RETRY_SECONDS
from node_bootstrap.agent.persisted import record, restore
from node_bootstrap.agent.protocol import Measure, RoleView, StartRole
from node_bootstrap.status import TransferItem
from node_bootstrap.transfer.judge import Outcome
from tests.node_bootstrap.agent.group_desk import PLAN, Desk

ASKED = replace(PLAN, transfer="s1", transfer_required=True, transfer_seconds=120)
FAST = Outcome((TransferItem("all_reduce", 9.0, 5.0, 1024, 3),), 4.0, "Gloo")
SLOW = replace(FAST, faults=("all_reduce moves 2 GB/s, the floor is 5",))


def whole(plan=ASKED) -> Desk:
    """A group that is whole, prepared and stopped."""
    desk = Desk(g.new(plan, Desk().now, instance="i-0"))
    desk.feed(g.Prepared(plan))
    desk.beat()
    desk.tick()
    return desk


def token(desk) -> str:
    assert desk.group.measuring is not None
    return desk.group.measuring.token


def end(desk, outcome, **of_member) -> None:
    """Both nodes tell that they are done."""
    now = token(desk)
    desk.feed(g.Measured(now, outcome))
    desk.beat(measured=now, **of_member)
    desk.tick()


def test_a_whole_group_measures_before_anything_starts():
    desk = whole()
    assert desk.phase == "measuring"
    assert desk.actions == (Measure(token(desk)),)
    told = desk.beat()
    assert (told.run, told.measure) == (False, token(desk))
    assert g.waiting_for(desk.group, desk.now) == (
        "the transfer between its nodes is being measured",
    )


def test_it_starts_once_both_nodes_are_done_and_keeps_the_figures():
    desk = whole()
    now = token(desk)
    desk.feed(g.Measured(now, FAST))
    assert desk.tick() == ()
    desk.beat(measured=now)
    assert StartRole(desk.group.pair) in desk.tick()
    assert report(desk.group, desk.now).transfer.items == FAST.items
    assert desk.beat().measure == ""


def test_a_second_start_of_the_same_nodes_does_not_measure():
    desk = whole()
    end(desk, FAST)
    desk.tick(role=RoleView("running", desk.group.pair))
    desk.tick(role=RoleView("absent", desk.group.pair))
    desk.beat()
    assert desk.group.generation == 2
    assert StartRole(desk.group.pair) in desk.tick()


@pytest.mark.parametrize("asked", [True, False])
def test_an_order_may_ask_for_a_new_measurement(asked):
    desk = whole()
    end(desk, FAST)
    desk.tick(role=RoleView("running", desk.group.pair))
    desk.feed(g.Ordered(desk.group.pair, "a person asked", measure=asked))
    desk.tick(role=RoleView("absent", desk.group.restarts[0] and desk.role.started))
    desk.beat()
    desk.tick()
    assert (desk.phase == "measuring") is asked


@pytest.mark.parametrize(
    "change",
    [{"instance_id": "i-2"}, {}],
    ids=["another instance", "other software"],
)
def test_other_nodes_or_other_software_are_measured_again(change):
    desk = whole()
    end(desk, FAST)
    desk.tick(role=RoleView("running", desk.group.pair))
    desk.running()
    if not change:
        desk.feed(g.Prepared(replace(ASKED, revision="r2", transfer="s2")))
    desk.beat(revision="r1" if change else "r2", **change)
    desk.tick(role=RoleView("absent", desk.role.started))
    desk.beat(revision=desk.group.plan.revision, **change)
    desk.tick()
    assert desk.phase == "measuring"


def test_below_the_floor_nothing_starts_and_the_number_is_told():
    desk = whole()
    end(desk, SLOW)
    assert desk.actions == ()
    assert g.waiting_for(desk.group, desk.now) == (
        "the transfer between its nodes: n0: all_reduce moves 2 GB/s, the floor is 5",
    )
    assert "n0: all_reduce moves 2 GB/s" in desk.group.fault.what


def test_below_the_floor_it_is_measured_again_after_a_while():
    desk = whole()
    end(desk, SLOW)
    first = desk.group.transfer
    desk.t += RETRY_SECONDS + 1
    desk.beat()
    desk.tick()
    assert desk.phase == "measuring"
    assert desk.group.transfer == first
    end(desk, FAST)
    assert StartRole(desk.group.pair) in desk.actions


def test_where_it_is_only_measured_a_slow_transfer_is_told_and_the_group_starts():
    desk = whole(replace(ASKED, transfer_required=False))
    end(desk, SLOW)
    assert StartRole(desk.group.pair) in desk.actions
    assert desk.group.transfer.faults
    assert desk.group.fault is None


def test_what_a_member_saw_counts_with_its_name():
    desk = whole()
    end(desk, FAST, transfer_faults=("NCCL uses sockets, the plan is efa",), transfer_nics=3)
    assert desk.group.transfer.faults == ("n1: NCCL uses sockets, the plan is efa",)
    assert desk.group.transfer.nics == 3


def test_a_member_that_could_not_measure_ends_it_long_before_the_limit():
    desk = whole()
    desk.beat(measured=token(desk), transfer_faults=("it can't be started",))
    desk.tick()
    assert desk.phase == "measuring"
    desk.t += OTHERS_SECONDS + 1
    desk.beat(measured=token(desk), transfer_faults=("it can't be started",))
    desk.tick()
    assert desk.group.transfer.faults == (
        "n0: the measurement was not done",
        "n1: it can't be started",
    )


def test_a_measurement_that_nobody_ends_is_given_up():
    desk = whole()
    began = desk.t
    while desk.t <= began + ASKED.transfer_seconds + LATE_SECONDS:
        desk.t += 1
        desk.beat()
        desk.tick()
    assert desk.group.measuring is None
    assert "the measurement was not done" in desk.group.transfer.faults[0]


def test_a_member_that_is_lost_ends_the_measurement_and_the_next_has_another_token():
    desk = whole()
    first = token(desk)
    desk.tick(seconds=1)
    for _ in range(6):
        desk.tick(seconds=1)
    assert desk.group.measuring is None
    desk.beat()
    desk.tick()
    assert token(desk) != first


def test_a_restarted_agent_remembers_what_was_measured():
    desk = whole()
    end(desk, FAST)
    again = restore(record(desk.group, "b"), "b", desk.role, desk.now, "i-0")
    assert again.transfer == desk.group.transfer
