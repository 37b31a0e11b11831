"""What the agents of a group settle between them before any vLLM starts: real agents and roles.

Where vLLM's Python would be asked for torch and NIXL there is a small program that says what those
say; the transfer itself is measured for real in tests/e2e/rehearsal_stack/test_transfer.py.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from infra import readiness
from node_bootstrap import assignment as a
from node_bootstrap import jsondata
from node_bootstrap.gateway import membership
from node_bootstrap.status import GroupReport

PYTHON = """#!{python}
import json, os, pathlib, sys
folder = pathlib.Path({folder!r})
if sys.argv[1].endswith("measure.py"):
    order = json.loads(sys.argv[2])
    with (folder / "tokens").open("a") as seen:
        seen.write(f"{{order['node']}} {{order['token']}}\\n")
    rate = float((folder / "rate").read_text())
    if order["node"] == 0:
        made = dict(name="all_reduce", gb_per_second=rate, payload_bytes=1, times=1)
        print("TRANSFER " + json.dumps([made]))
elif sys.argv[2:3] and "importlib.import_module" in sys.argv[2]:
    node = (folder / "without").read_text()
    names = dict(error="No module named 'deep_ep'") if {name!r} == node else dict(
        file="/x/deep_ep/__init__.py", version="1", names=["Buffer"])
    print("IMPORTED " + json.dumps(names))
else:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""
BUCKET = "moe-serving-test-123456789012"
BACKEND = a.Backend("deepep_low_latency", "deep_ep", "allgather_reducescatter")


@pytest.fixture
def nodes(tmp_path, account, make_nodes):
    nodes = make_nodes(tmp_path, account)
    (tmp_path / "rate").write_text("9")
    (tmp_path / "without").write_text("")
    for name in ("serve-0-0", "serve-0-1"):
        python = tmp_path / name / "python"
        text = PYTHON.format(python=sys.executable, folder=str(tmp_path), name=name)
        python.write_text(textwrap.dedent(text))
        python.chmod(0o755)
        had = nodes.assignment(name)
        software = dataclasses.replace(had.software, python=str(python))
        nodes.changes_of[name] = {
            "software": software,
            "argv": (*had.argv, "--all2all-backend", BACKEND.name),
        }
    yield nodes
    nodes.close()


def start(nodes, **changes):
    nodes.assign(**changes)
    for name in ("serve-0-0", "serve-0-1"):
        nodes.start(name)
    return nodes


def unit(nodes, name) -> str:
    return (Path(nodes.root(name)) / "etc/systemd/system/moe-role.service").read_text()


def backend_in_effect(nodes, name, in_effect):
    """What the node's status says once it names this backend."""

    def told(_):
        status = nodes.status(name)
        return status is not None and status.backend and status.backend.in_effect == in_effect

    nodes.wait(told)
    return nodes.status(name).backend


def test_one_node_without_the_library_takes_both_to_the_fallback_and_both_say_why(nodes):
    (nodes.folder / "without").write_text("serve-0-1")
    start(nodes, backend=BACKEND).wait_ready()
    for name in ("serve-0-0", "serve-0-1"):
        assert '"--all2all-backend" "allgather_reducescatter"' in unit(nodes, name)
        told = backend_in_effect(nodes, name, "allgather_reducescatter")
        assert told.planned == BACKEND.name
        assert "deep_ep can't be imported: No module named 'deep_ep'" in told.why
    nodes.wait(lambda _: nodes.status("serve-0-0").backend.why.startswith("serve-0-1: "))


def test_with_the_library_on_both_the_planned_backend_runs(nodes):
    start(nodes, backend=BACKEND).wait_ready()
    for name in ("serve-0-0", "serve-0-1"):
        assert f'"--all2all-backend" "{BACKEND.name}"' in unit(nodes, name)
        assert backend_in_effect(nodes, name, BACKEND.name).why == ""


def test_a_member_that_exchanges_tokens_otherwise_keeps_its_group_out_and_fails_up(nodes):
    env = {**nodes.assignment("serve-0-1").env, "SAYS": "Using NaiveAll2AllManager"}
    nodes.changes_of["serve-0-1"]["env"] = env
    start(nodes, backend=BACKEND).wait_ready()
    fault = f"vLLM exchanges tokens with naive, it was started with {BACKEND.name}"
    nodes.wait(lambda group: group["members"][0]["kv_fault"] == fault)
    told = jsondata.from_json(GroupReport, json.dumps(nodes.group()))
    assert membership.view("serve-0", "serve", told, 0.0).fault == f"serve-0-1: {fault}"
    nodes.wait(lambda _: nodes.status("serve-0-1").phase == "failed")
    status = nodes.status("serve-0-1")
    expected = readiness.ExpectedNode(status.instance_id, "127.0.0.2", nodes.revision, "")
    asked = readiness.Deployment(1, "s", "r", BUCKET, "", "m", "0", {"serve-0-1": expected}, {})
    verdict = readiness.judge(asked, {"serve-0-1": status})
    assert isinstance(verdict, readiness.Failed)
    assert verdict.reasons == (f"serve-0-1 ({status.instance_id}) failed: {fault}",)


def test_a_slow_transfer_keeps_the_group_from_starting_until_it_is_fast_enough(nodes):
    wanted = a.Transfer("require", {"all_reduce": 20.0})
    start(nodes, transfer=wanted)
    slow = "serve-0-0: all_reduce moves 9 GB/s, the floor is 20"
    nodes.wait(lambda g: g["transfer"] and g["transfer"]["faults"] == [slow])
    time.sleep(1)
    assert nodes.group()["phase"] == "gathering"
    assert not (nodes.root("serve-0-0") / "var/lib/moe/role.json").exists()
    nodes.wait(lambda _: (fault := nodes.status().fault) and slow in fault.what)
    (nodes.folder / "rate").write_text("30")
    nodes.assign(transfer=dataclasses.replace(wanted, floors={"all_reduce": 19.0}))
    nodes.wait_ready()
    assert nodes.group()["transfer"]["items"][0]["gb_per_second"] == 30


def test_it_is_measured_once_for_the_same_nodes_and_again_when_asked(nodes):
    start(nodes, transfer=a.Transfer("require", {"all_reduce": 1.0})).wait_ready()
    tokens = nodes.folder / "tokens"
    assert len(set(tokens.read_text().split())) == 3, "both nodes, one token"
    nodes.before = nodes.group()["generation"]
    nodes.kill_role("serve-0-1")
    nodes.wait_fault()
    nodes.wait_ready()
    assert len(tokens.read_text().splitlines()) == 2
    command = [
        sys.executable,
        "-m",
        "node_bootstrap",
        "--root",
        nodes.root("serve-0-1"),
        "transfer",
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.fullmatch(r"all_reduce +9\.000 GB/s  \(floor 1\)\n", shown.stdout)
    nodes.wait_ready()
    assert len(tokens.read_text().splitlines()) == 4
    assert "a measured transfer was asked for" in [r["cause"] for r in nodes.group()["restarts"]]
