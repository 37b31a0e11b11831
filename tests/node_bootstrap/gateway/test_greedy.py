from __future__ import annotations

import pytest

from node_bootstrap.gateway.greedy import Answer, difference, parse_answer

REFERENCE = Answer(("a", "b", "c"), ({"a": -0.1}, {"b": -0.70, "x": -0.72, "y": -2.0}, {"c": 0.0}))


def answer(*tokens: str) -> Answer:
    return Answer(tokens, tuple({} for _ in tokens))


def test_a_completion_is_read_with_its_likeliest_tokens():
    logprobs = {"tokens": ["a"], "top_logprobs": [{"a": -0.1, "b": -3}]}
    assert parse_answer({"choices": [{"logprobs": logprobs}]}) == Answer(
        ("a",), ({"a": -0.1, "b": -3.0},)
    )


def test_the_same_tokens_are_the_same_answer():
    assert difference(REFERENCE, answer("a", "b", "c")) == ""


def test_a_tie_that_went_the_other_way_is_no_wrong_answer():
    assert difference(REFERENCE, answer("a", "x", "something", "else")) == ""


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (("a", "y", "c"), "token 1 is 'y' instead of 'b'"),
        (("a", "unheard", "c"), "token 1 is 'unheard'"),
        (("b",), "token 0 is 'b' instead of 'a'"),
        (("a", "b"), "2 tokens instead of 3"),
        ((), "0 tokens instead of 3"),
    ],
)
def test_another_token_is_a_wrong_answer(tokens, said):
    assert said in difference(REFERENCE, answer(*tokens))
