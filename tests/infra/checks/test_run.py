from __future__ import annotations

import time

import pytest

from infra.checks import Severity, run
from infra.checks.finding import Finding, in_order


def codes(findings) -> list[str]:
    return [finding.code for finding in findings]


@pytest.fixture
def decode_settings():
    return {
        "model": {"name": "Qwen/Qwen3-30B-A3B", "source": "hf"},
        "vllm": {"version": "0.33.0"},
        "groups": {
            "prefill": {"role": "prefill", "instance_type": "p5en.48xlarge"},
            "decode": {
                "role": "decode",
                "instance_type": "p5en.48xlarge",
                "kv_cache_dtype": "fp8",
                "replicas": 3,
            },
        },
    }


def test_errors_come_first_then_warnings_then_notes(plan, gpu_settings):
    found = run(plan(gpu_settings(nodes=2, eplb={"num_redundant_experts": 3})))
    ranks = [finding.severity.rank for finding in found]
    assert ranks == sorted(ranks, reverse=True)
    assert found[0].severity is Severity.ERROR


def test_the_same_plan_gives_the_same_findings(plan, gpu_settings):
    settings = gpu_settings(nodes=2, eplb={"num_redundant_experts": 3})
    assert run(plan(settings)) == run(plan(settings))


def test_a_finding_names_the_settings_key(plan, gpu_settings):
    found = run(plan(gpu_settings(nodes=2, eplb={"num_redundant_experts": 3})))
    (finding,) = (f for f in found if f.code == "EPLB_UNEVEN_SPLIT")
    assert finding.where == "moe-serving:groups.serve.eplb.num_redundant_experts"
    assert "131" in finding.message
    assert finding.remedy == "set num_redundant_experts to 0 or 16"


def test_a_finding_about_the_stack_names_the_stacks_key(plan, gpu_settings):
    (finding,) = (f for f in run(plan(gpu_settings())) if f.code == "DRIVER_FLOOR")
    assert finding.where == "moe-serving:ami"


def test_replicas_of_a_group_are_found_once(plan, decode_settings):
    assert codes(run(plan(decode_settings))).count("PD_KV_CACHE_DTYPE") == 1


def test_a_code_can_be_suppressed_by_the_caller_and_by_the_settings(plan, gpu_settings):
    settings = gpu_settings(nodes=2, eplb={"num_redundant_experts": 3})
    assert "EPLB_UNEVEN_SPLIT" not in codes(run(plan(settings), {"EPLB_UNEVEN_SPLIT"}))
    settings["checks"] = {"suppress": ["EPLB_UNEVEN_SPLIT"]}
    assert "EPLB_UNEVEN_SPLIT" not in codes(run(plan(settings)))


def test_what_would_corrupt_answers_stays_and_the_attempt_is_found(plan, decode_settings):
    found = codes(run(plan(decode_settings), {"PD_KV_CACHE_DTYPE"}))
    assert "PD_KV_CACHE_DTYPE" in found
    assert "SUPPRESS_REFUSED" in found


def test_the_attempt_itself_cannot_be_silenced(plan, decode_settings):
    found = codes(run(plan(decode_settings), {"PD_KV_CACHE_DTYPE", "SUPPRESS_REFUSED"}))
    assert "SUPPRESS_REFUSED" in found


def test_findings_in_order_are_unique():
    one = Finding("A_CODE", Severity.INFO, "moe-serving:groups", "It is so. So it is.", "leave it")
    worse = Finding("B_CODE", Severity.ERROR, "moe-serving:z", "It is so. So it is.", "mend it")
    assert in_order((one, worse, one)) == (worse, one)


@pytest.mark.parametrize("shape", [{"nodes": 256}, {"nodes": 4, "replicas": 64}])
def test_256_nodes_are_checked_within_a_second(plan, gpu_settings, shape):
    made = plan(gpu_settings(**shape))
    assert len(made.nodes) == 256
    run(made)
    start = time.perf_counter()
    run(made)
    assert time.perf_counter() - start < 1
