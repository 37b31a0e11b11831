from __future__ import annotations

import pytest

from infra.resources import zones
from infra.resources.network import subnet_cidr

OFFERED = [("a", "z2"), ("a", "z1"), ("b", "z2"), ("b", "z3")]


def test_the_first_zone_that_offers_every_type():
    assert zones.choose(["a"], OFFERED) == "z1"
    assert zones.choose(["a", "b", "a"], OFFERED) == "z2"


def test_the_order_of_the_answer_does_not_matter():
    assert zones.choose(["a"], OFFERED[::-1]) == "z1"


def test_no_common_zone_says_where_each_type_is():
    with pytest.raises(zones.NoZoneError, match=r"a: z1, z2; c: none.*another aws:region"):
        zones.choose(["a", "c"], OFFERED)


@pytest.mark.parametrize(
    ("vpc", "subnet"),
    [("10.42.0.0/16", "10.42.0.0/20"), ("10.0.0.0/20", "10.0.0.0/20"), ("10.0.0.0/28",) * 2],
)
def test_subnet_of_the_nodes(vpc: str, subnet: str):
    assert subnet_cidr(vpc) == subnet
