"""Addresses and names that a rehearsal takes on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from rehearsal.machine import names, network
from rehearsal.machine.interface import MachineError
from rehearsal.paths import Home


def test_the_first_free_wire_is_taken():
    assert str(network.free_client_network("10.42.0.0/16", [])) == "198.18.0.0/30"


def test_a_wire_in_use_is_passed_over():
    routes = ["198.18.0.0/30", "198.18.1.0/24", "192.0.2.0/24"]
    assert str(network.free_client_network("10.42.0.0/16", routes)) == "198.18.2.0/30"


@pytest.mark.parametrize("route", ["10.42.7.0/24", "10.0.0.0/8", "10.42.0.0/16", "10.42.1.9"])
def test_a_route_that_overlaps_the_vpc_is_named(route):
    with pytest.raises(MachineError, match=r"10\.42\.0\.0/16 collide .* route to 10\."):
        network.free_client_network("10.42.0.0/16", [route])


def test_a_machine_without_a_free_wire_says_so():
    with pytest.raises(MachineError, match=r"198\.18\.0\.0/15 is in use"):
        network.free_client_network("10.42.0.0/16", ["198.18.0.0/15"])


def test_link_names_fit_the_kernels_15_characters():
    assert len(names.port("i-0123456789abcdef0")) <= 15
    assert len(names.bridge("subnet-0123456789abcdef0")) <= 15
    assert len(names.client_link("a1b2c3", "vpc-0123456789abcdef0")) <= 15


def test_all_names_hold_the_rehearsals_tag():
    tag = "a1b2c3"
    assert tag in names.vpc_netns(tag, "vpc-0123456789abcdef0")
    assert tag in names.instance_netns(tag, "i-0123456789abcdef0")
    assert tag in names.client_link(tag, "vpc-0123456789abcdef0")


def test_a_path_tells_the_rehearsal_to_which_it_belongs(tmp_path):
    home = Home(tmp_path / "rehearsal")
    assert names.tag_of(home.instances / "i-1") == home.tag
    assert names.tag_of(home.root / "networks" / "vpc-1" / "dnsmasq.conf") == home.tag
    assert names.tag_of(Path("/etc/passwd")) is None
