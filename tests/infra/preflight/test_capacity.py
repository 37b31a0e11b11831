from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from infra.preflight.capacity import judge_offered, judge_reservation

NOW = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def reservation(admin):
    made = admin.client("ec2").create_capacity_reservation(
        InstanceType="c7i.large",
        InstancePlatform="Linux/UNIX",
        AvailabilityZone="us-east-1a",
        InstanceCount=2,
    )
    return made["CapacityReservation"]["CapacityReservationId"]


def test_a_type_that_zones_offer_passes(result_of, asked):
    result = result_of("TYPE_OFFERED", asked())
    assert result.state == "PASS"
    assert "us-east-1a" in result.message


def test_a_zone_that_lacks_a_type_fails_and_says_where_it_is(result_of, asked):
    stack = asked(nodes={"serve": ("p5en.48xlarge", 2)}, zone="us-east-1b")
    result = result_of("TYPE_OFFERED", stack)
    assert result.state == "FAIL"
    assert "us-east-1b does not offer p5en.48xlarge" in result.message
    assert result.remedy.startswith("take us-east-1")


def test_an_existing_subnet_binds_the_zone(result_of, asked, subnet):
    stack = asked(nodes={"serve": ("p5en.48xlarge", 2)}, subnet_id=subnet(zone="us-east-1b")[1])
    assert result_of("TYPE_OFFERED", stack).state == "FAIL"


def test_a_region_without_a_common_zone_fails():
    offered = {("a.large", "z1"), ("b.large", "z2")}
    verdict = judge_offered(("a.large", "b.large"), offered, None, "here")
    assert "no zone of here offers all types of the stack (a.large: z1; b.large: z2)" in (
        verdict.message
    )


def test_a_reservation_with_room_passes(result_of, asked, reservation):
    stack = asked(capacity_kind="reservation", capacity_id=reservation)
    result = result_of("RESERVATION", stack)
    assert result.state == "PASS"
    assert "active in us-east-1a, 2 x c7i.large free" in result.message


def test_a_reservation_with_too_little_in_another_zone_fails_with_both(
    result_of, asked, reservation
):
    stack = asked(
        capacity_kind="reservation",
        capacity_id=reservation,
        nodes={"serve": ("c7i.large", 3)},
        zone="us-east-1b",
    )
    result = result_of("RESERVATION", stack)
    assert result.state == "FAIL"
    assert "2 of its 2 are free, the stack needs 3" in result.message
    assert "it is in us-east-1a, network.zone is us-east-1b" in result.message


def test_a_reservation_in_another_zone_than_the_existing_subnet_fails(
    result_of, asked, reservation, subnet
):
    elsewhere = subnet(zone="us-east-1b")[1]
    stack = asked(capacity_kind="reservation", capacity_id=reservation, subnet_id=elsewhere)
    result = result_of("RESERVATION", stack)
    assert result.state == "FAIL"
    assert f"it is in us-east-1a, {elsewhere} is in us-east-1b" in result.message


def test_the_zone_of_a_reservation_must_offer_every_type_where_no_zone_is_named(
    result_of, asked, reservation
):
    stack = asked(capacity_kind="reservation", capacity_id=reservation)
    assert result_of("TYPE_OFFERED", stack).message == "us-east-1a offers c7i.large"


def test_a_reservation_that_is_not_there_fails(result_of, asked):
    stack = asked(capacity_kind="reservation", capacity_id="cr-0123456789abcdef0")
    result = result_of("RESERVATION", stack)
    assert result.state == "FAIL"
    assert "has no capacity reservation cr-0123456789abcdef0" in result.message


def test_a_gateway_needs_nothing_of_the_reservation(asked):
    nodes = {"serve": ("c7i.large", 2), "gateway": ("c7i.xlarge", 1)}
    assert asked(nodes=nodes).reserved_nodes == {"c7i.large": 2}


@pytest.fixture
def block(asked):
    """Verdict on a Capacity Block of two p5.48xlarge that ends a day from now."""
    stack = asked(
        nodes={"serve": ("p5.48xlarge", 2)},
        capacity_kind="capacity-block",
        capacity_id="cr-0b",
        ttl_seconds=4 * 3600.0,
    )

    def judge(own: int = 0, ttl_seconds: float | None = 4 * 3600.0, **changes):
        found = {
            "State": "active",
            "ReservationType": "capacity-block",
            "InstanceType": "p5.48xlarge",
            "AvailabilityZone": "us-east-1a",
            "AvailableInstanceCount": 2,
            "TotalInstanceCount": 2,
            "EndDate": NOW + dt.timedelta(days=2),
        }
        return judge_reservation(
            found | changes, own, dataclasses.replace(stack, ttl_seconds=ttl_seconds), NOW, None
        )

    return judge


def test_a_capacity_block_tells_when_its_nodes_end(block):
    verdict = block()
    assert verdict.state == "PASS"
    assert "nodes end at 2026-11-03 11:30 UTC" in verdict.message


def test_a_capacity_block_that_ends_before_the_stack_is_a_warning(block):
    verdict = block(EndDate=NOW + dt.timedelta(hours=3))
    assert verdict.state == "WARN"
    assert "in 2.5 h" in verdict.message


def test_a_capacity_block_that_ends_within_a_day_is_a_warning_where_no_end_is_set(block):
    assert block(ttl_seconds=None, EndDate=NOW + dt.timedelta(hours=20)).state == "WARN"


FAULTS = [
    ({"State": "scheduled", "StartDate": NOW + dt.timedelta(days=1)}, "begins at 2026-11-02"),
    ({"State": "expired"}, "its state is expired"),
    ({"EndDate": NOW - dt.timedelta(hours=1)}, "it ended at"),
    ({"InstanceType": "p5en.48xlarge"}, "it holds p5en.48xlarge, the stack asks for p5.48xlarge"),
    ({"AvailableInstanceCount": 1}, "1 of its 2 are free, the stack needs 2"),
    ({"ReservationType": "default"}, "the settings call reservation"),
]


@pytest.mark.parametrize(("changes", "said"), FAULTS, ids=[said for _, said in FAULTS])
def test_a_capacity_block_that_does_not_fit_fails(block, changes, said):
    verdict = block(**changes)
    assert verdict.state == "FAIL"
    assert said in verdict.message


def test_a_stack_that_runs_in_it_already_has_its_own_nodes_back(block):
    assert block(own=2, AvailableInstanceCount=0).state == "PASS"


@pytest.mark.parametrize(
    ("arn", "named", "state"),
    [
        (None, None, "PASS"),
        ("arn:aws:ec2:us-east-1:1:placement-group/near", "near", "PASS"),
        ("arn:aws:ec2:us-east-1:1:placement-group/near", None, "FAIL"),
        (None, "near", "FAIL"),
    ],
)
def test_a_reservation_is_in_the_placement_group_that_the_settings_name(asked, arn, named, state):
    found = {
        "State": "active",
        "InstanceType": "c7i.large",
        "AvailabilityZone": "us-east-1a",
        "AvailableInstanceCount": 2,
        "TotalInstanceCount": 2,
    } | ({"PlacementGroupArn": arn} if arn else {})
    stack = asked(capacity_kind="reservation", capacity_id="cr-0a", placement_group=named)
    verdict = judge_reservation(found, 0, stack, NOW, None)
    assert verdict.state == state
    if state == "FAIL":
        assert f"capacity.placement_group is {named or 'not set'}" in verdict.message
