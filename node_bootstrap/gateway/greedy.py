"""Whether two greedy answers are the same, token by token. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

TIE_NATS = 0.05
"""Two tokens this near in log-probability: another batch may round them the other way."""


@dataclass(frozen=True)
class Answer:
    """Tokens of a completion, each with the most likely ones in its place (natural logarithm)."""

    tokens: tuple[str, ...]
    likely: tuple[Mapping[str, float], ...]


def parse_answer(document: dict[str, Any]) -> Answer:
    """Read a completion that was asked for with `logprobs`.

    Raises:
        LookupError, TypeError, ValueError: it is none.
    """
    logprobs = document["choices"][0]["logprobs"]
    return Answer(
        tuple(str(token) for token in logprobs["tokens"]),
        tuple({str(k): float(v) for k, v in top.items()} for top in logprobs["top_logprobs"]),
    )


def difference(reference: Answer, answer: Answer) -> str:
    """How an answer differs from the reference's; empty where it doesn't.

    Up to the first token that differs, for from there on both answer another text; and that one
    may only be as good a choice as the reference's own.
    """
    for place, (wanted, got) in enumerate(zip(reference.tokens, answer.tokens, strict=False)):
        if wanted == got:
            continue
        likely = reference.likely[place]
        if got in likely and likely.get(wanted, 0.0) - likely[got] <= TIE_NATS:
            return ""
        return f"token {place} is {got!r} instead of {wanted!r}"
    if len(answer.tokens) != len(reference.tokens):
        return f"{len(answer.tokens)} tokens instead of {len(reference.tokens)}"
    return ""
