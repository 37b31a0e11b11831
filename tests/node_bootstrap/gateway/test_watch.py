"""The gateway's eyes on real agents' HTTP and stand-ins for engines."""

from __future__ import annotations

import dataclasses
import json
import socket
import time

import pytest
from prometheus_client import CollectorRegistry

from node_bootstrap import assignment as a
from node_bootstrap.agent.protocol import LeaveOrder
from node_bootstrap.agent.server import AgentServer, Answers
from node_bootstrap.gateway import handover, membership, pair_probe, pairs
from node_bootstrap.gateway import watch as watching
from node_bootstrap.gateway.watch import Watch
from node_bootstrap.leaving import Leaving
from node_bootstrap.status import GroupReport, PairReport, Restart
from node_bootstrap.transfer.judge import outcome
from node_bootstrap.transfer.pair import MeasureReport

READY = GroupReport("r1", 1, "ready", 0.0, ())
TRANSFER = a.KvTransfer("NixlConnector", ("UCX",), "tcp", 5600, restart_with_peer=True)


class Group:
    """A group's primary: its agent, and its engine."""

    def __init__(self, name, address, agent_port, engine):
        self.name, self.engine, self.report, self.orders = name, engine, READY, []
        self.address, self.agent_port = address, agent_port
        self.gb_per_second, self.transfer = 3.5, None
        registry = CollectorRegistry()
        asked = (lambda: "token", lambda _: None, lambda: self.report, registry, self.order)
        answers = Answers(*asked, CollectorRegistry(), self.measure)
        self.agent = AgentServer((address, agent_port), answers)

    def order(self, order):
        self.orders.append(order)
        return True

    def measure(self, order):
        """As a node whose measurement is done at once."""
        wanted, first = order.transfer, self.name.startswith("prefill")
        if wanted is None:
            return MeasureReport(self.name, ready=True)
        figure = {"name": "nixl_dram", "gb_per_second": self.gb_per_second}
        said = f"TRANSFER {json.dumps([figure | {'payload_bytes': 1, 'times': 1}])}\n"
        made = outcome(dataclasses.replace(wanted, nixl=()), said, 1.0, first=first)
        return MeasureReport(self.name, ready=True, token=order.token, outcome=made)

    def change(self, **changes):
        self.report = dataclasses.replace(self.report, **changes)

    def close(self):
        self.agent.shutdown()
        self.agent.server_close()

    def told(self):
        role = self.name.partition("-")[0]
        member = a.Member(f"{self.name}-0", self.address, "primary", 0, 1)
        url = f"http://127.0.0.1:{self.engine.server_port}"
        transfer = TRANSFER if role == "decode" else None
        return a.GatewayGroup(self.name, role, (url,), 1, (member,), transfer, self.transfer)


@pytest.fixture
def agent_port():
    """Free on all addresses, since every group's agent listens at the same one."""
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]


@pytest.fixture
def groups(make_engine, agent_port):
    made = {}
    for place, name in enumerate(("prefill-0", "decode-0", "serve-0"), start=11):
        made[name] = Group(name, f"127.0.0.{place}", agent_port, make_engine())
    yield made
    for group in made.values():
        group.close()


@pytest.fixture
def bucket():
    """What the program left for the gateway."""
    return {}


