"""From a plan to the plain values that rules take; the one module that knows both."""

from __future__ import annotations

import functools
import json
from collections import Counter
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from infra import catalog
from infra.checks.facts import CheckFacts, GroupFacts, PairFacts, StackFacts
from infra.plan.memory_weights import with_online
from node_bootstrap import user_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from infra.plan.memory_nearest import Alternative
    from infra.plan.notes import Note
    from infra.plan.plan import Group, Plan

_QUOTAS = {
    ("p", "on-demand"): ("Running On-Demand P instances", "L-417A185B"),
    ("g", "on-demand"): ("Running On-Demand G and VT instances", "L-DB2E81BA"),
    ("p", "spot"): ("All P Spot Instance Requests", "L-7212CCBC"),
    ("g", "spot"): ("All G and VT Spot Instance Requests", "L-3819A6DF"),
}
_BUCKET_NAME_LENGTH = 63


@dataclass(frozen=True)
class Facts:
    """All of a plan: values by name for every place that rules look at.

    groups, pairs: (settings key, values).
    """

    stack: Mapping[str, Any]
    groups: tuple[tuple[str, Mapping[str, Any]], ...]
    pairs: tuple[tuple[str, Mapping[str, Any]], ...]


def facts_of(plan: Plan) -> Facts:
    """The plain values of a plan. Replicas of a group are equal, so one stands for all."""
    first = {group.group: group for group in reversed(plan.groups)}
    named = [(name, first[name]) for name in dict.fromkeys(g.group for g in plan.groups)]
    return Facts(
        stack=vars(stack_facts(plan)),
        groups=tuple((name, vars(group_facts(plan, group))) for name, group in named),
        pairs=tuple(
            (name, vars(pair_facts(plan, prefill, decode)))
            for _, prefill in named
            for name, decode in named
            if prefill.role == "prefill" and decode.role == "decode"
        ),
    )


def check_facts(
    suppressed: Iterable[str], known: Iterable[str], unsuppressible: Iterable[str]
) -> Mapping[str, Any]:
    """What the settings say of the checks."""
    codes = tuple(sorted(set(suppressed)))
    return vars(CheckFacts(codes, frozenset(known), frozenset(unsuppressible)))


def group_facts(plan: Plan, group: Group) -> GroupFacts:
    """The values of one group."""
    return GroupFacts(
        **_release(plan, group),
        **_shape(plan, group),
        **_instance(group),
        **_eplb(plan, group),
        **_transfer(plan, group),
        **_memory(group),
        role=group.role,
        nodes=len(group.nodes),
        gpus_per_node=group.gpus_per_node,
        transport=group.transport,
        load_balancing=group.load_balancing,
        tensor_parallel_size=group.tensor_parallel_size,
        tensor_parallel_nodes=group.tensor_parallel_nodes,
        data_parallel_size=group.data_parallel_size,
        data_parallel_size_local=group.data_parallel_size_local,
        expert_parallel=group.enable_expert_parallel,
        ranks=group.expert_parallel_size,
        backend=group.all2all_backend.chosen,
        fallback=group.all2all_fallback,
        deepep=group.deepep,
        notes=_notes(group.notes),
        placement=group.expert_placement_strategy or "linear",
        dual_batch_overlap=group.options.enable_dbo,
        enforce_eager=group.enforce_eager,
        cudagraph_mode_given=(group.options.compilation_config or {}).get("cudagraph_mode"),
        env=group.primary.env,
        env_given=group.options.env,
        extra_args=group.options.extra_args,
        commands=tuple((n.name, n.position, n.first_rank, n.argv) for n in group.nodes),
        runtime=group.primary.software.runtime,
        image=group.primary.software.image,
        components={c.name: c.version for c in group.primary.software.components},
    )


def _notes(notes: Iterable[Note]) -> tuple[tuple[str, str, str, str], ...]:
    return tuple((note.code, note.severity, note.message, note.remedy) for note in notes)


