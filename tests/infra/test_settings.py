from __future__ import annotations

import copy
import typing
from typing import Any

import pytest
from pydantic import BaseModel

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
    ("groups.serve.all2all_backend", "deepep_low_latency"),
    ("groups.serve.tensor_parallel_size", "auto"),
    ("groups.serve.enable_expert_parallel", "auto"),
    ("groups.serve.eplb", {}),
    ("groups.serve.compilation_config", {"cudagraph_mode": "PIECEWISE"}),
    ("groups.serve.kv_transfer", {"backends": ["UCX"]}),
    ("groups.decode", {"role": "decode", "instance_type": "p6-b300.48xlarge"}),
    ("vllm.version", "v0.11.1"),
    ("capacity", {"kind": "capacity-block", "id": "cr-0123456789abcdef0"}),
    ("ttl", "4h"),
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
    ("groups.serve.role", "both", "allowed: 'serve', 'prefill' or 'decode'"),
    ("groups.serve.tensor_parallel_size", 0, "0 is not allowed; at least 1 or allowed: 'auto'"),
    ("groups.serve.tensor_parallel_size", "8", "wanted a whole number or allowed: 'auto'"),
    ("groups.serve.enable_expert_parallel", "yes", "wanted true or false or allowed: 'auto'"),
    ("groups.serve.all2all_backend", "DeepEP", "wanted a text like ^[a-z0-9_]+$"),
    ("groups.serve.load_balancing", "round-robin", "allowed: 'internal', 'hybrid' or 'external'"),
    ("groups.serve.eplb", {"window": 1}, "eplb.window: unknown key. Did you mean window_size?"),
    ("groups.serve.eplb", {"num_redundant_experts": -1}, "num_redundant_experts: -1 is not allow"),
    ("groups.serve.gpu_memory_utilization", 1.5, "1.5 is not allowed; at most 1"),
    ("groups.serve.gpu_memory_utilization", 0, "0 is not allowed; more than 0"),
    ("groups.serve.kv_transfer", {"backends": []}, "backends: [] is not allowed; at least 1"),
    ("groups.serve.extra_args", ["-dp=4"], "it sets ['-dp']"),
    ("groups.serve.extra_args", ["--enable_eplb"], "it sets ['--enable-eplb']"),
    ("groups.serve.dtype", "fp8", "'auto', 'bfloat16', 'float16' or 'float32'"),
    ("groups.serve.instance_type", "c7i.larg", "Did you mean c7i.large"),
    ("groups.serve.instance_type", "c7g.large", "an EC2 instance type of the catalog"),
    ("groups.serve.node", 2, "groups.serve.node: unknown key. Did you mean nodes?"),
    ("groups.serve.extra_args", ["--port=1"], "flags that the plan doesn't set itself"),
    ("groups.serve.extra_args", "--seed 1", "wanted a list"),
    ("groups.serve.env", {"A": 1}, "groups.serve.env.A: 1 is not allowed; wanted a text"),
    ("groups.serve.kv_cache_memory_bytes", 64, "at least 1048576"),
    ("groups.Serve", {"instance_type": "c7i.large"}, "'Serve' is not one"),
    ("groups.serve-0", {"instance_type": "c7i.large"}, "'serve-0' is not one"),
    ("groups", {}, "groups: {} is not allowed; at least 1 entry"),
    ("groups", [], "groups: [] is not allowed; wanted a map of names"),
    ("model.source", None, "model.source: null is not allowed; wanted a text"),
    ("model.name", "../x", "wanted a text like"),
    ("model", {"name": "x"}, "model.source: missing; it has no default"),
    ("model.revision", "", 'model.revision: "" is not allowed; it may not be empty'),
    ("vllm.version", "0.9.1", "wanted a vLLM release from 0.11.0 to 0.33.0"),
    ("vllm.version", 0.32, "vllm.version: 0.32 is not allowed"),
    ("vllm.runtime", "docker", "allowed: 'auto', 'venv' or 'container'"),
    ("vllm.deepep", "v1", "allowed: 'auto', 'stock', 'efa', 'uccl' or 'none'"),
    ("network.cidr", "10.0.0.0/8", "between /16 and /28"),
    ("network.cidr", "10.0.0.1/16", "has host bits set"),
    ("network.vpc_id", "mine", 'network.vpc_id: "mine" is not allowed; wanted a text like'),
    ("endpoint.exposure", "open", "allowed: 'private' or 'public'"),
    ("endpoint.tls", {"domain": "x", "issuer": "me"}, "allowed: 'acme' or 'internal'"),
    ("gateway.instance_type", "p5.48xlarge", "a CPU type of the catalog"),
    ("checks.suppress", "ALL", 'checks.suppress: "ALL" is not allowed; wanted a list'),
    ("endpoint.allowed_cidrs", ["0.0.0.0/0"], "0.0.0.0/0 is everybody"),
    ("endpoint.allowed_cidrs", ["home"], "endpoint.allowed_cidrs[0]"),
    ("capacity", {"kind": "free"}, "'reservation', 'capacity-block' or 'spot'"),
    ("capacity", {"id": "block"}, 'capacity.id: "block" is not allowed; wanted a text like'),
    ("ttl", "soon", 'ttl: "soon" is not allowed; wanted a duration'),
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
    data["groups"]["serve"] |= {"node": 1, "eplb": {"policy": 1}}
    data |= {"ttl": "4", "ready_timeout": "soon"}
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
        settings.from_mapping(changed("ttl", "1"), "dev")


def test_every_key_says_what_it_is():
    for section in (settings.Settings, *sections_of(settings.Settings)):
        for name, field in section.model_fields.items():
            nested = sections_of_annotation(field.annotation)
            assert field.description or nested, f"{section.__name__}.{name}"


def sections_of(model: type[BaseModel]) -> set[type[BaseModel]]:
    found = set()
    for field in model.model_fields.values():
        for nested in sections_of_annotation(field.annotation):
            found |= {nested, *sections_of(nested)}
    return found


def sections_of_annotation(kind: Any) -> set[type[BaseModel]]:
    if isinstance(kind, type):
        return {kind} if issubclass(kind, BaseModel) else set()
    return {s for part in typing.get_args(kind) for s in sections_of_annotation(part)}
