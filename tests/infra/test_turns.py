"""When the nodes of a group may be replaced, and the order of the groups."""

from __future__ import annotations

import dataclasses

import pytest

from infra import turns
from infra.readiness import Deployment, ExpectedGroup, ExpectedNode, Failed, Waiting
from node_bootstrap.status import (
    Fault,
    GatewayReport,
    GroupReport,
    PairReport,
    Restart,
    RoutedGroup,
    Status,
)
from tests.infra.reports import pair

EARLIER = Deployment(
    schema=1,
    stack="dev",
    region="us-east-1",
    bucket="b",
    endpoint="",
    model="tiny",
    vllm_version="0.32.0",
    nodes={"serve-0-0": ExpectedNode("i-new", "10.0.0.1", "r2", "a1")},
    groups={"serve-0": ExpectedGroup(("serve-0-0",), "r2", ranks=0, expert_parallel_size=1)},
)
NOBODY = dataclasses.replace(EARLIER, nodes={}, groups={})
TURN = turns.Turn("serve-1", ("serve-0",), EARLIER, "gateway", "serve-1-0")
READY = GroupReport("r2", 4, "ready", 0.0, ())


def node(**changes) -> Status:
    made = Status(
        schema=1,
        node="serve-0-0",
        instance_id="i-new",
        boot_id="b",
        updated_at=1.0,
        phase="role",
        archive_sha256="a1",
        revision="r2",
        group=READY,
    )
    return dataclasses.replace(made, **changes)


def gateway(*routed: str, out: tuple[str, ...] = (), pairs: tuple[PairReport, ...] = ()) -> Status:
    groups = tuple(
        RoutedGroup(name, "serve", "r2", 4, routed=name in routed) for name in (*routed, *out)
    )
    report = GatewayReport(serving=True, since=0.0, why="", groups=groups, units={}, pairs=pairs)
    return dataclasses.replace(node(), node="gateway", group=None, gateway=report)


def test_it_begins_when_those_before_answer_and_the_gateway_routes_to_them():
    statuses = {"serve-0-0": node(), "gateway": gateway("serve-0", "serve-1")}
    assert turns.decide(TURN, statuses) == turns.May()


@pytest.mark.parametrize(
    "before",
    [
        node(instance_id="i-old"),
        node(group=dataclasses.replace(READY, phase="starting")),
        node(revision="r1"),
    ],
    ids=["the old instance still", "not ready yet", "another revision"],
)
def test_it_waits_for_the_group_before(before):
    verdict = turns.decide(TURN, {"serve-0-0": before, "gateway": gateway("serve-0", "serve-1")})
    assert isinstance(verdict, Waiting)
    assert "serve-0-0" in verdict.phases


def test_it_waits_until_the_gateway_has_the_group_before_again():
    statuses = {"serve-0-0": node(), "gateway": gateway("serve-1", out=("serve-0",))}
    assert turns.decide(TURN, statuses) == Waiting({"serve-0": "does not serve"})


def test_a_group_before_that_fails_ends_the_round():
    broken = node(phase="failed", fault=Fault(1.0, "no room", 0))
    verdict = turns.decide(TURN, {"serve-0-0": broken, "gateway": gateway("serve-1")})
    assert isinstance(verdict, Failed)


def test_the_first_waits_while_the_other_is_down():
    first = turns.Turn("serve-0", ("serve-1",), NOBODY, "gateway", "serve-0-0")
    verdict = turns.decide(first, {"gateway": gateway("serve-0", out=("serve-1",))})
    assert verdict == Waiting({"serve-1": "does not serve"})


def test_a_group_that_serves_nobody_waits_for_nobody():
    first = turns.Turn("serve-0", ("serve-1",), NOBODY, "gateway", "serve-0-0")
    assert turns.decide(first, {"gateway": gateway(out=("serve-0", "serve-1"))}) == turns.May()


@pytest.mark.parametrize(("life", "may"), [("r2/4", True), ("r1/3", False)])
def test_a_new_pair_that_is_proven_need_not_be_routed_to(life, may):
    good = pair(prefill=f"prefill-0 {life}", decode="decode-0 r2/4")
    turn = turns.Turn("prefill-1", ("prefill-0",), NOBODY, "gateway", "prefill-1-0")
    report = gateway("prefill-1", "decode-1", out=("prefill-0", "decode-0"), pairs=(good,))
    assert isinstance(turns.decide(turn, {"gateway": report}), turns.May) is may


def let_go(*, drained: bool = False) -> Status:
    status = gateway("serve-0", out=("serve-1",))
    assert status.gateway is not None
    first, second = status.gateway.groups
    groups = (first, dataclasses.replace(second, drained=drained))
    return dataclasses.replace(status, gateway=dataclasses.replace(status.gateway, groups=groups))


STARTED = dataclasses.replace(READY, restarts=(Restart(1, "r2", "first start", 7.0),))


@pytest.mark.parametrize(
    ("gate", "held"),
    [
        (gateway("serve-0", "serve-1"), "routed"),
        (let_go(), "busy"),
        (let_go(drained=True), "free"),
        (gateway("serve-0"), "free"),
        (None, "free"),
    ],
)
def test_nodes_end_once_the_gateway_has_nothing_more_of_their_group(gate, held):
    statuses = {"serve-1-0": node()} | ({"gateway": gate} if gate else {})
    assert turns.hold(TURN, statuses) == held


def test_a_group_that_does_not_answer_has_nothing_to_end():
    down = node(group=dataclasses.replace(READY, phase="starting"))
    assert turns.hold(TURN, {"serve-1-0": down, "gateway": let_go()}) == "free"


def test_the_gateway_is_told_which_life_is_meant():
    told = turns.leaving(TURN, {"serve-1-0": node(group=STARTED)}, 99.0)
    assert told is not None
    assert (told.groups, told.until) == ({"serve-1": 7.0}, 99.0)


def test_a_group_that_is_alone_is_not_let_go_of():
    alone = dataclasses.replace(TURN, peers=())
    assert turns.leaving(alone, {"serve-1-0": node(group=STARTED)}, 99.0) is None
