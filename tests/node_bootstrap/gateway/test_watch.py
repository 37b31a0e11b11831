"""The gateway's eyes on real agents' HTTP and stand-ins for engines."""

from __future__ import annotations

import dataclasses
import time

import pytest
from prometheus_client import CollectorRegistry

from node_bootstrap import assignment as a
from node_bootstrap.agent.server import AgentServer, Answers
from node_bootstrap.gateway import membership, pair_probe, pairs
from node_bootstrap.gateway import watch as watching
from node_bootstrap.gateway.watch import Watch
from node_bootstrap.status import GroupReport

READY = GroupReport("r1", 1, "ready", 0.0, ())
TRANSFER = a.KvTransfer("NixlConnector", ("UCX",), "tcp", 5600, restart_with_peer=True)


class Group:
    """A group's primary: its agent, and its engine."""

    def __init__(self, name, address, engine):
        self.name, self.engine, self.report, self.orders = name, engine, READY, []
        self.address = address
        answers = Answers(
            lambda: "token", lambda _: None, lambda: self.report, CollectorRegistry(), self.order
        )
        self.agent = AgentServer((address, 19400), answers)

    def order(self, order):
        self.orders.append(order)
        return True

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
        return a.GatewayGroup(self.name, role, (url,), 1, (member,), transfer)


@pytest.fixture
def groups(make_engine):
    made = {}
    for place, name in enumerate(("prefill-0", "decode-0", "serve-0"), start=11):
        made[name] = Group(name, f"127.0.0.{place}", make_engine())
    yield made
    for group in made.values():
        group.close()


@pytest.fixture
def watch(groups, tmp_path, monkeypatch):
    monkeypatch.setattr(pair_probe, "COUNTERS_SECONDS", 0.3)
    monkeypatch.setattr(membership, "RETRY_SECONDS", 0.5)
    monkeypatch.setattr(membership, "REPEAT_SECONDS", 0.5)
    monkeypatch.setattr(pairs, "ORDER_AGAIN_SECONDS", 0.5)
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.1)
    watch = Watch(told(groups.values()), lambda: "token", lambda: "key", tmp_path, lambda: None)
    watch.start()
    yield watch
    watch.close()


def told(groups):
    """The gateway's assignment, as far as this reads it."""
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
        limits=a.GatewayLimits(1, 1.0, 1.0, 1, 1.0),
    )
    empty = {
        f.name: "" for f in dataclasses.fields(a.Assignment) if f.default is dataclasses.MISSING
    }
    return a.Assignment(
        **empty | {"agent_port": 19400, "probe": probe, "limits": limits, "gateway": gateway}  # pyright: ignore[reportArgumentType]
    )


def wait(holds, seconds=10.0):
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


def test_a_pair_whose_kv_does_not_move_stays_out_and_says_so(groups, watch):
    groups["decode-0"].engine.moves = False
    groups["prefill-0"].change(generation=2)
    wait(lambda: routed(watch) == {"serve-0"})
    wait(lambda: any("computed the prompt itself" in g.why for g in watch.view().groups))


def test_a_group_whose_agent_falls_silent_leaves(watch, groups):
    wait(lambda: routed(watch) == ALL)
    groups["serve-0"].close()
    wait(lambda: "serve-0" not in routed(watch))
    (why,) = [g.why for g in watch.view().groups if g.name == "serve-0"]
    assert why == "serve-0: has not been heard of for more than 3 s"


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


def test_decode_is_told_to_start_anew_after_its_prefill_did(watch, groups):
    wait(lambda: routed(watch) == ALL)
    groups["prefill-0"].change(generation=2)
    decode = groups["decode-0"]
    wait(lambda: decode.orders)
    assert (decode.orders[0].revision, decode.orders[0].generation) == ("r1", 1)
    assert "prefill-0 started anew (generation 2)" in decode.orders[0].cause
    assert "decode-0" not in routed(watch)
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
