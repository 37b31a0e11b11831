from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from infra.plan import plan as plans
from infra.plan import software
from infra.plan.make import make
from infra.plan.request import EngineOptions

ROOT = Path(__file__).resolve().parents[3]


def test_the_plan_of_two_nodes(stack_request, snapshot):
    assert plans.to_json(make(stack_request())) == snapshot


def test_the_same_request_gives_the_same_bytes(stack_request):
    first, second = (plans.to_json(make(stack_request())) for _ in range(2))
    assert first == second


def test_only_a_primary_is_given_the_api_key(stack_request):
    primary, headless = make(stack_request()).nodes
    assert primary.secret_env == {"VLLM_API_KEY": "/moe-serving/dev/api-key"}
    assert headless.secret_env == {}


@pytest.mark.parametrize("key", ["num_experts", "num_local_experts", "n_routed_experts"])
def test_experts_are_counted_in_every_familys_spelling(stack_request, key):
    request = dataclasses.replace(stack_request(), model_config={key: 16})
    assert make(request).model.experts == 16


def test_document_has_what_readers_rely_on(stack_request):
    document = json.loads(plans.to_json(make(stack_request())))
    node = document["groups"][0]["nodes"][0]
    assert {"name", "argv", "env", "network_interfaces", "software"} <= node.keys()
    assert set(document["groups"][0]["all2all_backend"]) == {"requested", "chosen", "reason"}


def test_a_plan_needs_neither_pulumi_nor_boto3():
    code = "import infra.plan.assignments, sys; print({'pulumi', 'boto3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_cpu_plugin_that_is_asked_for_is_the_one_in_this_checkout():
    project = ROOT / "node_bootstrap" / "vllm_cpu_ep" / "pyproject.toml"
    assert (
        tomllib.loads(project.read_text())["project"]["version"] == software.CPU_EP_PLUGIN_VERSION
    )


def test_a_given_kv_cache_is_what_the_memory_plan_has(gpu_plan):
    given = EngineOptions(kv_cache_memory_bytes=8 << 30, max_model_len=8192)
    (group,) = gpu_plan({"options": given}).groups
    assert group.memory.kv_cache_gib == 8
    assert "--gpu-memory-utilization" not in group.primary.argv
    too_much = EngineOptions(kv_cache_memory_bytes=100 << 30, max_model_len=8192)
    (group,) = gpu_plan({"options": too_much}).groups
    assert "kv_cache_memory_bytes with weights" in group.memory.problems[0]


def test_a_model_that_no_memory_rule_covers_is_noted_on_gpus_alone(stack_request, group_request):
    faults = ("hidden_size: missing or not a whole number",)
    on_cpu = dataclasses.replace(stack_request(), model_faults=faults)
    on_gpu = dataclasses.replace(
        stack_request(group_request(instance_type="p5.48xlarge")), model_faults=faults
    )
    assert make(on_cpu).notes == ()
    assert [note.code for note in make(on_gpu).notes] == ["MODEL_CONFIG_NOT_COVERED"]
    assert make(on_gpu).groups[0].memory is None
