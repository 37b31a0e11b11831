"""Capacity Blocks: offered, bought by a person, launched into, and over at their end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rehearsal.account.ec2.blocks import end_of, state_at, wrong_wish

TYPE = "p5.48xlarge"


def utc(day, hour, minute=0):
    """A time of November 2026 as moto has them: UTC without saying so."""
    return datetime(2026, 11, day, hour, minute, tzinfo=UTC).replace(tzinfo=None)


BOUGHT = utc(1, 9)
START = utc(2, 11, 30)
END = utc(3, 11, 30)


@pytest.mark.parametrize(
    ("now", "state"),
    [
        (BOUGHT, "payment-pending"),
        (BOUGHT + timedelta(minutes=1), "scheduled"),
        (START, "active"),
        (END - timedelta(seconds=1), "active"),
        (END, "expired"),
    ],
)
def test_the_state_of_a_block_follows_the_clock(now, state):
    assert state_at(now, BOUGHT, START, END) == state


def test_a_block_ends_at_half_past_eleven():
    assert end_of(utc(2, 9), 24) == utc(3, 11, 30)
    assert end_of(utc(2, 12), 24) == utc(4, 11, 30)


@pytest.mark.parametrize(
    ("wish", "wrong"),
    [
        ((TYPE, 64, 14 * 24), ""),
        ((TYPE, 2, 182 * 24), ""),
        ((TYPE, 65, 24), "InstanceCount"),
        ((TYPE, 1, 15 * 24), "CapacityDurationHours"),
        (("g6e.48xlarge", 1, 24), "not supported"),
    ],
)
def test_aws_sells_blocks_of_some_types_sizes_and_lengths(wish, wrong):
    assert wrong in wrong_wish(*wish)
    assert bool(wrong) == bool(wrong_wish(*wish))


def offering(ec2, **more):
    (found, *_) = ec2.describe_capacity_block_offerings(
        InstanceType=TYPE, InstanceCount=2, CapacityDurationHours=24, **more
    )["CapacityBlockOfferings"]
    return found


def bought(ec2, **more):
    return ec2.purchase_capacity_block(
        CapacityBlockOfferingId=offering(ec2, **more)["CapacityBlockOfferingId"],
        InstancePlatform="Linux/UNIX",
    )["CapacityReservation"]


def described(ec2, block):
    (found,) = ec2.describe_capacity_reservations(
        CapacityReservationIds=[block["CapacityReservationId"]]
    )["CapacityReservations"]
    return found


@pytest.fixture(scope="module")
def block(site, account):
    """A block that runs: bought for now, and paid."""
    found = bought(site.ec2)
    assert found["State"] == "payment-pending"
    site.wait_for(lambda: described(site.ec2, found)["State"] == "active")
    return described(site.ec2, found)


@pytest.fixture
def into(block, site):
    """The request of a launch into the block."""
    subnets = {s["AvailabilityZone"]: s["SubnetId"] for s in site.subnets()}
    return {
        "InstanceType": TYPE,
        "SubnetId": subnets[block["AvailabilityZone"]],
        "InstanceMarketOptions": {"MarketType": "capacity-block"},
        "CapacityReservationSpecification": {
            "CapacityReservationTarget": {"CapacityReservationId": block["CapacityReservationId"]}
        },
    }


def test_a_block_says_its_type_and_its_end(block):
    assert block["ReservationType"] == "capacity-block"
    assert block["EndDateType"] == "limited"
    assert block["EndDate"] > block["StartDate"]
    assert block["TotalInstanceCount"] == 2


def test_an_offering_is_bought_once(site, refusal):
    found = offering(site.ec2)["CapacityBlockOfferingId"]
    buy = {"CapacityBlockOfferingId": found, "InstancePlatform": "Linux/UNIX"}
    site.ec2.purchase_capacity_block(**buy)
    assert refusal(lambda: site.ec2.purchase_capacity_block(**buy)) == "InvalidParameterValue"


def test_a_block_that_has_not_begun_takes_no_launch(site, into, refusal):
    later = bought(site.ec2, StartDateRange=datetime.now().astimezone() + timedelta(days=3))
    target = {"CapacityReservationId": later["CapacityReservationId"]}
    request = {**into, "CapacityReservationSpecification": {"CapacityReservationTarget": target}}
    assert refusal(lambda: site.run(**request)) == "ReservationCapacityExceeded"


def test_a_block_cannot_be_cancelled(site, block, refusal):
    cancel = {"CapacityReservationId": block["CapacityReservationId"]}
    refused = refusal(lambda: site.ec2.cancel_capacity_reservation(**cancel))
    assert refused == "InvalidParameterValue"
    assert described(site.ec2, block)["State"] == "active"


def test_a_launch_into_a_block_counts_against_no_quota_and_ends_with_it(account, site, block, into):
    none = {"region": "us-east-1", "quotas": {"L-417A185B": 0}, "capacity": []}
    assert account.control("PUT", "limits", none)[0] == 200
    try:
        launched = site.run(**into)
    finally:
        account.control("PUT", "limits", {**none, "quotas": {}})
    assert launched["CapacityReservationId"] == block["CapacityReservationId"]
    assert described(site.ec2, block)["AvailableInstanceCount"] == 1
    over = [{"kind": "reservation-expired", "id": block["CapacityReservationId"]}]
    assert account.control("PUT", "faults", over)[0] == 200
    gone = site.wait(launched["InstanceId"], "terminated")
    assert gone["StateReason"]["Code"] == "Server.InstanceTermination"
    assert described(site.ec2, block)["State"] == "expired"
