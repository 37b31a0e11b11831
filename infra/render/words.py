"""What the text and the drawing both say of a plan, in a person's words."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from infra.plan.cost import Cost
    from infra.plan.memory import MemoryItem, MemoryPlan
    from infra.plan.nics import NetworkInterface
    from infra.plan.plan import Group, Node, Plan

MEMORY_PARTS: tuple[str, ...] = (
    "weights",
    "redundant experts, EPLB",
    "communication",
    "activations",
    "CUDA graphs",
    "other",
    "KV cache",
    "free",
)
"""Parts of a GPU's memory in the order that the bar has them."""

INTERFACE_NAMES = {"interface": "ENA", "efa": "EFA with ENA", "efa-only": "EFA-only"}
_PARTS = {"weights": "weights", "activation": "activations", "cuda_graph": "CUDA graphs"}
_EQUAL_NODES_SHOWN = 3


@dataclass(frozen=True)
class MemoryPart:
    """One part of the bar. detail: the items that make it, or what the KV cache is enough for."""

    name: str
    gib: float
    detail: str


@dataclass(frozen=True)
class NodeRun:
    """Nodes in a row that differ in name and ranks alone."""

    nodes: tuple[Node, ...]

    @property
    def name(self) -> str:
        """The node, or the first and the last with their number."""
        return run_name([node.name for node in self.nodes], "nodes")

    @property
    def ranks(self) -> str:
        """The data-parallel ranks of all of them."""
        with_ranks = [node for node in self.nodes if node.ranks]
        if not with_ranks:
            return "part of the rank of the node before"
        first, last = with_ranks[0], with_ranks[-1]
        end = last.first_rank + last.ranks - 1
        if end == first.first_rank:
            return f"rank {end}"
        each = f", {first.ranks} each" if len(with_ranks) > 1 else ""
        return f"ranks {first.first_rank}-{end}{each}"


def run_name(names: Sequence[str], what: str) -> str:
    """`a`, or `a … d (4 nodes)`."""
    if len(names) == 1:
        return names[0]
    return f"{names[0]} … {names[-1]} ({len(names)} {what})"


def node_runs(nodes: Iterable[Node], shown: int = _EQUAL_NODES_SHOWN) -> list[NodeRun]:
    """Nodes in order; more than `shown` equal ones in a row become one run."""
    runs: list[NodeRun] = []
    for _, group in groupby(nodes, lambda n: (n.position, n.ranks, n.network_interfaces)):
        equal = tuple(group)
        runs += [NodeRun(equal)] if len(equal) > shown else [NodeRun((n,)) for n in equal]
    return runs


def model(plan: Plan) -> str:
    """Architecture, experts and size of the model's weights."""
    said = f"{plan.model.architecture}, {plan.model.experts} experts"
    size_bytes = plan.weights.size_gib * 2**30 if plan.weights else plan.model.size_bytes
    if not size_bytes:
        return said
    if size_bytes < 2**30:
        return f"{said}, {size_bytes / 2**20:.1f} MiB of weights"
    return f"{said}, {size_bytes / 2**30:.1f} GiB of weights"


def cut(group: Group) -> str:
    """How the group is cut: `TP 1 x DP 16 = EP 16`."""
    sizes = f"TP {group.tensor_parallel_size} x DP {group.data_parallel_size}"
    if group.enable_expert_parallel:
        return f"{sizes} = EP {group.expert_parallel_size}"
    return f"{sizes}, experts not spread"


def title(name: str, group: Group, replicas: int) -> str:
    """Name, role where the name doesn't say it, nodes and cut of one or more equal replicas."""
    role = "" if name.partition("-")[0] == group.role else f" ({group.role})"
    many = f"{replicas} replicas, each " if replicas > 1 else ""
    return f"{name}{role}: {many}{len(group.nodes)} x {group.instance_type}, {cut(group)}"


