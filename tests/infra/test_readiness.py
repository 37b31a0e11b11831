from __future__ import annotations

import dataclasses

import pytest

from infra.readiness import Failed, Ready, Waiting, judge
from node_bootstrap.status import Fault, Restart, TransferReport

PRIMARY, HEADLESS = "serve-0-0", "serve-0-1"


def test_ready_when_every_rank_answered_on_the_instances_that_were_made(deployment, status):
    assert judge(deployment, {PRIMARY: status(0), HEADLESS: status(1)}) == Ready()


def test_a_node_that_never_reported_is_booting(deployment, status):
    verdict = judge(deployment, {PRIMARY: status(0)})
    assert verdict == Waiting({HEADLESS: "booting"})


def test_the_report_of_an_earlier_instance_counts_for_nothing(deployment, status):
    old = status(1, instance_id="i-gone", phase="failed")
    verdict = judge(deployment, {PRIMARY: status(0), HEADLESS: old})
    assert verdict == Waiting({HEADLESS: "booting"})


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({"phase": "weights"}, "weights"),
        ({"revision": "r0"}, "role, not yet at revision r1"),
        ({"archive_sha256": "a0"}, "fetching the bootstrap archive"),
        (
            {"archive_sha256": "a0", "fault": Fault(1.0, "digest is wrong", 0)},
            "fetching the bootstrap archive (last fault: digest is wrong)",
        ),
    ],
)
def test_a_headless_node_on_its_way(deployment, status, changes, phase):
    verdict = judge(deployment, {PRIMARY: status(0), HEADLESS: status(1, **changes)})
    assert verdict == Waiting({HEADLESS: phase})


@pytest.mark.parametrize(
    ("changes", "phase"),
    [
        ({"phase": "starting", "generation": 2}, "group starting, generation 2"),
        ({"revision": "r0"}, "group not yet at revision r1"),
        ({"members": ()}, "group holds earlier instances of serve-0-1"),
        ({"probes": ()}, "no answer yet from rank 0, 1"),
    ],
)
def test_a_group_on_its_way(deployment, status, group_report, changes, phase):
    primary = status(0, group=group_report(**changes))
    verdict = judge(deployment, {PRIMARY: primary, HEADLESS: status(1)})
    assert verdict == Waiting({PRIMARY: phase})


def test_a_group_that_still_holds_a_replaced_instance_is_not_ready(
    deployment, status, group_report
):
    primary_report = group_report()
    old = dataclasses.replace(primary_report.members[0], instance_id="i-gone")
    primary = status(0, group=group_report(members=(old,)))
    verdict = judge(deployment, {PRIMARY: primary, HEADLESS: status(1)})
    assert verdict == Waiting({PRIMARY: "group holds earlier instances of serve-0-1"})


def test_a_failed_node_fails_the_deployment_with_its_reason_and_log(deployment, status):
    fault = Fault(1.0, "the model's folder is empty", 0, "last line")
    verdict = judge(deployment, {HEADLESS: status(1, phase="failed", fault=fault)})
    assert verdict == Failed(
        ("serve-0-1 (i-1) failed: the model's folder is empty",), {HEADLESS: "last line"}
    )


def starts(count: int, *, revision: str = "r1", ready_at: float | None = None):
    return tuple(Restart(n, revision, f"cause {n}", 1.0, ready_at) for n in range(1, count + 1))


def test_three_starts_of_a_revision_without_an_answer_are_hopeless(
    deployment, status, group_report
):
    primary = status(0, group=group_report(phase="starting", restarts=starts(3)))
    verdict = judge(deployment, {PRIMARY: primary, HEADLESS: status(1)})
    assert isinstance(verdict, Failed)
    assert "serve-0 was started 3 times with revision r1" in verdict.reasons[0]
    assert "1: cause 1; 2: cause 2; 3: cause 3" in verdict.reasons[0]


@pytest.mark.parametrize(
    "restarts",
    [starts(2), starts(3, revision="r0"), starts(3, ready_at=5.0)],
    ids=["two starts", "of an earlier revision", "it was ready once"],
)
def test_other_restarts_are_waited_for(deployment, status, group_report, restarts):
    primary = status(0, group=group_report(phase="starting", restarts=restarts))
    verdict = judge(deployment, {PRIMARY: primary, HEADLESS: status(1)})
    assert isinstance(verdict, Waiting)


SLOW = TransferReport(
    "k", 1.0, 9.0, required=True, faults=("serve-0-0: all_reduce moves 2 GB/s, the floor is 200",)
)


def test_a_transfer_below_its_floor_is_a_failure_with_the_number(deployment, status, group_report):
    primary = status(0, group=group_report(phase="gathering", transfer=SLOW))
    verdict = judge(deployment, {PRIMARY: primary, HEADLESS: status(1)})
    assert isinstance(verdict, Failed)
    (reason,) = verdict.reasons
    assert "all_reduce moves 2 GB/s, the floor is 200" in reason


@pytest.mark.parametrize(
    ("changes", "headless"),
    [
        ({"transfer": dataclasses.replace(SLOW, required=False)}, "i-1"),
        ({"transfer": dataclasses.replace(SLOW, faults=())}, "i-1"),
        ({"transfer": SLOW}, "i-new"),
    ],
    ids=["only measured", "as planned", "between earlier instances"],
)
def test_a_transfer_is_no_failure_where(deployment, status, group_report, changes, headless):
    nodes = dict(deployment.nodes)
    nodes[HEADLESS] = dataclasses.replace(nodes[HEADLESS], instance_id=headless)
    deployment = dataclasses.replace(deployment, nodes=nodes)
    primary = status(0, group=group_report(phase="gathering", **changes))
    verdict = judge(deployment, {PRIMARY: primary, HEADLESS: status(1, instance_id=headless)})
    assert isinstance(verdict, Waiting)


def waiting(group_report):
    """The report of a group that serves r0 and waits for its turn to take up r1."""
    return group_report(revision="r0", wants="r1")


def test_a_group_serves_what_it_ran_until_its_turn_comes(deployment, status, group_report):
    primary = status(0, revision="r0", group=waiting(group_report))
    verdict = judge(deployment, {PRIMARY: primary, HEADLESS: status(1, revision="r0")})
    says = "serves, until its turn comes"
    assert verdict == Waiting({PRIMARY: says, HEADLESS: says}, ("serve-0",))


def test_a_failure_names_the_groups_that_go_on(deployment, status, group_report):
    primary = status(0, revision="r0", group=waiting(group_report))
    broken = status(1, phase="failed", fault=Fault(1.0, "no room", 0))
    verdict = judge(deployment, {PRIMARY: primary, HEADLESS: broken})
    assert isinstance(verdict, Failed)
    assert verdict.queued == ("serve-0",)
