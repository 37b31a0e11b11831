"""The command line of vLLM on every node, in the form of its release."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infra.plan.backends import BackendChoice, emission
from infra.plan.notes import Note

if TYPE_CHECKING:
    from infra.catalog import Release
    from infra.plan.kv_transfer import KvTransfer
    from infra.plan.request import DeepEp, EngineOptions, Eplb, Runtime
    from infra.plan.topology import GroupPlace, NodePlace, Ports, Transport

ROLE_STATE = "/var/lib/moe"
BATCHED = ("deepep_low_latency", "nixl_ep")
_COUNT_DEPENDS_SINCE = (0, 15)
_BATCHED_TOKENS_SINCE = (0, 20)
_COMMUNICATOR_ON_EFA = "torch_gloo"
_TIMEOUT_SECONDS = "7200"


@dataclass(frozen=True)
class Weights:
    """How vLLM is told of the model: what it loads, and the name that clients ask for."""

    model: str
    name: str


@dataclass(frozen=True)
class Launch:
    """All that is decided for one replica of a group and stands in its commands."""

    release: Release
    runtime: Runtime
    python: str
    weights: Weights
    group: GroupPlace
    transport: Transport
    backend: BackendChoice
    deepep: DeepEp
    eplb: Eplb | None
    placement: str | None
    kv_transfer: KvTransfer | None
    gpu_memory_utilization: float | None
    enforce_eager: bool
    cudagraph_mode: str | None
    ports: Ports

    @property
    def on_efa(self) -> bool:
        """Whether tokens or KV cross EFA."""
        instance = self.group.instance_type
        carries = self.transport == "efa" or self.kv_transfer is not None
        return bool(carries and instance.max_efa and instance.gpu_count)


def model_folder(model_name: str) -> str:
    """Folder of the model on a node."""
    return f"{ROLE_STATE}/models/{model_name}"


def argv(launch: Launch, node: NodePlace) -> tuple[str, ...]:
    """The process of one node. Addresses are the placeholders of the plan."""
    group, options = launch.group, launch.group.options
    return (
        *_program(launch),
        *_front_end(launch, node),
        *_parallelism(launch, node),
        *_experts(launch),
        *_given(launch.release, _sizes(launch)),
        *(("--enforce-eager",) if launch.enforce_eager else ()),
        *_overlap(options),
        *_graphs(launch),
        *_transfer(launch),
        # With one process per rank and no multiprocessing, vLLM's own executor must be "uni":
        # under data parallelism it would pick "mp" and add a worker process for every rank.
        *(() if group.has_gpus else ("--distributed-executor-backend", "uni")),
        *options.extra_args,
    )


def api_server_count(launch: Launch) -> int:
    """API processes of a node with an API: one per rank that it serves, one on CPU."""
    group = launch.group
    if group.load_balancing == "external":
        return 1
    if group.options.api_server_count is not None:
        return group.options.api_server_count
    return group.cut.data_parallel_size_local if group.has_gpus else 1


def kv_cache_memory_bytes(group: GroupPlace) -> int | None:
    """KV cache per rank: as set; else, on CPU, an eighth of the node's memory over its ranks."""
    given = group.options.kv_cache_memory_bytes
    if given is not None or group.has_gpus:
        return given
    memory = int(group.instance_type.memory_gib * 2**30)
    return memory // 8 // group.cut.data_parallel_size_local


def eplb_fields(eplb: Eplb, release: Release, *, efa: bool) -> dict[str, Any]:
    """EPLB's fields in the form of a release; those it doesn't have are left out.

    From 0.22 vLLM takes NIXL for the exchange where it is installed, over UCX, which has no RDMA on
    EFA: there Gloo is named. `use_async` became the default in 0.23, so from then on it is stated.
    """
    given = {
        "window_size": eplb.window_size,
        "step_interval": eplb.step_interval,
        "num_redundant_experts": eplb.num_redundant_experts,
        "log_balancedness": eplb.log_balancedness,
        "log_balancedness_interval": eplb.log_balancedness_interval,
        "use_async": eplb.use_async,
        "policy": eplb.policy,
        "communicator": eplb.communicator,
        "enable_migration_batching": eplb.enable_migration_batching,
    }
    if given["communicator"] is None and efa:
        given["communicator"] = _COMMUNICATOR_ON_EFA
    if given["use_async"] is None and release.eplb_fields.get("use_async"):
        given["use_async"] = True
    return {k: v for k, v in given.items() if v is not None and k in release.eplb_fields}


