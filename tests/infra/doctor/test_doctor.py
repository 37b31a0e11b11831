"""The library of symptoms: each shows where it should and not where it should not."""

from __future__ import annotations

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
from infra.doctor.match import Evidence, diagnose, metrics, sighting
from node_bootstrap.assignment import assignment_key, status_key
from node_bootstrap.jsondata import to_json
from node_bootstrap.status import Fault, HardwareFinding, HardwareReport, Restart

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
    assert metrics(text) == {
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


def test_a_stack_is_read_from_its_bucket(assignment, status, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    bucket = "moe-serving-dev-123456789012"
    fault = Fault(4.0, "its process VLLM::EngineCore did", 9, "CUDA out of memory")
    with mock_aws():
        s3 = boto3.client("s3", region_name="us-east-1")
        s3.create_bucket(Bucket=bucket)
        for key, value in (
            (assignment_key("serve-0-0"), assignment),
            (status_key("serve-0-0"), status(0, updated_at=4e9, fault=fault)),
        ):
            s3.put_object(Bucket=bucket, Key=key, Body=to_json(value).encode())
        shown = CliRunner().invoke(app, ["doctor", "dev"])
    assert shown.exit_code == 1, shown.output
    assert "1. Out of memory while loading [OOM_LOADING]" in shown.stdout
    assert "serve-0-0: log of vLLM: CUDA out of memory" in shown.stdout
