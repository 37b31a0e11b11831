"""What the plan is made from: the settings, resolved to plain values, and facts of the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from node_bootstrap.assignment import Role, WeightFile


@dataclass(frozen=True)
class EngineOptions:
    """Options of vLLM, spelled as vLLM spells them; None leaves the choice to vLLM."""

    dtype: str = "auto"
    max_model_len: int | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    kv_cache_memory_bytes: int | None = None
    enforce_eager: bool = True
    extra_args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class GroupRequest:
    """One group as it was asked for."""

    name: str
    role: Role
    instance_type: str
    nodes: int
    replicas: int
    tensor_parallel_size: int
    data_parallel_size_local: int
    enable_expert_parallel: bool
    all2all_backend: str
    options: EngineOptions


@dataclass(frozen=True)
class Request:
    """One stack as it was asked for.

    model_config: the model's config.json. python: the interpreter on the nodes that has vLLM.
    """

    stack: str
    model_name: str
    model_files: tuple[WeightFile, ...]
    model_config: dict[str, Any]
    vllm_version: str
    python: str
    groups: tuple[GroupRequest, ...]
