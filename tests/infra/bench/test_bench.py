"""What a bench sends, reads and draws; with vLLM itself: rehearsal_pd/test_moe_bench.py."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import boto3
import pytest
from moto import mock_aws

from infra.bench import asked, plot, result
from infra.bench.asked import Load, Target
from infra.bench.result import Bench, ResultError, Run
from infra.cli import bench as command
from infra.cli.errors import UsageError

WRITTEN = (Path(__file__).parent / "vllm-result.json").read_text()
TARGET = Target("https://10.0.0.5", "org/tiny", "build/models/tiny")
LOAD = Load(rates=(1.0, 2.0), seeds=(1, 2, 3), seconds=10, input_tokens=64, output_tokens=8)


def run_of(rate: float, seed: int, **values: float) -> Run:
    measured = result.read_run(WRITTEN, rate, seed)
    return replace(measured, values=measured.values | values)


def bench_of(*runs: Run, label: str = "here") -> Bench:
    return Bench(label, TARGET, LOAD, 1.0, "a caveat", runs)


def test_each_run_sends_as_many_requests_as_its_rate_and_seconds_say():
    argv = asked.argv(TARGET, LOAD, 2.0, 3, Path("out/result.json"))
    given = dict(pairwise(argv))
    assert given["--num-prompts"] == "20"
    assert given["--request-rate"] == "2"
    assert given["--seed"] == "3"
    assert given["--base-url"] == "https://10.0.0.5"
    assert (given["--result-dir"], given["--result-filename"]) == ("out", "result.json")


def test_the_key_and_the_authority_go_through_the_environment():
    made = asked.environment("secret", "ca.pem")
    assert made["OPENAI_API_KEY"] == "secret"
    assert made["SSL_CERT_FILE"] == "ca.pem"
    assert "SSL_CERT_FILE" not in asked.environment("secret", None)


def test_a_run_is_read_from_what_vllm_wrote():
    run = result.read_run(WRITTEN, 4.0, 1)
    assert (run.completed, run.failed) == (12, 0)
    assert run.values["ttft_p50_ms"] == pytest.approx(42.6, abs=0.1)
    assert run.values["output_tokens_per_second"] == pytest.approx(59.4, abs=0.1)


def test_a_run_without_an_answer_has_no_values():
    nothing = json.dumps({"completed": 0, "failed": 12, "duration": 3.0})
    assert result.read_run(nothing, 4.0, 1).values == {}


def test_what_is_no_result_is_refused_with_its_name():
    with pytest.raises(ResultError, match="rate 4, seed 1"):
        result.read_run("{}", 4.0, 1)
    with pytest.raises(ResultError, match=r"other\.json is no result"):
        result.from_json("[]", "other.json")


def test_each_rate_has_its_median_and_spread_over_the_seeds():
    runs = [run_of(2.0, seed, ttft_p50_ms=ms) for seed, ms in ((1, 10.0), (2, 40.0), (3, 20.0))]
    (row,) = bench_of(*runs).rows
    spread = row.values["ttft_p50_ms"]
    assert (spread.median, spread.least, spread.most) == (20.0, 10.0, 40.0)
    assert row.completed == 36


def test_a_file_is_read_back_as_it_was_written():
    bench = bench_of(run_of(1.0, 1), run_of(2.0, 1))
    assert result.from_json(result.to_json(bench), "here.json") == bench


def test_the_drawing_has_every_bench_and_the_same_bytes_each_time():
    benches = [
        bench_of(*(run_of(rate, 1) for rate in (1.0, 2.0)), label=name)
        for name in ("gateway", "direct")
    ]
    drawn = plot.draw(benches)
    assert drawn == plot.draw(benches)
    texts = [element.text for element in ET.fromstring(drawn).iter() if element.text]  # noqa: S314 - drawn here
    assert {"gateway", "direct", "a caveat"} <= set(texts)


def test_the_drawing_is_made_although_nothing_answered():
    silent = Run(1.0, 1, 0, 10, 3.0, {})
    assert "<svg" in plot.draw([bench_of(silent)])


@pytest.mark.parametrize("most", [0.0, 0.003, 1.0, 7.0, 42.0, 99.0, 12345.0])
def test_an_axis_ends_at_or_above_what_it_shows(most):
    scale = plot._scale(most, 0.0, 100.0)
    assert scale.most >= most
    assert 2 <= len(plot._ticks(scale)) <= 7


def test_without_vllm_here_one_is_told_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv(command.PYTHON_VARIABLE, raising=False)
    with pytest.raises(UsageError, match="there is no vLLM on this machine"):
        command.find_python(None)
    with pytest.raises(UsageError, match="There is no /nowhere/python"):
        command.find_python(Path("/nowhere/python"))


@pytest.fixture
def session(monkeypatch):
    """An account with the key of the stack's vLLM and one of its gateway."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name in ("AWS_ENDPOINT_URL", command.KEY_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        made = boto3.session.Session(region_name="us-east-1")
        keys = {"/moe-serving/dev/api-key": "of-vllm", "/moe-serving/dev/keys/ours": "of-gateway"}
        for name, value in keys.items():
            made.client("ssm").put_parameter(Name=name, Value=value, Type="SecureString")
        yield made


@pytest.mark.parametrize(
    ("base_url", "key"),
    [
        (None, "of-gateway"),
        ("https://localhost:8443", "of-gateway"),
        ("http://10.0.0.10:8000", "of-vllm"),
    ],
)
def test_the_key_is_that_of_whoever_answers_there(session, base_url, key):
    digest = hashlib.sha256(b"of-gateway").hexdigest()
    gateway = SimpleNamespace(keys=(SimpleNamespace(sha256=digest),))
    question = SimpleNamespace(stack="dev", base_url=base_url)
    assert command._key(session, question, gateway) == key  # pyright: ignore[reportArgumentType]
