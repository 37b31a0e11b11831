"""Prefill and decode apart: KV moves, or the stack says that it doesn't."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import yaml
from prefill_decode import (
    CONTEXT,
    DECODE,
    HAND_OVER,
    NODES,
    PREFILL,
    SIDE_CHANNELS,
    STACK,
    PrefillDecode,
)
from rehearsed import MODEL, PROMPTS

from rehearsal.machine import faults
from rehearsal.paths import Home

pytestmark = pytest.mark.e2e

LEASE_SECONDS = 30
"""For so long prefill keeps blocks that nobody fetches (kv_lease_duration)."""


@pytest.fixture(scope="module", autouse=True)
def gateway_without_its_agent(pd: PrefillDecode) -> Iterator[None]:
    """Nothing but these tests asks the groups: their counters and gauges are the tests' own."""
    pd.inside("gateway", "systemctl", "stop", "moe-node.service")
    try:
        yield
    finally:
        pd.inside("gateway", "systemctl", "start", "moe-node.service")


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


def test_the_transfer_between_the_groups_was_measured_and_stands_in_the_record(
    pd: PrefillDecode,
) -> None:
    (pair,) = pd.record()["gateway"]["pairs"]
    assert pair["transfer"]["faults"] == []
    (item,) = pair["transfer"]["items"]
    assert (item["name"], item["floor"]) == ("nixl_dram", 0.0005)
    assert item["gb_per_second"] > item["floor"]
    print("between prefill and decode:", item, "in", pair["transfer"]["seconds"], "s")
    for node in (PREFILL[0], DECODE[0]):
        log = pd.inside(node, "cat", "/var/lib/moe/transfer/pair-transfer.log")
        assert "Backend UCX was instantiated" in log
        assert "libplugin_UCX.so" in log


def test_every_node_looked_at_the_nixl_that_vllm_imports(pd: PrefillDecode) -> None:
    for node in NODES:
        (step,) = [s for s in pd.status(node).steps if s.name == "nixl"]
        assert step.outcome in ("NOCHANGE", "SKIPPED"), step
        if step.outcome == "NOCHANGE":  # not since its agent started anew
            assert step.detail.startswith("1.5.0 of /opt/vllm/"), step
            assert "UCX of /opt/vllm/" in step.detail
            assert "libplugin_UCX.so" in step.detail


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
    connection = pd.connect(pd.host(DECODE[0]))
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
    pd.wait("no request and no block left", pd.idle, 60)


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


@pytest.mark.drill
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
        pd.inside("gateway", "systemctl", "start", "moe-node.service")
        pd.wait("the gateway says which", lambda: all(t in why_not(pd) for t in targets), 240)
        gateway = pd.gateway()
        assert not gateway.serving
        assert not any(group.routed for group in gateway.groups)
    finally:
        faults.drop_nothing(home, ids[DECODE[0]])
    pd.wait("the pair serves again", lambda: pd.gateway().serving, 240)
    assert pd.probe().ok


@pytest.mark.drill
def test_up_fails_and_records_that_decode_cannot_reach_the_side_channel(pd: PrefillDecode) -> None:
    home, ids, file = Home(pd.root), pd.instances(), pd.stacks / f"Pulumi.{STACK}.yaml"
    pd.inside("gateway", "systemctl", "start", "moe-node.service")
    pd.wait("everything is in", pd.in_full, 240)
    before = file.read_text()
    data = yaml.safe_load(before)
    data["config"]["moe-serving:groups"]["decode"]["max_num_seqs"] = 40
    file.write_text(yaml.safe_dump(data, sort_keys=False))
    for taker in DECODE:
        for giver in PREFILL:
            faults.drop_tcp(home, ids[taker], ids[giver], *SIDE_CHANNELS)
    try:
        done = pd.run("up", check=False)
        assert done.returncode != 0, done.stdout[-3000:]
        reason = json.dumps(pd.record()["last_failure"])
        for port in SIDE_CHANNELS:
            assert f":{port}: no answer within 2 s" in reason
            assert f":{port}: no answer within 2 s" in done.stdout
    finally:
        faults.drop_nothing(home, ids[DECODE[0]])
        file.write_text(before)
        pd.run("up")
    pd.wait("everything is in", pd.in_full, 240)


def why_not(pd: PrefillDecode) -> str:
    (pair,) = pd.gateway().pairs
    return "" if pair.ok else pair.reason
