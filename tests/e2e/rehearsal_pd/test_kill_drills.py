"""Prefill and decode behind a gateway, four requests a second, and each part killed in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from prefill_decode import DECODE, PREFILL, STACK, PrefillDecode
from rehearsed import PROMPTS
from under_load import Door, Load

from rehearsal.machine import faults
from rehearsal.paths import Home

Rows = list[dict[str, Any]]
Change = Callable[[Callable[[dict[str, Any]], None]], None]
LEAVES_WITHIN_SECONDS = 10
MAIN, ENGINE = "vllm.entrypoints.cli.main serve", "VLLM::EngineCore"
EVERY_GROUP = [
    pytest.param(("decode group killed", DECODE[0], ENGINE), marks=pytest.mark.e2e),
    pytest.param(("prefill group killed", PREFILL[0], ENGINE), marks=pytest.mark.drill),
    pytest.param(("decode API server killed", DECODE[0], MAIN), marks=pytest.mark.drill),
    pytest.param(("headless node of decode killed", DECODE[1], MAIN), marks=pytest.mark.drill),
    pytest.param(("headless node of prefill killed", PREFILL[1], MAIN), marks=pytest.mark.drill),
]


def dies(pd: PrefillDecode, node: str, pattern: str) -> float:
    """Kill processes of a node's group, wait for full strength; when that was done."""
    group = node.rpartition("-")[0]
    before = pd.report(f"{group}-0").generation
    killed = time.time()
    faults.kill(Home(pd.root), pd.instances()[node], pattern)
    pd.wait(f"full strength, {group} anew", lambda: pd.in_full({group: before}), 240)
    return killed


def keep(drills: Rows, row: dict[str, Any]) -> None:
    """For build/drills.json, and for whoever looks on."""
    drills.append({"of": "prefill-decode", **row})
    print(row)


def left_at(pd: PrefillDecode, since: float) -> float:
    """When the gateway first sent no more to somebody."""
    gateway = pd.status("gateway").gateway
    assert gateway is not None
    changes = [c for c in gateway.changes if c.at >= since]
    return next(c.at for c in changes if c.cause.startswith(("requests wait", "left:")))


def journals(pd: PrefillDecode, since: float) -> str:
    """What every node's vLLM said, for a drill that went wrong."""
    command = ("journalctl", "--no-pager", "-o", "cat", "-n", "60", "-u", "moe-role.service")
    told = [f"== {n}\n{pd.inside(n, *command, check=False)}" for n in (*PREFILL, *DECODE)]
    return f"since {since}\n" + "\n".join(told)


@pytest.fixture
def change(pd: PrefillDecode) -> Iterator[Change]:
    """Have settings of the stack be others, by `up`; afterwards they are as they were."""
    file = pd.stacks / f"Pulumi.{STACK}.yaml"
    before = file.read_text()

    def apply(edit: Callable[[dict[str, Any]], None]) -> None:
        data = yaml.safe_load(before)
        edit(data["config"])
        file.write_text(yaml.safe_dump(data, sort_keys=False))
        pd.run("up")

    yield apply
    file.write_text(before)
    pd.run("up")


@pytest.fixture
def load(pd: PrefillDecode, reference) -> Load:
    pd.wait("everything is in", pd.in_full, 180)
    return Load(Door.of(pd.outputs()), {p: reference[p].text for p in PROMPTS})


@pytest.mark.parametrize("kill", EVERY_GROUP, ids=lambda kill: kill[0])
def test_a_group_that_dies_fails_no_request_that_was_not_yet_answered_in_part(
    pd: PrefillDecode, drills: Rows, load: Load, kill: tuple[str, str, str]
) -> None:
    name, node, pattern = kill
    with load.running():
        time.sleep(3)
        killed = dies(pd, node, pattern)
        full = time.time() - killed
        time.sleep(2)
    left = left_at(pd, killed) - killed
    row = load.row(name, killed, left_seconds=round(left, 1), full_seconds=round(full, 1))
    keep(drills, row)
    assert not load.wrong(), load.wrong()
    assert left <= LEAVES_WITHIN_SECONDS
    # Only a stream of which an event had passed may fail, and it says so.
    cut = load.failed()
    assert {one.end for one in cut} <= {"error event"}, (cut, journals(pd, killed))
    assert all(one.at < killed + LEAVES_WITHIN_SECONDS for one in cut)


