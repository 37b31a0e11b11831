"""Every fact from files: tests/node_bootstrap/facts/<fact>/*.json holds command, output, value.

A new machine or a new way to be broken is a new file, no code.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
from pathlib import Path

import pytest

from node_bootstrap import facts, runner
from node_bootstrap.facts import gpus, nccl_log, pci, unit
from node_bootstrap.facts.base import Unknown, version
from node_bootstrap.facts.read import read, run

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("*/*.json"))
SHARED = {"base", "read"}


@pytest.mark.parametrize("path", FILES, ids=[f"{p.parent.name}/{p.stem}" for p in FILES])
def test_the_output_of_the_command_is_the_value(path: Path):
    case = json.loads(path.read_text())
    fact = importlib.import_module(f"node_bootstrap.facts.{path.parent.name}")
    assert case["command"].split()[0] == fact.COMMAND[0]
    value = dataclasses.asdict(fact.parse("\n".join(case["output"])))
    assert json.loads(json.dumps(value)) == case["value"]


def test_every_fact_has_a_healthy_and_an_unknown_output_among_its_files():
    names = {m.name for m in pkgutil.iter_modules(facts.__path__)} - SHARED
    assert names == {p.parent.name for p in FILES}
    for name in sorted(names):
        values = [json.loads(p.read_text())["value"] for p in FILES if p.parent.name == name]
        unknown = [v for v in values if set(v) == {"unknown"}]
        assert unknown, f"{name}: no file shows what it does not understand"
        assert len(unknown) < len(values), f"{name}: no file has a value"


def test_an_empty_output_never_looks_healthy():
    for name in {p.parent.name for p in FILES}:
        fact = importlib.import_module(f"node_bootstrap.facts.{name}")
        assert isinstance(fact.parse(""), Unknown), name


def test_a_missing_tool_is_unknown_with_its_name():
    def missing(command):
        raise runner.CommandError(tuple(command), None, "No such file or directory")

    value = read(gpus.COMMAND, gpus.parse, missing)
    assert value == Unknown("nvidia-smi: No such file or directory")


def test_what_a_failing_tool_said_is_still_read():
    def failing(command):
        raise runner.CommandError(tuple(command), 9, "ended with an error", "No devices were found")

    value = read(gpus.COMMAND, gpus.parse, failing)
    assert value == Unknown("nvidia-smi shows no GPU: No devices were found")


def test_a_fact_of_this_machine_is_read_by_running_its_command():
    kernel = importlib.import_module("node_bootstrap.facts.kernel")
    value = read(kernel.COMMAND, kernel.parse, run)
    assert value.release == Path("/proc/sys/kernel/osrelease").read_text().strip()


def test_a_command_of_another_unit_differs_in_its_name_alone():
    assert unit.command("dbus")[:-1] == unit.COMMAND[:-1]
    assert unit.command("dbus")[-1] == "dbus"


def test_nearness_on_the_bus_counts_shared_bridges():
    gpu, near, far = (
        pci.PciDevice("gpu", "d", tuple(path), "", "") for path in ("abcd", "abce", "axyz")
    )
    assert pci.bridges_shared(gpu, near) == 3
    assert pci.bridges_shared(gpu, far) == 1


def test_versions_compare_by_their_numbers():
    assert version("2.4.0amzn1.0") == (2, 4, 0)
    assert version("7.0.0-1014-aws") > version("5.12")
    assert version("none") == ()


def test_one_process_on_sockets_is_told_even_if_the_others_use_efa():
    value = nccl_log.parse(
        "n:1:1 [0] NCCL INFO Using network Libfabric\nn:2:2 [1] NCCL INFO Using network Socket\n"
    )
    assert value.on_sockets
