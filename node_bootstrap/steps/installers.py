"""Which installer brings which component of the plan, with its version and source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from node_bootstrap.assignment import Component, Software
from node_bootstrap.facts.base import version
from node_bootstrap.steps.installer import Installer

EFA_SIGNER = "4E9091BCBB97A96B26B15E59A05480B1DD2D3CCC"
"""Fingerprint of the key that signs the EFA installer, as the EFA guide states it."""

NVSHMEM_REDIST = "https://developer.download.nvidia.com/compute/nvshmem/redist"
"""Holds an index with digests for each version, and the archives."""

CUDA_HOME = "/usr/local/cuda"
EFA_DRIVER, EFA_USER = "EFA driver (installer)", "EFA userspace (installer)"
GDRCOPY, NCCL, NVSHMEM = "GDRCopy", "NCCL", "NVSHMEM"
DEEPEP, UCCL, PPLX = "DeepEP", "UCCL-EP", "PPLX kernels"
FABRIC_MANAGER, DRIVER = "nvidia-fabricmanager", "NVIDIA driver"
ARCHITECTURES = {
    "A100": "8.0",
    "H100": "9.0a",
    "H200": "9.0a",
    "B200": "10.0a",
    "B300": "10.3a",
    "GB200": "10.0a",
}
"""Of GPUs that run expert-parallel kernels, as TORCH_CUDA_ARCH_LIST spells them."""

_EFA_DOCKERFILE = """FROM {base}
COPY efa.tar.gz /tmp/efa.tar.gz
RUN mkdir /tmp/efa && tar -xf /tmp/efa.tar.gz -C /tmp/efa --strip-components 1 \\
 && cd /tmp/efa && apt-get update \\
 && ./efa_installer.sh -y --skip-kmod --skip-limit-conf --skip-mpi --build-ngc \\
 && rm -rf /tmp/efa /tmp/efa.tar.gz /var/lib/apt/lists/*
ENV NCCL_NET_PLUGIN=ofi NCCL_TUNER_PLUGIN=ofi
"""


def component(software: Software, name: str) -> Component | None:
    """A component of the plan by its name; None where the node does not need it."""
    return next((c for c in software.components if c.name == name), None)


def efa(part: Component, work: Path, *, kernel_module: bool) -> Installer:
    """EFA's installer; without the kernel module for what runs beside vLLM."""
    return Installer(
        "efa",
        {
            "KERNEL_MODULE": "yes" if kernel_module else "no",
            "SHA256": part.sha256,
            "SIGNER": EFA_SIGNER,
            "URL": part.source,
            "VERSION": part.version,
            "WORK": str(work / "efa"),
        },
    )


def gdrcopy(part: Component, work: Path) -> Installer:
    """GDRCopy's module and library."""
    return Installer(
        "gdrcopy",
        {
            "CUDA_HOME": CUDA_HOME,
            "SHA256": part.sha256,
            "URL": part.source,
            "VERSION": part.version,
            "WORK": str(work / "gdrcopy"),
        },
    )


def volume(disks: Sequence[str], mount: Path) -> Installer:
    """One striped volume over bare disks. disks: such as `/dev/nvme1n1`."""
    return Installer(
        "volume",
        {
            "COUNT": str(len(disks)),
            "DISKS": " ".join(disks),
            "GROUP": "moe",
            "MOUNT": str(mount),
            "VOLUME": "data",
        },
    )


def host(sysctl: Path, *, fabric_manager: bool, new_options: bool) -> Installer:
    """Units, kernel settings and module options of the host."""
    yes = {True: "yes", False: "no"}
    return Installer(
        "host",
        {
            "FABRIC_MANAGER": yes[fabric_manager],
            "NEW_OPTIONS": yes[new_options],
            "SYSCTL": str(sysctl),
        },
    )


def image(software: Software, work: Path) -> Installer:
    """The image of vLLM: pulled, or built with EFA on the plain one where none is published."""
    name = software.image or ""
    plain = component(software, "vLLM")
    base = plain.source if plain is not None and plain.source else name
    user = component(software, EFA_USER)
    built = base != name and user is not None
    return Installer(
        "image",
        {
            "BASE": base if built else name,
            "DOCKERFILE": _EFA_DOCKERFILE.format(base=base) if built else "",
            "EFA_SHA256": user.sha256 if built and user else "",
            "EFA_URL": user.source if built and user else "",
            "IMAGE": name,
            "WORK": str(work),
        },
    )


def nccl(part: Component, python: str, cuda_major: int) -> Installer | None:
    """Another NCCL than torch's own; None where torch's is the one."""
    if not version(part.version):
        return None
    values = {"CUDA_MAJOR": str(cuda_major), "PYTHON": python, "VERSION": part.version}
    return Installer("nccl", values)


def wheels(
    software: Software, gpu_name: str, cuda_major: int, work: Path, folder: Path
) -> dict[str, Installer]:
    """Component -> what builds its wheels into the folder, of those that need building."""
    common = {
        "CUDA_ARCHITECTURES": ARCHITECTURES.get(gpu_name, "9.0a"),
        "CUDA_HOME": CUDA_HOME,
        "PYTHON": software.python,
        "WHEELS": str(folder),
        "WORK": str(work),
    }
    found = {}
    for name, script in ((DEEPEP, "deepep"), (UCCL, "uccl"), (PPLX, "pplx")):
        part = component(software, name)
        if part is None or part.place != "venv":
            continue
        values = common | {"COMMIT": part.version, "SOURCE": part.source}
        if name == DEEPEP:
            nvshmem = component(software, NVSHMEM)
            values |= {
                "ARCHITECTURE": "x86_64",
                "CUDA_MAJOR": str(cuda_major),
                "NVSHMEM_URL": NVSHMEM_REDIST,
                "NVSHMEM_VERSION": nvshmem.version if nvshmem else "",
            }
        found[name] = Installer(script, values)
    return found
