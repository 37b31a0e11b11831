"""Prefill and decode apart: KV moves, or the stack says that it doesn't."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest
from prefill_decode import (
    CONTEXT,
    DECODE,
    HAND_OVER,
    NODES,
    PORT,
    PREFILL,
    SIDE_CHANNELS,
    PrefillDecode,
    write_pd_stack,
)
from rehearsed import MODEL, PROMPTS

from rehearsal.machine import faults
from rehearsal.paths import Home

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

LEASE_SECONDS = 30
"""For so long prefill keeps blocks that nobody fetches (kv_lease_duration)."""


@pytest.fixture(scope="module")
def pd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefillDecode]:
    folder = tmp_path_factory.mktemp("pd")
    stack = PrefillDecode(folder / "home", write_pd_stack(folder / "stacks", direct=True))
    try:
        stack.run("up")
        yield stack
    finally:
        stack.run("down")


def token_ids(count: int) -> list[int]:
    return [5 + (place * 7) % 900 for place in range(count)]


@pytest.mark.parametrize("ranks", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_answer_through_both_groups_equals_that_of_one_plain_engine(
    pd: PrefillDecode, reference, prompt: str, ranks: tuple[int, int]
) -> None:
    before = pd.counters(DECODE[0])
    answer = pd.through_both(prompt, 16, ranks)
    assert answer.code == 200, answer.body
    assert answer.text == reference[prompt].text
    grown = pd.counters(DECODE[0]).since(before)
    assert grown.of(ranks[1], "transfers") == 1
    assert grown.of(ranks[1], "bytes_moved") > 0
    assert grown.total("failed_transfers") == 0


def test_the_proof_of_the_transfer_holds_for_every_pair_of_ranks(pd: PrefillDecode) -> None:
    report = pd.probe()
    assert report.ok, report.reason
    assert report.ranks == ((0, 0), (0, 1), (1, 0), (1, 1))
    assert report.transfers == 4


def test_every_node_says_what_its_kv_moves_over(pd: PrefillDecode) -> None:
    assert pd.probe().ok
    for node in NODES:
        pd.wait(
            f"{node} names the transport to its peers",
            lambda node=node: pd.status(node).found.kv_transport == "UCX tcp/ens5",
            30,
        )
        assert pd.status(node).phase == "role"


@pytest.mark.parametrize("count", [1, 127, 128, 129, CONTEXT - 1])
def test_prompts_around_a_block_and_as_long_as_the_context(pd: PrefillDecode, count: int) -> None:
    answer = pd.through_both(token_ids(count), 1)
    assert answer.code == 200, answer.body
    alone = pd.ask(PREFILL[0], {"prompt": token_ids(count), "max_tokens": 1})
    assert answer.text == alone.text


@pytest.mark.parametrize("count", [CONTEXT, CONTEXT + 1, 4 * CONTEXT])
def test_a_longer_prompt_is_the_clients_fault(pd: PrefillDecode, count: int) -> None:
    assert pd.through_both(token_ids(count), 1).code == 400


def test_a_client_that_leaves_frees_its_blocks_on_both_sides(pd: PrefillDecode) -> None:
    pd.wait("nothing under way", pd.idle, LEASE_SECONDS + 15)
    prompt = "Somebody who leaves " * 20
    first = {"prompt": prompt, "max_tokens": 1, "kv_transfer_params": HAND_OVER}
    handed = pd.ask(PREFILL[0], first).body["kv_transfer_params"]
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 300, "ignore_eos": True}
    connection = http.client.HTTPConnection(pd.host(DECODE[0]), PORT, timeout=30)
    headers = {
        "Content-Type": "application/json",
        "Authorization": f"Bearer {pd.parameter('api-key')}",
    }
    streamed = json.dumps({**body, "stream": True, "kv_transfer_params": handed})
    connection.request("POST", "/v1/completions", streamed, headers)
    answer = connection.getresponse()
    assert answer.readline().startswith(b"data: ")
    assert pd.busy(DECODE[0]), "it is being answered"
    answer.close()
    connection.close()
    assert pd.wait("no request and no block left", pd.idle, 10) < 10


def test_blocks_that_nobody_fetches_are_freed_after_their_lease(pd: PrefillDecode) -> None:
    pd.wait("nothing under way", pd.idle, LEASE_SECONDS + 15)
    first = {"prompt": "left behind " * 20, "max_tokens": 1, "kv_transfer_params": HAND_OVER}
    assert pd.ask(PREFILL[0], first).code == 200
    assert pd.busy(PREFILL[0])
    pd.wait("the blocks are free", pd.idle, LEASE_SECONDS + 15)


def test_what_a_dead_life_of_prefill_handed_over_is_refused_and_decode_lives(
    pd: PrefillDecode,
) -> None:
    prompt = "told by a life that is over " * 8
    first = {"prompt": prompt, "max_tokens": 1, "kv_transfer_params": HAND_OVER}
    stale = pd.ask(PREFILL[0], first).body["kv_transfer_params"]
    generation = pd.report(DECODE[0]).generation
    pd.restart(PREFILL[1], "the test wants it")
    assert "the test wants it" in [restart.cause for restart in pd.report(PREFILL[0]).restarts]
    rest = {"prompt": prompt, "max_tokens": 4, "kv_transfer_params": stale}
    assert pd.ask(DECODE[0], rest).code == 500
    report = pd.probe()
    assert report.ok, report.reason
    assert pd.report(DECODE[0]).generation == generation, "0.32 takes a restarted peer on CPU"


def test_decode_that_cannot_reach_the_side_channel_is_no_pair_and_says_so(
    pd: PrefillDecode,
) -> None:
    home, ids = Home(pd.root), pd.instances()
    for taker in DECODE:
        for giver in PREFILL:
            faults.drop_tcp(home, ids[taker], ids[giver], *SIDE_CHANNELS)
    try:
        # What shook hands before goes on: only a new life of decode must ask again.
        pd.restart(DECODE[0], "the test wants it")
        report = pd.probe()
        assert not report.ok
        assert "decode-0: rank 0, told to take KV from" in report.reason
        assert "HTTP 500" in report.reason, "an error, and no silent recompute"
        assert report.transfers == 0
        targets = [f"{pd.host(g)}:{p}" for g, p in zip(PREFILL, SIDE_CHANNELS, strict=True)]
        program = ("python3", "/opt/moe/current/moe-node.pyz", "reach", *targets)
        for taker in DECODE:
            said = pd.inside(taker, *program, check=False)
            assert all(f"{target}: no answer within 2 s" in said for target in targets)
    finally:
        faults.drop_nothing(home, ids[DECODE[0]])
    pd.wait("the pair is good again", lambda: pd.probe().ok, 60)
