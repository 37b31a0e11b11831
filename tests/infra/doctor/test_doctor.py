"""The library of symptoms: each shows where it should and not where it should not."""

from __future__ import annotations

import dataclasses
import re
import tomllib
from pathlib import Path

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from infra.cli.app import app
from infra.doctor import gather
from infra.doctor.library import STAGES, affects, symptoms
from infra.doctor.match import Evidence, diagnose, sighting
from node_bootstrap.agent import signs
from node_bootstrap.assignment import Transfer, assignment_key, status_key
from node_bootstrap.jsondata import to_json
from node_bootstrap.status import (
    BackendReport,
    EngineMetrics,
    Fault,
    GatewayReport,
    HardwareFinding,
    HardwareReport,
    Restart,
    Sign,
    TransferItem,
    TransferReport,
)
from tests.infra.reports import pair

EXAMPLES = tomllib.loads((Path(__file__).parent / "examples.toml").read_text())
LIBRARY = {s.id: s for s in symptoms()}
EVERY = sorted(LIBRARY)


def pieces(name: str) -> list[tuple[Evidence, Evidence]]:
    """(shows it, does not) of one symptom, for each way that it can be seen."""
    held, found = EXAMPLES[name], []
    if "shows" in held:
        found.append((Evidence("n", "log", held["shows"]), Evidence("n", "log", held["not"])))
    if "field" in held:
        field, bad, good = held["field"]
        found.append(tuple(Evidence("n", "status", fields={field: v}) for v in (bad, good)))
    if "metric" in held:
        metric, bad, good = held["metric"]
        found.append(tuple(Evidence("n", "metrics", metrics={metric: v}) for v in (bad, good)))
    return found


def test_every_symptom_has_its_examples():
    assert set(EXAMPLES) == set(LIBRARY)
    assert len(LIBRARY) >= 30


@pytest.mark.parametrize("name", EVERY)
def test_a_symptom_shows_where_it_is_and_only_there(name):
    for shows, other in pieces(name):
        assert sighting(LIBRARY[name], shows) is not None, shows
        assert sighting(LIBRARY[name], other) is None, other


@pytest.mark.parametrize("name", EVERY)
def test_a_symptom_says_all_that_a_person_needs(name):
    symptom = LIBRARY[name]
    assert all((symptom.symptom, symptom.cause, symptom.fix, symptom.verify, symptom.source))
    assert symptom.log or symptom.status or symptom.metric
    assert symptom.stage in STAGES
    assert affects(symptom.affected, "0.33.0") in (True, False)
    assert all(re.compile(pattern) for pattern in symptom.log)
    assert set(symptom.explains) <= set(LIBRARY) - {name}


def test_no_two_symptoms_explain_one_another():
    """Else neither would be shown."""
    for one in LIBRARY.values():
        for other in one.explains:
            assert one.id not in LIBRARY[other].explains


def test_the_four_of_the_serving_guide_are_among_them():
    lines = {
        "ALL2ALL_ERRORS": "ncclSystemError: System call failed",
        "LOAD_IMBALANCE": "balancedness=0.2",
        "OOM_LOADING": "CUDA out of memory",
        "KV_EXHAUSTED": "Preempted 12 requests",
    }
    for name, line in lines.items():
        (found,) = diagnose([Evidence("n", "log", line)], symptoms())
        assert found.symptom.id == name


def test_causes_come_first_and_consequences_last_with_what_explains_them():
    found = diagnose(
        [
            Evidence("b", "log", "EngineDeadError\nWatchdog caught collective operation timeout"),
            Evidence("a", "gate", "GPU has fallen off the bus", at=9.0),
            Evidence("a", "log", "balancedness=0.1"),
        ],
        symptoms(),
    )
    assert [d.symptom.id for d in found] == [
        "GPU_LOST",
        "LOAD_IMBALANCE",
        "COLLECTIVE_TIMEOUT",
        "ENGINE_DEAD",
    ]
    assert found[2].consequence_of == ("GPU_LOST",)
    assert found[3].consequence_of == ("GPU_LOST", "COLLECTIVE_TIMEOUT")


def test_the_first_of_several_sightings_is_shown_first():
    line = "GPU has fallen off the bus"
    (found,) = diagnose([Evidence("b", "x", line, 9.0), Evidence("a", "x", line, 3.0)], symptoms())
    assert [s.node for s in found.sightings] == ["a", "b"]


def test_a_symptom_of_other_releases_is_left_out():
    line = EXAMPLES["DEEPEP_V2_CUDAGRAPH"]["shows"]
    assert diagnose([Evidence("n", "x", line, vllm="0.28.0")], symptoms())
    assert not diagnose([Evidence("n", "x", line, vllm="0.29.0")], symptoms())


@pytest.mark.parametrize(
    ("spec", "version", "expected"),
    [
        ("", "0.33.0", True),
        (">=0.24,<0.29", "0.28.1", True),
        (">=0.24,<0.29", "0.29.0", False),
        (">=0.24", "0.23.0", False),
        ("<0.29", "", True),
    ],
)
def test_releases(spec, version, expected):
    assert affects(spec, version) is expected


