"""`moe-node gate`: the gate's look alone, with the tools' words from the files of the facts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from nodes import HEALTHY, P5EN

from node_bootstrap import assignment as a
from node_bootstrap import durable
from node_bootstrap.agent.identity import Identity
from node_bootstrap.cli import main
from node_bootstrap.places import Places

HERE = Path(__file__).parent
TOOL = """#!{python}
import json, sys
sys.path[:0] = {path!r}
from nodes import Node
print(Node(*json.load(open({files!r})))([{name!r}, *sys.argv[1:]]))
"""


@pytest.fixture
def node(tmp_path, monkeypatch):
    """files -> (exit status of `moe-node gate`, with these facts in the place of healthy ones)."""
    places, files = Places(tmp_path / "root"), tmp_path / "files"
    told = a.Assignment(
        a.SCHEMA, "dev", "r", "b", "serve-0-0", "serve-0", "serve", "primary", "r1",
        a.Archive("", ""), (), 1, 2, "", (), {}, {}, a.Software("venv", "", {}),
        a.Weights("b", "", "", ()), P5EN, a.Probe("m", "p", 1.0, 1.0), a.Limits(1.0, 1.0, 1.0),
    )  # fmt: skip
    durable.save(places.state / "assignment.json", told)
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    durable.save(places.state / "identity.json", Identity("i-1", boot_id, 1.0))
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in {command.split()[0] for command in HEALTHY}:
        path = [str(HERE), str(HERE.parents[2])]
        text = TOOL.format(python=sys.executable, path=path, files=str(files), name=name)
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")

    def gate(*facts, words=()):
        files.write_text(json.dumps(facts))
        return main(["--root", str(places.root), "gate", *words])

    gate.places = places
    return gate


def test_a_healthy_node_is_told_so(node, capsys):
    assert node() == 0
    assert capsys.readouterr().out == "OK\n"


def test_what_is_wrong_is_told_and_nothing_is_done_or_remembered(node, capsys):
    assert node("gpu_report/row-remap-pending") == 1
    told = capsys.readouterr().out
    assert "RESET    ecc_pending      0000:00:06.0 bad memory is taken out of use" in told
    assert told.endswith("\nRESET\n")
    assert not node.places.gate.exists()


def test_a_node_that_was_told_nothing_says_so(node, capsys):
    (node.places.state / "assignment.json").unlink()
    assert node() == 1
    assert "has not read its assignment yet" in capsys.readouterr().err
