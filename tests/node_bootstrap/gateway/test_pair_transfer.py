"""What the gateway orders of two nodes to measure their transfer, and what it makes of it."""

from __future__ import annotations

import dataclasses

import pytest

from node_bootstrap import assignment as a
from node_bootstrap.gateway import pair_transfer
from node_bootstrap.gateway.pair_transfer import measure, reason
from node_bootstrap.gateway.peers import PeerError
from node_bootstrap.status import TransferItem
from node_bootstrap.transfer.judge import Outcome
from node_bootstrap.transfer.pair import MeasureOrder, MeasureReport

WANTED = a.Transfer("require", {"nixl_dram": 2.0}, nixl=("UCX",), limit_seconds=0.1)
ITEM = TransferItem("nixl_dram", 3.5, 2.0, 1 << 24, 9)


def group(name: str, transfer: a.Transfer | None = None) -> a.GatewayGroup:
    member = a.Member(f"{name}-0", f"10.0.0.{len(name)}", "primary", 0, 2)
    other = a.Member(f"{name}-1", "10.0.1.1", "headless", 2, 2)
    role = "decode" if name.startswith("decode") else "prefill"
    return a.GatewayGroup(name, role, (), 4, (member, other), None, transfer)


PREFILL, DECODE = group("prefill-0"), group("decode-0", WANTED)


class Nodes:
    """Both nodes, as their agents answer: done at the second time that they are asked."""

    def __init__(self, **outcomes: Outcome | None):
        self.outcomes = {"prefill_0_0": Outcome((ITEM,)), "decode_0_0": Outcome()} | outcomes
        self.orders: list[tuple[str, MeasureOrder]] = []
        self.instances = {"prefill-0-0": "i-1", "decode-0-0": "i-2"}

    def __call__(self, member: a.Member, order: MeasureOrder) -> MeasureReport:
        self.orders.append((member.name, order))
        outcome = self.outcomes[member.name.replace("-", "_")]
        begun = len([1 for name, o in self.orders if name == member.name and o.token]) > 1
        instance = self.instances[member.name]
        if outcome is None or not order.token or not begun:
            return MeasureReport(instance, ready=True)
        return MeasureReport(instance, ready=True, token=order.token, outcome=outcome)


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(pair_transfer, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(pair_transfer, "LATE_SECONDS", 0.2)


def test_both_primaries_take_part_in_one_measurement_and_the_figure_is_reported():
    nodes = Nodes()
    report = measure(PREFILL, DECODE, nodes, None)
    assert report is not None
    assert (report.items, report.faults, report.required) == ((ITEM,), (), True)
    assert reason(report) == ""
    orders = [order for _, order in nodes.orders if order.token]
    order = orders[0]
    assert all(other == order for other in orders)
    assert order.nodes == ("prefill-0-0", "decode-0-0")
    assert order.addresses == ("10.0.0.9", "10.0.0.8")
    assert order.transfer == WANTED


def test_below_the_floor_the_pair_may_not_serve_and_the_number_is_told():
    slow = Outcome((ITEM,), faults=("nixl_dram moves 0.002 GB/s, the floor is 2",))
    report = measure(PREFILL, DECODE, Nodes(prefill_0_0=slow), None)
    assert reason(report) == (
        "the transfer between its nodes: prefill-0-0: nixl_dram moves 0.002 GB/s, the floor is 2"
    )


def test_what_is_only_measured_keeps_no_pair_out():
    told = dataclasses.replace(WANTED, mode="measure")
    slow = Outcome((ITEM,), faults=("nixl_dram moves 0.002 GB/s, the floor is 2",))
    report = measure(PREFILL, group("decode-0", told), Nodes(prefill_0_0=slow), None)
    assert report is not None
    assert report.faults
    assert reason(report) == ""


def test_the_same_instances_are_not_measured_again_and_others_are():
    first = measure(PREFILL, DECODE, Nodes(), None)
    again = Nodes()
    assert measure(PREFILL, DECODE, again, first) is first
    assert not [order for _, order in again.orders if order.token]
    again.instances["decode-0-0"] = "i-3"
    other = measure(PREFILL, DECODE, again, first)
    assert other is not None
    assert first is not None
    assert other.key != first.key


def test_one_that_was_not_as_planned_is_measured_again():
    slow = measure(PREFILL, DECODE, Nodes(decode_0_0=Outcome(faults=("slow",))), None)
    nodes = Nodes()
    report = measure(PREFILL, DECODE, nodes, slow)
    assert report is not None
    assert report.faults == ()


def test_a_node_that_never_ends_is_named():
    report = measure(PREFILL, DECODE, Nodes(decode_0_0=None), None)
    assert reason(report).endswith("decode-0-0: the measurement was not done")


def test_a_node_that_cannot_be_asked_is_a_fault():
    def away(*_):
        raise PeerError("10.0.0.8:9400: refused")

    assert "a node can't be asked: 10.0.0.8:9400: refused" in reason(
        measure(PREFILL, DECODE, away, None)
    )


def test_without_anything_to_measure_nobody_is_asked():
    nodes = Nodes()
    assert measure(PREFILL, group("decode-0"), nodes, None) is None
    assert nodes.orders == []
