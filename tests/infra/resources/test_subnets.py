from __future__ import annotations

import ipaddress

import pytest

from infra.resources.existing import Found, unfit
from infra.resources.network import subnet_cidrs

FOUND = Found("subnet-1", "vpc-1", "us-east-1a")
OFFERED = {"p5.48xlarge": ["us-east-1a", "us-east-1c"], "c7i.large": ["us-east-1b"]}


@pytest.mark.parametrize(
    ("vpc", "subnet"),
    [("10.42.0.0/16", "10.42.0.0/20"), ("10.0.0.0/20", "10.0.0.0/20"), ("10.0.0.0/28",) * 2],
)
def test_the_nodes_get_the_first_subnet_or_all_of_a_small_network(vpc: str, subnet: str):
    assert subnet_cidrs(vpc, public=False) == (subnet, None)


@pytest.mark.parametrize("length", range(16, 28))
def test_a_public_subnet_lies_beside_the_nodes_own(length: int):
    private, public = map(ipaddress.IPv4Network, subnet_cidrs(f"10.0.0.0/{length}", public=True))
    assert not private.overlaps(public)
    assert private.subnet_of(ipaddress.IPv4Network(f"10.0.0.0/{length}"))
    assert 20 <= private.prefixlen <= 28
    assert 26 <= public.prefixlen <= 28


def test_a_public_subnet_leaves_the_nodes_of_a_large_network_where_they_are():
    assert subnet_cidrs("10.42.0.0/16", public=True)[0] == "10.42.0.0/20"


def test_a_subnet_that_fits_has_no_faults():
    assert unfit(FOUND, "vpc-1", ["p5.48xlarge"], OFFERED) == []


def test_a_subnet_of_another_network_is_refused():
    (reason,) = unfit(FOUND, "vpc-2", ["p5.48xlarge"], OFFERED)
    assert reason.startswith("it is in vpc-1, not in network.vpc_id vpc-2")


def test_a_subnet_in_a_zone_without_the_type_is_refused_with_the_zones_that_have_it():
    (reason,) = unfit(FOUND, "vpc-1", ["c7i.large"], OFFERED)
    assert "us-east-1a doesn't offer c7i.large (us-east-1b of this region do)" in reason


def test_all_reasons_come_at_once():
    assert len(unfit(FOUND, "vpc-2", ["c7i.large", "p9"], OFFERED)) == 3
