"""Capacity that is there already, or may be taken away: what the nodes of a stack launch into."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from capacity import REGION, STACK, TYPE, Account, stacks_with

pytestmark = pytest.mark.nightly

OTHER_ZONE = f"{REGION}b"
"""Not the one that the program would take by itself."""


@pytest.fixture
def account(tmp_path: Path) -> Iterator[Account]:
    """An account in which somebody else may reserve before the stack is made."""
    found = Account(tmp_path / "home", tmp_path / "stacks")
    found.run("account-start")
    try:
        yield found
    finally:
        found.run("down", "--stack", STACK)


def reserved(account: Account) -> str:
    made = account.ec2().create_capacity_reservation(
        InstanceType=TYPE,
        InstancePlatform="Linux/UNIX",
        InstanceCount=2,
        AvailabilityZone=OTHER_ZONE,
        InstanceMatchCriteria="targeted",
    )
    return made["CapacityReservation"]["CapacityReservationId"]


def bought(account: Account) -> str:
    """A Capacity Block of two nodes for a day, paid."""
    ec2 = account.ec2()
    offered = ec2.describe_capacity_block_offerings(
        InstanceType=TYPE, InstanceCount=2, CapacityDurationHours=24
    )["CapacityBlockOfferings"]
    block = ec2.purchase_capacity_block(
        CapacityBlockOfferingId=offered[0]["CapacityBlockOfferingId"],
        InstancePlatform="Linux/UNIX",
    )["CapacityReservation"]["CapacityReservationId"]
    deadline = time.monotonic() + 60
    while reservation(account, block)["State"] != "active":
        assert time.monotonic() < deadline, reservation(account, block)
        time.sleep(0.2)
    return block


def reservation(account: Account, name: str) -> dict[str, Any]:
    (found,) = account.ec2().describe_capacity_reservations(CapacityReservationIds=[name])[
        "CapacityReservations"
    ]
    return found


def nodes(account: Account) -> list[dict[str, Any]]:
    """The instances of the stack as EC2 describes them."""
    living = account.living()
    assert sorted(living) == ["serve-0-0", "serve-0-1"]
    described = account.ec2().describe_instances(InstanceIds=list(living.values()))
    return [i for r in described["Reservations"] for i in r["Instances"]]


def test_nodes_follow_a_named_reservation_to_its_zone_and_it_outlives_them(
    account: Account,
) -> None:
    name = reserved(account)
    stacks_with(account.stacks, {"kind": "reservation", "id": name})
    account.up()
    assert {n["CapacityReservationId"] for n in nodes(account)} == {name}
    assert {n["Placement"]["AvailabilityZone"] for n in nodes(account)} == {OTHER_ZONE}
    assert reservation(account, name)["AvailableInstanceCount"] == 0

    account.pulumi("destroy", "--yes", "--skip-preview", "--stack", STACK)
    left = reservation(account, name)
    assert (left["State"], left["AvailableInstanceCount"]) == ("active", 2)


def test_nodes_launch_into_a_capacity_block_with_its_market_type_and_no_placement_group(
    account: Account,
) -> None:
    name = bought(account)
    stacks_with(account.stacks, {"kind": "capacity-block", "id": name})
    account.up()
    assert {n["CapacityReservationId"] for n in nodes(account)} == {name}
    assert {n["InstanceLifecycle"] for n in nodes(account)} == {"capacity-block"}
    assert {n["Placement"].get("GroupName") or "" for n in nodes(account)} == {""}


def test_spot_nodes_are_launched_at_once_and_reserve_nothing(account: Account) -> None:
    stacks_with(account.stacks, {"kind": "spot"})
    account.up()
    assert {n["InstanceLifecycle"] for n in nodes(account)} == {"spot"}
    assert account.ec2().describe_capacity_reservations()["CapacityReservations"] == []