def test_an_unreadable_spec_is_refused():
    with pytest.raises(ValueError, match="not of the form"):
        affects("0.24+", "0.33.0")


def test_of_a_metric_the_largest_value_of_all_engines_counts():
    text = (
        "# TYPE vllm:kv_cache_usage_perc gauge\n"
        'vllm:kv_cache_usage_perc{engine="0"} 0.2\nvllm:kv_cache_usage_perc{engine="1"} 0.97\n'
        'vllm:nixl_num_failed_transfers_total{engine="0"} 3.0\n'
    )
    assert signs.largest(text) == {
        "vllm:kv_cache_usage_perc": 0.97,
        "vllm:nixl_num_failed_transfers": 3.0,
    }


def test_what_nodes_say_becomes_evidence(assignment, status):
    reported = status(
        0,
        updated_at=1000.0,
        fault=Fault(990.0, "its process VLLM::EngineCore did", 3, "CUDA out of memory"),
        hardware=HardwareReport("ISOLATE", (HardwareFinding("xid", "REBOOT", "p", "Xid 79: x"),)),
    )
    found = diagnose(
        gather.evidence({"serve-0-0": assignment}, {"serve-0-0": reported}, 1001.0), symptoms()
    )
    ids = [d.symptom.id for d in found]
    assert ids[:3] == ["GPU_LOST", "HARDWARE_ISOLATED", "OOM_LOADING"]
    assert found[-1].symptom.id == "ENGINE_DEAD"
    assert found[-1].consequence_of


def test_a_node_that_was_never_heard_of_is_silent(assignment):
    (found,) = diagnose(gather.evidence({"serve-0-0": assignment}, {}, 1.0), symptoms())
    assert found.symptom.id == "NODE_SILENT"


def test_starts_that_never_got_ready_are_counted_from_the_last(assignment, status, group_report):
    restarts = tuple(Restart(n, "r1", "x", float(n), 9.0 if n == 1 else None) for n in range(1, 5))
    reported = status(0, updated_at=5.0, group=group_report(restarts=restarts))
    (piece, *_) = gather.evidence({"serve-0-0": assignment}, {"serve-0-0": reported}, 6.0)
    assert piece.fields["group.unready_starts"] == "3"


def test_a_healthy_start_shows_nothing():
    """vLLM prints all its arguments: names such as eplb and timeout stand in one line."""
    text = (Path(__file__).parent / "healthy_start.log").read_text()
    assert [d.symptom.id for d in diagnose([Evidence("n", "log", text)], symptoms())] == []


def test_a_fault_that_a_later_generation_got_over_is_history(assignment, status, group_report):
    def found(generation: int):
        group = group_report(phase="ready", generation=2)
        fault = Fault(4.0, "x", generation, "CUDA out of memory")
        reported = status(0, updated_at=5.0, group=group, fault=fault)
        pieces = gather.evidence({"serve-0-0": assignment}, {"serve-0-0": reported}, 6.0)
        return [d.symptom.id for d in diagnose(pieces, symptoms())]

    assert found(1) == []
    assert found(2) == ["OOM_LOADING"]


def test_what_nodes_look_for_is_what_the_library_knows():
    assert {name: LIBRARY[name].log for name in signs.LINES} == signs.LINES
    assert {s.metric.name for s in symptoms() if s.metric} == signs.METRICS


@pytest.mark.parametrize("name", sorted(signs.LINES))
def test_a_line_of_a_vllm_that_goes_on_serving_is_found(name, assignment, status):
    text = f"INFO fine\n{EXAMPLES[name]['shows']}\nINFO fine\n"
    kept = signs.lines(text, (), at=900.0)
    reported = status(0, updated_at=1000.0, signs=kept)
    pieces = gather.evidence({"serve-0-0": assignment}, {"serve-0-0": reported}, 1020.0)
    (found,) = diagnose(pieces, symptoms())
    assert found.symptom.id == name
    assert found.sightings[0].where == "log of vLLM, 2 min ago"


def test_metrics_of_a_vllm_that_goes_on_serving_are_found(assignment, status):
    page = (
        'vllm:num_requests_waiting{engine="0"} 3.0\nvllm:num_requests_waiting{engine="1"} 400.0\n'
    )
    reported = status(0, updated_at=1000.0, metrics=signs.metrics(page, at=1000.0))
    pieces = gather.evidence({"serve-0-0": assignment}, {"serve-0-0": reported}, 1060.0)
    (found,) = diagnose(pieces, symptoms())
    assert found.symptom.id == "QUEUE"
    assert found.sightings[0].where == "metrics of vLLM, 1 min ago"


def test_transfers_that_failed_in_the_gateways_trial_of_a_pair_are_found(assignment, status):
    lives = {"prefill": "prefill-0 r/1", "decode": "decode-0 r/1"}
    failed = pair(**lives, ok=False, reason="x", failed_transfers=2, at=990.0)
    gateway = GatewayReport(serving=False, since=0.0, why="x", groups=(), units={}, pairs=(failed,))
    reported = status(0, updated_at=1000.0, gateway=gateway)
    pieces = gather.evidence({"serve-0-0": assignment}, {"serve-0-0": reported}, 1020.0)
    (found,) = diagnose(pieces, symptoms())
    assert found.symptom.id == "KV_TRANSFER_FAILED"
    assert found.sightings[0].where == "trial of prefill-0 r/1 with decode-0 r/1"


