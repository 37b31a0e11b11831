"""One group's side of prefill/decode: what carries the KV, and what happens when it doesn't."""

# ruff: noqa: PLR0913 - a rule takes each fact it depends on as a plain value

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.checks.finding import Severity
from infra.checks.rule import Hit, Hits, rule

if TYPE_CHECKING:
    from collections.abc import Mapping

_BATCHED = ("deepep_low_latency", "nixl_ep")
_VMM = "ofiwg/libfabric#12853"
_POLICY = "kv_transfer.kv_load_failure_policy"


@rule(
    Severity.ERROR,
    "kv_transfer.backends",
    consequence="NIXL takes UCX, which has no GPU RDMA on EFA and falls back to TCP: the time to"
    " the first token goes to seconds while everything looks healthy",
    remedy="leave backends out (the plan names LIBFABRIC on EFA), or backends: [LIBFABRIC]",
    source="vllm-project/vllm#41814, #27055; ai-dynamo/nixl#909",
    example="`kv_transfer: {backends: [UCX]}` on p5en.48xlarge.",
)
def nixl_without_libfabric(
    *, kv_connector: str | None, kv_backends: tuple[str, ...], max_efa: int, gpus_per_node: int
) -> Hits:
    """On EFA, NIXL's backend must be LIBFABRIC, by name."""
    nixl = kv_connector is not None and kv_connector.startswith("Nixl")
    if nixl and max_efa and gpus_per_node and "LIBFABRIC" not in kv_backends:
        named = ", ".join(kv_backends) or "none, so UCX"
        yield Hit(f"NIXL's backend is {named} on a type with EFA")


@rule(
    Severity.ERROR,
    "kv_transfer.backends",
    consequence="LIBFABRIC finds no EFA provider: the connector can't be made, vLLM stops",
    remedy="leave backends out (the plan names UCX without EFA)",
    source="ai-dynamo/nixl src/plugins/libfabric/README.md@8770b65",
    example="`kv_transfer: {backends: [LIBFABRIC]}` on g6.xlarge or c7i.large.",
)
def libfabric_without_efa(
    *, kv_backends: tuple[str, ...], max_efa: int, instance_type: str
) -> Hits:
    """LIBFABRIC is for types with EFA."""
    if "LIBFABRIC" in kv_backends and not max_efa:
        yield Hit(f"NIXL's backend is LIBFABRIC and {instance_type} has no EFA")


@rule(
    Severity.ERROR,
    "env.VLLM_NIXL_SIDE_CHANNEL_HOST",
    consequence="The default is localhost: the other side's handshake never arrives",
    remedy="leave VLLM_NIXL_SIDE_CHANNEL_HOST out: the plan sets each node's own address",
    source="vllm/envs.py@0.11.0 to @0.33.0",
    example="`env: {VLLM_NIXL_SIDE_CHANNEL_HOST: localhost}` in a decode group.",
)
def nixl_side_channel_host(*, kv_connector: str | None, env: Mapping[str, str]) -> Hits:
    """Both sides need their own routable address as NIXL's side channel."""
    host = env.get("VLLM_NIXL_SIDE_CHANNEL_HOST", "")
    nixl = kv_connector is not None and kv_connector.startswith("Nixl")
    if nixl and host in ("", "localhost", "127.0.0.1", "0.0.0.0"):  # noqa: S104 - not bound
        yield Hit(f"VLLM_NIXL_SIDE_CHANNEL_HOST is {host or 'not set'}")


@rule(
    Severity.ERROR,
    "extra_args",
    consequence="EFA can't register memory of CUDA's VMM: every KV transfer fails",
    remedy="drop --enable-cumem-allocator and --enable-sleep-mode, and expandable_segments from"
    " PYTORCH_CUDA_ALLOC_CONF",
    source=_VMM,
    example="`env: {PYTORCH_CUDA_ALLOC_CONF: 'expandable_segments:True'}` in a prefill group.",
)
def efa_cuda_vmm(
    *, kv_connector: str | None, max_efa: int, env: Mapping[str, str], extra_args: tuple[str, ...]
) -> Hits:
    """The cumem allocator and expandable segments can't be used with KV over EFA."""
    if kv_connector is None or not max_efa:
        return
    for name in ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"):
        if "expandable_segments:true" in env.get(name, "").lower():
            yield Hit(f"{name} turns expandable segments on", where=f"env.{name}")
    for flag in ("--enable-cumem-allocator", "--enable-sleep-mode"):
        if flag in extra_args:
            yield Hit(f"{flag} allocates with CUDA's VMM")


