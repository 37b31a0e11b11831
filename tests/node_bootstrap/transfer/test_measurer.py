"""A node's part of a measured transfer: the command that runs it, and how it ends."""

from __future__ import annotations

import dataclasses
import json
import threading
import time

import pytest

from node_bootstrap import assignment as a
from node_bootstrap.places import Places
from node_bootstrap.transfer import measurer, pair
from node_bootstrap.transfer.measurer import Measurer


@pytest.fixture
def assignment(tmp_path) -> a.Assignment:
    """Of the first of two nodes, whose Python does what the file `does` of the test says."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$1 $2"; . {tmp_path}/does\n')
    python.chmod(0o755)
    return a.Assignment(
        schema=a.SCHEMA,
        stack="test",
        region="us-east-1",
        bucket="b",
        node="serve-0-0",
        group="serve-0",
        role="serve",
        position="primary",
        revision="r1",
        archive=a.Archive("", ""),
        members=tuple(
            a.Member(f"serve-0-{i}", f"10.0.0.{i}", "headless" if i else "primary", i, 1)
            for i in range(2)
        ),
        agent_port=9400,
        api_port=8000,
        agent_token_parameter="/t",
        argv=("vllm",),
        env={"GLOO_SOCKET_IFNAME": a.PRIMARY_INTERFACE},
        secret_env={"VLLM_API_KEY": "/k"},
        software=a.Software("venv", str(python), {}),
        weights=a.Weights("b", "m/", "/m", ()),
        hardware=a.Hardware("10.0.0.0", 1, 1.0),
        probe=a.Probe("m", "x", 1, 1),
        limits=a.Limits(1, 1, 1),
        transfer=a.Transfer("require", {"all_reduce": 5.0}, limit_seconds=0.5),
    )


def run(assignment, tmp_path, does: str, seconds: float = 60):
    (tmp_path / "does").write_text(does)
    done = threading.Event()
    made = Measurer(Places(tmp_path), done.set, systemd=False)
    made.start(assignment, "t1", "ens5")
    assert done.wait(seconds)
    return made.last


def test_the_program_is_run_with_the_roles_environment_and_its_figures_are_judged(
    assignment, tmp_path
):
    figure = [{"name": "all_reduce", "gb_per_second": 4, "payload_bytes": 1, "times": 1}]
    says = (
        f"echo TRANSFER '{json.dumps(figure)}'; echo $GLOO_SOCKET_IFNAME ${{VLLM_API_KEY:-no key}}"
    )
    token, outcome = run(assignment, tmp_path, says)
    assert token == "t1"
    assert outcome.faults == ("all_reduce moves 4 GB/s, the floor is 5",)
    log = (tmp_path / "var/lib/moe/transfer/transfer.log").read_text()
    assert "ens5 no key" in log
    assert '"address": "10.0.0.0"' in log
    assert (tmp_path / "var/lib/moe/transfer/measure.py").is_file()


def test_a_program_that_fails_is_told_with_the_last_of_its_errors(assignment, tmp_path):
    says = "echo 'torch.distributed.DistNetworkError: timed out'; echo bye; exit 3"
    assert run(assignment, tmp_path, says)[1].faults == (
        "the measurement ended with exit code 3: torch.distributed.DistNetworkError: timed out",
    )


def test_a_program_that_never_ends_is_killed_at_its_limit(assignment, tmp_path, monkeypatch):
    monkeypatch.setattr(measurer, "GRACE_SECONDS", 0.5)
    assert "not done after 1 s" in run(assignment, tmp_path, "sleep 600")[1].faults[0]


def test_one_that_is_stopped_has_no_outcome_and_leaves_nothing(assignment, tmp_path):
    (tmp_path / "does").write_text("sleep 600")
    made = Measurer(Places(tmp_path), lambda: None, systemd=False)
    made.start(assignment, "t1", "ens5")
    process = made._job.process
    made.stop()
    assert process.wait(5) == -9
    time.sleep(0.2)
    assert made.last[0] == ""


def test_a_python_that_is_not_there_is_a_fault(assignment, tmp_path):
    software = dataclasses.replace(assignment.software, python="/nowhere/python")
    made = Measurer(Places(tmp_path), lambda: None, systemd=False)
    made.start(dataclasses.replace(assignment, software=software), "t1", "ens5")
    assert "the measurement can't be started" in made.last[1].faults[0]


def test_as_a_unit_it_is_the_roles_user_with_locked_memory_and_no_value_in_sight(tmp_path):
    words = measurer.as_unit("moe-pair-transfer", tmp_path, ("NIXL_LOG_LEVEL",))
    assert words == (
        *("systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--unit=moe-pair-transfer"),
        *("--property=User=moe-role", "--property=PrivateTmp=yes"),
        *("--property=LimitMEMLOCK=infinity", f"--working-directory={tmp_path}"),
        "--setenv=NIXL_LOG_LEVEL",
    )


def test_in_a_container_it_sees_the_program_and_no_secret(assignment, tmp_path):
    software = a.Software("container", "python3", {}, "vllm/vllm-openai:v0.33.0-efa")
    contained = dataclasses.replace(assignment, software=software)
    names = tuple(measurer.environment(contained, "ens5"))
    words = measurer.command(contained, "{}", Places(tmp_path), names)
    line = " ".join(words)
    assert "--name moe-transfer" in line
    assert f"{tmp_path}/var/lib/moe/transfer:{tmp_path}/var/lib/moe/transfer:ro" in line
    assert line.endswith(
        f"--entrypoint python3 vllm/vllm-openai:v0.33.0-efa {tmp_path}/var/lib/moe/transfer/"
        "measure.py {}"
    )
    assert "VLLM_API_KEY" not in line


def test_a_pair_measures_nixl_alone_under_a_name_of_its_own(assignment, tmp_path):
    (tmp_path / "does").write_text("sleep 0.5; exit 0")
    wanted = a.Transfer("require", {"nixl_dram": 1.0}, nixl=("UCX",), port=29512)
    nodes = ("prefill-0-0", "serve-0-0")
    order = pair.MeasureOrder("t7", wanted, nodes, ("10.0.0.7", "10.0.0.0"))
    done = threading.Event()
    made = Measurer(Places(tmp_path), done.set, systemd=False, unit=measurer.PAIR_UNIT)
    asked = ("ens5", order, "i-1")
    assert pair.take_part(made, None, *asked) == pair.MeasureReport("i-1", ready=False)
    assert pair.take_part(made, assignment, *asked).token == ""
    assert done.wait(10)
    report = pair.take_part(made, assignment, *asked)
    assert report.token == "t7"
    assert report.outcome.faults == ("NIXL can't be imported where vLLM runs",)
    log = (tmp_path / "var/lib/moe/transfer/pair-transfer.log").read_text()
    told = json.loads(log.partition("measure.py ")[2])
    assert (told["node"], told["nodes"], told["address"]) == (1, 2, "10.0.0.7")
    assert (told["port"], told["collectives"], told["nixl"]) == (29512, False, ["UCX"])


@pytest.mark.parametrize(
    "changes",
    [
        {"env": {"NCCL_NET_PLUGIN": "ofi"}},
        {"software": a.Software("venv", "python", {"torch": "3"})},
        {"transfer": a.Transfer("require", {"all_reduce": 6.0})},
    ],
    ids=["environment", "software", "floor"],
)
def test_what_could_change_the_way_is_part_of_what_a_measurement_is_about(assignment, changes):
    other = dataclasses.replace(assignment, **changes)
    assert measurer.subject(other) != measurer.subject(assignment)
    flag = dataclasses.replace(assignment, argv=("vllm", "--max-model-len", "9"), revision="r2")
    assert measurer.subject(flag) == measurer.subject(assignment)
    assert measurer.subject(dataclasses.replace(assignment, transfer=None)) == ""
