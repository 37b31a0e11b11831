"""From settings and the model's facts to a plan, and what the checks say of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra import checks
from infra.plan import make as plans
from infra.plan.request import (
    Capacity,
    Endpoint,
    EngineOptions,
    Eplb,
    GatewayOptions,
    GroupRequest,
    KeyRequest,
    KvTransferOptions,
    Request,
    TransferOptions,
    Vllm,
)
from infra.settings import seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.checks import Finding
    from infra.model import ModelFacts
    from infra.plan.plan import Plan
    from infra.settings import GroupSettings, Settings


def make_plan(stack: str, settings: Settings, model: ModelFacts, region: str | None = None) -> Plan:
    """Compute the plan of a stack from judged settings."""
    return plans.make(request_of(stack, settings, model, region))


class PlanError(ValueError):
    """A plan that would not run or would bill for nothing; `errors` are the findings."""

    def __init__(self, errors: Sequence[Finding]) -> None:
        self.errors = tuple(errors)
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        lines = "\n".join(f"  - {e.code} {e.where}: {e.message} {e.remedy}" for e in errors)
        super().__init__(f"The plan has {count}, so nothing is made:\n{lines}")


def check(plan: Plan) -> tuple[Finding, ...]:
    """The findings of a plan that may be built: no errors among them.

    Raises:
        PlanError: with all errors at once.
    """
    findings = checks.run(plan)
    errors = [finding for finding in findings if finding.severity is checks.Severity.ERROR]
    if errors:
        raise PlanError(errors)
    return findings


def request_of(
    stack: str, settings: Settings, model: ModelFacts, region: str | None = None
) -> Request:
    """The settings as the plan takes them: plain values, `auto` as None."""
    endpoint, capacity = settings.endpoint, settings.capacity
    return Request(
        stack=stack,
        model_name=settings.model.name,
        model_files=model.files,
        model_config=model.config,
        model_source=settings.model.source,
        model_revision=settings.model.revision,
        model_token=settings.huggingface_token,
        model_shape=model.shape,
        model_faults=model.faults,
        vllm=_vllm(settings),
        groups=tuple(_group(name, group) for name, group in settings.groups.items()),
        capacity=Capacity(capacity.kind, capacity.id),
        endpoint=Endpoint(
            endpoint.exposure,
            endpoint.allowed_cidrs,
            tls=endpoint.tls is not None,
            certificate=endpoint.certificate_arn is not None,
            open_to_the_world=endpoint.open_to_the_world,
        ),
        gateway_instance_type=settings.gateway.instance_type,
        gateway=_gateway(settings),
        region=region,
        suppress=settings.checks.suppress,
        ttl_seconds=None if settings.ttl is None else seconds(settings.ttl),
        nat=None if settings.network.nat == "auto" else settings.network.nat,
        existing_network=settings.network.subnet_id is not None,
        own_image=settings.ami is not None,
        transfer=_transfer(settings),
        dcgm_level=settings.checks.dcgm_level,
    )


def _transfer(settings: Settings) -> TransferOptions:
    checks = settings.checks
    given = checks.transfer_floors.model_dump() if checks.transfer_floors else {}
    return TransferOptions(
        mode=None if checks.transfer == "auto" else checks.transfer,
        floors=tuple((name, floor) for name, floor in given.items() if floor is not None),
    )


def _gateway(settings: Settings) -> GatewayOptions:
    gateway, tls = settings.gateway, settings.endpoint.tls
    return GatewayOptions(
        enabled=None if gateway.enabled == "auto" else gateway.enabled,
        tls=gateway.tls,
        issuer=tls.issuer if tls else "internal",
        domain=tls.domain if tls else None,
        policy=gateway.policy,
        keys=tuple(KeyRequest(**key.model_dump()) for key in settings.endpoint.keys),
        body_limit_bytes=gateway.body_limit_bytes,
        request_timeout_seconds=seconds(gateway.request_timeout),
        wait_seconds=seconds(gateway.wait),
        waiting_requests=gateway.waiting_requests,
        retries=gateway.retries,
    )


def _vllm(settings: Settings) -> Vllm:
    vllm = settings.vllm
    return Vllm(
        version=vllm.version,
        runtime=None if vllm.runtime == "auto" else vllm.runtime,
        python=vllm.python,
        image=vllm.image,
        deepep=None if vllm.deepep == "auto" else vllm.deepep,
    )


def _group(name: str, group: GroupSettings) -> GroupRequest:
    size, experts = group.tensor_parallel_size, group.enable_expert_parallel
    transfer = group.kv_transfer
    return GroupRequest(
        name=name,
        role=group.role,
        instance_type=group.instance_type,
        nodes=group.nodes,
        replicas=group.replicas,
        tensor_parallel_size=None if size == "auto" else size,
        data_parallel_size_local=group.data_parallel_size_local,
        enable_expert_parallel=None if experts == "auto" else experts,
        all2all_backend=group.all2all_backend,
        options=_options(group),
        allow_fallback=group.allow_fallback,
        load_balancing=group.load_balancing,
        network_interfaces=group.network_interfaces,
        eplb=Eplb(**group.eplb.model_dump()) if group.eplb else None,
        expert_placement_strategy=group.expert_placement_strategy,
        kv_transfer=KvTransferOptions(**transfer.model_dump()) if transfer else KvTransferOptions(),
    )


def _options(group: GroupSettings) -> EngineOptions:
    return EngineOptions(
        dtype=group.dtype,
        max_model_len=group.max_model_len,
        max_num_batched_tokens=group.max_num_batched_tokens,
        max_num_seqs=group.max_num_seqs,
        kv_cache_memory_bytes=group.kv_cache_memory_bytes,
        enforce_eager=group.enforce_eager,
        quantization=group.quantization,
        kv_cache_dtype=group.kv_cache_dtype or "auto",
        gpu_memory_utilization=group.gpu_memory_utilization,
        block_size=group.block_size,
        compilation_config=group.compilation_config,
        enable_dbo=group.enable_dbo,
        dbo_decode_token_threshold=group.dbo_decode_token_threshold,
        dbo_prefill_token_threshold=group.dbo_prefill_token_threshold,
        api_server_count=group.api_server_count,
        attention_backend=group.attention_backend,
        moe_backend=group.moe_backend,
        load_format=group.load_format,
        numa_bind=group.numa_bind,
        enable_ep_weight_filter=group.enable_ep_weight_filter,
        extra_args=group.extra_args,
        env=group.env,
    )
