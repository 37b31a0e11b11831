"""What the plan is made from: the settings, resolved to plain values, and facts of the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from infra.catalog import ModelShape
    from node_bootstrap.assignment import Role, WeightFile

LoadBalancing = Literal["internal", "hybrid", "external"]
NicUse = Literal["one-ip", "ip-bandwidth"]
Runtime = Literal["venv", "container"]
DeepEp = Literal["stock", "efa", "uccl", "none"]
CapacityKind = Literal["on-demand", "reserve", "reservation", "capacity-block", "spot"]
THERE_ALREADY = ("reservation", "capacity-block")
"""Kinds that the settings name by id: somebody reserved or bought it beforehand."""


@dataclass(frozen=True)
class EngineOptions:
    """Options of vLLM, spelled as vLLM spells them; None leaves the choice to the plan or vLLM."""

    dtype: str = "auto"
    max_model_len: int | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    kv_cache_memory_bytes: int | None = None
    enforce_eager: bool | None = None
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    gpu_memory_utilization: float | None = None
    block_size: int | None = None
    compilation_config: dict[str, Any] | None = None
    enable_dbo: bool = False
    dbo_decode_token_threshold: int | None = None
    dbo_prefill_token_threshold: int | None = None
    api_server_count: int | None = None
    attention_backend: str | None = None
    moe_backend: str | None = None
    load_format: str | None = None
    numa_bind: bool | None = None
    enable_ep_weight_filter: bool | None = None
    extra_args: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Eplb:
    """Expert load balancing, vLLM's fields; None leaves a field to the plan or vLLM's default."""

    num_redundant_experts: int = 0
    window_size: int | None = None
    step_interval: int | None = None
    log_balancedness: bool | None = None
    log_balancedness_interval: int | None = None
    use_async: bool | None = None
    policy: str | None = None
    communicator: str | None = None
    enable_migration_batching: bool | None = None


@dataclass(frozen=True)
class KvTransferOptions:
    """KV transfer between prefill and decode groups; None leaves the choice to the plan."""

    kv_connector: str = "NixlConnector"
    backends: tuple[str, ...] | None = None
    kv_load_failure_policy: str | None = None
    kv_lease_duration: int | None = None
    num_threads: int | None = None
    side_channel_port: int | None = None
    restart_with_peer: bool | None = None


@dataclass(frozen=True)
class GroupRequest:
    """One group as it was asked for. None: the plan picks and says why."""

    name: str
    role: Role
    instance_type: str
    nodes: int
    replicas: int
    tensor_parallel_size: int | None
    data_parallel_size_local: int | None
    enable_expert_parallel: bool | None
    all2all_backend: str
    options: EngineOptions
    allow_fallback: bool = False
    load_balancing: LoadBalancing = "internal"
    eplb: Eplb | None = None
    expert_placement_strategy: str | None = None
    kv_transfer: KvTransferOptions = field(default_factory=KvTransferOptions)
    network_interfaces: NicUse = "one-ip"


@dataclass(frozen=True)
class Capacity:
    """Where the instances come from. id: of the reservation or Capacity Block."""

    kind: CapacityKind = "on-demand"
    id: str | None = None


@dataclass(frozen=True)
class Endpoint:
    """Who may reach the endpoint. tls: of the gateway; certificate: of a load balancer."""

    exposure: Literal["private", "public"] = "private"
    allowed_cidrs: tuple[str, ...] = ()
    tls: bool = False
    certificate: bool = False
    open_to_the_world: bool = False


@dataclass(frozen=True)
class KeyRequest:
    """One API key of the endpoint; None: no end, all models, as many requests as come."""

    name: str
    expires_at: str | None = None
    models: tuple[str, ...] | None = None
    requests_per_minute: int | None = None
    rotate: int = 0


DEFAULT_KEYS = (KeyRequest("default"),)


@dataclass(frozen=True)
class GatewayOptions:
    """The gateway as it was asked for. enabled: None leaves it to the plan.

    keys: empty for one named `default`. domain, issuer: of the certificate.
    """

    enabled: bool | None = None
    tls: bool = True
    issuer: Literal["internal", "acme"] = "internal"
    domain: str | None = None
    policy: str = "cache_aware"
    keys: tuple[KeyRequest, ...] = ()
    body_limit_bytes: int = 16 << 20
    request_timeout_seconds: float = 1800.0
    wait_seconds: float = 60.0
    waiting_requests: int = 256
    retries: int = 2


@dataclass(frozen=True)
class TransferOptions:
    """The measured transfer between the nodes of a group; mode: None leaves it to the plan.

    floors: what is measured -> GB/s, instead of the type's own.
    """

    mode: Literal["require", "measure", "off"] | None = None
    floors: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Vllm:
    """The release and how the nodes have it. None: the plan picks by type and transport.

    python: the interpreter on the nodes that has vLLM. image: of the container runtime.
    """

    version: str
    runtime: Runtime | None = None
    python: str = "/opt/vllm/bin/python"
    image: str | None = None
    deepep: DeepEp | None = None


@dataclass(frozen=True)
class Request:
    """One stack as it was asked for.

    nat: whether there is a way to the internet; None: where something needs one.
    existing_network: the nodes go to a subnet that is there already.
    own_image: the groups' nodes boot from an image of the user's.
    model_config: the model's config.json. model_shape: the same, read; None on CPU-only stacks
    whose model no memory rule covers.
    """

    stack: str
    model_name: str
    model_files: tuple[WeightFile, ...]
    model_config: dict[str, Any]
    vllm: Vllm
    groups: tuple[GroupRequest, ...]
    model_source: str = ""
    model_revision: str | None = None
    model_token: bool = False
    model_shape: ModelShape | None = None
    model_faults: tuple[str, ...] = ()
    capacity: Capacity = Capacity()
    endpoint: Endpoint = Endpoint()
    gateway_instance_type: str = "c7i.xlarge"
    gateway: GatewayOptions = GatewayOptions()
    region: str | None = None
    suppress: tuple[str, ...] = ()
    ttl_seconds: float | None = None
    nat: bool | None = None
    existing_network: bool = False
    own_image: bool = False
    transfer: TransferOptions = TransferOptions()
    dcgm_level: int = 0
