"""From settings and the model's folder to a plan."""

from __future__ import annotations

from infra.model import ModelFolder
from infra.plan import plan as plans
from infra.plan.request import EngineOptions, GroupRequest, Request
from infra.settings import GroupSettings, Settings


def make_plan(stack: str, settings: Settings, model: ModelFolder) -> plans.Plan:
    """Compute the plan of a stack from judged settings."""
    return plans.make(
        Request(
            stack=stack,
            model_name=settings.model.name,
            model_files=model.files,
            model_config=model.config,
            vllm_version=settings.vllm.version,
            python=settings.vllm.python,
            groups=tuple(_group(name, group) for name, group in settings.groups.items()),
        )
    )


def _group(name: str, group: GroupSettings) -> GroupRequest:
    return GroupRequest(
        name=name,
        role=group.role,
        instance_type=group.instance_type,
        nodes=group.nodes,
        replicas=group.replicas,
        tensor_parallel_size=group.tensor_parallel_size,
        data_parallel_size_local=group.data_parallel_size_local,
        enable_expert_parallel=group.enable_expert_parallel,
        all2all_backend=group.all2all_backend,
        options=EngineOptions(
            dtype=group.dtype,
            max_model_len=group.max_model_len,
            max_num_batched_tokens=group.max_num_batched_tokens,
            max_num_seqs=group.max_num_seqs,
            kv_cache_memory_bytes=group.kv_cache_memory_bytes,
            enforce_eager=group.enforce_eager,
            extra_args=group.extra_args,
            env=group.env,
        ),
    )
