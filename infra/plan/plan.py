"""The plan: one stack, whole, as frozen data. The same request gives the same bytes."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

from infra.plan import serve, topology
from infra.plan.request import Request
from infra.plan.topology import GroupPlace, NetworkInterface, NodePlace, Ports
from node_bootstrap.assignment import (
    Hardware,
    Limits,
    Position,
    Probe,
    Role,
    Software,
    WeightFile,
)

CPU_EP_PLUGIN_VERSION = "0.1.0"
"""Of `node_bootstrap/vllm_cpu_ep`, which is built into the nodes' vLLM for CPUs."""


@dataclass(frozen=True)
class Node:
    """One node. argv and env hold placeholders where an address goes.

    secret_env: environment variable -> SSM parameter with its value.
    """

    name: str
    position: Position
    instance_type: str
    first_rank: int
    ranks: int
    argv: tuple[str, ...]
    env: dict[str, str]
    secret_env: dict[str, str]
    network_interfaces: tuple[NetworkInterface, ...]
    software: Software
    hardware: Hardware
    address: str


@dataclass(frozen=True)
class All2All:
    """The all2all backend: what was asked for, what it is, and why."""

    requested: str
    chosen: str
    reason: str


@dataclass(frozen=True)
class Group:
    """One replica of a group; the primary is the first of its nodes."""

    name: str
    group: str
    replica: int
    role: Role
    instance_type: str
    tensor_parallel_size: int
    data_parallel_size: int
    data_parallel_size_local: int
    expert_parallel_size: int
    all2all_backend: All2All
    kv_cache_memory_bytes: int
    nodes: tuple[Node, ...]

    @property
    def primary(self) -> Node:
        """The node with rank 0 and the API."""
        return self.nodes[0]


@dataclass(frozen=True)
class Model:
    """The model: its name, shape and files."""

    name: str
    architecture: str
    experts: int
    files: tuple[WeightFile, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class Plan:
    """Everything that will be built for one stack."""

    stack: str
    model: Model
    vllm_version: str
    ports: Ports
    probe: Probe
    limits: Limits
    groups: tuple[Group, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes, group by group."""
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


def make(request: Request) -> Plan:
    """Compute the plan.

    Raises:
        infra.catalog.UnknownNameError: an instance type is not in the catalog.
    """
    ports = Ports()
    places = [place for group in request.groups for place in topology.lay_out(group)]
    return Plan(
        stack=request.stack,
        model=_model(request),
        vllm_version=request.vllm_version,
        ports=ports,
        # A fault must be noticed within 10 s: interval + timeout, or the members' silence.
        probe=Probe(request.model_name, "Hello", interval_seconds=2.0, timeout_seconds=5.0),
        limits=Limits(start_seconds=300.0, stop_seconds=10.0, silence_seconds=5.0),
        groups=tuple(_group(request, place, ports) for place in places),
    )


def to_json(plan: Plan) -> str:
    """The plan as a JSON document: keys sorted, ends with a newline."""
    return json.dumps(dataclasses.asdict(plan), sort_keys=True, indent=1) + "\n"


def _model(request: Request) -> Model:
    config = request.model_config
    # Families differ in the field's name: Qwen and gpt-oss, Mixtral, DeepSeek.
    experts = next(
        (
            int(config[key])
            for key in ("num_experts", "num_local_experts", "n_routed_experts")
            if config.get(key)
        ),
        0,
    )
    architectures = config.get("architectures") or ["unknown"]
    return Model(request.model_name, str(architectures[0]), experts, request.model_files)


def _group(request: Request, place: GroupPlace, ports: Ports) -> Group:
    chosen, reason = serve.all2all(place)
    return Group(
        name=place.name,
        group=place.group,
        replica=place.replica,
        role=place.role,
        instance_type=place.instance_type.name,
        tensor_parallel_size=place.tensor_parallel_size,
        data_parallel_size=place.data_parallel_size,
        data_parallel_size_local=place.data_parallel_size_local,
        expert_parallel_size=place.expert_parallel_size,
        all2all_backend=All2All(place.all2all_backend, chosen, reason),
        kv_cache_memory_bytes=serve.kv_cache_memory_bytes(place),
        nodes=tuple(_node(request, place, node, ports) for node in place.nodes),
    )


def _node(request: Request, group: GroupPlace, node: NodePlace, ports: Ports) -> Node:
    key = {"VLLM_API_KEY": api_key_parameter(request.stack)}
    return Node(
        name=node.name,
        position=node.position,
        instance_type=group.instance_type.name,
        first_rank=node.first_rank,
        ranks=node.ranks,
        argv=serve.argv(group, node, request.model_name, request.python, ports),
        env=serve.env(group),
        secret_env=key if node.position == "primary" else {},
        network_interfaces=topology.network_interfaces(group.instance_type),
        software=topology.software(request.python, request.vllm_version, CPU_EP_PLUGIN_VERSION),
        hardware=topology.hardware(group.instance_type, node),
        address=node.address,
    )