def left_out(launch: Launch) -> tuple[Note, ...]:
    """A note for each option of the settings that this release has no flag for."""
    asked = {flag for flag, value in _sizes(launch).items() if value is not None}
    missing = sorted(flag for flag in asked if not launch.release.accepts(flag))
    return tuple(
        Note(
            "OPTION_NOT_IN_RELEASE",
            "WARNING",
            f"vLLM {launch.release.version} has no {flag}: it is left out",
            "drop it, or take a release that has it",
        )
        for flag in missing
        if flag not in _AS_ENV
    )


def _program(launch: Launch) -> tuple[str, ...]:
    start = (launch.python, "-m", "vllm.entrypoints.cli.main", "serve")
    if launch.runtime == "container":
        start = ("vllm", "serve")
    weights = launch.weights
    named = () if weights.model == weights.name else ("--served-model-name", weights.name)
    return (*start, weights.model, *named)


def _front_end(launch: Launch, node: NodePlace) -> tuple[str, ...]:
    """A headless node has no API: vLLM refuses an API server count there."""
    group = launch.group
    if node.position == "headless":
        # A rank that spans nodes is told of its nodes by --node-rank, not by a start rank.
        spans = group.cut.tensor_parallel_nodes > 1
        start = () if spans else ("--data-parallel-start-rank", str(node.first_rank))
        return ("--headless", *start)
    front = ("--host", "0.0.0.0", "--port", str(launch.ports.api))  # noqa: S104 - security groups decide who gets here
    # Until 0.14 the default was one; since 0.15 it follows the load-balancing mode.
    state = (
        launch.release.series >= _COUNT_DEPENDS_SINCE
        or len(group.nodes) > 1
        or group.options.api_server_count is not None
    )
    count = ("--api-server-count", str(api_server_count(launch)))
    return (*front, *(count if state or not group.has_gpus else ()))


def _parallelism(launch: Launch, node: NodePlace) -> tuple[str, ...]:
    group, cut = launch.group, launch.group.cut
    flags: tuple[str, ...] = ()
    if cut.tensor_parallel_size > 1 or group.has_gpus:
        flags += ("--tensor-parallel-size", str(cut.tensor_parallel_size))
    if cut.tensor_parallel_nodes > 1:
        flags += _spanning(launch, node)
    elif cut.data_parallel_size > 1:
        flags += ("--data-parallel-size", str(cut.data_parallel_size))
        flags += _across(launch, node)
    return flags


def _spanning(launch: Launch, node: NodePlace) -> tuple[str, ...]:
    """One rank over several nodes; 0.11.0 has no such flags (it needs Ray)."""
    group = launch.group
    given = {
        "--nnodes": len(group.nodes),
        "--node-rank": node.index,
        "--master-addr": group.primary.address,
        "--master-port": launch.ports.master,
        "--data-parallel-size": d if (d := group.cut.data_parallel_size) > 1 else None,
    }
    return _given(launch.release, given)


def _across(launch: Launch, node: NodePlace) -> tuple[str, ...]:
    """Where this node's ranks stand in the group, by the load-balancing mode."""
    group, cut = launch.group, launch.group.cut
    mode = group.load_balancing
    meet = (
        *("--data-parallel-address", group.primary.address),
        *("--data-parallel-rpc-port", str(launch.ports.data_parallel_rpc)),
    )
    local = ("--data-parallel-size-local", str(node.ranks))
    start = ("--data-parallel-start-rank", str(node.first_rank))
    if mode == "external" and cut.data_parallel_size_local == 1:
        return ("--data-parallel-rank", str(node.first_rank), *meet)
    if mode == "external":
        flag = "--data-parallel-multi-port-external-lb"
        one_port_per_rank = (flag,) if launch.release.accepts(flag) else ()
        return (*local, *(start if node.index else ()), *meet, *one_port_per_rank)
    if mode == "hybrid" and len(group.nodes) > 1:
        return (*local, *start, *meet, "--data-parallel-hybrid-lb")
    # One node needs no meeting point: vLLM takes loopback.
    return (*local, *meet) if len(group.nodes) > 1 else ()


