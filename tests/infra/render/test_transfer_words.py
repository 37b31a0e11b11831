"""Transfers and pairs, as `moe status` says them."""

from __future__ import annotations

from infra.render import transfer_words
from infra.report import GroupLine
from node_bootstrap.status import PairReport, TransferItem, TransferReport
from tests.infra.reports import pair

FIGURE = TransferItem("nixl_dram", 3.456, 2.0, 1, 1)
MEASURED = TransferReport(
    "k", 0.0, 1.0, required=True, items=(FIGURE,), network="NIXL", faults=("slow",)
)


def gateway(*pairs: PairReport) -> GroupLine:
    return GroupLine("gateway", "ready", 1.0, "r1", 1, {}, None, pairs=pairs)


def test_a_pair_is_told_with_what_it_moved():
    assert list(transfer_words.of_group(gateway(pair()))) == [
        "pair prefill-0 with decode-0: a whole completion in 1.3 s, 3.0 MiB of KV"
    ]


def test_a_pair_that_fails_is_told_with_its_reason():
    bad = pair(ok=False, reason="no KV moved", failures=3)
    (line,) = transfer_words.of_group(gateway(bad))
    assert line.endswith("3 whole completions in a row failed, the last one: no KV moved")


def test_a_pairs_measured_transfer_stands_below_it_with_its_faults():
    assert list(transfer_words.of_group(gateway(pair(transfer=MEASURED))))[1:] == [
        "  transfer: nixl_dram 3.46 GB/s (floor 2) over NIXL",
        "  slow",
    ]