def _release(plan: Plan, group: Group) -> dict[str, Any]:
    release = catalog.release(plan.vllm_version)
    flags, choices = _flags(release.version)
    pin = release.pins.get("nixl")
    return {
        "version": release.version,
        "series": release.series,
        "flags": flags,
        "flag_choices": choices,
        "known_env": release.env,
        "eplb_fields": tuple(release.eplb_fields),
        "eplb_communicators": release.eplb_communicators,
        "kv_fields": tuple(release.kv_transfer_fields) if group.kv_transfer else (),
        "nixl_pin": str(pin) if pin else None,
    }


@functools.cache
def _flags(version: str) -> tuple[frozenset[str], Mapping[str, tuple[str, ...]]]:
    held = catalog.release(version).flags
    spellings = frozenset(
        word for f in held.values() for word in (f.name, *f.aliases, *f.negatives)
    )
    return spellings, {name: f.choices for name, f in held.items() if f.choices}


def _shape(plan: Plan, group: Group) -> dict[str, Any]:
    shape = plan.model.shape
    online = group.options.quantization
    common = {
        "architecture": plan.model.architecture,
        "online_quantization": online,
        "weights_gib": _weights_gib(plan),
        "moe": plan.model.experts > 0,
    }
    if shape is None:
        empty = (
            "experts", "hidden_size", "expert_groups", "expert_intermediate",
            "weight_block", "heads", "kv_heads", "model_max_len",
        )  # fmt: skip
        unknown = {"mla": False}
        none = {"quantization": "none", "checkpoint_quantization": "none"}
        return {**common, **dict.fromkeys(empty, 0), **unknown, **none}
    effective = with_online(shape, online)
    return {
        **common,
        "experts": shape.experts.count,
        "hidden_size": shape.hidden_size,
        "expert_groups": shape.experts.groups,
        "expert_intermediate": shape.experts.intermediate,
        "quantization": effective.method,
        "checkpoint_quantization": shape.quantization.method,
        "weight_block": effective.group if effective.method == "fp8" else 0,
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "mla": shape.mla is not None,
        "model_max_len": shape.max_position,
    }


def _weights_gib(plan: Plan) -> float:
    return plan.weights.size_gib if plan.weights else plan.model.size_bytes / 2**30


def _instance(group: Group) -> dict[str, Any]:
    kind = catalog.instance_type(group.instance_type)
    gpu = catalog.gpu_of(kind) if kind.gpus else None
    spare = kind.max_efa < len(kind.network_cards)
    disks = kind.local_disks
    return {
        "instance_type": kind.name,
        "interfaces": tuple(
            (n.network_card_index, n.device_index, n.interface_type)
            for n in group.primary.network_interfaces
        ),
        # Fewer EFAs than cards: card 0 is the one that takes none (p6-b300).
        "cards": tuple(
            (c.index, c.max_interfaces, c.efa_only and not (spare and c.index == 0))
            for c in kind.network_cards
        ),
        "max_efa": kind.max_efa,
        "rdma_read": kind.rdma_read,
        "rdma_write": kind.rdma_write,
        "kernel_initiated_efa": kind.kernel_initiated_efa,
        "capability": gpu.capability if gpu else (0, 0),
        "gpu_name": gpu.name if gpu else "",
        "host_memory_gib": kind.memory_gib,
        "local_disk_gb": disks.count * disks.size_gb if disks else 0,
    }


def _eplb(plan: Plan, group: Group) -> dict[str, Any]:
    release = catalog.release(plan.vllm_version)
    asked = group.eplb
    sent = _json_value(group.primary.argv, "--eplb-config")
    given = {k: v for k, v in vars(asked).items() if v is not None} if asked else {}
    default_async = bool(release.eplb_fields.get("use_async"))
    return {
        "eplb": asked is not None,
        "redundant": asked.num_redundant_experts if asked else 0,
        "eplb_given": tuple(sorted(given)),
        "communicator_given": given.get("communicator"),
        "communicator": sent.get("communicator"),
        "use_async": bool(sent.get("use_async", default_async)),
        "log_balancedness_interval": given.get("log_balancedness_interval"),
    }


