"""What a VPC's dnsmasq is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from rehearsal.machine import dns
from rehearsal.machine.interface import Launch


@pytest.fixture
def launch() -> Launch:
    return Launch(
        instance_id="i-0123456789abcdef0",
        image_id="ami-1",
        vpc_id="vpc-1",
        vpc_cidr="10.42.0.0/16",
        subnet_id="subnet-1",
        subnet_cidr="10.42.1.0/24",
        private_ip="10.42.1.11",
        mac="02:00:0a:2a:01:0b",
        hostname="ip-10-42-1-11.ec2.internal",
        cpus=2,
        memory_mib=4096,
    )


def test_a_lease_ties_the_hardware_address_to_the_private_address(launch):
    assert dns.dhcp_hosts([launch]) == "02:00:0a:2a:01:0b,10.42.1.11,ip-10-42-1-11\n"


def test_an_instance_has_its_full_and_its_short_name(launch):
    assert dns.hosts([launch]) == "10.42.1.11 ip-10-42-1-11.ec2.internal ip-10-42-1-11\n"


def test_every_subnet_gets_leases_for_known_instances_only():
    text = dns.configuration(Path("/run/x"), "ec2.internal", ["10.42.2.0/23", "10.42.1.0/24"])
    assert "dhcp-range=10.42.1.0,static,255.255.255.0,1h\n" in text
    assert "dhcp-range=10.42.2.0,static,255.255.254.0,1h\n" in text


def test_names_outside_the_vpc_are_refused_and_never_forwarded():
    lines = dns.configuration(Path("/run/x"), "ec2.internal", ["10.42.1.0/24"]).splitlines()
    assert {"no-resolv", "no-hosts", "local=/ec2.internal/"} <= set(lines)


def test_the_domain_is_that_of_the_instances_region(launch):
    assert dns.domain_of(launch) == "ec2.internal"
