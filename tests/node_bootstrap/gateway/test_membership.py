"""Which groups the router is given, rule by rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node_bootstrap.gateway import membership as m
from node_bootstrap.gateway.membership import GroupView, Life, Membership, Proof
from node_bootstrap.status import GroupReport, MemberReport

NOW, SILENCE = 1000.0, 5.0
FIRST, SECOND = Life("r1", 1), Life("r1", 2)


class Stack:
    """Groups, all ready and heard of now, and the proofs of their pairs."""

    def __init__(self, *names, restart_with_peer=False):
        self.views = {
            name: GroupView(name, name.partition("-")[0], FIRST, "", NOW, restart_with_peer)
            for name in names
        }
        self.proofs = {}

    def change(self, name, **changes):
        self.views[name] = replace(self.views[name], **changes)
        return self

    def of(self, role):
        return [v for v in self.views.values() if v.role == role]

    def prove(self, prefill, decode, reason="", at=NOW):
        lives = [self.views[name].life or FIRST for name in (prefill, decode)]
        self.proofs[prefill, decode] = Proof(prefill, decode, *lives, reason, at)
        return self

    def prove_all(self):
        for prefill in self.of("prefill"):
            for decode in self.of("decode"):
                self.prove(prefill.name, decode.name)
        return self

    def decide(self, current=None):
        return m.decide(self.views.values(), self.proofs, NOW, SILENCE, current)

    def to_probe(self):
        return m.to_probe(self.views.values(), self.proofs, NOW, SILENCE)

    def restarts(self, membership=None):
        found = m.restarts_due(
            list(self.views.values()), self.proofs, membership or self.decide(), NOW, SILENCE
        )
        return [restart.decode for restart in found]


PAIR = ("prefill-0", "decode-0")
TWO_AND_TWO = ("prefill-0", "prefill-1", "decode-0", "decode-1")


def test_a_pair_is_out_until_a_completion_went_through_it():
    stack = Stack(*PAIR)
    assert not stack.decide().serving
    assert stack.decide().reasons == (
        "prefill-0 with decode-0: no completion went through this pair yet",
    )
    stack.prove(*PAIR)
    assert stack.decide() == Membership((), ("prefill-0",), ("decode-0",), ())


def test_a_pair_whose_kv_did_not_move_is_out_with_the_reason():
    why = "decode-0: rank 0 computed the prompt itself"
    decided = Stack(*PAIR).prove(*PAIR, reason=why).decide()
    assert not decided.serving
    assert why in decided.reasons[0]


@pytest.mark.parametrize("name", PAIR)
@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"life": None}, "was never heard of"),
        ({"heard_at": NOW - 6}, "has not been heard of for more than 5 s"),
        ({"fault": "starting, generation 2"}, "starting, generation 2"),
        ({"life": SECOND}, "no completion went through this pair yet"),
    ],
)
def test_a_group_leaves_when(name, changes, why):
    decided = Stack(*PAIR).prove_all().change(name, **changes).decide()
    assert not decided.serving
    assert any(why in reason for reason in decided.reasons)


@pytest.mark.parametrize("prefill", ["prefill-0", "prefill-1"])
@pytest.mark.parametrize("decode", ["decode-0", "decode-1"])
def test_with_two_and_two_losing_one_of_each_leaves_service_up(prefill, decode):
    stack = Stack(*TWO_AND_TWO).prove_all()
    assert stack.decide().prefill == ("prefill-0", "prefill-1")
    stack.change(prefill, heard_at=0.0).change(decode, fault="starting, generation 2")
    decided = stack.decide()
    assert decided.serving
    assert {*decided.prefill, *decided.decode} == {*TWO_AND_TWO} - {prefill, decode}


def test_the_router_pairs_any_with_any_so_one_bad_pair_costs_a_group():
    stack = Stack(*TWO_AND_TWO).prove_all().prove("prefill-1", "decode-1", reason="no KV")
    decided = stack.decide()
    assert len(decided.prefill) + len(decided.decode) == 3
    assert ("prefill-1" in decided.prefill) != ("decode-1" in decided.decode)


def test_of_equally_good_choices_the_present_one_stays():
    stack = Stack(*TWO_AND_TWO).prove_all().prove("prefill-1", "decode-1", reason="no KV")
    for kept in (("prefill-0",), ("decode-0", "decode-1")), (TWO_AND_TWO[:2], ("decode-0",)):
        decided = stack.decide(Membership((), *kept))
        assert (decided.prefill, decided.decode) == kept


def test_of_a_pair_that_fails_the_group_goes_whose_agent_does_not_answer():
    stack = Stack(*TWO_AND_TWO).prove_all()
    stack.change("prefill-1", answered=False).change("decode-1", answered=False)
    assert stack.decide().prefill == ("prefill-0", "prefill-1"), "nothing has failed yet"
    decided = stack.prove("prefill-0", "decode-1", reason="refused").decide()
    assert (decided.prefill, decided.decode) == (("prefill-0", "prefill-1"), ("decode-0",))
    assert any(r.startswith("decode-1: its agent doesn't answer") for r in decided.reasons)
    decided = stack.prove("prefill-1", "decode-0", reason="refused").decide()
    assert (decided.prefill, decided.decode) == (("prefill-0",), ("decode-0",))


def test_a_failure_of_an_earlier_life_is_held_against_nobody():
    stack = Stack(*TWO_AND_TWO).prove_all().prove("prefill-1", "decode-1", reason="refused")
    for name in ("prefill-1", "decode-1"):
        stack.change(name, life=SECOND, answered=False)
    stack.prove("prefill-1", "decode-1").prove("prefill-0", "decode-1").prove(
        "prefill-1", "decode-0"
    )
    assert len(stack.decide().prefill + stack.decide().decode) == 4


def test_both_sides_matter_more_than_many_of_one():
    names = [f"prefill-{i}" for i in range(4)] + ["decode-0", "decode-1"]
    stack = Stack(*names).prove_all()
    for i in (2, 3):
        stack.prove(f"prefill-{i}", "decode-1", reason="no KV")
    assert stack.decide().decode == ("decode-0", "decode-1")
    assert stack.decide().prefill == ("prefill-0", "prefill-1")


def test_many_groups_are_decided_at_once():
    names = [f"{role}-{i}" for role in ("prefill", "decode") for i in range(32)]
    stack = Stack(*names).prove_all().prove("prefill-3", "decode-7", reason="no KV")
    decided = stack.decide()
    assert len(decided.prefill) + len(decided.decode) == 63


def test_groups_that_serve_both_phases_need_no_partner():
    decided = Stack("serve-0", "serve-1").change("serve-1", fault="starting").decide()
    assert decided.serve == ("serve-0",)
    assert decided.serving


def test_pairs_are_tried_in_the_order_of_need():
    stack = Stack(*TWO_AND_TWO)
    stack.prove("prefill-0", "decode-0", at=NOW - m.REPEAT_SECONDS)
    stack.prove("prefill-0", "decode-1", reason="no KV", at=NOW - m.RETRY_SECONDS)
    stack.prove("prefill-1", "decode-0")
    assert stack.to_probe() == (
        ("prefill-1", "decode-1"),
        ("prefill-0", "decode-1"),
        ("prefill-0", "decode-0"),
    )


def test_a_new_life_of_either_side_is_tried_anew():
    for name in PAIR:
        assert Stack(*PAIR).prove(*PAIR).change(name, life=SECOND).to_probe() == (PAIR,)


def test_what_is_not_alive_is_not_tried():
    assert Stack(*PAIR).change("decode-0", fault="starting").to_probe() == ()


def test_a_release_that_takes_restarted_peers_restarts_nothing():
    stack = Stack(*PAIR).prove_all().change("prefill-0", life=SECOND)
    assert stack.restarts() == []


def test_else_decode_starts_anew_and_is_not_tried_before():
    stack = Stack(*PAIR, restart_with_peer=True).prove_all().change("prefill-0", life=SECOND)
    assert stack.restarts() == ["decode-0"]
    assert stack.to_probe() == ()
    assert "decode-0 must start anew first" in stack.decide().reasons[0]
    stack.change("decode-0", life=SECOND)
    assert stack.restarts() == []
    assert stack.to_probe() == (PAIR,)


def test_even_a_failed_try_is_a_meeting():
    stack = Stack(*PAIR, restart_with_peer=True).prove(*PAIR, reason="handshake failed")
    assert stack.change("prefill-0", life=SECOND).restarts() == ["decode-0"]


def test_decode_groups_that_serve_start_anew_one_after_another():
    stack = Stack(*TWO_AND_TWO, restart_with_peer=True).prove_all()
    stack.change("prefill-0", life=SECOND)
    assert stack.decide().prefill == ("prefill-1",)
    assert stack.decide().decode == ("decode-0", "decode-1")
    assert stack.restarts() == ["decode-0"]
    stack.change("decode-0", life=SECOND, fault="starting, generation 2")
    assert stack.restarts() == [], "the other one goes on serving meanwhile"
    stack.change("decode-0", fault="").prove("prefill-1", "decode-0").prove("prefill-0", "decode-0")
    assert stack.restarts() == ["decode-1"]


def test_the_only_decode_group_starts_anew_although_it_serves():
    names = ("prefill-0", "prefill-1", "decode-0")
    stack = Stack(*names, restart_with_peer=True).prove_all().change("prefill-0", life=SECOND)
    assert stack.decide().decode == ("decode-0",)
    assert stack.restarts() == ["decode-0"]


REPORT = GroupReport("r1", 1, "ready", 0.0, (MemberReport("n1", "i", "b", "running", 1, 0.0),))


def test_a_group_is_seen_as_its_primary_tells_it():
    assert m.view("decode-0", "decode", REPORT, NOW).fault == ""
    starting = replace(REPORT, phase="starting", generation=2)
    assert m.view("decode-0", "decode", starting, NOW).fault == "starting, generation 2"


def test_a_member_whose_kv_moves_otherwise_than_planned_keeps_its_group_out():
    member = replace(REPORT.members[0], kv_fault="UCX moves KV over sysv/memory")
    seen = m.view("decode-0", "decode", replace(REPORT, members=(member,)), NOW)
    assert seen.fault == "n1: UCX moves KV over sysv/memory"
