"""What the world offers, as data: instance types, GPUs, vLLM releases, all2all backends, models.

Each file states its source and date and has one loader. Pure Python; `refresh` alone talks to AWS.
"""

from infra.catalog.all2all import All2AllBackend, all2all_backend, all2all_backends
from infra.catalog.gpus import Gpu, gpu_of
from infra.catalog.instances import (
    Gpus,
    InstanceType,
    LocalDisks,
    NetworkCard,
    Price,
    UnknownNameError,
    instance_type,
    instance_types,
)
from infra.catalog.models import ModelConfigError, ModelShape, model, model_names, shape
from infra.catalog.releases import (
    UNSET,
    All2All,
    Flag,
    Release,
    changed_defaults,
    env_life,
    flag_life,
    release,
    release_versions,
)

__all__ = [
    "UNSET",
    "All2All",
    "All2AllBackend",
    "Flag",
    "Gpu",
    "Gpus",
    "InstanceType",
    "LocalDisks",
    "ModelConfigError",
    "ModelShape",
    "NetworkCard",
    "Price",
    "Release",
    "UnknownNameError",
    "all2all_backend",
    "all2all_backends",
    "changed_defaults",
    "env_life",
    "flag_life",
    "gpu_of",
    "instance_type",
    "instance_types",
    "model",
    "model_names",
    "release",
    "release_versions",
    "shape",
]
