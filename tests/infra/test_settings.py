from __future__ import annotations

import copy
from typing import Any

import pytest

from infra import settings
from infra.faults import SettingsError
from infra.names import bucket_name

GOOD: dict[str, Any] = {
    "model": {"name": "org/tiny-moe", "source": "build/models/tiny"},
    "groups": {"serve": {"instance_type": "c7i.large", "nodes": 2}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    *parents, last = path.split(".")
    at = data
    for key in parents:
        at = at.setdefault(key, {})
    at[last] = value
    return data


def faults_of(data: dict[str, Any], stack: str = "dev") -> tuple[str, ...]:
    with pytest.raises(SettingsError) as raised:
        settings.from_mapping(data, stack)
    return raised.value.faults


def test_model_and_groups_are_enough():
    judged = settings.from_mapping(GOOD, "dev")
    group = judged.groups["serve"]
    assert (group.nodes, group.replicas, group.role) == (2, 1, "serve")
    assert judged.vllm.version == "0.32.0"
    assert judged.endpoint.allowed_cidrs == ()
    assert judged.ready_timeout_seconds == 1800


TAKEN = [
    ("groups.serve.extra_args", ["--seed", "1"]),
    ("groups.serve.env", {"VLLM_LOGGING_LEVEL": "DEBUG"}),
    ("groups.serve.all2all_backend", "allgather_reducescatter"),
    ("groups.serve.data_parallel_size_local", 2),
    ("groups.a-group2", {"instance_type": "m7i.xlarge"}),
    ("network.zone", "us-east-1b"),
    ("network.cidr", "10.0.0.0/28"),
    ("endpoint.allowed_cidrs", ["10.0.0.0/8", "192.0.2.1/32"]),
    ("ami", "ami-0123456789abcdef0"),
    ("ready_timeout", "90s"),
    ("tags", {"team": "search"}),
]


@pytest.mark.parametrize(("path", "value"), TAKEN, ids=[path for path, _ in TAKEN])
def test_taken(path: str, value: Any):
    settings.from_mapping(changed(path, value), "dev")


REFUSED = [
    ("groups.serve.nodes", 0, "groups.serve.nodes: 0 is not allowed; at least 1"),
    ("groups.serve.nodes", "2", 'groups.serve.nodes: "2" is not allowed; wanted a whole number'),
    ("groups.serve.nodes", True, "groups.serve.nodes: true is not allowed; wanted a whole number"),
    ("groups.serve.nodes", 1.5, "groups.serve.nodes: 1.5 is not allowed; wanted a whole number"),
    ("groups.serve.replicas", -1, "groups.serve.replicas: -1 is not allowed; at least 1"),
    ("groups.serve.role", "prefill", "role: \"prefill\" is not allowed; allowed: 'serve'"),
    ("groups.serve.tensor_parallel_size", 2, "tensor_parallel_size: 2 is not allowed; allowed: 1"),
    ("groups.serve.enforce_eager", False, "enforce_eager: false is not allowed; allowed: True"),
    ("groups.serve.enable_expert_parallel", "yes", "wanted true or false"),
    ("groups.serve.all2all_backend", "deepep_v2", "'auto' or 'allgather_reducescatter'"),
    ("groups.serve.dtype", "fp8", "'auto', 'bfloat16', 'float16' or 'float32'"),
    ("groups.serve.instance_type", "c7i.larg", "Did you mean c7i.large"),
    ("groups.serve.instance_type", "p5.48xlarge", "GPU types are not built yet"),
    ("groups.serve.node", 2, "groups.serve.node: unknown key. Did you mean nodes?"),
    ("groups.serve.extra_args", ["--port=1"], "flags that the plan doesn't set itself"),
    ("groups.serve.extra_args", "--seed 1", "wanted a list"),
    ("groups.serve.env", {"A": 1}, "groups.serve.env.A: 1 is not allowed; wanted a text"),
    ("groups.serve.kv_cache_memory_bytes", 64, "at least 1048576"),
    ("groups.serve.eplb", {}, "groups.serve.eplb: not built yet"),
    ("groups.serve.quantization", "fp8", "groups.serve.quantization: not built yet"),
    ("groups.serve.gpu_memory_utilization", 0.9, "gpu_memory_utilization: not built yet"),
    ("groups.serve.allow_fallback", True, "groups.serve.allow_fallback: not built yet"),
    ("groups.Serve", {"instance_type": "c7i.large"}, "'Serve' is not one"),
    ("groups.serve-0", {"instance_type": "c7i.large"}, "'serve-0' is not one"),
    ("groups", {}, "groups: {} is not allowed; at least 1 entry"),
    ("groups", [], "groups: [] is not allowed; wanted a map of names"),
    ("model.source", None, "model.source: null is not allowed; wanted a text"),
    ("model.name", "../x", "wanted a text like"),
    ("model", {"name": "x"}, "model.source: missing; it has no default"),
    ("model.revision", "main", "model.revision: not built yet"),
    ("vllm.version", "0.33.0", "vllm.version: \"0.33.0\" is not allowed; allowed: '0.32.0'"),
    ("vllm.version", 0.32, "vllm.version: 0.32 is not allowed"),
    ("vllm.runtime", "container", "allowed: 'venv'"),
    ("vllm.image", "x", "vllm.image: not built yet"),
    ("network.cidr", "10.0.0.0/8", "between /16 and /28"),
    ("network.cidr", "10.0.0.1/16", "has host bits set"),
    ("network.vpc_id", "vpc-1", "network.vpc_id: not built yet"),
    ("endpoint.exposure", "public", "allowed: 'private'"),
    ("endpoint.allowed_cidrs", ["0.0.0.0/0"], "0.0.0.0/0 is everybody"),
    ("endpoint.allowed_cidrs", ["home"], "endpoint.allowed_cidrs[0]"),
    ("capacity", {"kind": "spot"}, "capacity: not built yet"),
    ("ttl", "4h", "ttl: not built yet"),
    ("ami", "debian", 'ami: "debian" is not allowed; wanted a text like'),
    ("ready_timeout", "soon", "a duration such as 90s, 30m or 4h"),
    ("ready_timeout", "0s", "a duration such as 90s, 30m or 4h"),
    ("tags", {"Name": "x"}, "['Name'] are taken"),
    ("gropus", {}, "moe-serving:gropus: unknown key. Did you mean groups?"),
]


@pytest.mark.parametrize(
    ("path", "value", "sentence"), REFUSED, ids=[f"{path}={value}" for path, value, _ in REFUSED]
)
def test_refused_with_key_value_and_what_is_allowed(path: str, value: Any, sentence: str):
    (fault,) = faults_of(changed(path, value))
    assert fault.startswith("moe-serving:")
    assert path.partition(".")[0] in fault
    assert sentence in fault


def test_all_faults_of_a_file_come_in_one_run():
    data = changed("groups.serve.nodes", 0)
    data["groups"]["serve"] |= {"node": 1, "eplb": {}}
    data |= {"ttl": "4h", "ready_timeout": "soon"}
    faults = faults_of(data, stack="Not_A_Bucket")
    keys = ("stack", "serve.nodes", "serve.node:", "eplb", "ttl", "ready_timeout")
    assert len(faults) == len(keys)
    assert all(any(key in fault for fault in faults) for key in keys)


@pytest.mark.parametrize("stack", ["Dev", "a_b", "-a", "a-", "a" * 39, "a.b", ""])
def test_stack_names_that_no_bucket_can_have(stack: str):
    (fault,) = faults_of(GOOD, stack)
    assert "part of the bucket's name" in fault


def test_longest_stack_name_fits_a_bucket_name():
    stack = "a" * 38
    assert settings.stack_name_faults(stack) == []
    assert len(bucket_name(stack, "1" * 12)) == 63


def test_error_text_counts_and_lists():
    with pytest.raises(SettingsError, match=r"have 1 fault:\n  - moe-serving:ttl"):
        settings.from_mapping(changed("ttl", "1h"), "dev")
