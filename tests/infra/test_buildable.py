from __future__ import annotations

from typing import Any

import pytest

from infra import buildable, settings
from infra.faults import SettingsError

GOOD: dict[str, Any] = {
    "model": {"name": "org/tiny-moe", "source": "build/models/tiny"},
    "groups": {"serve": {"instance_type": "c7i.large", "nodes": 2}},
}
ACME = {"domain": "moe.example", "issuer": "acme"}
ARN = "arn:aws:acm:us-east-1:123456789012:certificate/0a1b2c3d-0000-0000-0000-000000000000"


def faults_of(**changes: Any) -> list[str]:
    return buildable.not_built_yet(settings.from_mapping(GOOD | changes, "dev"))


def group(**changes: Any) -> dict[str, Any]:
    return {"serve": GOOD["groups"]["serve"] | changes}


def test_what_can_be_built_has_no_faults():
    buildable.require(settings.from_mapping(GOOD, "dev"))


def test_prefill_and_decode_groups_on_cpu_types_can_be_built():
    sides = {role: GOOD["groups"]["serve"] | {"role": role} for role in ("prefill", "decode")}
    assert not faults_of(groups=sides)


def test_a_side_of_a_pair_has_one_api():
    sides = {role: GOOD["groups"]["serve"] | {"role": role} for role in ("prefill", "decode")}
    sides["decode"] = sides["decode"] | {"load_balancing": "hybrid"}
    (fault,) = faults_of(groups=sides)
    assert "groups.decode.load_balancing: hybrid load balancing of a decode group" in fault


NOT_BUILT = [
    ({"model": {"name": "a/b", "source": "hf"}}, "model.revision", "40 hex digits"),
    (
        {"model": {"name": "a/b", "source": "hf", "revision": "main"}},
        "model.revision",
        "Hugging Face at main, which moves",
    ),
    (
        {"model": {"name": "a/b", "source": "s3://b/m", "revision": "1" * 40}},
        "model.revision",
        "leave it out",
    ),
    ({"vllm": {"runtime": "container"}}, "vllm.runtime", "containers on CPU nodes (groups.serve)"),
    ({"vllm": {"version": "0.33.0"}}, "vllm.version", "version: 0.32.0"),
    ({"endpoint": {"exposure": "public"}}, "endpoint.exposure", "exposure: private"),
    (
        {"endpoint": {"tls": {"domain": "moe.example", "issuer": "acme"}}},
        "endpoint.tls.issuer",
        "internal",
    ),
    (
        {"endpoint": {"exposure": "public", "certificate_arn": ARN, "load_balancer": False}},
        "endpoint.load_balancer",
        "auto",
    ),
    (
        {
            "endpoint": {"exposure": "public", "certificate_arn": ARN},
            "network": {"vpc_id": "vpc-0a", "subnet_id": "subnet-0a"},
        },
        "network.public_subnet_id",
        "the subnet that the internet reaches",
    ),
    (
        {"groups": group(load_balancing="hybrid"), "gateway": {"enabled": False}},
        "gateway.enabled",
        "auto",
    ),
    ({"groups": group(tensor_parallel_size=2)}, "groups.serve.tensor_parallel_size", "1"),
    ({"groups": group(enforce_eager=False)}, "groups.serve.enforce_eager", "no compiler"),
    ({"groups": group(eplb={})}, "groups.serve.eplb", "leave it out"),
    ({"groups": group(quantization="fp8")}, "groups.serve.quantization", "leave it out"),
]


@pytest.mark.parametrize(("changes", "key", "said"), NOT_BUILT, ids=[k for _, k, _ in NOT_BUILT])
def test_plannable_and_not_built_yet(changes: dict[str, Any], key: str, said: str):
    (fault,) = faults_of(**changes)
    assert fault.startswith(f"moe-serving:{key}: ")
    assert "not built yet" in fault
    assert said in fault


BUILT = {
    "weights on Hugging Face": {"model": {"name": "a/b", "source": "hf", "revision": "0a" * 20}},
    "an API per node": {"groups": group(load_balancing="hybrid")},
    "an API per rank": {"groups": group(load_balancing="external")},
    "weights in S3": {"model": {"name": "a/b", "source": "s3://bucket/model"}},
    "a reservation": {"capacity": {"kind": "reserve"}},
    "a public endpoint with a certificate": {
        "endpoint": {"exposure": "public", "certificate_arn": ARN}
    },
    "a load balancer in front of a gateway": {
        "endpoint": {"load_balancer": True},
        "gateway": {"enabled": True},
    },
    "a subnet that is there": {"network": {"vpc_id": "vpc-0a", "subnet_id": "subnet-0a"}},
    "GPU nodes in containers of another release": {
        "vllm": {"version": "0.33.0", "runtime": "container"},
        "groups": group(
            instance_type="p5en.48xlarge", tensor_parallel_size=8, eplb={}, enforce_eager=False
        ),
    },
}


@pytest.mark.parametrize("changes", BUILT.values(), ids=BUILT)
def test_what_is_built(changes: dict[str, Any]):
    assert faults_of(**changes) == []


def test_all_of_them_come_at_once():
    given = {
        "model": GOOD["model"] | {"source": "hf", "revision": "main"},
        "groups": group(eplb={}),
    }
    with pytest.raises(SettingsError, match="2 faults"):
        buildable.require(settings.from_mapping(GOOD | given, "dev"))
