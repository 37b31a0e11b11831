"""The measured transfer between two nodes, for real: Gloo and NIXL over their link, fast and slow.

In the life of the stack that the other tests share: settings of checks reach running nodes.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rehearsed import CHECKOUT, HEADLESS, PRIMARY, Rehearsed, write_stack

pytestmark = pytest.mark.e2e

FLOORS = {"all_reduce": 0.005, "all_to_all": 0.005, "nixl_dram": 0.005}
"""GB/s. Far below what two nodes on one machine reach, far above the slow link of below."""
SLOW = ("rate", "16mbit", "burst", "64kb", "latency", "400ms")
"""2 MB/s."""


@pytest.fixture(scope="module")
def measured(stack: Rehearsed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsed]:
    """The shared stack with a required transfer; as it was after these tests."""
    original = stack.stacks
    apply(stack, tmp_path_factory.mktemp("measured"), FLOORS)
    stack.run("up")
    yield stack
    stack.stacks = original
    stack.run("up")


def apply(stack: Rehearsed, folder: Path, floors: dict[str, float]) -> None:
    checks = {"transfer": "require", "transfer_floors": floors}
    stack.stacks = write_stack(folder, checks=checks)


def moe(stack: Rehearsed, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CHECKOUT / ".venv/bin/moe", *words],
        env=stack.tool_env,
        capture_output=True,
        text=True,
        check=False,
    )


def figures(report: dict[str, Any]) -> dict[str, float]:
    return {item["name"]: item["gb_per_second"] for item in report["items"]}


def test_every_figure_is_above_its_floor_and_stands_in_status_and_record(
    measured: Rehearsed,
) -> None:
    report = measured.record()["groups"]["serve-0"]["transfer"]
    assert report["faults"] == []
    found = figures(report)
    assert set(found) == set(FLOORS)
    assert all(found[name] > floor for name, floor in FLOORS.items()), found
    print("measured between two nodes, GB/s:", found, "in", report["seconds"], "s")
    shown = moe(measured, "status").stdout
    for name in FLOORS:  # a narrow terminal breaks lines anywhere
        figure = rf"{name} [\d.]+ GB/s \(floor 0.005\)".replace(" ", r"\s+")
        assert re.search(figure, shown), shown
    doctor = moe(measured, "doctor", "--transfer", "--json")
    assert doctor.returncode == 0
    assert figures(json.loads(doctor.stdout)["serve-0"]) == found


def test_both_nodes_say_that_nixls_backend_is_the_planned_one(measured: Rehearsed) -> None:
    for node in (PRIMARY, HEADLESS):
        log = measured.inside(node, "cat", "/var/lib/moe/transfer/transfer.log")
        assert "Backend UCX was instantiated" in log
        assert "libplugin_UCX.so" in log


def test_a_throttled_link_is_not_ready_with_the_number(measured: Rehearsed, tmp_path) -> None:
    measured.inside(HEADLESS, "tc", "qdisc", "add", "dev", "ens5", "root", "tbf", *SLOW)
    try:
        apply(measured, tmp_path, {**FLOORS, "all_reduce": 0.006})
        failed = measured.run("up", check=False)
        assert failed.returncode != 0
        slow = r"serve-0-0: all_reduce moves 0\.00\d+ GB/s, the floor is 0.006"
        assert re.search(slow, failed.stdout), failed.stdout[-3000:]
        assert measured.group().phase in ("gathering", "measuring")
        assert measured.complete("The experts", timeout=5).code != 200
        doctor = moe(measured, "doctor")
        assert doctor.returncode == 1
        assert "[BANDWIDTH_LOW]" in doctor.stdout
        assert re.search(slow.replace(" ", r"\s+"), doctor.stdout), doctor.stdout
    finally:
        measured.inside(HEADLESS, "tc", "qdisc", "del", "dev", "ens5", "root")