@rule(
    Severity.WARNING,
    _POLICY,
    consequence="A lost transfer makes the decode group prefill, 256 tokens a step at worst, and"
    " every rank of the group waits for it",
    remedy="kv_load_failure_policy: fail, and let the router or the client try again",
    source="llm-d docs/architecture/advanced/disaggregation/operations-vllm.md@10c22c5",
    example="`role: decode`, deepep_low_latency, `kv_load_failure_policy: recompute`.",
)
def recompute_on_low_latency_decode(
    *, role: str, backend: str, kv_config: Mapping[str, Any], kv_fields: tuple[str, ...],
    series: tuple[int, int], data_parallel_size: int,
) -> Hits:  # fmt: skip
    """A decode group on a low-latency backend should not prefill lost transfers itself."""
    if role != "decode" or backend not in _BATCHED or data_parallel_size < 2:
        return
    known = "kv_load_failure_policy" in kv_fields
    # The default was recompute up to 0.16.
    policy = kv_config.get("kv_load_failure_policy", "fail" if series >= (0, 17) else "recompute")
    if known and policy == "recompute":
        yield Hit(f"kv_load_failure_policy is recompute and the backend {backend}")


@rule(
    Severity.ERROR,
    "kv_transfer",
    consequence="vLLM stops at start, or ignores the field: what it was to do isn't done",
    remedy="leave the field out, or take a release that has it",
    source="vllm/config/kv_transfer.py@0.11.0 to @0.33.0; kv_connector/v1/nixl@0.22.0",
    example="`kv_transfer: {kv_load_failure_policy: fail}` with vLLM 0.12.0: it came with 0.13.",
)
def kv_transfer_field_not_in_release(
    *, kv_connector: str | None, kv_config: Mapping[str, Any], kv_fields: tuple[str, ...],
    series: tuple[int, int], version: str,
) -> Hits:  # fmt: skip
    """Each release knows its own fields of --kv-transfer-config."""
    if kv_connector is None:
        return
    for name in kv_config:
        if kv_fields and name not in kv_fields:
            yield Hit(f"vLLM {version} has no {name} in --kv-transfer-config")
    extra = kv_config.get("kv_connector_extra_config") or {}
    if "kv_load_failure_policy" in extra:
        yield Hit("kv_load_failure_policy stands in kv_connector_extra_config, where it's ignored")
    if "kv_lease_duration" in extra and series < (0, 22):
        yield Hit(f"vLLM {version} has no kv_lease_duration, which came with 0.22")
    if "num_threads" in extra and series < (0, 12):
        yield Hit(f"vLLM {version} has no num_threads, which came with 0.12")


@rule(
    Severity.WARNING,
    "kv_transfer",
    consequence="vLLM warns; a later release may refuse it",
    remedy="leave kv_role to the plan: kv_producer for prefill, kv_consumer for decode",
    source="vllm kv_connector/v1/nixl@0.23.0",
    example="A config with `kv_role: kv_both` on vLLM 0.23 or later.",
)
def kv_role_both(
    *, kv_connector: str | None, kv_config: Mapping[str, Any], series: tuple[int, int]
) -> Hits:
    """From 0.23 the Nixl connectors want a producer and a consumer."""
    nixl = kv_connector is not None and kv_connector.startswith("Nixl")
    if nixl and series >= (0, 23) and kv_config.get("kv_role") == "kv_both":
        yield Hit("kv_role is kv_both")


@rule(
    Severity.WARNING,
    "kv_transfer.kv_connector",
    consequence="Small writes were seen to hang on EFA: decode waits and answers nothing",
    remedy="kv_connector: NixlConnector, which pulls",
    source="ai-dynamo/nixl#1862",
    example="`kv_transfer: {kv_connector: NixlPushConnector}` on p5en.48xlarge.",
)
def nixl_push_on_efa(*, kv_connector: str | None, max_efa: int) -> Hits:
    """Pushing KV over EFA has an open report of hanging."""
    if kv_connector == "NixlPushConnector" and max_efa:
        yield Hit("NixlPushConnector writes small pieces over EFA")


