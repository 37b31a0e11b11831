"""Who copies weights from Hugging Face, what all others are told, and what vLLM is started with."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from infra import model, sources
from infra.plan.assignments import Place, assignments
from infra.plan.gateway import assignment as gateway_assignment
from infra.planning import make_plan
from node_bootstrap.assignment import Archive, Stage
from node_bootstrap.places import Places
from node_bootstrap.steps.choose import Node, steps

COMMIT = "0a" * 20
NAME = "Qwen/Qwen3-30B-A3B"
GIVEN = {
    "model": {"name": NAME, "source": "hf", "revision": COMMIT},
    "vllm": {"version": "0.33.0"},
    "groups": {"serve": {"instance_type": "p5.48xlarge", "nodes": 2}},
}
PREFIX = f"models/{NAME}/{COMMIT}/"


def planned(**more):
    settings = sources.load(sources.Source(GIVEN | more, "us-east-1", sources.PROJECT), "dev")
    facts = model.facts(settings.model, sources.PROJECT)
    return make_plan("dev", settings, facts, "us-east-1")


def told(plan):
    names = [n.name for n in plan.nodes] + ([plan.gateway.node] if plan.gateway else [])
    addresses = {name: f"10.0.0.{k + 4}" for k, name in enumerate(names)}
    place = Place("us-east-1", "the-bucket", Archive("k", "0"), addresses)
    found = assignments(plan, place)
    if plan.gateway:
        found["gateway"] = gateway_assignment(plan, place, {"default": "0" * 64})
    return found


def test_the_gateway_copies_where_there_is_one():
    found = told(planned(gateway={"enabled": True}))
    stage = Stage(NAME, COMMIT, None, "gateway")
    assert {a.weights.stage for a in found.values()} == {stage}
    assert {a.weights.prefix for a in found.values()} == {PREFIX}
    assert found["gateway"].weights.fetch == "nothing"
    assert found["serve-0-1"].weights.fetch == "prefix"


def test_without_one_the_first_primary_does():
    assert told(planned())["serve-0-1"].weights.stage == Stage(NAME, COMMIT, None, "serve-0-0")


def test_a_token_is_named_not_told():
    found = told(planned(huggingface_token=True))["serve-0-0"]
    assert found.weights.stage is not None
    assert found.weights.stage.token_parameter == "/moe-serving/dev/huggingface-token"


def test_vllm_loads_the_folder_under_the_models_name():
    (argv, *_) = (a.argv for a in told(planned()).values())
    at = argv.index(f"/var/lib/moe/models/{NAME}")
    assert argv[at + 1 : at + 3] == ("--served-model-name", NAME)
    assert "--revision" not in argv


def test_a_streaming_vllm_reads_the_buckets_copy_itself():
    groups = {"serve": GIVEN["groups"]["serve"] | {"load_format": "runai_streamer"}}
    found = told(planned(groups=groups))
    assert all(f"s3://the-bucket/{PREFIX}" in a.argv for a in found.values())
    assert {a.weights.fetch for a in found.values()} == {"nothing"}


def test_a_way_to_the_internet_is_planned():
    assert planned().way_out == "nat"


class Bucket:
    """Only its being there counts."""


@pytest.mark.parametrize("gateway", [True, False])
def test_one_node_alone_has_the_step_that_copies(tmp_path, gateway):
    found = told(planned(gateway={"enabled": gateway}))

    def names(assignment):
        parts: Any = (gate, None, None, None, Bucket())
        made, read, interface, parameters, bucket = parts
        node = Node(Places(tmp_path), "b", made, read, interface, parameters, bucket=bucket)
        return [step.name for step in steps(assignment, node)]

    copying = [name for name, a in found.items() if "stage" in names(a)]
    assert copying == ["gateway" if gateway else "serve-0-0"]
    assert "weights" in names(found["serve-0-1"])
    assert "kernels" in names(found["serve-0-1"])


def gate(assignment, needs):
    return dataclasses.make_dataclass("Gate", ["name", "needs"])("hardware", needs)


def test_a_token_is_named_to_the_copying_node_alone_so_that_it_restarts_no_group():
    def groups(**more):
        found = told(planned(gateway={"enabled": True}, **more))
        return {name: a.revision for name, a in found.items() if name != "gateway"}

    assert groups() == groups(huggingface_token=True)
