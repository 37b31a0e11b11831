"""Two prefill and two decode groups: one of each is lost for good, and service stays."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefill_decode import PREFILL, STACK, PrefillDecode, write_pd_stack
from rehearsed import CHECKOUT, PROMPTS, own_network, running
from under_load import Door, Load

from rehearsal.machine import faults
from rehearsal.paths import Home

pytestmark = pytest.mark.drill

STAY, LOST = {"prefill-0", "decode-0"}, {"prefill-1", "decode-1"}
NOTICED_SECONDS, AWAY_SECONDS = 10, 30
LONG, TOKENS = "A stream that outlives its router", 300
DIE = """systemctl kill --signal=KILL moe-node.service moe-role.service
systemctl stop moe-node.service moe-role.service"""
"""Both at once, and nothing starts them again."""


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefillDecode]:
    folder = tmp_path_factory.mktemp("pairs")
    # In turn: otherwise a prompt that was seen goes where it went before, and two groups idle.
    gateway = {"policy": "round_robin"}
    stacks = write_pd_stack(folder / "stacks", own_network(6), gateway=gateway, nodes=1, replicas=2)
    with running(PrefillDecode(folder / "home", stacks)) as stack:
        yield stack


def have(pairs: PrefillDecode, *command: str) -> None:
    """Do this on the nodes of the groups that are lost, at the same time."""
    home, ids = Home(pairs.root), pairs.instances()
    workers = [
        threading.Thread(target=faults.run, args=(home, ids[f"{group}-0"], command))
        for group in LOST
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def routed(pairs: PrefillDecode) -> set[str]:
    return {group.name for group in pairs.gateway().groups if group.routed}


def shown(pairs: PrefillDecode) -> dict[str, str]:
    """Group -> what `moe status` says of its place behind the gateway."""
    moe = Path(sys.executable).with_name("moe")
    done = subprocess.run(
        [moe, "status", "--stack", STACK, "--json"],
        cwd=CHECKOUT,
        env=pairs.tool_env,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = {line["name"]: line for line in json.loads(done.stdout)["groups"]}
    return lines["gateway"]["members"]


def changes(pairs: PrefillDecode, lost: float) -> list[tuple[float, set[str], str]]:
    """(seconds since, groups that the router has, why) of each change of the router since then."""
    found = pairs.gateway().changes
    return [(round(c.at - lost, 1), set(c.routed), c.cause) for c in found if c.at >= lost]


def journal(pairs: PrefillDecode) -> str:
    """What the gateway's agent and relay said, for a drill that went wrong."""
    units = ("-u", "moe-node", "-u", "moe-relay")
    command = ("journalctl", "--no-pager", "-o", "short-precise", "-n", "80", *units)
    return pairs.inside("gateway", *command, check=False)


def proven(pairs: PrefillDecode) -> set[tuple[str, str]]:
    """Pairs through which a completion went in the lives that their groups have now."""
    gateway = pairs.gateway()
    lives = {f"{g.name} {g.revision}/{g.generation}" for g in gateway.groups}
    return {
        (pair.prefill.split()[0], pair.decode.split()[0])
        for pair in gateway.pairs
        if pair.ok and {pair.prefill, pair.decode} <= lives
    }


def test_one_group_of_each_role_is_lost_and_comes_back_under_requests(
    pairs: PrefillDecode, drills: list[dict[str, Any]], reference
) -> None:
    pairs.wait("all four serve", pairs.in_full, 240)
    lives = {group: pairs.report(f"{group}-0").generation for group in LOST}
    alone = pairs.ask(PREFILL[0], {"prompt": LONG, "max_tokens": TOKENS})
    door = Door.of(pairs.outputs())
    load = Load(door, {p: reference[p].text for p in PROMPTS})
    streams = Load(door, {LONG: alone.text}, max_tokens=TOKENS, per_second=0.5, streams_only=True)
    with load.running():
        time.sleep(3)
        lost = time.time()
        have(pairs, "sh", "-c", DIE)
        pairs.wait("two are left", lambda: routed(pairs) == STAY, 60)
        time.sleep(AWAY_SECONDS)
        assert routed(pairs) == STAY, "they stay away"
        told = shown(pairs)
        with streams.running():
            back = time.time()
            have(pairs, "systemctl", "start", "moe-node.service")
            pairs.wait("full strength", lambda: pairs.in_full(lives), 300)
            full = time.time() - back
        time.sleep(3)
    seen = changes(pairs, lost)
    left = next(seconds for seconds, groups, _ in seen if groups == STAY)
    row = load.row(
        "one prefill and one decode group of two lost for good",
        lost,
        left_seconds=left,
        full_seconds=round(full, 1),
        failed_once_noticed=len(load.failed(lost + NOTICED_SECONDS)),
        long_streams=len(streams.sent),
    )
    drills.append({"of": "two pairs", **row})
    print(row, told, seen)
    assert left <= NOTICED_SECONDS
    assert {group for group, place in told.items() if place.startswith("out: ")} == LOST
    assert not load.wrong(), load.wrong()
    late = load.failed(lost + NOTICED_SECONDS)
    assert not late, (late, journal(pairs))
    # Before that, a stream of which an event had passed may be cut, and says so.
    assert {one.end for one in load.failed()} <= {"error event"}, (load.failed(), journal(pairs))
    assert proven(pairs) == {
        (p, d) for p in ("prefill-0", "prefill-1") for d in ("decode-0", "decode-1")
    }
    assert not streams.failed(), streams.failed()
    assert not streams.wrong(), streams.wrong()