def _experts(launch: Launch) -> tuple[str, ...]:
    flags: tuple[str, ...] = ()
    if launch.group.cut.expert_parallel_size > 1:
        flags += ("--enable-expert-parallel", *emission(launch.backend, launch.release.version)[0])
    if launch.eplb is not None:
        fields = eplb_fields(launch.eplb, launch.release, efa=launch.transport == "efa")
        flags += ("--enable-eplb", "--eplb-config", _json(fields))
    if launch.placement is not None:
        flags += ("--expert-placement-strategy", launch.placement)
    size = kv_cache_memory_bytes(launch.group)
    return flags if size is None else (*flags, "--kv-cache-memory-bytes", str(size))


_AS_ENV = {"--attention-backend": "VLLM_ATTENTION_BACKEND"}
"""Flags that older releases take as an environment variable."""


def _sizes(launch: Launch) -> dict[str, Any]:
    """Options with a value, as given; None is left to vLLM."""
    options, gpus = launch.group.options, launch.group.has_gpus
    tokens = options.max_num_batched_tokens
    batched = launch.backend.chosen in BATCHED and launch.group.cut.data_parallel_size > 1
    if tokens is None and batched and launch.release.series >= _BATCHED_TOKENS_SINCE:
        # The default of these backends since 0.20; their buffers are sized by it.
        tokens = launch.release.default_tokens_batched_dp
    return {
        "--dtype": None if gpus and options.dtype == "auto" else options.dtype,
        "--quantization": options.quantization,
        "--kv-cache-dtype": None if options.kv_cache_dtype == "auto" else options.kv_cache_dtype,
        "--max-model-len": options.max_model_len,
        "--max-num-batched-tokens": tokens,
        "--max-num-seqs": options.max_num_seqs,
        "--gpu-memory-utilization": launch.gpu_memory_utilization,
        "--block-size": options.block_size,
        "--attention-backend": options.attention_backend,
        "--moe-backend": options.moe_backend,
        "--load-format": options.load_format,
        "--numa-bind": options.numa_bind,
        "--enable-ep-weight-filter": options.enable_ep_weight_filter,
    }


def _given(release: Release, values: dict[str, Any]) -> tuple[str, ...]:
    """Flags with values; booleans as switches; what the release doesn't have is left out."""
    words: list[str] = []
    for flag, value in values.items():
        if value is None or not release.accepts(flag):
            continue
        if value is False:
            words.append(f"--no-{flag.removeprefix('--')}")
        else:
            words += [flag] if value is True else [flag, str(value)]
    return tuple(words)


def _overlap(options: EngineOptions) -> tuple[str, ...]:
    if not options.enable_dbo:
        return ()
    thresholds = {
        "--dbo-decode-token-threshold": options.dbo_decode_token_threshold,
        "--dbo-prefill-token-threshold": options.dbo_prefill_token_threshold,
    }
    flags = (word for f, v in thresholds.items() if v is not None for word in (f, str(v)))
    return ("--enable-dbo", *flags)


def _graphs(launch: Launch) -> tuple[str, ...]:
    """A decode group captures decode graphs alone: that leaves more memory to the KV cache."""
    config = dict(launch.group.options.compilation_config or {})
    if launch.cudagraph_mode is not None:
        config.setdefault("cudagraph_mode", launch.cudagraph_mode)
    return ("--compilation-config", _json(config)) if config else ()


def _transfer(launch: Launch) -> tuple[str, ...]:
    if launch.kv_transfer is None:
        return ()
    waits = {
        # CUDA's virtual memory can't be registered with EFA (ofiwg/libfabric#12853).
        "--enable-cumem-allocator": False if launch.on_efa else None,
        # Loading hundreds of gigabytes takes longer than Gloo's own limit.
        "--cpu-distributed-timeout-seconds": _TIMEOUT_SECONDS if launch.group.has_gpus else None,
    }
    config = ("--kv-transfer-config", launch.kv_transfer.argument)
    return (*config, *_given(launch.release, waits))


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
