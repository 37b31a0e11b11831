"""Security groups as nftables rules; loaded by a real nft in a network namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from rehearsal.machine import firewall
from rehearsal.machine.interface import Rule

VPC = "10.42.0.0/16"


def ingress(address: str, *peers: str, protocol="tcp", ports=(8000, 8000)) -> Rule:
    return Rule(address, "ingress", protocol, *ports, peers)


def lines_of(rules: list[Rule]) -> list[str]:
    return firewall.ruleset(VPC, "client", rules).splitlines()


def test_without_rules_nothing_new_is_forwarded():
    lines = lines_of([])
    assert "type filter hook forward priority filter; policy drop;" in lines
    assert not [line for line in lines if line.endswith("return")]


def test_a_rule_becomes_a_match_on_its_peers_and_ports():
    lines = lines_of([ingress("10.42.1.11", "10.42.1.0/24", ports=(8000, 8010))])
    assert "ip saddr @peers_0 tcp dport 8000-8010 return" in lines
    assert (
        "set peers_0 { type ipv4_addr; flags interval; auto-merge; elements = { 10.42.1.0/24 }; }"
        in lines
    )
    assert (
        "map ingress_of { type ipv4_addr : verdict; elements = { 10.42.1.11 : goto ingress_0 }; }"
        in lines
    )


def test_egress_matches_the_other_sides_address_as_destination():
    rule = Rule("10.42.1.11", "egress", "udp", 53, 53, ("0.0.0.0/0",))
    assert "ip daddr @peers_0 udp dport 53-53 return" in lines_of([rule])


def test_all_protocols_match_without_ports():
    rule = ingress("10.42.1.11", "0.0.0.0/0", protocol="-1", ports=(0, 0))
    assert "ip saddr @peers_0 return" in lines_of([rule])


def test_a_rule_without_peers_allows_nothing():
    assert not [line for line in lines_of([ingress("10.42.1.11")]) if line.endswith("return")]


def test_members_of_one_group_share_a_chain_and_a_set():
    nodes = [f"10.42.1.{number}" for number in range(4, 254)]
    text = firewall.ruleset(VPC, "client", [ingress(node, *nodes) for node in nodes])
    assert text.count("chain ingress_") == 1
    assert text.count("set peers_") == 1


def test_the_order_of_rules_and_peers_changes_nothing():
    first = ingress("10.42.1.11", "10.42.1.12/32", "10.42.1.13/32")
    same = ingress("10.42.1.11", "10.42.1.13/32", "10.42.1.12/32")
    other = ingress("10.42.1.12", "10.42.1.11/32")
    assert lines_of([first, other]) == lines_of([other, same])


def test_a_port_may_send_from_its_own_address_only():
    text = firewall.port_guard({"p-b": "10.42.1.12", "p-a": "10.42.1.11"})
    assert 'elements = { "p-a" . 10.42.1.11, "p-b" . 10.42.1.12 };' in text
    assert text.index("ip saddr 0.0.0.0 udp dport 67 accept") < text.index("ether type ip drop")


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft") is None, reason="needs root and nft to load rules"
)
def test_nft_takes_the_rules_of_256_nodes():
    nodes = [f"10.42.{number >> 8}.{number & 255}" for number in range(10, 266)]
    rules = [ingress(node, *(f"{peer}/32" for peer in nodes)) for node in nodes]
    rules += [ingress(node, "198.18.0.0/15", "0.0.0.0/0", protocol="icmp") for node in nodes]
    ports = {f"p-{number}": node for number, node in enumerate(nodes)}
    text = firewall.ruleset(VPC, "client", rules) + firewall.port_guard(ports)
    done = subprocess.run(
        ["unshare", "--net", "nft", "-f", "-"],
        input=text * 2,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