def _transfer(plan: Plan, group: Group) -> dict[str, Any]:
    transfer = group.kv_transfer
    ports = {
        "the agent's port": plan.ports.agent,
        "the API's port": plan.ports.api,
        "vLLM's data-parallel port": plan.ports.data_parallel_rpc,
    }
    events = _json_value(group.primary.argv, "--kv-events-config").get("endpoint")
    if events and str(events).rpartition(":")[2].isdigit():
        ports["the port of --kv-events-config"] = int(str(events).rpartition(":")[2])
    return {
        "kv_connector": transfer.connector if transfer else None,
        "kv_backends": transfer.backends if transfer else (),
        "kv_config": transfer.config if transfer else {},
        "side_channel_ports": transfer.side_channel_ports if transfer else (),
        "fixed_ports": ports,
    }


def _memory(group: Group) -> dict[str, Any]:
    memory, options = group.memory, group.options
    used = memory.effective if memory else None
    return {
        "batched_tokens_given": options.max_num_batched_tokens,
        "batched_tokens": used.max_num_batched_tokens if used else 0,
        "max_model_len": used.max_model_len if used else options.max_model_len,
        "kv_cache_dtype": options.kv_cache_dtype,
        "kv_cache_memory_bytes": group.kv_cache_memory_bytes,
        "memory_problems": memory.problems if memory else (),
        "memory_cautions": memory.cautions if memory else (),
        "nearest": tuple(_named(plan_) for plan_ in group.nearest),
        "memory_items": {item.name: item.gib for item in memory.items} if memory else {},
        "full_length_requests": memory.full_length_requests if memory else None,
    }


def _named(near: Alternative) -> str:
    settings = ", ".join(f"{key}: {value}" for key, value in near.settings)
    return f"{near.change} ({settings}; {near.kv_cache_tokens} KV tokens per GPU)"


def pair_facts(plan: Plan, prefill: Group, decode: Group) -> PairFacts:
    """The values of a prefill group with a decode group."""
    sides = {"prefill": _side(plan, prefill), "decode": _side(plan, decode)}
    shape = plan.model.shape
    return PairFacts(
        **{f"{side}_{name}": value for side, held in sides.items() for name, value in held.items()},
        linear_attention=shape is not None and shape.linear is not None,
        mla=shape is not None and shape.mla is not None,
    )


def _side(plan: Plan, group: Group) -> dict[str, Any]:
    options, shape = group.options, plan.model.shape
    speculative = _json_value(group.primary.argv, "--speculative-config")
    quantization = with_online(shape, options.quantization).method if shape else "none"
    return {
        "kv_cache_dtype": options.kv_cache_dtype,
        "dtype": options.dtype,
        "attention_backend": options.attention_backend
        or group.primary.env.get("VLLM_ATTENTION_BACKEND"),
        "speculative": json.dumps(speculative, sort_keys=True) if speculative else None,
        "connector": group.kv_transfer.connector if group.kv_transfer else None,
        "kv_backends": group.kv_transfer.backends if group.kv_transfer else (),
        "block_size": options.block_size,
        "layout": group.primary.env.get("VLLM_KV_CACHE_LAYOUT"),
        "tensor_parallel_size": group.tensor_parallel_size,
        "quantization": quantization,
        "family": catalog.instance_type(group.instance_type).family,
        "max_model_len": _memory(group)["max_model_len"],
    }


