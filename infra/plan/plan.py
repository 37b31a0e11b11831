"""The plan: one stack, whole, as frozen data. The same request gives the same bytes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from infra.catalog import ModelShape
    from infra.plan.cost import Cost
    from infra.plan.gateway import GatewayPlan
    from infra.plan.kv_transfer import KvTransfer
    from infra.plan.memory import MemoryPlan
    from infra.plan.memory_nearest import Alternative
    from infra.plan.nics import NetworkInterface
    from infra.plan.notes import Note
    from infra.plan.parallelism import Mode
    from infra.plan.reach import WayOut
    from infra.plan.request import Capacity, Endpoint, EngineOptions, Eplb, LoadBalancing
    from infra.plan.router import Router
    from infra.plan.software import SoftwarePlan
    from infra.plan.topology import NodePosition, Ports, Transport
    from infra.plan.weights import WeightsPlan
    from node_bootstrap.assignment import Hardware, Limits, Probe, Role, Transfer, WeightFile


BUCKET = "${BUCKET}"
"""In an argument of the role: the stack's bucket, whose name the account is part of."""
RESERVED_LONGER_SECONDS = 3600
"""A stack's reservation outlives its ttl: nodes count from their boot, which comes after it."""


@dataclass(frozen=True)
class Node:
    """One node. argv and env hold placeholders where an address goes.

    ranks: data-parallel ranks of the node, from first_rank on; 0 on a node that only holds a part
        of a rank whose tensor parallelism spans nodes.
    secret_env: environment variable -> SSM parameter with its value.
    """

    name: str
    position: NodePosition
    instance_type: str
    first_rank: int
    ranks: int
    argv: tuple[str, ...]
    env: dict[str, str]
    secret_env: dict[str, str]
    network_interfaces: tuple[NetworkInterface, ...]
    software: SoftwarePlan
    hardware: Hardware
    address: str


@dataclass(frozen=True)
class All2All:
    """The all2all backend: what was asked for, what it is, and why."""

    requested: str
    chosen: str
    reason: str


@dataclass(frozen=True)
class Parallelism:
    """How the model is cut, why, and when another way would be better.

    mode: `single` one GPU; `tp` every expert sliced; `ep` whole experts spread, attention per GPU;
        `ep+tp` whole experts spread, attention sliced.
    """

    mode: Mode
    reason: str


@dataclass(frozen=True)
class Bandwidth:
    """What one node of the group has, in Gbit/s. nvlink_gpus: GPUs of one NVLink domain."""

    efa_gbps: float
    ip_gbps: float
    nvlink_gpus: int


@dataclass(frozen=True)
class Group:
    """One replica of a group; the primary is the first of its nodes.

    gpus_per_node: 0 on a CPU type. transport: what carries tokens between the ranks.
    tensor_parallel_nodes: nodes that one rank's tensor parallelism spans.
    eplb, kv_transfer, memory: None where they don't apply. memory: of the fullest GPU.
    nearest: plans that would fit where this one doesn't.
    options: as asked for; what vLLM ends up with is in `memory.effective` and the argv.
    notes: what the decisions want a person to know; the checks make findings of them.
    transfer: measured between its nodes before vLLM starts; None: nothing is.
    """

    name: str
    group: str
    replica: int
    role: Role
    instance_type: str
    gpus_per_node: int
    transport: Transport
    load_balancing: LoadBalancing
    parallelism: Parallelism
    tensor_parallel_size: int
    tensor_parallel_nodes: int
    data_parallel_size: int
    data_parallel_size_local: int
    expert_parallel_size: int
    enable_expert_parallel: bool
    all2all_backend: All2All
    all2all_fallback: str | None
    all2all_needs: tuple[str, ...]
    deepep: str
    eplb: Eplb | None
    expert_placement_strategy: str | None
    enforce_eager: bool
    cudagraph_mode: str | None
    api_server_count: int
    kv_transfer: KvTransfer | None
    kv_cache_memory_bytes: int | None
    bandwidth: Bandwidth
    memory: MemoryPlan | None
    nearest: tuple[Alternative, ...]
    options: EngineOptions
    notes: tuple[Note, ...]
    nodes: tuple[Node, ...]
    transfer: Transfer | None = None

    @property
    def primary(self) -> Node:
        """The node with rank 0 and the API."""
        return self.nodes[0]

    @property
    def transfers_kv(self) -> bool:
        """Whether the group takes part in prefill/decode disaggregation."""
        return self.kv_transfer is not None


@dataclass(frozen=True)
class Model:
    """The model: its name, shape and files. shape: None where config.json can't be planned with.

    source: `model.source` of the settings. files: empty where they are not on this machine.
    revision: commit on Hugging Face. with_token: there is one that may read it.
    """

    name: str
    architecture: str
    experts: int
    files: tuple[WeightFile, ...]
    source: str = ""
    shape: ModelShape | None = None
    revision: str | None = None
    with_token: bool = False

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class Plan:
    """Everything that will be built for one stack.

    runtime: how vLLM is there on GPU nodes and CPU nodes. placement_group: whether the nodes share
    a cluster placement group. suppress: codes of findings that the settings silence.
    notes: what concerns the stack as a whole.
    way_out: how the nodes reach the internet. from_internet: what they need from there.
    ttl_seconds: how long after its boot each node ends by itself; None: never.
    """

    stack: str
    model: Model
    vllm_version: str
    ports: Ports
    probe: Probe
    limits: Limits
    groups: tuple[Group, ...]
    router: Router | None
    capacity: Capacity
    endpoint: Endpoint
    placement_group: bool
    weights: WeightsPlan | None
    cost: Cost
    region: str | None = None
    suppress: tuple[str, ...] = ()
    notes: tuple[Note, ...] = field(default=())
    ttl_seconds: float | None = None
    gateway: GatewayPlan | None = None
    way_out: WayOut = "none"
    from_internet: tuple[str, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes that run vLLM, group by group."""
        return tuple(node for group in self.groups for node in group.nodes)

    def group_of(self, node: str) -> Group:
        """The group that a node belongs to."""
        return next(g for g in self.groups if any(n.name == node for n in g.nodes))


def agent_token_parameter(stack: str) -> str:
    """SSM parameter with the token that the stack's agents show one another."""
    return f"/moe-serving/{stack}/agent-token"


def api_key_parameter(stack: str) -> str:
    """SSM parameter with the key that clients of the endpoint show."""
    return f"/moe-serving/{stack}/api-key"


def to_json(plan: Plan, findings: Iterable[Any] = ()) -> str:
    """The plan as a JSON document: keys sorted, ends with a newline.

    Args:
        plan: the plan.
        findings: what the checks found (dataclasses), put under `findings`.
    """
    document = dataclasses.asdict(plan)
    for group in document["groups"]:
        if group["transfer"] is None:
            del group["transfer"]
    document["findings"] = [dataclasses.asdict(finding) for finding in findings]
    return json.dumps(document, sort_keys=True, indent=1, default=_plain) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no place in a plan")
