from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from infra.catalog import instance_type, instance_types
from infra.plan.nics import NetworkInterface, nic_layout

TABLE = json.loads((Path(__file__).parent / "data" / "nic_layouts.json").read_text())
EFA_TYPES = sorted(name for name, kind in instance_types().items() if kind.max_efa)


@pytest.mark.parametrize("name", TABLE["one_ip"])
def test_one_ip_layout_has_the_documented_interfaces_in_their_slots(name):
    wanted = [NetworkInterface(*slot) for slot in TABLE["one_ip"][name]["interfaces"]]

    assert list(nic_layout(instance_type(name)).interfaces) == wanted


@pytest.mark.parametrize("name", TABLE["one_ip"])
def test_one_ip_layout_states_the_documented_bandwidth(name):
    row, layout = TABLE["one_ip"][name], nic_layout(instance_type(name))

    assert layout.efa_gbps == row["efa_gbps"]
    assert row["ena_gbps"] in (None, layout.ip_gbps)


@pytest.mark.parametrize("name", TABLE["ip_bandwidth"])
def test_ip_bandwidth_layout_adds_an_ena_on_the_documented_cards(name):
    row = TABLE["ip_bandwidth"][name]
    layout = nic_layout(instance_type(name), use="ip-bandwidth")

    enas = [n.network_card_index for n in layout.interfaces if n.interface_type == "interface"]
    assert enas == row["ena_cards"]
    assert (layout.efa_count, layout.ip_gbps) == (row["efa"], row["ip_gbps"])


@pytest.mark.parametrize("use", ["one-ip", "ip-bandwidth"])
@pytest.mark.parametrize("name", EFA_TYPES)
def test_layout_keeps_the_rules_of_ec2(name, use):
    kind = instance_type(name)
    layout = nic_layout(kind, use=use)
    cards = {card.index: card for card in kind.network_cards}

    slots = [(n.network_card_index, n.device_index) for n in layout.interfaces]
    per_card = Counter(n.network_card_index for n in layout.interfaces)
    efas = Counter(n.network_card_index for n in layout.interfaces if "efa" in n.interface_type)
    assert slots[0] == (0, 0)
    assert layout.interfaces[0].interface_type != "efa-only"
    assert len(set(slots)) == len(slots)
    assert all(count <= cards[card].max_interfaces for card, count in per_card.items())
    assert all(
        n.interface_type in cards[n.network_card_index].interface_types for n in layout.interfaces
    )
    assert max(efas.values()) == 1
    assert layout.efa_count == kind.max_efa
    assert len(slots) <= kind.max_network_interfaces


def test_a_card_for_one_interface_makes_the_primary_an_efa():
    kind = instance_type("p5.4xlarge")
    single = replace(kind, network_cards=(replace(kind.network_cards[0], max_interfaces=1),))

    assert nic_layout(single).interfaces == (NetworkInterface(0, 0, "efa"),)


def test_a_node_without_need_of_efa_gets_one_ena():
    layout = nic_layout(instance_type("p5.48xlarge"), efa=False)

    assert layout.interfaces == (NetworkInterface(0, 0, "interface"),)
    assert (layout.efa_gbps, layout.ip_gbps) == (0.0, 100.0)
