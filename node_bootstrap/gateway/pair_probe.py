"""Proof that KV moves: whole prefill-decode completions through one pair of groups.

Each is compared with what the prefill group answers by itself, and the decode group's counters
must show that it took blocks: vLLM answers as well, only later, when it computes the prompt itself.
"""

from __future__ import annotations

import http.client
import json
import time
import uuid
from dataclasses import dataclass
from typing import Any

from node_bootstrap.gateway.counters import Counters, moved, parse
from node_bootstrap.gateway.greedy import Answer, difference, parse_answer

ALL_COMBINATIONS = 16
"""Up to so many pairs of ranks are all tried; of more, each rank of both sides at least once."""
COUNTERS_SECONDS = 5.0
"""vLLM counts a transfer at its next step."""
WRONG_ANSWER = "a wrong answer"
TEXT = (
    "A router sends each token of a prompt to a few experts, and every expert lives on one rank of "
    "the group; what attention has seen so far is kept in blocks, which the ranks that decode read "
    "from the ranks that have filled them, over the network and without asking anybody again."
)
_HAND_OVER = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}


@dataclass(frozen=True)
class Side:
    """One group's API: its primary's address, its data-parallel ranks, its key."""

    group: str
    host: str
    port: int
    ranks: int
    api_key: str


@dataclass(frozen=True)
class Question:
    """What is asked. timeout_seconds: for each request; a first one has a handshake in it."""

    model: str
    max_tokens: int = 8
    timeout_seconds: float = 30.0


@dataclass(frozen=True)
class PairReport:
    """What came of one pair. reason: one sentence why it isn't usable; empty where it is.

    ranks: (prefill, decode) of each completion. transfers, bytes_moved, cached_tokens,
    failed_transfers: what the decode group's counters grew by; requests of others are in it.
    at: when it ended (seconds since the epoch). late: a side gave no answer in time, or took no
    more requests.
    """

    prefill: str
    decode: str
    ok: bool
    reason: str
    seconds: float
    at: float
    ranks: tuple[tuple[int, int], ...] = ()
    transfers: int = 0
    bytes_moved: int = 0
    cached_tokens: int = 0
    failed_transfers: int = 0
    wrong_answer: bool = False
    late: bool = False

    @property
    def loaded(self) -> bool:
        """It was late while the pair moved blocks for others, and none of them was lost."""
        return self.late and self.transfers > 0 and not self.failed_transfers


class AskError(Exception):
    """A group gave no completion: the message names the group, the rank and what it said."""


class LateError(AskError):
    """It may be busy with others."""


def combinations(prefill: int, decode: int) -> tuple[tuple[int, int], ...]:
    """(prefill rank, decode rank) of each completion, for groups of so many ranks."""
    if prefill * decode <= ALL_COMBINATIONS:
        return tuple((p, d) for p in range(prefill) for d in range(decode))
    return tuple((turn % prefill, turn % decode) for turn in range(max(prefill, decode)))


def probe_pair(
    prefill: Side,
    decode: Side,
    question: Question,
    ranks: tuple[tuple[int, int], ...] | None = None,
) -> PairReport:
    """Send whole completions through a pair, and judge answers and counters. Never raises.

    Args:
        prefill: the group that computes the prompt, and the answer that is compared with.
        decode: the group that takes its KV.
        question: what is asked.
        ranks: (prefill, decode) of each completion; `combinations` by default.
    """
    tried = combinations(prefill.ranks, decode.ranks) if ranks is None else ranks
    began = time.monotonic()
    before = after = Counters({})
    reason, late = "", False
    try:
        before = after = _counters(decode, question)
        for pair in tried:
            reason = reason or _one(prefill, decode, question, pair)
        after = _settled(decode, question, before, tried)
    except AskError as error:
        reason, late = str(error), isinstance(error, LateError)
        after = _last(decode, question, before)
    grown = after.since(before)
    return PairReport(
        prefill=prefill.group,
        decode=decode.group,
        ok=not (reason := reason or moved(grown, decode.group, tried)),
        reason=_with_failures(reason, grown),
        seconds=round(time.monotonic() - began, 3),
        at=time.time(),
        ranks=tried,
        transfers=grown.total("transfers"),
        bytes_moved=grown.total("bytes_moved"),
        cached_tokens=grown.total("cached_tokens"),
        failed_transfers=grown.total("failed_transfers"),
        wrong_answer=WRONG_ANSWER in reason,
        late=late,
    )


