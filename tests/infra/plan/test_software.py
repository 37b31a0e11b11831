from __future__ import annotations

import re

import pytest

from infra import catalog
from infra.plan import software
from infra.plan.software import pins_of

PAIR = ({"name": "prefill", "role": "prefill"}, {"name": "decode", "role": "decode"})


def components(plan, group: int = 0) -> dict[str, str]:
    return {c.name: c.version for c in plan.groups[group].primary.software.components}


@pytest.mark.parametrize(
    ("version", "image"),
    [
        ("0.33.0", "vllm/vllm-openai:v0.33.0-efa"),
        ("0.32.0", "moe-serving/vllm-openai-efa:v0.32.0"),
    ],
)
def test_nodes_on_efa_have_an_image_with_its_libraries(gpu_plan, version, image):
    node = gpu_plan({"nodes": 2}, version=version).nodes[0]
    assert (node.software.runtime, node.software.image) == ("container", image)
    found = components(gpu_plan({"nodes": 2}, version=version))
    assert {"EFA driver (installer)", "EFA userspace (installer)", "aws-ofi-nccl"} <= set(found)


def test_one_node_that_serves_alone_has_the_plain_image(gpu_plan):
    plan = gpu_plan()
    assert plan.nodes[0].software.image == "vllm/vllm-openai:v0.33.0"
    assert "EFA userspace (installer)" not in components(plan)


@pytest.mark.parametrize(
    ("version", "floor"), [("0.11.0", "570"), ("0.19.1", "575"), ("0.20.2", "580")]
)
def test_the_driver_floor_follows_the_cuda_of_the_image(gpu_plan, version, floor):
    assert components(gpu_plan(version=version))["NVIDIA driver"] == f">= {floor}"


def test_deepep_v2_over_efa_needs_newer_nccl_gdrcopy_and_its_build_for_efa(gpu_plan):
    found = components(gpu_plan({"nodes": 2}))
    assert (found["NCCL"], found["GDRCopy"], found["DeepEP"]) == ("2.31.2", "2.5.2", "874779c9")


@pytest.mark.parametrize(
    ("version", "deepep", "nvshmem"),
    [("0.11.0", "e3908bf", "3.2.5"), ("0.26.0", "73b6ea4", "3.3.24")],
)
def test_deepep_v1_is_the_commit_of_the_image(gpu_plan, version, deepep, nvshmem):
    found = components(gpu_plan(*PAIR, version=version))
    assert (found["DeepEP"], found["NVSHMEM"]) == (deepep, nvshmem)


@pytest.mark.parametrize(
    ("version", "nixl"), [("0.33.0", "1.5.0"), ("0.26.0", "1.3.1"), ("0.20.2", ">=0.7.1,<=0.10.1")]
)
def test_nixl_is_the_one_that_the_release_pins(gpu_plan, version, nixl):
    assert components(gpu_plan(*PAIR, version=version))["NIXL"] == nixl
    assert "NIXL" not in components(gpu_plan(version=version))


def test_pplx_kernels_are_the_commit_of_their_last_releases(gpu_plan):
    asked = {"all2all_backend": "pplx"}
    assert components(gpu_plan(asked, version="0.16.0"))["PPLX kernels"] == "12cecfd"


def test_uccl_takes_the_place_of_deepep(gpu_plan):
    asked = {"nodes": 2, "all2all_backend": "deepep_low_latency"}
    found = components(gpu_plan(asked, version="0.21.0", vllm={"deepep": "uccl"}))
    assert "UCCL-EP" in found
    assert "DeepEP" not in found


def test_a_venv_pins_its_distributions(gpu_plan):
    node = gpu_plan(*PAIR, vllm={"runtime": "venv"}).nodes[0]
    assert node.software.distributions == {"vllm": "0.33.0", "nixl": "1.5.0"}


def test_what_a_venv_adds_is_pinned_by_the_digest_of_its_wheel(gpu_plan):
    asked = {"nodes": 2, "all2all_backend": "deepep_v2"}
    node = gpu_plan(asked, vllm={"runtime": "venv", "deepep": "efa"}).nodes[0]
    sources = {c.name: c.source for c in node.software.components}
    for name in ("NCCL", "NVSHMEM"):
        pattern = rf"PyPI: nvidia-{name.lower()}-cu13#sha256=[0-9a-f]{{64}}"
        assert re.fullmatch(pattern, sources[name])


LOW_LATENCY = {"all2all_backend": "deepep_low_latency"}


@pytest.mark.parametrize(
    ("version", "deepep", "cuda"),
    [("0.16.0", "stock", "12.9"), ("0.16.0", "uccl", "12.9"), ("0.20.2", "stock", None)],
)
def test_what_a_venv_builds_is_built_with_the_cuda_of_its_torch(gpu_plan, version, deepep, cuda):
    asked = {"runtime": "venv", "deepep": deepep}
    assert (
        components(gpu_plan(LOW_LATENCY, version=version, vllm=asked)).get("CUDA toolkit") == cuda
    )


def test_where_nothing_is_built_no_other_cuda_is_needed(gpu_plan):
    for vllm in ({"runtime": "container"}, {"runtime": "venv"}):
        assert "CUDA toolkit" not in components(gpu_plan(version="0.16.0", vllm=vllm))


def test_a_wheel_whose_digest_nobody_knows_says_so():
    assert software._wheel("nvshmem", "9.9", {"docker_cuda": "13.0.2"}) == (
        "PyPI: nvidia-nvshmem-cu13 (no digest known: not checked)"
    )
    assert "#sha256=" in software._wheel("nvshmem", "3.3.9", {"docker_cuda": "12.9.1"})


def test_every_component_says_where_it_comes_from_and_why(gpu_plan):
    for version in catalog.release_versions():
        for node in gpu_plan(*PAIR, version=version).nodes:
            for part in node.software.components:
                assert part.version, part
                assert part.source, part
                assert part.reason, part


@pytest.mark.parametrize("version", catalog.release_versions())
def test_pins_of_every_release_are_whole(version: str):
    pins = pins_of(catalog.release(version))
    assert {"torch", "flashinfer", "nixl", "docker_cuda", "nvshmem", "deepep_commit"} <= set(pins)
