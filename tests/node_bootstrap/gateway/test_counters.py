"""Counters as vLLM 0.32.0 shows them, and what they prove."""

from __future__ import annotations

from pathlib import Path

import pytest

from node_bootstrap.gateway.counters import Counters, moved, parse

PAGE = (Path(__file__).parent / "decode-metrics.txt").read_text()
GOOD = {"transfers": 2.0, "bytes_moved": 4096.0, "cached_tokens": 200.0, "failed_transfers": 0.0}


def test_each_rank_has_its_own_counters():
    counters = parse(PAGE)
    assert set(counters.by_rank) == {0, 1}
    assert counters.of(1, "transfers") == 2
    assert counters.of(1, "bytes_moved") == 262144
    assert counters.total("failed_transfers") == 1
    assert counters.total("cached_tokens") == 308 + 210


def test_growth_is_counted_from_before_and_from_zero_after_a_restart():
    before = Counters({0: {"transfers": 5.0}})
    assert Counters({0: {"transfers": 7.0}}).since(before).total("transfers") == 2
    assert Counters({0: {"transfers": 3.0}}).since(before).total("transfers") == 3


def test_every_rank_that_answered_must_have_taken_blocks():
    assert moved(Counters({0: GOOD, 1: GOOD}), "decode-0", [(0, 0), (1, 0), (0, 1), (1, 1)]) == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"transfers": 1.0}, "counted 1 transfers"),
        ({"transfers": 0.0, "bytes_moved": 0.0}, "it computed the prompt itself"),
        ({"bytes_moved": 0.0}, "of 0 bytes"),
        ({"cached_tokens": 0.0}, "used none of their tokens"),
    ],
)
def test_a_rank_that_computed_the_prompt_itself_is_named(changes, said):
    why = moved(Counters({0: GOOD, 1: GOOD | changes}), "decode-0", [(0, 0), (0, 1), (1, 1)])
    assert "decode-0: rank 1" in why
    assert said in why


def test_a_rank_without_counters_has_moved_nothing():
    assert "counted 0 transfers" in moved(Counters({}), "decode-0", [(0, 0)])
