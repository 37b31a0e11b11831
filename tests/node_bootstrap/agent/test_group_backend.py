"""All nodes of a group run one all2all backend: the one that every one of them can run."""

from __future__ import annotations

from node_bootstrap.agent import group as g
from node_bootstrap.agent.events import Backend
from node_bootstrap.agent.persisted import record, restore
from node_bootstrap.agent.protocol import RoleView, StartRole
from tests.node_bootstrap.agent.group_desk import PLAN, Desk

PLANNED = Backend("deepep_v2")
FALLBACK = {"backend": "allgather_reducescatter", "backend_why": "no deep_ep"}


def prepared(own=PLANNED, **of_member) -> Desk:
    desk = Desk()
    desk.feed(g.Prepared(PLAN, own))
    desk.beat(**of_member)
    desk.tick()
    return desk


def test_all_run_the_planned_backend_if_all_can():
    desk = prepared(backend="deepep_v2")
    assert desk.actions == (StartRole(desk.group.pair, "deepep_v2", ""),)


def test_one_member_without_the_library_takes_all_to_the_fallback():
    desk = prepared(**FALLBACK)
    why = "n1: no deep_ep"
    assert desk.actions == (StartRole(desk.group.pair, "allgather_reducescatter", why),)
    desk.tick(role=RoleView("running", desk.group.pair))
    told = desk.beat(**FALLBACK)
    assert (told.run, told.backend, told.backend_why) == (True, "allgather_reducescatter", why)


def test_a_primary_without_the_library_takes_all_to_the_fallback():
    desk = prepared(Backend("allgather_reducescatter", "no deep_ep"), backend="deepep_v2")
    assert desk.actions[0].backend == "allgather_reducescatter"
    assert desk.actions[0].backend_why == "n0: no deep_ep"


def test_what_was_agreed_holds_for_the_generation_also_after_a_restart_of_the_agent():
    desk = prepared(**FALLBACK)
    desk.tick(role=RoleView("running", desk.group.pair))
    again = restore(record(desk.group, "b"), "b", desk.role, desk.now)
    assert g.directive(again).backend == "allgather_reducescatter"


def test_the_next_generation_agrees_anew():
    desk = prepared(**FALLBACK)
    desk.tick(role=RoleView("running", desk.group.pair))
    desk.tick(role=RoleView("absent", desk.group.pair))
    desk.beat(backend="deepep_v2")
    desk.tick()
    assert desk.actions == (StartRole(desk.group.pair, "deepep_v2", ""),)