def _one(prefill: Side, decode: Side, question: Question, ranks: tuple[int, int]) -> str:
    """One completion through the pair; why it is wrong, empty where it isn't."""
    # Nothing that decode may have in its own prefix cache: only then must the blocks move.
    prompt = f"{uuid.uuid4().hex} {TEXT}"
    body = {"model": question.model, "prompt": prompt, "temperature": 0, "logprobs": 5}
    first = {**body, "max_tokens": 1, "kv_transfer_params": _HAND_OVER}
    handed = _ask(prefill, ranks[0], first, question).get("kv_transfer_params")
    if not handed or not handed.get("remote_block_ids"):
        return f"{prefill.group}: rank {ranks[0]} handed no KV over: {str(handed)[:200]}"
    rest = {**body, "max_tokens": question.max_tokens, "kv_transfer_params": handed}
    through = _ask(decode, ranks[1], rest, question)
    alone = _ask(prefill, ranks[0], {**body, "max_tokens": question.max_tokens}, question)
    wrong = difference(_answer(prefill, alone), _answer(decode, through))
    where = f"{prefill.group} rank {ranks[0]} to {decode.group} rank {ranks[1]}"
    return f"{where}: {WRONG_ANSWER}: {wrong}" if wrong else ""


def _answer(side: Side, document: dict[str, Any]) -> Answer:
    try:
        return parse_answer(document)
    except (LookupError, TypeError, ValueError) as error:
        raise AskError(f"{side.group}: no completion: {str(document)[:300]}") from error


def _ask(side: Side, rank: int, body: dict[str, Any], question: Question) -> dict[str, Any]:
    """One completion of one rank. AskError when there is none."""
    headers = {
        "Content-Type": "application/json",
        "X-data-parallel-rank": str(rank),
        "Authorization": f"Bearer {side.api_key}",
    }
    who = f"{side.group}: rank {rank}"
    if body.get("kv_transfer_params", {}).get("do_remote_prefill"):
        params = body["kv_transfer_params"]
        who += f", told to take KV from {params.get('remote_host')}:{params.get('remote_port')},"
    status, content = _exchange(
        side, ("POST", "/v1/completions", json.dumps(body), headers), question, who
    )
    if status != http.client.OK:
        kind = LateError if status == http.client.TOO_MANY_REQUESTS else AskError
        raise kind(f"{who} answered HTTP {status}: {content[:300]}")
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError) as error:
        raise AskError(f"{who} answered no JSON: {content[:300]}") from error


def _exchange(
    side: Side, request: tuple[str, str, str | None, dict[str, str]], question: Question, who: str
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(side.host, side.port, timeout=question.timeout_seconds)
    try:
        connection.request(*request)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except TimeoutError as error:
        raise LateError(f"{who} gave no answer in {question.timeout_seconds:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise AskError(f"{who} broke off: {error!r}") from error
    finally:
        connection.close()


def _counters(decode: Side, question: Question) -> Counters:
    request: tuple[str, str, str | None, dict[str, str]] = ("GET", "/metrics", None, {})
    status, content = _exchange(decode, request, question, f"{decode.group}: /metrics")
    if status != http.client.OK:
        raise AskError(f"{decode.group}: /metrics answered HTTP {status}")
    return parse(content)


def _settled(
    decode: Side, question: Question, before: Counters, tried: tuple[tuple[int, int], ...]
) -> Counters:
    """The counters once they show the transfers, or after COUNTERS_SECONDS."""
    end = time.monotonic() + COUNTERS_SECONDS
    while True:
        now = _counters(decode, question)
        if not moved(now.since(before), decode.group, tried) or time.monotonic() > end:
            return now
        time.sleep(0.2)


def _last(decode: Side, question: Question, before: Counters) -> Counters:
    try:
        return _counters(decode, question)
    except AskError:
        return before


def _with_failures(reason: str, grown: Counters) -> str:
    failed = grown.total("failed_transfers")
    return f"{reason} ({failed} failed transfers were counted)" if reason and failed else reason
