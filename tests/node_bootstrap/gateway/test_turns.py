"""Whose turn it is to take up a new revision, rule by rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node_bootstrap.gateway import membership as m
from node_bootstrap.gateway import turns as t
from node_bootstrap.gateway.idle import busy
from node_bootstrap.gateway.membership import GroupView, Life, Proof

NOW, SILENCE = 1000.0, 5.0
OLD, NEW = Life("r1", 1), Life("r2", 2)


class Stack:
    """Groups that are ready at r1 and want r2; which pairs of revisions understand each other."""

    def __init__(self, *names, mixed=True, restart_with_peer=False):
        self.mixed, self.turns, self.proofs, self.unrouted = mixed, (), {}, set()
        self.views = {
            name: GroupView(name, name.partition("-")[0], OLD, "", NOW, restart_with_peer, "r2")
            for name in names
        }
        self.current = None
        self.try_pairs()

    def change(self, name, **changes):
        self.views[name] = replace(self.views[name], **changes)
        return self

    def try_pairs(self):
        for prefill in self.views.values():
            for decode in self.views.values():
                known = self.proofs.get((prefill.name, decode.name))
                if prefill.role != "prefill" or decode.role != "decode":
                    continue
                if m.met_an_earlier_life(prefill, decode, known):
                    continue
                same = prefill.life.revision == decode.life.revision
                why = "" if same or self.mixed else "KV of another layout"
                self.proofs[prefill.name, decode.name] = Proof(
                    prefill.name, decode.name, prefill.life, decode.life, why, NOW
                )

    def look(self):
        """One look of the gateway; the groups whose turn begins."""
        views = list(self.views.values())
        self.turns = t.still_due(self.turns, views)
        known = t.leaving(views, [turn.group for turn in self.turns])
        self.current = m.decide(known, self.proofs, NOW, SILENCE, self.current)
        routed = {*self.current.serve, *self.current.prefill, *self.current.decode} - self.unrouted
        moment = t.Moment(known, self.proofs, self.current, NOW, SILENCE, routed)
        new = t.begun(self.turns, moment)
        self.turns += new
        return [turn.group for turn in new]

    def take_up(self, name, fault=""):
        """Leave was given and the group has started anew."""
        return self.change(name, life=NEW, wants="", fault=fault)

    def restart_decodes(self):
        """Decode groups that met an earlier life of a prefill group start anew, as ordered."""
        views = list(self.views.values())
        while due := m.restarts_due(views, self.proofs, self.current, NOW, SILENCE):
            for restart in due:
                generation = restart.life.generation + 1
                self.change(restart.decode, life=replace(restart.life, generation=generation))
            self.try_pairs()
            views = list(self.views.values())

    def roll(self):
        """Every group takes its turn; who went together, and who served meanwhile."""
        rounds = []
        while any(view.wants for view in self.views.values()):
            going = self.look()
            self.look()  # with them out
            if not self.turns:
                break
            rounds.append((going, self.current.serving))
            for name in [turn.group for turn in self.turns]:
                self.take_up(name)
            self.try_pairs()
        return rounds


TWO_AND_TWO = ("prefill-0", "prefill-1", "decode-0", "decode-1")


def test_replicas_go_one_after_the_other_and_service_stays():
    stack = Stack("serve-0", "serve-1", "serve-2")
    assert stack.roll() == [(["serve-0"], True), (["serve-1"], True), (["serve-2"], True)]


def test_nobody_else_leaves_while_one_has_its_turn():
    stack = Stack("serve-0", "serve-1")
    assert stack.look() == ["serve-0"]
    assert stack.look() == []
    assert stack.current.serve == ("serve-1",)


@pytest.mark.parametrize("fault", ["starting, generation 2", "backing-off, generation 5"])
def test_a_group_that_does_not_come_back_stops_the_round(fault):
    stack = Stack("serve-0", "serve-1")
    stack.look()
    stack.take_up("serve-0", fault)
    assert stack.look() == []
    assert stack.current.serve == ("serve-1",)
    stack.change("serve-0", fault="")
    assert stack.look() == ["serve-1"]


def test_the_next_waits_until_requests_are_sent_to_the_one_before():
    stack = Stack("serve-0", "serve-1")
    stack.unrouted = {"serve-0"}
    assert stack.look() == []
    stack.unrouted = set()
    assert stack.look() == ["serve-0"]


def test_a_group_that_is_not_heard_of_stops_the_round():
    assert Stack("serve-0", "serve-1").change("serve-0", heard_at=0.0).look() == []


def test_the_only_group_of_its_role_goes_though_nobody_serves_meanwhile():
    assert Stack("serve-0").roll() == [(["serve-0"], False)]


def test_a_turn_is_over_when_the_group_wants_something_else():
    stack = Stack("serve-0", "serve-1")
    stack.look()
    stack.change("serve-0", wants="r3")
    stack.look()
    assert [(turn.group, turn.to) for turn in stack.turns] == [("serve-0", "r3")]


def test_prefill_and_decode_that_understand_each_other_go_one_by_one():
    rounds = Stack(*TWO_AND_TWO).roll()
    assert [len(going) for going, _ in rounds] == [1, 1, 1, 1]
    assert all(serving for _, serving in rounds)


@pytest.mark.parametrize("restart_with_peer", [False, True])
def test_where_revisions_do_not_mix_pairs_change_over_and_service_stays(restart_with_peer):
    stack = Stack(*TWO_AND_TWO, mixed=False, restart_with_peer=restart_with_peer)
    rounds = stack.roll()
    assert [going[0].partition("-")[0] for going, _ in rounds][:2] == ["prefill", "decode"]
    assert all(serving for _, serving in rounds)
    stack.restart_decodes()
    stack.look()
    assert {*stack.current.prefill, *stack.current.decode} == {*TWO_AND_TWO}


def test_one_prefill_and_one_decode_group_change_together_without_service():
    assert Stack("prefill-0", "decode-0", mixed=False).roll() == [(["prefill-0"], False)]


def test_a_setting_that_breaks_the_transfer_stops_with_one_pair_serving():
    stack = Stack(*TWO_AND_TWO, mixed=False)
    for _ in range(10):
        stack.look()
        for turn in stack.turns:
            stack.take_up(turn.group)
        stack.try_pairs()
        for (prefill, decode), proof in stack.proofs.items():
            if proof.prefill_life == proof.decode_life == NEW:
                stack.proofs[prefill, decode] = replace(proof, reason="no KV moved")
    assert stack.current.serving
    assert {v.life.revision for v in stack.views.values()} == {"r1", "r2"}


def test_before_pairs_were_tried_nobody_leaves():
    stack = Stack(*TWO_AND_TWO)
    stack.proofs.clear()
    assert stack.look() == []


def test_groups_that_serve_nobody_go_at_once():
    stack = Stack(*TWO_AND_TWO, mixed=False)
    for pair, proof in stack.proofs.items():
        stack.proofs[pair] = replace(proof, reason="no KV moved")
    assert sorted(stack.look()) == sorted(TWO_AND_TWO)


RUNNING = 'vllm:num_requests_running{engine="0",model_name="m"} %s\n'
BLOCKS = 'vllm:kv_cache_usage_perc{engine="0",model_name="m"} %s\n'


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (RUNNING % "0.0" + BLOCKS % "0.0", False),
        (RUNNING % "1.0" + BLOCKS % "0.0", True),
        (RUNNING % "0.0" + BLOCKS % "0.25", True),
        ("", True),
    ],
)
def test_a_group_is_busy_while_requests_run_or_blocks_are_held(metrics, expected):
    assert busy(metrics) is expected
