"""What the gateway costs beside none, and prefill and decode apart beside one group; printed."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_load import SHORT, desk_seconds, in_turn, load, per_second, ways
from prefill_decode import NODES, STACK, PrefillDecode, write_pd_stack
from rehearsed import CHECKOUT, Rehearsed, own_network, running, write_stack

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

TURNS = 200
PAIRS, SENDERS, SECONDS = 5, 8, 15.0
GENEROUS_MS, GENEROUS_SHARE = 25.0, 0.8
"""Bounds that a busy machine keeps; what is printed is to be read beside design's own."""
LOAD = ("--rate", "2", "--rate", "4", "--seconds", "10", "--input-tokens", "64")


def write_gated(folder: Path, place: int, nodes: int) -> Path:
    """Write the stack of one group behind a gateway; return its folder."""
    gateway = {"enabled": True, "instance_type": "c7i.large"}
    return write_stack(folder, network=own_network(place), nodes=nodes, gateway=gateway)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    folder = tmp_path_factory.mktemp("bench-gateway")
    with running(Rehearsed(folder / "home", write_gated(folder / "stacks", 13, 1))) as stack:
        yield stack


def test_a_short_completion_through_the_gateway_beside_none(gated: Rehearsed, capsys) -> None:
    direct, router, whole = ways(gated, "rehearsal", "serve-0")
    took = in_turn([direct, router, whole], TURNS, SHORT)
    middle = {name: 1000 * statistics.median(all_of) for name, all_of in took.items()}
    desk = 1000 * desk_seconds(gated, whole.key, TURNS)
    added = middle["gateway"] - middle["direct"]
    with capsys.disabled():
        print(f"\n{TURNS} completions of 8 tokens each way, in turn; {load()}")
        print("way      p50 ms  p90 ms  least ms")
        for name, all_of in took.items():
            tenth = 1000 * statistics.quantiles(all_of, n=10)[-1]
            print(f"{name:8} {middle[name]:6.1f}  {tenth:6.1f}  {1000 * min(all_of):8.1f}")
        print(
            f"added: {added:.1f} ms, of which the router {middle['router'] - middle['direct']:.1f},"
            f" the key check {desk:.1f}, Caddy with TLS"
            f" {middle['gateway'] - middle['router'] - desk:.1f}"
        )
    assert added < GENEROUS_MS


def test_throughput_through_the_gateway_beside_none(gated: Rehearsed, capsys) -> None:
    direct, _, whole = ways(gated, "rehearsal", "serve-0")
    body = {**SHORT, "max_tokens": 32}
    rows = [
        (per_second(direct, SENDERS, SECONDS, body), per_second(whole, SENDERS, SECONDS, body))
        for _ in range(PAIRS)
    ]
    share = statistics.median(through / past for past, through in rows)
    with capsys.disabled():
        print(f"\n{SENDERS} senders, completions of 32 tokens, {SECONDS:g} s each; {load()}")
        print("direct /s  gateway /s  share")
        for past, through in rows:
            print(f"{past:9.2f}  {through:10.2f}  {through / past:5.2f}")
        print(f"median share {share:.2f}")
    assert share > GENEROUS_SHARE


def bench(stack: Rehearsed, name: str, label: str, out: Path, *more: str | Path) -> str:
    moe = Path(sys.executable).with_name("moe")
    argv = [moe, "bench", "--stack", name, *LOAD, "--label", label, "--out", out, *more]
    done = subprocess.run(
        argv, cwd=CHECKOUT, env=stack.tool_env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_prefill_and_decode_beside_one_group_of_the_same_nodes(tmp_path: Path, capsys) -> None:
    one = CHECKOUT / "build/bench-one-group.json"
    stacks = write_gated(tmp_path / "one", 14, len(NODES))
    with running(Rehearsed(tmp_path / "home-one", stacks)) as together:
        bench(together, "rehearsal", "one group", one)
    stacks = write_pd_stack(tmp_path / "apart", own_network(14))
    with running(PrefillDecode(tmp_path / "home-apart", stacks)) as apart:
        out = CHECKOUT / "build/bench-prefill-decode.json"
        said = bench(apart, STACK, "apart", out, "--beside", one)
    with capsys.disabled():
        print(f"\n{load()}\n{said}")
    assert "says nothing about GPUs" in said