SILENT = [("link of decode cut", DECODE[0]), ("link of prefill cut", PREFILL[0])]


@pytest.mark.drill
@pytest.mark.parametrize("lost", SILENT, ids=lambda lost: lost[0])
def test_a_node_that_is_gone_without_a_word_holds_no_request(
    pd: PrefillDecode, drills: Rows, load: Load, lost: tuple[str, str]
) -> None:
    name, node = lost
    group, home, instance = node.rpartition("-")[0], Home(pd.root), pd.instances()[node]
    before = pd.report(node).generation
    try:
        with load.running():
            time.sleep(3)
            cut = time.time()
            faults.cut_link(home, instance)
            time.sleep(30)
            faults.restore_link(home, instance)
            restored = time.time()
            pd.wait("full strength", lambda: pd.in_full({group: before}), 240)
            full = time.time() - restored
            time.sleep(2)
    finally:
        faults.restore_link(home, instance)
    left = left_at(pd, cut) - cut
    row = load.row(name, restored, left_seconds=round(left, 1), full_seconds=round(full, 1))
    keep(drills, row)
    assert not load.wrong(), load.wrong()
    assert left <= LEAVES_WITHIN_SECONDS
    assert {one.end for one in load.failed()} <= {"error event"}, load.failed()
    assert all(one.at < cut + LEAVES_WITHIN_SECONDS for one in load.failed())


@pytest.mark.drill
def test_where_decode_must_not_meet_a_second_life_of_prefill_it_starts_anew_as_well(
    pd: PrefillDecode, drills: Rows, load: Load, change: Change
) -> None:
    """As on every GPU type, and on CPU before 0.32."""
    anew = {"restart_with_peer": True}
    change(lambda config: config["moe-serving:groups"]["decode"].update(kv_transfer=anew))
    pd.wait("everything is in", pd.in_full, 180)
    before = {group: pd.report(f"{group}-0").generation for group in ("prefill-0", "decode-0")}
    with load.running():
        time.sleep(3)
        killed = time.time()
        faults.kill(Home(pd.root), pd.instances()[PREFILL[0]], ENGINE)
        pd.wait("full strength, both anew", lambda: pd.in_full(before), 300)
        full = time.time() - killed
        time.sleep(2)
    name = "prefill killed, decode starts anew with it"
    row = load.row(name, killed, full_seconds=round(full, 1))
    keep(drills, row)
    assert "prefill-0 started anew" in pd.report(DECODE[0]).restarts[-1].cause
    assert not load.wrong(), load.wrong()
    assert {one.end for one in load.failed()} <= {"error event"}, load.failed()


@pytest.mark.drill
def test_a_stream_that_is_cut_ends_with_an_error_event_and_right_text(
    pd: PrefillDecode, load: Load
) -> None:
    before = pd.report(DECODE[0]).generation
    whole = load.door.ask("Cut in the middle", streamed=True, max_tokens=300)
    assert whole.end == "whole", whole
    killed = threading.Timer(
        whole.seconds / 3,
        lambda: faults.kill(Home(pd.root), pd.instances()[DECODE[0]], MAIN),
    )
    killed.start()
    cut = load.door.ask("Cut in the middle", streamed=True, max_tokens=300)
    assert cut.end == "error event", cut
    assert whole.text.startswith(cut.text)
    assert 0 < len(cut.text) < len(whole.text)
    pd.wait("full strength", lambda: pd.in_full({"decode-0": before}), 180)


def kill_unit(pd: PrefillDecode, unit: str) -> None:
    pd.inside("gateway", "systemctl", "kill", "--signal=KILL", unit)


ONE_PROCESS = [
    ("router killed", "moe-router@*.service", 8),
    ("Caddy killed", "moe-caddy.service", 8),
    ("key check killed", "moe-desk.service", 2),
    ("relay killed", "moe-relay.service", 8),
    ("agent of the gateway killed", "moe-node.service", 0),
]