@pytest.fixture
def watch(groups, bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(pair_probe, "COUNTERS_SECONDS", 0.3)
    monkeypatch.setattr(membership, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(membership, "REPEAT_SECONDS", 0.5)
    monkeypatch.setattr(pairs, "ORDER_AGAIN_SECONDS", 0.5)
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(handover, "READ_SECONDS", 0.0)
    monkeypatch.setattr(handover, "LOOK_SECONDS", 0.05)
    said = (lambda: "token", lambda: "key", tmp_path, lambda: None)
    watch = Watch(
        told(groups.values()),
        *said,
        routed=lambda: routed(watch),
        leaving=lambda: bucket.get("leaving"),
    )
    watch.start()
    yield watch
    watch.close()


def told(groups):
    """The gateway's assignment, as far as this reads it."""
    groups = list(groups)
    probe = a.Probe("m", "Hello", 1.0, 2.0)
    limits = a.Limits(start_seconds=10.0, stop_seconds=1.0, silence_seconds=3.0)
    gateway = a.Gateway(
        port=443,
        groups=tuple(group.told() for group in groups),
        keys=(),
        router_argv=(),
        tls=None,
        ca_key="",
        packages={},
        limits=a.GatewayLimits(1, 1.0, 1.0, 1, 60.0),
    )
    empty = {
        f.name: "" for f in dataclasses.fields(a.Assignment) if f.default is dataclasses.MISSING
    }
    said = {"agent_port": groups[0].agent_port, "probe": probe, "limits": limits}
    return a.Assignment(**empty | said | {"gateway": gateway})  # pyright: ignore[reportArgumentType]


def wait(holds, seconds=120.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


def routed(watch):
    found = watch.view().membership
    return {*found.serve, *found.prefill, *found.decode}


ALL = {"prefill-0", "decode-0", "serve-0"}


def test_groups_enter_once_their_pair_is_proven(watch, groups):
    wait(lambda: routed(watch) == ALL)
    (pair,) = watch.view().pairs
    assert (pair.prefill, pair.decode, pair.ok) == ("prefill-0 r1/1", "decode-0 r1/1", True)
    assert groups["decode-0"].engine.transfers >= 1


@pytest.fixture
def unmoved(groups):
    """Before anybody watches: a pair that was once proven would be told to start anew instead."""
    groups["decode-0"].engine.moves = False


def test_a_pair_whose_kv_does_not_move_stays_out_and_says_so(groups, unmoved, watch):
    wait(lambda: routed(watch) == {"serve-0"})
    wait(lambda: any("computed the prompt itself" in g.why for g in watch.view().groups))


FLOOR = a.Transfer("require", {"nixl_dram": 2.0}, nixl=("UCX",), limit_seconds=1.0)


@pytest.fixture
def slow(groups):
    """Before anybody watches: a link below the floor."""
    groups["decode-0"].transfer = FLOOR
    groups["prefill-0"].gb_per_second = 0.002


def test_a_pair_below_its_floor_stays_out_with_the_number_until_it_is_above(groups, slow, watch):
    wait(lambda: routed(watch) == {"serve-0"} and watch.view().pairs)
    (pair,) = watch.view().pairs
    assert "nixl_dram moves 0.002 GB/s, the floor is 2" in pair.reason
    assert groups["decode-0"].engine.transfers == 0, "no completion is sent through it"
    assert any("0.002 GB/s" in group.why for group in watch.view().groups)
    groups["prefill-0"].gb_per_second = 3.5
    wait(lambda: routed(watch) == ALL)
    (pair,) = watch.view().pairs
    assert [item.gb_per_second for item in pair.transfer.items] == [3.5]


def test_a_floor_that_comes_later_takes_a_pair_out_that_serves(groups, watch):
    wait(lambda: routed(watch) == ALL)
    groups["prefill-0"].gb_per_second = 0.002
    groups["decode-0"].transfer = FLOOR
    watch.assign(told(groups.values()))
    wait(lambda: routed(watch) == {"serve-0"})
    groups["prefill-0"].gb_per_second = 3.5
    wait(lambda: routed(watch) == ALL)


def test_a_group_whose_agent_falls_silent_leaves(watch, groups):
    wait(lambda: routed(watch) == ALL)
    groups["serve-0"].close()
    wait(lambda: "serve-0" not in routed(watch))
    (why,) = [g.why for g in watch.view().groups if g.name == "serve-0"]
    assert why == "serve-0: has not been heard of for more than 3 s"


def test_a_group_that_dies_with_its_agent_leaves_with_the_first_completion_that_fails(
    watch, groups
):
    wait(lambda: routed(watch) == ALL)
    dead = groups["decode-0"]
    dead.engine.shutdown()
    dead.engine.server_close()
    dead.close()
    wait(lambda: shown(watch, "decode-0").why.startswith("decode-0: its agent doesn't answer"))
    assert "decode-0" not in routed(watch)


def test_a_pair_that_served_and_answers_wrongly_leaves(watch, groups):
    wait(lambda: routed(watch) == ALL)
    groups["decode-0"].engine.tokens = ["a", "z"]
    wait(lambda: routed(watch) == {"serve-0"})


def test_a_pair_that_served_and_is_late_under_load_stays(watch, groups):
    wait(lambda: routed(watch) == ALL)
    engine = groups["decode-0"].engine
    engine.status = 429
    began = time.monotonic()
    while time.monotonic() - began < 2:
        assert routed(watch) == ALL
        time.sleep(0.1)
    assert engine.transfers > 1, "it was tried meanwhile"


def test_a_pair_that_served_and_answers_errors_leaves_though_it_moves_blocks_for_others(
    watch, groups
):
    wait(lambda: routed(watch) == ALL)
    groups["decode-0"].engine.status = 500
    wait(lambda: routed(watch) == {"serve-0"})


def test_a_pair_that_served_and_is_late_because_it_loses_blocks_leaves(watch, groups):
    wait(lambda: routed(watch) == ALL)
    engine = groups["decode-0"].engine
    engine.status, engine.loses = 429, 1
    wait(lambda: routed(watch) == {"serve-0"})


def test_one_lost_answer_of_a_pair_that_served_is_asked_for_again(watch, groups, monkeypatch):
    wait(lambda: routed(watch) == ALL)
    probe, once = pairs.probe_pair, []

    def loses_one(*asked):
        report = probe(*asked)
        if once:
            return report
        once.append(report)
        return dataclasses.replace(report, ok=False, reason="lost")

    monkeypatch.setattr(pairs, "probe_pair", loses_one)
    wait(lambda: once)
    end = time.monotonic() + 1
    while time.monotonic() < end:
        assert routed(watch) == ALL
        time.sleep(0.05)


def test_decode_is_told_to_start_anew_after_its_prefill_did(watch, groups):
    wait(lambda: routed(watch) == ALL)
    groups["prefill-0"].change(generation=2)
    decode = groups["decode-0"]
    wait(lambda: decode.orders)
    assert (decode.orders[0].revision, decode.orders[0].generation) == ("r1", 1)
    assert "prefill-0 started anew (generation 2)" in decode.orders[0].cause
    wait(lambda: "decode-0" not in routed(watch))
    decode.change(generation=2)
    wait(lambda: routed(watch) == ALL)


def test_who_met_whom_is_remembered_over_the_agents_death(watch, groups, tmp_path):
    wait(lambda: routed(watch) == ALL)
    watch.close()
    groups["prefill-0"].change(generation=2)
    again = Watch(told(groups.values()), lambda: "token", lambda: "key", tmp_path, lambda: None)
    again.start()
    try:
        wait(lambda: groups["decode-0"].orders)
    finally:
        again.close()


def test_groups_of_a_new_assignment_come_and_go(watch, groups):
    wait(lambda: routed(watch) == ALL)
    watch.assign(told([groups["serve-0"]]))
    wait(lambda: [g.name for g in watch.view().groups] == ["serve-0"])
    assert routed(watch) == {"serve-0"}
    watch.assign(told(groups.values()))
    wait(lambda: routed(watch) == ALL)


IDLE = 'vllm:num_requests_running{engine="0"} 0.0\n'


def test_a_group_that_wants_another_revision_leaves_is_idle_and_gets_leave(watch, groups):
    wait(lambda: routed(watch) == ALL)
    serve = groups["serve-0"]
    serve.engine.metrics = IDLE.replace("0.0", "1.0")
    serve.change(wants="r2")
    wait(lambda: "serve-0" not in routed(watch))
    time.sleep(2.5)
    assert not serve.orders, "it still answers somebody"
    serve.engine.metrics = IDLE
    wait(lambda: serve.orders == [LeaveOrder("r1", 1, "r2")])
    serve.change(revision="r2", generation=2, wants="")
    wait(lambda: routed(watch) == ALL)


def test_a_group_whose_nodes_end_soon_leaves_and_is_drained_once_idle(watch, groups, bucket):
    serve = groups["serve-0"]
    serve.change(restarts=(Restart(1, "r1", "first start", 100.0),))
    wait(lambda: routed(watch) == ALL)
    serve.engine.metrics = IDLE.replace("0.0", "1.0")
    bucket["leaving"] = Leaving(1, {"serve-0": 100.0}, time.time() + 60)
    wait(lambda: "serve-0" not in routed(watch))
    time.sleep(0.5)
    assert not shown(watch, "serve-0").drained, "it still answers somebody"
    assert shown(watch, "serve-0").why.endswith("its nodes are about to be replaced")
    serve.engine.metrics = IDLE
    wait(lambda: shown(watch, "serve-0").drained)
    serve.change(restarts=(Restart(1, "r1", "first start", 200.0),))
    wait(lambda: routed(watch) == ALL)
    assert not shown(watch, "serve-0").drained


def test_a_word_of_leaving_is_void_after_its_time(watch, groups, bucket):
    groups["serve-0"].change(restarts=(Restart(1, "r1", "first start", 100.0),))
    bucket["leaving"] = Leaving(1, {"serve-0": 100.0}, time.time() + 5.0)
    wait(lambda: bool(watch.view().groups) and "serve-0" not in routed(watch))
    wait(lambda: "serve-0" in routed(watch))


def shown(watch, name):
    return next(group for group in watch.view().groups if group.name == name)


def test_failures_in_a_row_are_counted_for_the_same_lives_alone():
    def report(decode: str, *, ok: bool) -> PairReport:
        return PairReport("p 1/1", decode, ok, "" if ok else "why", 1.0, 0, 0, 0, 1.0)

    last, counts = None, []
    for decode, ok in [("d 1/1", False), ("d 1/1", False), ("d 1/2", False), ("d 1/2", True)]:
        last = pairs.counted(report(decode, ok=ok), last)
        counts.append(last.failures)
    assert counts == [1, 2, 1, 0]
