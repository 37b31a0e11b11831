"""Plain values that rules take: of the stack, of one group, of a prefill group with a decode one.

A rule's argument has the name of a field here. Nothing here knows of the plan's form; the adapter
(from_plan.py) fills it in. Sizes in GiB (2^30 bytes) unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

Slot = tuple[int, int, str]
"""An interface: network card index, device index, EC2's interface type."""
Card = tuple[int, int, bool]
"""A network card: index, the most interfaces it takes, whether one may carry EFA."""
Command = tuple[str, str, int, tuple[str, ...]]
"""A node's command: its name, position, first rank and argv."""
RequestedInterface = tuple[int, int, str, bool, bool]
"""An interface of a launch request: card, device, type, any field of an address, a public one."""


@dataclass(frozen=True)
class GroupFacts:
    """One group, as it will run.

    Of the model: `experts` 0 and `heads` 0 where its shape is not known. `quantization` is the
    method that the experts end up with (none, fp8, mxfp4, nvfp4, int4), `checkpoint_quantization`
    that of its files, `online_quantization` what the settings ask vLLM to do at load.
    `communicator`, `use_async`: of EPLB, in effect.
    `*_given` are as the settings have them, None where they leave the choice.
    """

    version: str
    series: tuple[int, int]
    flags: frozenset[str]
    flag_choices: Mapping[str, tuple[str, ...]]
    known_env: frozenset[str]
    role: str
    instance_type: str
    nodes: int
    gpus_per_node: int
    transport: str
    load_balancing: str
    tensor_parallel_size: int
    tensor_parallel_nodes: int
    data_parallel_size: int
    data_parallel_size_local: int
    expert_parallel: bool
    ranks: int
    backend: str
    fallback: str | None
    deepep: str
    notes: tuple[tuple[str, str, str, str], ...]
    eplb: bool
    redundant: int
    eplb_given: tuple[str, ...]
    eplb_fields: tuple[str, ...]
    eplb_communicators: tuple[str, ...]
    communicator_given: str | None
    communicator: str | None
    use_async: bool
    log_balancedness_interval: int | None
    placement: str
    dual_batch_overlap: bool
    enforce_eager: bool
    cudagraph_mode_given: str | None
    kv_connector: str | None
    kv_backends: tuple[str, ...]
    kv_config: Mapping[str, Any]
    kv_fields: tuple[str, ...]
    side_channel_ports: tuple[int, ...]
    fixed_ports: Mapping[str, int]
    batched_tokens_given: int | None
    batched_tokens: int
    max_model_len: int | None
    kv_cache_dtype: str
    kv_cache_memory_bytes: int | None
    online_quantization: str | None
    checkpoint_quantization: str
    quantization: str
    env: Mapping[str, str]
    env_given: Mapping[str, str]
    extra_args: tuple[str, ...]
    commands: tuple[Command, ...]
    interfaces: tuple[Slot, ...]
    cards: tuple[Card, ...]
    max_efa: int
    rdma_read: bool
    rdma_write: bool
    kernel_initiated_efa: bool
    capability: tuple[int, int]
    gpu_name: str
    host_memory_gib: float
    local_disk_gb: int
    runtime: str
    image: str | None
    components: Mapping[str, str]
    nixl_pin: str | None
    architecture: str
    moe: bool
    experts: int
    hidden_size: int
    expert_groups: int
    expert_intermediate: int
    weight_block: int
    heads: int
    kv_heads: int
    mla: bool
    model_max_len: int
    weights_gib: float
    memory_problems: tuple[str, ...]
    memory_cautions: tuple[str, ...]
    nearest: tuple[str, ...]
    memory_items: Mapping[str, float]
    full_length_requests: float | None


@dataclass(frozen=True)
class PairFacts:
    """A prefill group with a decode group that takes its KV from it."""

    prefill_kv_cache_dtype: str
    decode_kv_cache_dtype: str
    prefill_dtype: str
    decode_dtype: str
    prefill_attention_backend: str | None
    decode_attention_backend: str | None
    prefill_speculative: str | None
    decode_speculative: str | None
    prefill_connector: str | None
    decode_connector: str | None
    prefill_kv_backends: tuple[str, ...]
    decode_kv_backends: tuple[str, ...]
    prefill_block_size: int | None
    decode_block_size: int | None
    prefill_layout: str | None
    decode_layout: str | None
    prefill_tensor_parallel_size: int
    decode_tensor_parallel_size: int
    prefill_quantization: str
    decode_quantization: str
    prefill_family: str
    decode_family: str
    prefill_max_model_len: int | None
    decode_max_model_len: int | None
    linear_attention: bool
    mla: bool


@dataclass(frozen=True)
class StackFacts:
    """The stack as a whole.

    `types`: (group's name, role, instance type, instances). `quotas`: (EC2 quota's name, its code,
    what is counted, how many this stack needs). `zones`: zone ids that offer each type in the
    region, where that is known.
    """

    capacity_kind: str
    capacity_id: str | None
    exposure: str
    allowed_cidrs: tuple[str, ...]
    tls: bool
    placement_group: bool
    region: str | None
    types: tuple[tuple[str, str, str, int], ...]
    multi_node_groups: tuple[str, ...]
    transfers_kv: bool
    no_cluster_placement: tuple[str, ...]
    no_capacity_blocks: tuple[str, ...]
    no_spot: tuple[str, ...]
    unpriced: tuple[str, ...]
    quotas: tuple[tuple[str, str, str, int], ...]
    interfaces_total: int
    zones: Mapping[str, frozenset[str]]
    longest_user_data_bytes: int
    gpu_stack: bool
    model_source: str
    weights_gib: float
    router_version: str | None
    router_argv: tuple[str, ...]
    shortest_context: int | None
    notes: tuple[tuple[str, str, str, str], ...] = field(default=())
    open_to_the_world: bool = False
    way_out: str = "none"
    from_internet: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckFacts:
    """What the settings say of the checks themselves."""

    suppressed: tuple[str, ...]
    known_codes: frozenset[str]
    unsuppressible_codes: frozenset[str]


@dataclass(frozen=True)
class LaunchFacts:
    """One launch request, and the rules of the nodes' security group for itself.

    host_network: whether containers share the host's network. names_interface: whether the request
    names an interface that exists already.
    """

    runtime: str
    host_network: bool
    http_tokens: str
    hop_limit: int
    requested: tuple[RequestedInterface, ...]
    names_interface: bool
    instances: int
    self_ingress: bool
    self_egress: bool
    root_volume_gib: int