@pytest.mark.drill
@pytest.mark.parametrize("kill", ONE_PROCESS, ids=lambda kill: kill[0])
def test_what_dies_on_the_gateway_is_back_at_once(
    pd: PrefillDecode, drills: Rows, load: Load, kill: tuple[str, str, int]
) -> None:
    name, unit, most = kill
    with load.running():
        time.sleep(3)
        killed = time.time()
        kill_unit(pd, unit)
        done = time.time()
        time.sleep(8)
    pd.wait("full strength", pd.in_full, 60)
    # Nobody left, so being served again is full strength.
    row = load.row(name, done, left_seconds=0.0, full_seconds=round(load.served_after(done), 1))
    keep(drills, row)
    assert not load.wrong(), load.wrong()
    assert len(load.failed()) <= most, load.failed()
    assert not load.failed(done + 3), "what came later was served"
    assert killed < done


@pytest.mark.drill
def test_agent_of_the_gateway_and_a_group_die_together(
    pd: PrefillDecode, drills: Rows, load: Load
) -> None:
    before = pd.report(PREFILL[0]).generation
    with load.running():
        time.sleep(3)
        killed = time.time()
        faults.kill(Home(pd.root), pd.instances()[PREFILL[0]], MAIN)
        kill_unit(pd, "moe-node.service")
        pd.wait("full strength", lambda: pd.in_full({"prefill-0": before}), 180)
        full = time.time() - killed
    row = load.row("agent of the gateway and prefill killed", killed, full_seconds=round(full, 1))
    keep(drills, row)
    assert not load.wrong(), load.wrong()
    assert {one.end for one in load.failed()} <= {"error event"}, load.failed()


@pytest.mark.drill
def test_an_agent_of_the_gateway_that_hangs_is_ended_by_systemds_watchdog(
    pd: PrefillDecode, drills: Rows, load: Load
) -> None:
    before = pd.status("gateway").agent_started_at
    with load.running():
        time.sleep(3)
        hung = time.time()
        pd.inside("gateway", "systemctl", "kill", "--signal=STOP", "moe-node.service")
        pd.wait("another agent", lambda: pd.status("gateway").agent_started_at > before, 100)
        pd.wait("full strength", pd.in_full, 60)
        full = time.time() - hung
    row = load.row("agent of the gateway hangs", hung, full_seconds=round(full, 1))
    keep(drills, row)
    assert not load.wrong(), load.wrong()
    assert not load.failed(), load.failed()


def keys(*names: str) -> Callable[[dict[str, Any]], None]:
    """The stack's keys are these."""
    listed = [{"name": name} for name in names]
    return lambda config: config["moe-serving:endpoint"].update(keys=listed)


@pytest.mark.drill
def test_a_key_is_rotated_without_a_request_that_fails(
    pd: PrefillDecode, drills: Rows, load: Load, change: Change
) -> None:
    change(keys("default", "next"))
    old, new = Door.of(pd.outputs(), "default"), Door.of(pd.outputs(), "next")
    moved = Load(new, load.expected)
    with moved.running():
        time.sleep(3)
        began = time.time()
        change(keys("next"))
        took = time.time() - began
        assert old.ask("Hello", streamed=False).code == 401
        time.sleep(2)
    row = moved.row("key rotated: the old one revoked by `up`", began, full_seconds=0.0)
    drills.append({"of": "prefill-decode", **row, "up_seconds": round(took, 1)})
    print(row)
    assert not moved.wrong(), moved.wrong()
    assert not moved.failed()


@pytest.mark.drill
def test_the_only_decode_group_takes_up_new_settings_and_requests_wait(
    pd: PrefillDecode, drills: Rows, load: Load, change: Change
) -> None:
    before = pd.report(DECODE[0])
    with load.running():
        time.sleep(3)
        began = time.time()
        change(lambda config: config["moe-serving:groups"]["decode"].update(max_num_seqs=48))
        took = time.time() - began
        time.sleep(2)
    row = load.row("decode group updated in place", began, full_seconds=round(took, 1))
    keep(drills, row)
    assert pd.report(DECODE[0]).revision != before.revision
    assert not load.wrong(), load.wrong()
    assert not load.failed(), load.failed()
