"""How a pair is judged by what two engines answer; with vLLM itself: tests/e2e."""

from __future__ import annotations

import pytest

from node_bootstrap.gateway import pair_probe
from node_bootstrap.gateway.pair_probe import Question, combinations, probe_pair

QUESTION = Question("m", max_tokens=2, timeout_seconds=2.0)


@pytest.fixture
def engines(monkeypatch, make_engine):
    monkeypatch.setattr(pair_probe, "COUNTERS_SECONDS", 0.3)
    return make_engine(), make_engine()


def report(engines):
    prefill, decode = engines
    return probe_pair(prefill.side("prefill-0"), decode.side("decode-0"), QUESTION)


def test_a_pair_is_good_when_the_answer_is_right_and_kv_moved(engines):
    found = report(engines)
    assert (found.ok, found.reason) == (True, "")
    assert (found.ranks, found.transfers, found.bytes_moved) == (((0, 0),), 1, 64)


def test_the_prompt_goes_to_prefill_first_and_what_it_hands_over_to_decode(engines):
    report(engines)
    (_, first), (_, alone) = engines[0].asked
    ((key, rest),) = engines[1].asked
    assert first["kv_transfer_params"]["do_remote_decode"] is True
    assert first["max_tokens"] == 1
    assert rest["kv_transfer_params"] == engines[0].handed
    assert "kv_transfer_params" not in alone
    assert first["prompt"] == rest["prompt"] == alone["prompt"]
    assert key == "Bearer key"


def test_no_two_probes_ask_the_same_or_the_prefix_cache_would_answer(engines):
    report(engines)
    report(engines)
    assert engines[1].asked[0][1]["prompt"] != engines[1].asked[1][1]["prompt"]


def test_a_right_answer_without_transfer_is_no_proof(engines):
    engines[1].moves = False
    found = report(engines)
    assert not found.ok
    assert "decode-0: rank 0" in found.reason
    assert "it computed the prompt itself" in found.reason


def test_a_wrong_answer_is_told_with_its_place(engines):
    engines[1].tokens = ["a", "z"]
    assert report(engines).reason == (
        "prefill-0 rank 0 to decode-0 rank 0: a wrong answer: token 1 is 'z' instead of 'b'"
    )


def test_a_prefill_group_that_hands_nothing_over_is_named(engines):
    engines[0].handed = None
    assert report(engines).reason.startswith("prefill-0: rank 0 handed no KV over")


def test_a_refusal_is_told_with_its_words(engines):
    engines[1].status = 500
    found = report(engines)
    assert "decode-0: rank 0, told to take KV from 10.0.0.5" in found.reason
    assert "HTTP 500" in found.reason


def test_a_group_that_is_gone_is_told(engines):
    engines[0].shutdown()
    engines[0].server_close()
    assert "prefill-0: rank 0 broke off" in report(engines).reason


def test_small_groups_are_tried_in_every_combination_and_large_ones_on_every_rank():
    assert combinations(2, 2) == ((0, 0), (0, 1), (1, 0), (1, 1))
    many = combinations(16, 64)
    assert len(many) == 64
    assert {d for _, d in many} == set(range(64))
    assert {p for p, _ in many} == set(range(16))
