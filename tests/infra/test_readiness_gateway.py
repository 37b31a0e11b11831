"""What the gateway's own status says about a deployment."""

from __future__ import annotations

import dataclasses

import pytest

from infra.readiness import (
    HOPELESS_TRIALS,
    Deployment,
    ExpectedGateway,
    ExpectedGroup,
    ExpectedNode,
    Failed,
    Ready,
    Waiting,
    judge,
)
from node_bootstrap.status import Found, GatewayReport, PairReport, RoutedGroup
from tests.infra import reports

NODES = {"prefill-0-0": "p1", "decode-0-0": "d1", "gateway": "g1"}
GROUPS = {"prefill-0": "p1", "decode-0": "d1"}
REASON = "decode-0-0 doesn't reach the side channel 10.42.0.6:5600: no answer within 2 s"


@pytest.fixture
def asked() -> Deployment:
    return Deployment(
        schema=1,
        stack="dev",
        region="us-east-1",
        bucket="b",
        endpoint="https://10.42.0.8/v1",
        model="tiny",
        vllm_version="0.32.0",
        nodes={name: ExpectedNode(f"i-{name}", "", rev, "a1") for name, rev in NODES.items()},
        groups={
            name: ExpectedGroup((f"{name}-0",), rev, ranks=2, expert_parallel_size=1)
            for name, rev in GROUPS.items()
        },
        gateway=ExpectedGateway("gateway"),
    )


@pytest.fixture
def statuses(status, group_report):
    def make(pair: PairReport, *, routed: bool):
        groups = tuple(
            RoutedGroup(name, name.partition("-")[0], rev, 1, routed, "" if routed else REASON)
            for name, rev in GROUPS.items()
        )
        gateway = GatewayReport(routed, 1.0, "" if routed else REASON, groups, {}, (pair,))
        made = {
            name: status(0, node=name, instance_id=f"i-{name}", revision=rev, group=None)
            for name, rev in NODES.items()
        }
        made["gateway"] = dataclasses.replace(made["gateway"], gateway=gateway)
        for group, rev in GROUPS.items():
            report, found = group_report(revision=rev, members=()), Found(kv_transport="UCX tcp/e")
            changes = {"group": report, "found": found}
            made[f"{group}-0"] = dataclasses.replace(made[f"{group}-0"], **changes)
        return made

    return make


def pair(revision: str = "d1", *, failures: int = 0) -> PairReport:
    reason = REASON if failures else ""
    lives = {"prefill": "prefill-0 p1/1", "decode": f"decode-0 {revision}/1"}
    return reports.pair(**lives, ok=not failures, reason=reason, failures=failures)


def test_a_pair_through_which_kv_moves_is_ready(asked, statuses):
    assert judge(asked, statuses(pair(), routed=True)) == Ready()


def test_a_pair_whose_log_does_not_name_what_carries_kv_is_waited_for(asked, statuses):
    said = statuses(pair(), routed=True)
    said["decode-0-0"] = dataclasses.replace(said["decode-0-0"], found=Found())
    judged = judge(asked, said)
    assert isinstance(judged, Waiting)
    assert "not told yet by the log of decode-0-0" in judged.phases["gateway"]


def test_a_pair_that_fails_is_waited_for_with_its_reason(asked, statuses):
    verdict = judge(asked, statuses(pair(failures=HOPELESS_TRIALS - 1), routed=False))
    assert isinstance(verdict, Waiting)
    assert REASON in verdict.phases["gateway"]


def test_a_pair_that_fails_again_and_again_is_a_failure_with_its_reason(asked, statuses):
    verdict = judge(asked, statuses(pair(failures=HOPELESS_TRIALS), routed=False))
    assert isinstance(verdict, Failed)
    (reason,) = verdict.reasons
    assert reason == (
        f"prefill-0 with decode-0: {HOPELESS_TRIALS} whole completions in a row failed, "
        f"the last one: {REASON}"
    )


def test_failures_of_an_earlier_revision_say_nothing(asked, statuses):
    verdict = judge(asked, statuses(pair("d0", failures=99), routed=False))
    assert isinstance(verdict, Waiting)