def stack_facts(plan: Plan) -> StackFacts:
    """The values of the stack."""
    counts = Counter((g.group, g.role, g.instance_type) for g in plan.groups for _ in g.nodes)
    kinds = [catalog.instance_type(t) for t in dict.fromkeys(g.instance_type for g in plan.groups)]
    contexts = [
        length
        for group in plan.groups
        if group.transfers_kv and (length := _memory(group)["max_model_len"])
    ]
    return StackFacts(
        capacity_kind=plan.capacity.kind,
        capacity_id=plan.capacity.id,
        exposure=plan.endpoint.exposure,
        allowed_cidrs=plan.endpoint.allowed_cidrs,
        tls=plan.endpoint.tls or plan.endpoint.certificate,
        placement_group=plan.placement_group,
        region=plan.region,
        types=tuple((*key, count) for key, count in counts.items()),
        multi_node_groups=tuple(dict.fromkeys(g.group for g in plan.groups if len(g.nodes) > 1)),
        transfers_kv=any(g.transfers_kv for g in plan.groups),
        no_cluster_placement=tuple(k.name for k in kinds if not k.cluster_placement),
        no_capacity_blocks=tuple(k.name for k in kinds if k.gpus and not k.capacity_blocks),
        no_spot=tuple(k.name for k in kinds if "spot" not in k.usage_classes),
        unpriced=plan.cost.unpriced,
        quotas=_quotas(plan),
        interfaces_total=sum(len(node.network_interfaces) for node in plan.nodes),
        zones=_zones(plan.region, [k.name for k in kinds if k.gpus]),
        longest_user_data_bytes=_user_data_bytes(plan),
        gpu_stack=any(k.gpus for k in kinds),
        model_source=plan.model.source,
        weights_gib=_weights_gib(plan),
        router_version=plan.router.version if plan.router else None,
        router_argv=plan.router.argv if plan.router else (),
        shortest_context=min(contexts, default=None),
        notes=_notes(plan.notes),
        open_to_the_world=plan.endpoint.open_to_the_world,
        way_out=plan.way_out,
        from_internet=plan.from_internet,
    )


def _quotas(plan: Plan) -> tuple[tuple[str, str, str, int], ...]:
    """A Capacity Block counts against none of these."""
    kind = {"capacity-block": None, "spot": "spot"}.get(plan.capacity.kind, "on-demand")
    needed: Counter[tuple[str, str]] = Counter()
    for node in plan.nodes:
        quota = _QUOTAS.get((node.instance_type[0], kind or ""))
        if quota:
            needed[quota] += catalog.instance_type(node.instance_type).vcpus
    return tuple((name, code, "vCPUs", count) for (name, code), count in sorted(needed.items()))


def _zones(region: str | None, types: Iterable[str]) -> Mapping[str, frozenset[str]]:
    offered = _offerings().get(region or "")
    if offered is None:
        return {}
    return {name: frozenset(offered.get(name, ())) for name in types}


@functools.cache
def _offerings() -> Mapping[str, Mapping[str, list[str]]]:
    text = (resources.files(__package__ or "infra.checks") / "offerings.json").read_text()
    return json.loads(text)["regions"]


def _user_data_bytes(plan: Plan) -> int:
    """Bytes of the longest user data: that of the longest node name and bucket name."""
    longest = max((node.name for node in plan.nodes), key=len, default="n")
    bucket = "b" * _BUCKET_NAME_LENGTH
    region, ephemeral = plan.region or "us-east-1", plan.ttl_seconds is not None
    try:
        return len(user_data.render(bucket, longest, region, ephemeral=ephemeral))
    except ValueError:  # a name that it can't have, or too long: both are findings elsewhere
        return 0


def _json_value(argv: tuple[str, ...], flag: str) -> dict[str, Any]:
    """The JSON object that a flag has in a command, {} where it has none."""
    for index, word in enumerate(argv):
        text = argv[index + 1] if word == flag and index + 1 < len(argv) else None
        if word.startswith(f"{flag}="):
            text = word.partition("=")[2]
        if text is not None:
            try:
                value = json.loads(text)
            except ValueError:
                return {}
            return value if isinstance(value, dict) else {}
    return {}
