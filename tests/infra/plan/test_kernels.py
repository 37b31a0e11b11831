"""Under which key a group's compiled kernels are kept."""

from __future__ import annotations

import dataclasses

import pytest

from infra import model, sources
from infra.plan.kernels import kernel_cache
from infra.planning import make_plan

GPUS = {
    "model": {"name": "Qwen/Qwen3-30B-A3B", "source": "s3://bucket/model"},
    "vllm": {"version": "0.33.0"},
    "groups": {"serve": {"instance_type": "p5.48xlarge", "nodes": 2, "replicas": 2}},
}


def plan_of(given):
    settings = sources.load(sources.Source(given, "us-east-1", sources.PROJECT), "dev")
    facts = model.facts(settings.model, sources.PROJECT)
    return make_plan("dev", settings, facts, "us-east-1")


def key(given) -> str:
    plan = plan_of(given)
    found = kernel_cache(plan, plan.groups[0])
    assert found is not None
    return found.key


def changed(section: str, **more):
    held = GPUS[section]
    if section == "groups":
        return GPUS | {"groups": {"serve": held["serve"] | more}}
    return GPUS | {section: held | more}


def test_it_names_release_gpu_and_layout():
    assert key(GPUS).startswith("caches/vllm0.33.0-H100-2x8-")


def test_all_replicas_share_one():
    plan = plan_of(GPUS)
    assert len({kernel_cache(plan, group) for group in plan.groups}) == 1


OTHERS = {
    "release": changed("vllm", version="0.32.0"),
    "model": changed("model", name="Qwen/Qwen3-235B-A22B"),
    "its place": changed("model", source="s3://bucket/another"),
    "GPU": changed("groups", instance_type="p5en.48xlarge"),
    "nodes": changed("groups", nodes=4),
    "tensor parallelism": changed("groups", tensor_parallel_size=2),
    "an option": changed("groups", max_model_len=4096),
    "environment": changed("groups", env={"VLLM_USE_DEEP_GEMM": "0"}),
}


@pytest.mark.parametrize("given", OTHERS.values(), ids=OTHERS)
def test_what_kernels_may_depend_on_makes_another(given):
    assert key(given) != key(GPUS)


def test_more_replicas_and_another_name_of_the_stack_do_not():
    assert key(changed("groups", replicas=3)) == key(GPUS)


def test_nodes_without_gpus_have_none():
    plan = plan_of(GPUS)
    (group, *_) = plan.groups
    bare = dataclasses.replace(group.primary.hardware, gpu_count=0)
    nodes = tuple(dataclasses.replace(n, hardware=bare) for n in group.nodes)
    assert kernel_cache(plan, dataclasses.replace(group, nodes=nodes)) is None
