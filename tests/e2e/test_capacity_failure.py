"""AWS has room for one node of two: what is made, what is billed, what is said, how it goes on.

A reservation is room, and still a host in it may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from capacity import STACK, TYPE, ZONE, Account, stacks_with

pytestmark = pytest.mark.nightly

BALANCED = {"load_balancer": True, "allowed_cidrs": ["10.42.0.0/16"]}
"""A load balancer inside the VPC."""


@pytest.fixture
def account(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Account]:
    """Room for one node, for a stack of two; request.param: its capacity's kind, its endpoint."""
    kind, *endpoint = request.param
    stacks = stacks_with(tmp_path / "stacks", {"kind": kind}, *endpoint)
    found = Account(tmp_path / "home", stacks)
    found.run("account-start")
    try:
        found.room_for(1)
        yield found
    finally:
        found.run("down", "--stack", STACK)


@pytest.mark.parametrize("account", [("reserve",), ("reserve", BALANCED)], indirect=True)
def test_with_reserve_nothing_that_is_billed_is_left_and_a_later_up_goes_through(
    account: Account,
) -> None:
    status, said = account.up(check=False)
    assert status != 0
    assert "InsufficientInstanceCapacity" in said
    assert f"EC2 refused {TYPE} in {ZONE}" in said
    assert "No node was started" in said
    assert "Next: another zone as network.zone" in said
    assert "Traceback" not in said
    assert account.billed() == []

    account.room_for(2)
    account.up()
    assert sorted(account.living()) == ["serve-0-0", "serve-0-1"]


@pytest.mark.parametrize("account", [("reserve",)], indirect=True)
def test_a_node_that_finds_no_host_in_its_reservation_is_asked_for_again(account: Account) -> None:
    account.room_for(2)
    account.refuse(2, 3, 4)
    status, said = account.up(check=False)
    assert status != 0
    assert "again in 5 s" in said
    assert f"EC2 refused {TYPE} in {ZONE}" in said
    assert "the reservation and the nodes in it are billed" in said
    assert "Next: `up` in a few minutes" in said
    (first,) = account.living().items()

    account.refuse(1)
    account.up()
    living = account.living()
    assert len(living) == 2
    assert first in living.items(), "the node that did start is the same"


@pytest.mark.parametrize("account", [("on-demand",)], indirect=True)
def test_without_reserve_one_node_starts_and_a_later_up_makes_the_other(account: Account) -> None:
    status, said = account.up(check=False)
    assert status != 0
    assert f"EC2 refused {TYPE} in {ZONE}" in said
    assert "Nodes that did start are billed until `destroy`" in said
    assert "Next: another zone as network.zone" in said
    (first,) = account.living().items()

    account.room_for(2)
    account.up()
    living = account.living()
    assert len(living) == 2
    assert first in living.items(), "the node that did start is the same"