@pytest.mark.parametrize("changes", [{"updated_at": 9000.0}, {"running": False}])
def test_what_is_of_another_time_or_of_no_vllm_is_history(assignment, status, changes):
    line, most = (
        Sign("LOAD_IMBALANCE", "balancedness=0.1", 900.0),
        {"vllm:num_requests_waiting": 900},
    )
    told = {"updated_at": 1000.0, "signs": (line,), "metrics": EngineMetrics(900.0, most)} | changes
    reported = status(0, **told)
    pieces = gather.evidence({"serve-0-0": assignment}, {"serve-0-0": reported}, told["updated_at"])
    assert diagnose(pieces, symptoms()) == ()


@pytest.fixture
def doctor(monkeypatch):
    """`moe doctor dev …` on a bucket that holds one node's assignment and status."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    bucket = "moe-serving-dev-123456789012"

    def ask(assignment, reported, *words):
        with mock_aws():
            s3 = boto3.client("s3", region_name="us-east-1")
            s3.create_bucket(Bucket=bucket)
            for key, value in (
                (assignment_key("serve-0-0"), assignment),
                (status_key("serve-0-0"), reported),
            ):
                s3.put_object(Bucket=bucket, Key=key, Body=to_json(value).encode())
            return CliRunner().invoke(app, ["doctor", "dev", *words])

    return ask


def test_a_stack_is_read_from_its_bucket(assignment, status, doctor):
    fault = Fault(4.0, "its process VLLM::EngineCore did", 9, "CUDA out of memory")
    shown = doctor(assignment, status(0, updated_at=4e9, fault=fault))
    assert shown.exit_code == 1, shown.output
    assert "1. Out of memory while loading [OOM_LOADING]" in shown.stdout
    assert "serve-0-0: log of vLLM: CUDA out of memory" in shown.stdout


MEASURED = TransferReport(
    "k",
    1.0,
    9.0,
    required=True,
    items=(TransferItem("all_reduce", 310.0, 200.0, 1 << 30, 9),),
    network="Libfabric",
    nics=32,
)
SLOW = dataclasses.replace(
    MEASURED,
    items=(TransferItem("all_reduce", 12.1, 200.0, 1 << 30, 9),),
    faults=("serve-0-0: all_reduce moves 12.1 GB/s, the floor is 200",),
)


def test_a_measured_transfer_can_be_asked_for_alone(assignment, status, group_report, doctor):
    told = dataclasses.replace(assignment, transfer=Transfer("require", {"all_reduce": 200.0}))
    shown = doctor(told, status(0, group=group_report(transfer=MEASURED)), "--transfer")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout == ("serve-0: all_reduce 310 GB/s (floor 200) over Libfabric, 32 NICs\n")
    shown = doctor(told, status(0, group=group_report(transfer=SLOW)), "--transfer")
    assert shown.exit_code == 1
    assert "all_reduce moves 12.1 GB/s, the floor is 200" in shown.stdout
    shown = doctor(told, status(0, group=group_report()), "--transfer")
    assert (shown.exit_code, shown.stdout) == (1, "serve-0: not measured yet\n")
    shown = doctor(assignment, status(0, group=group_report()), "--transfer")
    assert shown.exit_code == 0
    assert "No group of this stack measures a transfer" in shown.stdout


@pytest.mark.parametrize(
    ("fault", "symptom"),
    [
        (SLOW.faults[0], "BANDWIDTH_LOW"),
        ("serve-0-1: NCCL uses sockets, the plan is efa", "NCCL_SOCKET"),
        ("serve-0-1: NCCL found 1 NICs, the plan has 32", "NCCL_FEW_NICS"),
        ("serve-0-1: NIXL made UCX, the plan is LIBFABRIC", "NIXL_UCX"),
        ("serve-0-1: the measurement was not done", "TRANSFER_NOT_MEASURED"),
    ],
)
def test_what_is_wrong_with_a_transfer_is_a_symptom(
    assignment, status, group_report, fault, symptom
):
    group = group_report(transfer=dataclasses.replace(SLOW, faults=(fault,)))
    reported = status(0, updated_at=5.0, group=group)
    pieces = gather.evidence({"serve-0-0": assignment}, {"serve-0-0": reported}, 6.0)
    assert [d.symptom.id for d in diagnose(pieces, symptoms())] == [symptom]


def test_a_backend_that_all_nodes_fell_back_to_is_a_symptom(assignment, status):
    backend = BackendReport("deepep_low_latency", "allgather_reducescatter", "n1: no deep_ep")
    reported = status(0, updated_at=5.0, backend=backend)
    pieces = gather.evidence({"serve-0-0": assignment}, {"serve-0-0": reported}, 6.0)
    (found,) = diagnose(pieces, symptoms())
    assert found.symptom.id == "ALL2ALL_FALLBACK"
    assert "n1: no deep_ep" in found.sightings[0].shown
