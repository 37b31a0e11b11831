"""Which installer brings which component of the plan, with its version and source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from node_bootstrap.assignment import Component, Software
from node_bootstrap.facts.base import version
from node_bootstrap.steps.installer import Installer

EFA_SIGNER = "4E9091BCBB97A96B26B15E59A05480B1DD2D3CCC"
"""Fingerprint of the key that signs the EFA installer, as the EFA guide states it."""

CUDA_HOME, CUDA_MAJOR = "/usr/local/cuda", 13
"""The toolkit that is the default of the node's image, where the plan names no other."""
NANOBIND = (
    "nanobind==2.12.0 "
    "--hash=sha256:a10d3d88e691dcdf22696f9acd893fda3c5a05635763aea238829d274fcad480"
)
"""What UCCL-EP is built with, as pip reads it."""
CUDA = "CUDA toolkit"
EFA_DRIVER, EFA_USER = "EFA driver (installer)", "EFA userspace (installer)"
GDRCOPY, NCCL, NVSHMEM = "GDRCopy", "NCCL", "NVSHMEM"
DEEPEP, UCCL, PPLX = "DeepEP", "UCCL-EP", "PPLX kernels"
FABRIC_MANAGER, DRIVER = "nvidia-fabricmanager", "NVIDIA driver"
VOLUME_GROUP, VOLUME = "moe", "data"
"""Of LVM, over the local disks where the image of the node makes no volume of them."""
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
COPY {archive} /tmp/efa.tar.gz
RUN mkdir /tmp/efa && tar -xf /tmp/efa.tar.gz -C /tmp/efa --strip-components 1 \\
 && cd /tmp/efa && apt-get update \\
 && ./efa_installer.sh -y --skip-kmod --skip-limit-conf --skip-mpi --build-ngc \\
 && rm -rf /tmp/efa /tmp/efa.tar.gz /var/lib/apt/lists/*
ENV NCCL_NET_PLUGIN=ofi NCCL_TUNER_PLUGIN=ofi
"""


def component(software: Software, name: str) -> Component | None:
    """A component of the plan by its name; None where the node does not need it."""
    return next((c for c in software.components if c.name == name), None)


def cuda_major(software: Software) -> int:
    """Of the CUDA that torch is of, and that libraries beside it are built for."""
    part = component(software, CUDA)
    return version(part.version)[0] if part else CUDA_MAJOR


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


def gdrcopy(part: Component, work: Path, *, load: bool = True) -> Installer:
    """GDRCopy from its repository at a commit. load: the module too, which takes a GPU."""
    repository, _, commit = part.source.rpartition("@")
    return Installer(
        "gdrcopy",
        {
            "COMMIT": commit,
            "CUDA_HOME": CUDA_HOME,
            "LOAD": "yes" if load else "no",
            "SOURCE": repository,
            "WORK": str(work / "gdrcopy"),
        },
    )


def volume(disks: Sequence[str], mount: Path) -> Installer:
    """One striped volume over disks, made or found again. disks: such as `/dev/nvme1n1`."""
    return Installer(
        "volume",
        {
            "COUNT": str(len(disks)),
            "DISKS": " ".join(disks),
            "GROUP": VOLUME_GROUP,
            "MOUNT": str(mount),
            "VOLUME": VOLUME,
        },
    )


def host(sysctl: Path, *, fabric_manager: bool, new_options: bool, start: bool = True) -> Installer:
    """Units, kernel settings and module options of the host. start: units too, which takes GPUs."""
    yes = {True: "yes", False: "no"}
    return Installer(
        "host",
        {
            "FABRIC_MANAGER": yes[fabric_manager],
            "NEW_OPTIONS": yes[new_options],
            "START": yes[start],
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
    archive = f"aws-efa-installer-{user.version}.tar.gz" if user else ""
    return Installer(
        "image",
        {
            "BASE": base if built else name,
            "DOCKERFILE": _EFA_DOCKERFILE.format(base=base, archive=archive) if built else "",
            "EFA_ARCHIVE": archive if built else "",
            "EFA_SHA256": user.sha256 if built and user else "",
            "EFA_SIGNER": EFA_SIGNER,
            "EFA_URL": user.source if built and user else "",
            "IMAGE": name,
            "WORK": str(work),
        },
    )


def nccl(part: Component, python: str, cuda_major: int) -> Installer | None:
    """Another NCCL than torch's own; None where torch's is the one."""
    if not version(part.version):
        return None
    values = {"PYTHON": python, "REQUIREMENT": _requirement("nccl", part, cuda_major)}
    return Installer("nccl", values)


def _requirement(library: str, part: Component, cuda_major: int) -> str:
    """As pip reads it: with the wheel's digest where the plan knows it."""
    digest = f" --hash=sha256:{part.sha256}" if part.sha256 else ""
    return f"nvidia-{library}-cu{cuda_major}=={part.version}{digest}"


def wheels(
    software: Software, gpu_name: str, cuda_major: int, work: Path, folder: Path
) -> dict[str, Installer]:
    """Component -> what builds its wheels into the folder, of those that need building."""
    cuda = component(software, CUDA)
    common = {
        "CUDA_ARCHITECTURES": ARCHITECTURES.get(gpu_name, "9.0a"),
        "CUDA_HOME": f"{CUDA_HOME}-{cuda.version}" if cuda else CUDA_HOME,
        "PYTHON": software.python,
        "WHEELS": str(folder),
        "WORK": str(work),
    }
    found = {}
    for name, script in ((DEEPEP, "deepep"), (UCCL, "uccl")):
        part = component(software, name)
        if part is None or part.place != "venv":
            continue
        values = common | {"COMMIT": part.version, "SOURCE": part.source}
        if name == DEEPEP:
            nvshmem = component(software, NVSHMEM)
            values |= {
                "NVSHMEM": _requirement("nvshmem", nvshmem, cuda_major) if nvshmem else "",
            }
        if name == UCCL:
            # Its setup.py reads a number, and leaves Hopper's instructions out where it finds none.
            number = values["CUDA_ARCHITECTURES"].rstrip("a")
            values |= {"CUDA_ARCHITECTURES": number, "NANOBIND": NANOBIND}
        found[name] = Installer(script, values)
    return found
