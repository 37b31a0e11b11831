"""What a plan may have and the program can't build yet: refused whole, before anything is made."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from infra import catalog
from infra.faults import NAMESPACE, SettingsError
from infra.plan import gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infra.group_settings import GroupSettings
    from infra.settings import Settings

Fault = tuple[str, str, str]
"""The key, what it asks for, and what to write instead."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_LEAVE_OUT = "leave it out"
CPU_VERSION = "0.32.0"
"""The vLLM release that the nodes' runtime for CPUs is made of."""


def require(settings: Settings) -> None:
    """Raise SettingsError with all that can't be built yet, if there is anything."""
    faults = not_built_yet(settings)
    if faults:
        raise SettingsError(faults)


def not_built_yet(settings: Settings) -> list[str]:
    """One sentence for each setting that `moe plan` takes and `pulumi up` doesn't, all at once."""
    parts = (_of_model, _of_vllm, _of_account, _of_groups)
    return [
        f"{NAMESPACE}:{key}: {what}: not built yet; {remedy}"
        for part in parts
        for key, what, remedy in part(settings)
    ]


def _of_model(settings: Settings) -> Iterator[Fault]:
    model = settings.model
    if model.source != "hf":
        if model.revision is not None:
            yield "model.revision", "a revision of what is not on Hugging Face", _LEAVE_OUT
    elif model.revision is None or not _COMMIT.fullmatch(model.revision):
        # All nodes must have the same files, next week's too.
        what = f"Hugging Face at {model.revision or 'its newest commit'}, which moves"
        yield "model.revision", what, "the commit, 40 hex digits: `moe preflight` names it"


def _of_vllm(settings: Settings) -> Iterator[Fault]:
    cpus = sorted(name for name, group in settings.groups.items() if not _gpus(group))
    if not cpus:
        return
    where = f"CPU nodes (groups.{', groups.'.join(cpus)})"
    if settings.vllm.runtime == "container" or settings.vllm.image is not None:
        yield "vllm.runtime", f"containers on {where}", "runtime: venv"
    if catalog.release(settings.vllm.version).version != CPU_VERSION:
        what = f"vLLM {settings.vllm.version} on {where}"
        yield "vllm.version", what, f"version: {CPU_VERSION}"


def _of_account(settings: Settings) -> Iterator[Fault]:
    endpoint = settings.endpoint
    if endpoint.exposure == "public" and endpoint.certificate_arn is None:
        what = "a public endpoint without a certificate of ACM"
        yield "endpoint.exposure", what, "certificate_arn beside it, or exposure: private"
    network = settings.network
    if endpoint.exposure == "public" and network.subnet_id and not network.public_subnet_id:
        what = "a public endpoint in an existing VPC without a public subnet"
        yield "network.public_subnet_id", what, "give the subnet that the internet reaches"
    if endpoint.exposure == "public" and not endpoint.balanced:
        what = "a public endpoint without a load balancer"
        yield "endpoint.load_balancer", what, "auto"
    if endpoint.tls is not None and endpoint.tls.issuer == "acme":
        yield "endpoint.tls.issuer", "a certificate of a public authority", "issuer: internal"
    if settings.gateway.enabled is False and (endpoint.keys or endpoint.tls):
        yield "gateway.enabled", "keys and TLS without a gateway", "enabled: auto"
    if endpoint.tls is not None and not settings.gateway.tls:
        yield "gateway.tls", "endpoint.tls without TLS on the gateway", "tls: true"


def _of_groups(settings: Settings) -> Iterator[Fault]:
    several = [n for n, group in settings.groups.items() if gateway.has_several_apis(group)]
    if several and settings.gateway.enabled is False:
        what = f"several APIs (groups.{', groups.'.join(several)}) without a gateway"
        yield "gateway.enabled", what, "enabled: auto"
    for name, group in settings.groups.items():
        for key, what, remedy in (*_of_group(group), *(() if _gpus(group) else _on_cpus(group))):
            yield f"groups.{name}.{key}", what, remedy


def _of_group(group: GroupSettings) -> Iterator[Fault]:
    if group.role != "serve" and gateway.has_several_apis(group):
        # A pair is proven through one API of each side.
        what = f"{group.load_balancing} load balancing of a {group.role} group"
        yield "load_balancing", what, "internal"


def _on_cpus(group: GroupSettings) -> Iterator[Fault]:
    if group.tensor_parallel_size not in (1, "auto"):
        yield "tensor_parallel_size", "tensor parallelism on CPU types", "1"
    if group.enforce_eager is False:
        yield "enforce_eager", "compiled models on CPU types: nodes have no compiler", "true"
    if group.eplb is not None:
        yield "eplb", "expert load balancing on CPU types", _LEAVE_OUT
    if group.quantization is not None:
        yield "quantization", "quantised experts on CPU types", _LEAVE_OUT


def _gpus(group: GroupSettings) -> bool:
    return catalog.instance_type(group.instance_type).gpu_count > 0
