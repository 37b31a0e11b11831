"""Seconds of `make up` beside the same engines started by hand; printed, not judged."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rehearsed import CHECKOUT, MODEL, NODES, Rehearsed, write_stack

from rehearsal.image import model, vllm
from rehearsal.image.reference import end_session

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

ROUNDS = 3
ADDRESSES = dict(zip(NODES, ("10.99.0.1", "10.99.0.2"), strict=True))
API_PORT = 8000


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextlib.contextmanager
def two_namespaces() -> Iterator[dict[str, str]]:
    """Two network namespaces with one cable between them: node -> namespace."""
    spaces = {node: f"moe-bench-{os.getpid()}-{index}" for index, node in enumerate(NODES)}
    first, second = spaces.values()
    try:
        for space in spaces.values():
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
        cable = ("type", "veth", "peer", "name", "ens5", "netns", second)
        ip("-n", first, "link", "add", "ens5", *cable)
        for node, space in spaces.items():
            ip("-n", space, "addr", "add", f"{ADDRESSES[node]}/24", "dev", "ens5")
            ip("-n", space, "link", "set", "ens5", "up")
        yield spaces
    finally:
        for space in spaces.values():
            subprocess.run(["ip", "netns", "del", space], check=False)


@dataclass(frozen=True)
class Command:
    argv: list[str]
    env: dict[str, str]


def planned() -> dict[str, Command]:
    """What the plan runs on each node, with this machine's places in it."""
    moe = [Path(sys.executable).with_name("moe"), "plan", "--stack", "rehearsal", "--json"]
    shown = subprocess.run(moe, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    weights = str(model.ensure(CHECKOUT / "build/models" / MODEL))
    here = {
        "/opt/vllm/bin/python": str(vllm.python(vllm.ensure())),
        f"/var/lib/moe/models/{MODEL}": weights,
        "${SERVE_0_0_ADDRESS}": ADDRESSES[NODES[0]],
        "${PRIMARY_INTERFACE}": "ens5",
    }
    return {
        node["name"]: Command(
            [here.get(word, word) for word in node["argv"]],
            {name: here.get(value, value) for name, value in node["env"].items()},
        )
        for group in json.loads(shown)["groups"]
        for node in group["nodes"]
    }


def answers(space: str) -> bool:
    body = json.dumps({"model": MODEL, "prompt": "a", "max_tokens": 1})
    url = f"http://{ADDRESSES[NODES[0]]}:{API_PORT}/v1/completions"
    curl = ["curl", "-sf", "-m", "5", "-H", "Content-Type: application/json", "-d", body, url]
    asked = ["ip", "netns", "exec", space, *curl]
    return subprocess.run(asked, check=False, capture_output=True).returncode == 0


def by_hand(commands: dict[str, Command], folder: Path) -> float:
    """Seconds from starting primary and headless until the first answer."""
    with two_namespaces() as spaces, contextlib.ExitStack() as running:
        caches = {}
        for node in NODES:
            caches[node] = folder / node / "cache"
            shutil.copytree(vllm.model_info_cache(vllm.ensure()), caches[node])
        began = time.monotonic()
        for node in NODES:
            env = {**os.environ, **commands[node].env, "VLLM_CACHE_ROOT": str(caches[node])}
            log = running.enter_context((folder / node / "log").open("wb"))
            process = subprocess.Popen(
                ["ip", "netns", "exec", spaces[node], *commands[node].argv],
                env=env,
                cwd=folder / node,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            running.callback(end_session, process)
        while not answers(spaces[NODES[0]]):
            assert time.monotonic() - began < 300
            time.sleep(0.1)
        return time.monotonic() - began


def timed(stack: Rehearsed, verb: str) -> float:
    began = time.monotonic()
    stack.run(verb)
    return time.monotonic() - began


def test_up_beside_engines_started_by_hand(tmp_path, capsys) -> None:
    commands = planned()
    rows = []
    for turn in range(ROUNDS):
        hand = by_hand(commands, tmp_path / f"hand-{turn}")
        stacks = write_stack(tmp_path / f"stacks-{turn}")
        stack = Rehearsed(tmp_path / f"home-{turn}", stacks)
        try:
            rows.append((hand, timed(stack, "up"), timed(stack, "up")))
        finally:
            stack.run("down")
    with capsys.disabled():
        print("\nround  by hand  make up  ratio  make up, no change")
        for turn, (hand, up, again) in enumerate(rows):
            print(f"{turn:5}  {hand:5.1f} s  {up:5.1f} s  {up / hand:5.2f}  {again:5.1f} s")
    hand, up, again = (min(column) for column in zip(*rows, strict=True))
    with capsys.disabled():
        print(f" best  {hand:5.1f} s  {up:5.1f} s  {up / hand:5.2f}  {again:5.1f} s")