@rule(
    Severity.ERROR,
    "instance_type",
    consequence="KV would be staged through the CPU at best; NIXL needs GPUDirect RDMA",
    remedy="p5 or later, g6, g6e or g7e for prefill and decode",
    source="EC2 user guide: Elastic Fabric Adapter (RDMA read and write); nixl libfabric README",
    example="`role: decode` on g5.48xlarge, whose EFA has no RDMA.",
)
def kv_over_efa_without_rdma(
    *,
    kv_connector: str | None,
    max_efa: int,
    gpus_per_node: int,
    rdma_read: bool,
    instance_type: str,
) -> Hits:
    """KV over EFA needs RDMA."""
    if kv_connector and max_efa and gpus_per_node and not rdma_read:
        yield Hit(f"the EFA of {instance_type} isn't known to have RDMA")


@rule(
    Severity.WARNING,
    "instance_type",
    consequence="libfabric emulates writes in software: KV arrives late under load",
    remedy="p5 or later for prefill and decode",
    source="EC2 user guide: Elastic Fabric Adapter (p4d and p4de: RDMA read only)",
    example="`role: prefill` on p4de.24xlarge.",
)
def kv_over_efa_read_only(
    *, kv_connector: str | None, gpus_per_node: int, rdma_read: bool, rdma_write: bool,
    instance_type: str,
) -> Hits:  # fmt: skip
    """KV over EFA wants RDMA write too."""
    if kv_connector and gpus_per_node and rdma_read and not rdma_write:
        yield Hit(f"the EFA of {instance_type} has RDMA read and no RDMA write")


@rule(
    Severity.ERROR,
    "kv_transfer.side_channel_port",
    consequence="One of the two can't bind its port: a rank stops at start",
    remedy="a side_channel_port whose range of one port per rank is free of the others",
    source="vllm kv_connector/v1/nixl@0.33.0 (base + data-parallel index); --kv-events-config 5557",
    example="`side_channel_port: 7995` with 8 ranks reaches 8000, the API's port.",
)
def ports_collide(*, side_channel_ports: tuple[int, ...], fixed_ports: Mapping[str, int]) -> Hits:
    """NIXL's side channel takes one port per rank from its base on; no other may lie in it."""
    for name, port in sorted(fixed_ports.items()):
        if port in side_channel_ports:
            first, last = side_channel_ports[0], side_channel_ports[-1]
            yield Hit(f"the side channel takes ports {first} to {last}; {name} is {port}")


@rule(
    Severity.ERROR,
    "kv_transfer.side_channel_port",
    consequence="The port can't be bound: a rank stops at start",
    remedy="a side_channel_port between 1024 and 65535 less the ranks",
    source="TCP has ports up to 65535, the kernel keeps those below 1024",
    example="`side_channel_port: 65530` with 8 ranks.",
)
def side_channel_port_range(*, side_channel_ports: tuple[int, ...]) -> Hits:
    """All ports of the side channel must exist."""
    if side_channel_ports and (side_channel_ports[0] < 1024 or side_channel_ports[-1] > 65535):
        yield Hit(f"the side channel takes {side_channel_ports[0]} to {side_channel_ports[-1]}")


@rule(
    Severity.ERROR,
    "vllm.version",
    consequence="Handshakes with another NIXL version fail or, worse, misread its metadata",
    remedy="the version that this vLLM release pins, not the newest",
    source="vllm requirements/kv_connectors.txt@0.11.0 to @0.33.0",
    example="nixl 1.5.1 with vLLM 0.33.0, which pins 1.5.0.",
)
def nixl_not_as_pinned(
    *, kv_connector: str | None, components: Mapping[str, str], nixl_pin: str | None, version: str
) -> Hits:
    """NIXL must be the version that the vLLM release pins."""
    have = next((v for name, v in components.items() if name.lower() == "nixl"), None)
    exact = nixl_pin.removeprefix("==") if nixl_pin and nixl_pin.startswith("==") else None
    if kv_connector and have and exact and have[:1].isdigit() and have != exact:
        yield Hit(f"nixl {have} is planned; vLLM {version} pins {exact}")


RULES = (
    nixl_without_libfabric,
    libfabric_without_efa,
    nixl_side_channel_host,
    efa_cuda_vmm,
    recompute_on_low_latency_decode,
    kv_transfer_field_not_in_release,
    kv_role_both,
    nixl_push_on_efa,
    kv_over_efa_without_rdma,
    kv_over_efa_read_only,
    ports_collide,
    side_channel_port_range,
    nixl_not_as_pinned,
)
