"""What a person is told when EC2 has no capacity, and when a node is asked for again."""

from __future__ import annotations

import pytest

from infra.resources.refusals import RETRY_PAUSES_SECONDS, Asked, next_step, pause_before_retry

NO_CAPACITY = "creating EC2 Instance: InsufficientInstanceCapacity: none there"
ZONES = ("us-east-2a", "us-east-2b")


def said(error: str, kind: str, *, in_reservation: bool = False) -> str:
    asked = Asked("serve-0-1", "p5en.48xlarge", "us-east-2a", kind, ZONES, in_reservation)
    return next_step(error, asked) or ""


def test_a_refused_reservation_billed_nothing_and_another_zone_is_named():
    text = said(NO_CAPACITY, "reserve")
    assert "EC2 refused p5en.48xlarge in us-east-2a" in text
    assert "No node was started, so none is billed" in text
    assert "us-east-2b offer it too" in text


def test_a_node_refused_in_its_reservation_says_what_is_billed_and_who_can_mend_it():
    text = said(NO_CAPACITY, "reserve", in_reservation=True)
    assert "the reservation and the nodes in it are billed" in text
    assert "AWS Support" in text
    assert "another zone" not in text, "the capacity is held in this one"


def test_on_demand_nodes_that_started_are_billed():
    assert "Nodes that did start are billed until `destroy`" in said(NO_CAPACITY, "on-demand")


def test_an_error_that_is_not_about_capacity_is_left_as_it_is():
    assert said("InvalidAMIID.NotFound: none", "reserve") == ""


def test_a_node_with_reserved_capacity_is_asked_for_again_until_the_pauses_are_used_up():
    pauses = [
        pause_before_retry([NO_CAPACITY] * tries, in_reservation=True)
        for tries in range(1, len(RETRY_PAUSES_SECONDS) + 2)
    ]
    assert pauses == [*RETRY_PAUSES_SECONDS, None]


@pytest.mark.parametrize(
    ("error", "in_reservation"),
    [(NO_CAPACITY, False), ("VcpuLimitExceeded: 0 left", True), ("Unsupported: no", True)],
)
def test_nothing_else_is_asked_for_again(error, in_reservation):
    assert pause_before_retry([error], in_reservation=in_reservation) is None
