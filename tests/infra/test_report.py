from __future__ import annotations

import dataclasses

import pytest

from infra import report
from infra.plan.assignments import Place, assignments
from infra.plan.make import make
from infra.plan.request import EngineOptions, GroupRequest, Request, Vllm
from infra.spent import Launch
from node_bootstrap.assignment import Archive
from node_bootstrap.status import (
    BootReport,
    GatewayReport,
    Restart,
    RoutedGroup,
    Status,
    StepReport,
)

GROUP = GroupRequest(
    name="serve",
    role="serve",
    instance_type="c7i.large",
    nodes=2,
    replicas=1,
    tensor_parallel_size=1,
    data_parallel_size_local=1,
    enable_expert_parallel=True,
    all2all_backend="auto",
    options=EngineOptions(),
)


@pytest.fixture
def told():
    plan = make(Request("dev", "tiny", (), {}, Vllm("0.32.0", python="/py"), (GROUP,)))
    addresses = {node.name: "10.42.0.10" for node in plan.nodes}
    made = assignments(plan, Place("us-east-1", "b", Archive("k", "a1"), addresses))
    return {name: dataclasses.replace(a, revision="r1") for name, a in made.items()}


@pytest.fixture
def contents(told, status, deployment):
    def make(**changes):
        statuses = {"serve-0-0": status(0), "serve-0-1": status(1)}
        return dataclasses.replace(
            report.Contents("dev", "bucket", told, statuses, deployment, proven=True), **changes
        )

    return make


def test_a_stack_that_answers(contents, snapshot):
    assert report.build(contents(), now=101.0) == snapshot


def test_ready_is_what_was_told_not_what_runs(contents, told):
    newer = {name: dataclasses.replace(a, revision="r2") for name, a in told.items()}
    built = report.build(contents(assignments=newer), now=101.0)
    assert not built.ready
    assert (built.nodes[0].revision, built.nodes[0].wanted_revision) == ("r1", "r2")


def test_nodes_that_were_never_heard_of_are_shown(contents):
    built = report.build(contents(statuses={}, deployment=None, proven=False), now=101.0)
    assert [node.phase for node in built.nodes] == ["not heard of"] * 2
    assert (built.groups[0].phase, built.endpoint, built.ready) == ("not heard of", "", False)


def test_a_node_that_reports_no_more_is_silent(contents):
    built = report.build(contents(), now=100.0 + report.SILENT_SECONDS + 1)
    assert built.nodes[1].phase == "silent (was: role)"
    assert built.groups[0].phase == "silent (was: ready)"
    assert not built.ready


def test_the_first_end_of_a_node_is_the_stacks(contents, status):
    statuses = {"serve-0-0": status(0, ends_at=500.0), "serve-0-1": status(1, ends_at=400.0)}
    made = report.build(contents(statuses=statuses), now=101.0)
    assert made.ends_in_seconds == 299.0
    assert [node.ends_in_seconds for node in made.nodes] == [399.0, 299.0]


def test_cost_is_told_where_instances_may_be_listed(contents):
    launched = (Launch("serve-0-0", "p5.48xlarge", 0.0),)
    made = report.build(contents(launches=launched), now=7200.0)
    assert made.spent is not None
    assert made.spent.usd == pytest.approx(2 * made.spent.usd_per_hour)
    assert report.build(contents(), now=7200.0).spent is None


def test_the_timeline_counts_from_each_nodes_boot(contents, status, group_report):
    steps = (StepReport("weights", "CHANGED", 40.0, "x", began_at=1012.0),)
    restarts = (Restart(1, "r1", "first start", 1052.0, 1090.0),)
    statuses = {
        "serve-0-0": status(
            0,
            booted_at=1000.0,
            agent_started_at=1010.0,
            steps=steps,
            group=group_report(restarts=restarts),
        ),
        "serve-0-1": status(1, booted_at=1001.0, agent_started_at=1010.0, steps=()),
    }
    bars = report.build(contents(statuses=statuses), now=1100.0).timeline
    assert [(b.node, b.phase, b.from_seconds, b.to_seconds) for b in bars] == [
        ("serve-0-0", "boot", 0.0, 10.0),
        ("serve-0-0", "weights", 12.0, 52.0),
        ("serve-0-0", "vLLM, generation 1", 52.0, 90.0),
        ("serve-0-1", "boot", 0.0, 9.0),
        ("serve-0-1", "vLLM, generation 1", 51.0, 89.0),
    ]


def test_the_timeline_is_that_of_the_boot_after_a_restarted_agent_and_group(
    contents, status, group_report
):
    first = (StepReport("weights", "CHANGED", 40.0, "", began_at=1012.0),)
    again = (StepReport("weights", "SKIPPED", 0.1, "done before", began_at=9002.0),)
    restarts = (
        Restart(1, "r1", "first start", 1052.0, None),
        Restart(2, "r1", "x", 1060.0, 1090.0),
        Restart(3, "r1", "x", 9010.0, 9050.0),
    )
    shown = status(
        0,
        booted_at=1000.0,
        agent_started_at=9000.0,
        steps=again,
        boot=BootReport("boot-0", 1010.0, first),
        group=group_report(restarts=restarts),
    )
    bars = report.build(contents(statuses={"serve-0-0": shown}), now=9100.0).timeline
    assert [(b.phase, b.from_seconds, b.to_seconds) for b in bars] == [
        ("boot", 0.0, 10.0),
        ("weights", 12.0, 52.0),
        ("vLLM, generation 2", 60.0, 90.0),
    ]


def test_a_start_that_goes_on_has_no_end(contents, status, group_report):
    group = group_report(restarts=(Restart(2, "r1", "x", 1052.0, None),))
    statuses = {"serve-0-0": status(0, booted_at=1000.0, agent_started_at=1010.0, group=group)}
    bars = report.build(contents(statuses=statuses), now=1100.0).timeline
    assert bars[-1] == report.Bar("serve-0-0", "vLLM, generation 2", 52.0, None)


def gateway_status(status, **changes) -> Status:
    groups = (
        RoutedGroup("serve-0", "serve", "r1", 1, routed=True),
        RoutedGroup("serve-1", "serve", "r1", 2, routed=False, why="it restarts"),
    )
    given = {"serving": True, "since": 90.0, "why": "", "groups": groups, "units": {}}
    return status(0, node="gateway", group=None, gateway=GatewayReport(**(given | changes)))


@pytest.fixture
def fronted(told):
    first = told["serve-0-0"]
    gate = dataclasses.replace(first, node="gateway", group="gateway", role="gateway")
    return {**told, "gateway": gate}


def test_a_gateway_that_serves_is_ready_and_says_which_groups_it_routes_to(
    contents, status, fronted
):
    statuses = {"serve-0-0": status(0), "serve-0-1": status(1), "gateway": gateway_status(status)}
    made = report.build(contents(assignments=fronted, statuses=statuses), now=101.0)
    assert made.ready
    assert (made.groups[0].name, made.groups[0].phase) == ("gateway", "ready")
    assert made.groups[0].members == {"serve-0": "routed", "serve-1": "out: it restarts"}


def test_a_gateway_that_does_not_serve_says_why_and_the_stack_is_not_ready(
    contents, status, fronted
):
    down = gateway_status(status, serving=False, why="no group is in the router")
    statuses = {"serve-0-0": status(0), "serve-0-1": status(1), "gateway": down}
    made = report.build(contents(assignments=fronted, statuses=statuses), now=101.0)
    assert made.groups[0].phase == "not ready: no group is in the router"
    assert not made.ready
