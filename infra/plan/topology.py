"""Groups to replicas to nodes to ranks, with their names and ports."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Literal

from infra import catalog
from infra.plan.nics import NicLayout, nic_layout
from node_bootstrap.assignment import Hardware, Role

if TYPE_CHECKING:
    from infra.plan.request import EngineOptions, GroupRequest, LoadBalancing, NicUse

API_PORT = 8000
AGENT_PORT = 9400
DATA_PARALLEL_RPC_PORT = 13345
MASTER_PORT = 29501
ROUTER_METRICS_PORT = 29000

MEMORY_SHARE = 0.9
"""Part of a type's memory that must be found: firmware and kernel keep the rest for themselves."""

NodePosition = Literal["primary", "headless", "secondary"]
"""secondary: a further node with an API of its own (hybrid and external load balancing)."""
Transport = Literal["nvlink", "pcie", "efa", "tcp", "none"]


@dataclass(frozen=True)
class Ports:
    """TCP ports that a stack fixes.

    api: the OpenAI API of a primary, and of the router on the gateway. agent: on every node.
    data_parallel_rpc: vLLM's handshake on the primary. master: torch's rendezvous of a rank whose
    tensor parallelism spans nodes. Everything else that vLLM opens is ephemeral.
    """

    api: int = API_PORT
    agent: int = AGENT_PORT
    data_parallel_rpc: int = DATA_PARALLEL_RPC_PORT
    master: int = MASTER_PORT
    router_metrics: int = ROUTER_METRICS_PORT


@dataclass(frozen=True)
class Cut:
    """How a group is cut: GPUs per rank, ranks per node, and nodes per rank (1 unless TP spans)."""

    tensor_parallel_size: int
    data_parallel_size_local: int
    tensor_parallel_nodes: int
    data_parallel_size: int
    enable_expert_parallel: bool

    @property
    def gpus(self) -> int:
        """TP x DP: the ranks of the expert-parallel group, where there is one."""
        return self.tensor_parallel_size * self.data_parallel_size

    @property
    def expert_parallel_size(self) -> int:
        """Over how many GPUs whole experts are spread: EP = TP x DP, or 1 without."""
        return self.gpus if self.enable_expert_parallel else 1


@dataclass(frozen=True)
class NodePlace:
    """Where a node stands in its group: its global ranks are first_rank and the ranks - 1 after."""

    name: str
    index: int
    position: NodePosition
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
    cut: Cut
    load_balancing: LoadBalancing
    options: EngineOptions
    nodes: tuple[NodePlace, ...]

    @property
    def primary(self) -> NodePlace:
        """The node with rank 0, the API and the group's revision and generation."""
        return self.nodes[0]

    @property
    def has_gpus(self) -> bool:
        """Whether it is of a GPU type."""
        return self.instance_type.gpu_count > 0


def geometry(
    request: GroupRequest, *, tensor_parallel_size: int, enable_expert_parallel: bool
) -> Cut:
    """Ranks of a group with a given tensor-parallel size.

    A size above the node's GPUs makes one rank span nodes. Impossible numbers are laid out as
    asked for: the checks refuse them by name.
    """
    gpus = catalog.instance_type(request.instance_type).gpu_count
    spans = ceil(tensor_parallel_size / gpus) if gpus else 1
    fitting = max(1, gpus // tensor_parallel_size)
    local = 1 if spans > 1 else request.data_parallel_size_local or fitting
    ranks = max(1, request.nodes // spans) if spans > 1 else request.nodes * local
    return Cut(tensor_parallel_size, local, spans, ranks, enable_expert_parallel)


def lay_out(request: GroupRequest, cut: Cut) -> tuple[GroupPlace, ...]:
    """All replicas of a group.

    Raises:
        infra.catalog.UnknownNameError: the instance type is not in the catalog.
    """
    return tuple(_replica(request, cut, replica) for replica in range(request.replicas))


def address_variable(node: str) -> str:
    """Name of the shell variable that stands for a node's address in printed commands."""
    return f"{node.upper().replace('-', '_')}_ADDRESS"


def transport(instance_type: catalog.InstanceType, nodes: int) -> Transport:
    """What carries tokens between the ranks of a group."""
    if not instance_type.gpu_count:
        return "none"
    if nodes > 1:
        return "efa" if instance_type.max_efa else "tcp"
    return "nvlink" if instance_type.nvlink_domain_gpus == instance_type.gpu_count else "pcie"


def interfaces(instance_type: catalog.InstanceType, use: NicUse = "one-ip") -> NicLayout:
    """The network interfaces of a node.

    Every GPU node gets all the EFA that its type has, also where its group is one node: EFA can be
    added at launch alone, so a group that grows would have to replace its nodes.
    """
    return nic_layout(instance_type, efa=instance_type.gpu_count > 0, use=use)


def hardware(
    instance_type: catalog.InstanceType, node: NodePlace, driver_min: str, dcgm_level: int = 0
) -> Hardware:
    """What the node must find on itself before it serves.

    driver_min: empty for a CPU type. dcgm_level: of NVIDIA's diagnosis, 0 for none.
    """
    gpus = instance_type.gpus
    return Hardware(
        private_ip=node.address,
        cpus_min=instance_type.vcpus,
        memory_gib_min=round(instance_type.memory_gib * MEMORY_SHARE, 2),
        gpu_count=gpus.count if gpus else 0,
        gpu_name=gpus.name if gpus else "",
        gpu_memory_mib=gpus.memory_mib if gpus else 0,
        nvlink=bool(gpus) and 1 < instance_type.nvlink_domain_gpus == instance_type.gpu_count,
        efa_devices=instance_type.max_efa if gpus else 0,
        local_disks=instance_type.local_disks.count if gpus and instance_type.local_disks else 0,
        driver_min=driver_min,
        dcgm_level=dcgm_level if gpus else 0,
    )


def _replica(request: GroupRequest, cut: Cut, replica: int) -> GroupPlace:
    name = f"{request.name}-{replica}"
    return GroupPlace(
        name=name,
        group=request.name,
        replica=replica,
        role=request.role,
        instance_type=catalog.instance_type(request.instance_type),
        cut=cut,
        load_balancing=request.load_balancing,
        options=request.options,
        nodes=tuple(_node(request, cut, f"{name}-{i}", i) for i in range(request.nodes)),
    )


def _node(request: GroupRequest, cut: Cut, name: str, index: int) -> NodePlace:
    span, local = cut.tensor_parallel_nodes, cut.data_parallel_size_local
    further: NodePosition = "headless" if request.load_balancing == "internal" else "secondary"
    if span > 1:
        first, ranks = index // span, int(index % span == 0)
        further = "headless"
    else:
        first, ranks = index * local, local
    return NodePlace(name, index, further if index else "primary", first, ranks)