def interfaces(nics: Sequence[NetworkInterface]) -> str:
    """Interfaces by type and card: `ENA card 0; EFA-only cards 0-15`."""
    said = []
    for kind, name in INTERFACE_NAMES.items():
        cards = sorted(nic.network_card_index for nic in nics if nic.interface_type == kind)
        if cards:
            said.append(f"{name} card{'s' if len(cards) > 1 else ''} {ranges(cards)}")
    return "; ".join(said)


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers, runs of them joined: `0, 4-7`."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def bandwidth(group: Group) -> str:
    """What a node has, in Gbit/s, and the NVLink domain."""
    width = group.bandwidth
    said = [f"EFA {width.efa_gbps:g} Gbit/s per node"] if width.efa_gbps else ["no EFA"]
    said.append(f"ENA {width.ip_gbps:g} Gbit/s")
    if width.nvlink_gpus:
        said.append(f"NVLink between {width.nvlink_gpus} GPUs")
    return ", ".join(said)


def software(group: Group) -> str:
    """The image that a node runs, or the packages of its own Python."""
    found = group.primary.software
    packages = ", ".join(f"{name} {version}" for name, version in found.distributions.items())
    return found.image or packages


def kv_transfer(group: Group) -> str | None:
    """How the group hands KV over, where it does."""
    transfer = group.kv_transfer
    if transfer is None:
        return None
    role = transfer.config.get("kv_role", "")
    return f"{transfer.connector} over {', '.join(transfer.backends)}, {role}"


def memory_parts(memory: MemoryPlan) -> tuple[MemoryPart, ...]:
    """The bar of one GPU; its parts add up to the GPU's memory where the plan fits."""
    held: dict[str, list[tuple[str, float]]] = {name: [] for name in MEMORY_PARTS}
    for item in memory.items:
        if item.part != "kv_cache":
            held[_part(item)].append((item.name, item.gib))
    # Context and communicators are there before vLLM looks: outside of the share that it asks for.
    before = memory.gpu_total_gib - memory.free_at_start_gib
    held["other"].append(("CUDA context and NCCL communicators", before))
    taken = before + sum(item.gib for item in memory.items)
    parts = []
    for name, items in held.items():
        size, detail = sum(gib for _, gib in items), _details(items)
        if name == "KV cache":
            size, detail = max(0.0, memory.kv_cache_gib), kv_cache(memory)
        elif name == "free":
            size, detail = max(0.0, memory.gpu_total_gib - taken), _share(memory)
        parts.append(MemoryPart(name, size, detail))
    return tuple(parts)


def kv_cache(memory: MemoryPlan) -> str:
    """What the KV cache of one GPU is enough for."""
    longest = memory.effective.max_model_len
    requests = f"{memory.full_length_requests:.1f} requests of {longest:,} tokens"
    return f"{memory.kv_cache_tokens:,} tokens, {requests}"


def cost(cost: Cost) -> str:
    """Per hour and per day, with the day of the prices."""
    if cost.usd_per_hour is None or cost.usd_per_day is None:
        known = f"${cost.known_usd_per_hour:,.2f} an hour without {', '.join(cost.unpriced)}"
        return f"{known}, whose price isn't known"
    where = f"on demand in {cost.price_region}, prices of {cost.price_date}"
    return f"${cost.usd_per_hour:,.2f} an hour, ${cost.usd_per_day:,.0f} a day ({where})"


def _part(item: MemoryItem) -> str:
    if "redundant" in item.name or "EPLB" in item.name:
        return "redundant experts, EPLB"
    if item.part == "non_torch":
        return "communication" if "buffer" in item.name else "other"
    return _PARTS.get(item.part, "other")


def _details(items: Sequence[tuple[str, float]]) -> str:
    """The items, largest first; the smallest together where there are many."""
    ordered = sorted(items, key=lambda item: -item[1])
    told = [f"{name} {gib:.1f}" for name, gib in ordered if gib >= 0.05]
    return "; ".join(told)


def _share(memory: MemoryPlan) -> str:
    return f"outside gpu_memory_utilization {memory.effective.gpu_memory_utilization:g}"
