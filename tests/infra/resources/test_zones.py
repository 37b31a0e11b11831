from __future__ import annotations

import pytest

from infra.resources import zones

OFFERED = [("a", "z2"), ("a", "z1"), ("b", "z2"), ("b", "z3")]


def test_the_first_zone_that_offers_every_type():
    assert zones.choose(zones.by_type(["a"], OFFERED)) == "z1"
    assert zones.choose(zones.by_type(["a", "b", "a"], OFFERED)) == "z2"


def test_the_order_of_the_answer_does_not_matter():
    assert zones.choose(zones.by_type(["a"], OFFERED[::-1])) == "z1"


def test_types_that_were_not_asked_for_are_left_out():
    assert zones.by_type(["a"], OFFERED) == {"a": ["z1", "z2"]}


def test_no_common_zone_says_where_each_type_is():
    with pytest.raises(zones.NoZoneError, match=r"a: z1, z2; c: none.*another aws:region"):
        zones.choose(zones.by_type(["a", "c"], OFFERED))
