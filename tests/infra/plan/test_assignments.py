from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from infra.plan import gateway
from infra.plan.assignments import Place, assignments
from infra.plan.make import make
from node_bootstrap.assignment import Api, Archive, Assignment
from node_bootstrap.jsondata import from_json, to_json
from node_bootstrap.revision import revision
from node_bootstrap.ttl import Ttl

if TYPE_CHECKING:
    from infra.plan.plan import Plan


FORM_OF_0_1_0 = """
    schema stack region bucket node group role position revision archive members agent_port api_port
    agent_token_parameter argv env secret_env software weights hardware probe limits
"""


@pytest.fixture
def place_of():
    def place(plan: Plan, **changes) -> Place:
        addresses = {node.name: f"10.42.0.{10 + i}" for i, node in enumerate(plan.nodes)}
        made = Place("us-east-1", "bucket", Archive("bootstrap/a.pyz", "a"), addresses)
        return dataclasses.replace(made, **changes)

    return place


def test_assignments_of_two_nodes(stack_request, place_of, snapshot):
    plan = make(stack_request())
    made = assignments(plan, place_of(plan))
    assert {name: to_json(a) for name, a in made.items()} == snapshot


def test_no_placeholder_of_an_address_is_left(stack_request, group_request, place_of):
    plan = make(stack_request(group_request(replicas=2, nodes=11)))
    for assignment in assignments(plan, place_of(plan)).values():
        assert "_ADDRESS}" not in to_json(assignment)


def test_every_node_can_read_its_own(stack_request, place_of):
    plan = make(stack_request())
    for assignment in assignments(plan, place_of(plan)).values():
        assert from_json(Assignment, to_json(assignment)) == assignment


def test_a_group_of_one_rank_imports_no_library_for_its_tokens(
    stack_request, group_request, place_of
):
    plan = make(stack_request(group_request(nodes=1)))
    (alone,) = assignments(plan, place_of(plan)).values()
    assert alone.backend is None


def test_members_know_one_another_and_themselves(stack_request, place_of):
    plan = make(stack_request())
    made = assignments(plan, place_of(plan))
    headless = made["serve-0-1"]
    assert headless.primary.address == "10.42.0.10"
    assert headless.me.address == headless.hardware.private_ip == "10.42.0.11"
    assert headless.ranks == 2


def test_members_share_a_revision_and_groups_do_not(stack_request, group_request, place_of):
    plan = make(stack_request(group_request(replicas=2)))
    made = assignments(plan, place_of(plan))
    assert made["serve-0-0"].revision == made["serve-0-1"].revision
    assert made["serve-0-0"].revision != made["serve-1-0"].revision


def test_a_new_archive_is_no_new_revision(stack_request, place_of):
    plan = make(stack_request())
    before = assignments(plan, place_of(plan))["serve-0-0"]
    after = assignments(plan, place_of(plan, archive=Archive("bootstrap/b.pyz", "b")))["serve-0-0"]
    assert (before.revision, before.archive) != (after.revision, after.archive)
    assert before.revision == after.revision


def test_a_time_to_live_reaches_every_node_and_is_no_new_revision(stack_request, place_of):
    plan = make(stack_request())
    ending = dataclasses.replace(plan, ttl_seconds=4 * 3600.0)
    before, after = (assignments(p, place_of(p)) for p in (plan, ending))
    assert {a.ttl for a in before.values()} == {None}
    assert {a.ttl for a in after.values()} == {Ttl(14400.0)}
    assert before["serve-0-0"].revision == after["serve-0-0"].revision


def test_a_stack_that_uses_nothing_new_is_told_in_the_form_of_0_1_0(stack_request, place_of):
    """Agents of 0.1.0 refuse fields that they don't know, and would never fetch a new bootstrap."""
    plan = make(stack_request())
    told = assignments(plan, place_of(plan))["serve-0-0"]
    document = json.loads(to_json(told, without_defaults=True))
    assert set(document["software"]) == {"runtime", "python", "distributions"}
    assert set(document["weights"]) == {"bucket", "prefix", "destination", "files"}
    assert set(document["hardware"]) == {"private_ip", "cpus_min", "memory_gib_min"}
    assert document.keys() == set(FORM_OF_0_1_0.split())
    assert from_json(Assignment, json.dumps(document)) == told


def test_the_revision_of_0_1_0_stands_so_that_its_groups_go_on(stack_request, place_of):
    plan = make(stack_request())
    assert assignments(plan, place_of(plan))["serve-0-0"].revision == "da7223c5be4416f8"


def test_another_option_is_another_revision(stack_request, group_request, place_of):
    revisions = set()
    for length in (512, 1024):
        options = dataclasses.replace(group_request().options, max_model_len=length)
        plan = make(stack_request(group_request(options=options)))
        revisions.add(assignments(plan, place_of(plan))["serve-0-0"].revision)
    assert len(revisions) == 2


def several(stack_request, group_request, mode: str, local: int) -> Plan:
    return make(stack_request(group_request(load_balancing=mode, data_parallel_size_local=local)))


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("internal", ()),
        ("hybrid", (Api("10.42.0.10", 8000, 0, 2), Api("10.42.0.11", 8000, 2, 2))),
        (
            "external",
            (
                Api("10.42.0.10", 8000, 0, 1),
                Api("10.42.0.10", 8001, 1, 1),
                Api("10.42.0.11", 8000, 2, 1),
                Api("10.42.0.11", 8001, 3, 1),
            ),
        ),
    ],
)
def test_a_node_is_told_where_each_rank_is_asked(
    stack_request, group_request, place_of, mode, expected
):
    plan = several(stack_request, group_request, mode, 2)
    for told in assignments(plan, place_of(plan)).values():
        assert told.apis == expected


def test_the_gateway_routes_to_every_api_of_a_group(stack_request, group_request, place_of):
    plan = several(stack_request, group_request, "external", 2)
    assert plan.gateway is not None
    assert plan.gateway.reason == "several APIs of a group need one address"
    place = place_of(plan)
    place = dataclasses.replace(place, addresses={**place.addresses, "gateway": "10.42.0.9"})
    told = gateway.assignment(plan, place, {"default": "d"}).gateway
    assert told is not None
    assert told.groups[0].urls == (
        "http://10.42.0.10:8000",
        "http://10.42.0.10:8001",
        "http://10.42.0.11:8000",
        "http://10.42.0.11:8001",
    )


def test_groups_behind_a_gateway_take_turns_at_the_same_revision(
    stack_request, group_request, place_of
):
    plan = make(stack_request(group_request(replicas=2)))
    told = assignments(plan, place_of(plan))
    assert all(one.takes_turns for one in told.values())
    alone = dataclasses.replace(told["serve-0-0"], takes_turns=False)
    assert revision((alone,)) == revision((told["serve-0-0"],))
