"""From a request to the plan: every decision, in the order in which they depend on one another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infra import catalog
from infra.plan import environment, memory, memory_nearest, parallelism, serve, software, topology
from infra.plan.backends import BackendChoice, BackendRequest, choose_all2all
from infra.plan.cost import cost, instances
from infra.plan.gateway import gateway
from infra.plan.kv_transfer import kv_transfer, unused, without_notes
from infra.plan.notes import Note
from infra.plan.plan import (
    All2All,
    Bandwidth,
    Group,
    Model,
    Node,
    Parallelism,
    Plan,
    api_key_parameter,
)
from infra.plan.reach import from_internet, way_out
from infra.plan.router import router
from infra.plan.serve import Launch, Weights
from infra.plan.topology import Cut, GroupPlace, NodePlace, Ports
from infra.plan.weights import checkpoint_bytes, weights_plan
from node_bootstrap.assignment import Limits, Probe

if TYPE_CHECKING:
    from infra.plan.nics import NetworkInterface
    from infra.plan.request import GroupRequest, Request
    from infra.plan.software import SoftwarePlan

_MEMORY_SHARE = 0.9
"""Stated on GPU types: vLLM's own default was 0.9 and is 0.92 since 0.20."""
_START_SECONDS, _START_SECONDS_GPU = 300.0, 7200.0


def make(request: Request) -> Plan:
    """Compute the plan.

    Raises:
        infra.catalog.UnknownNameError: an instance type or release is not in the catalog.
    """
    ports = Ports()
    decided = [_decide(request, group, ports) for group in request.groups]
    places = [place for one in decided for place in one.places]
    gate = gateway(request)
    routing = None
    if gate is not None:
        key = api_key_parameter(request.stack)
        routing = router(places, ports, gate, key, request.gateway.policy)
    size = _checkpoint_bytes(request)
    first = catalog.instance_type(request.groups[0].instance_type)
    gpus = any(place.has_gpus for place in places)
    start = _START_SECONDS_GPU if gpus else _START_SECONDS
    groups = tuple(_group(request, one, place) for one in decided for place in one.places)
    outside = from_internet(groups, request.model_source)
    return Plan(
        stack=request.stack,
        model=_model(request),
        vllm_version=request.vllm.version,
        ports=ports,
        # A fault must be noticed within 10 s: interval + timeout, or the members' silence.
        probe=Probe(request.model_name, "Hello", interval_seconds=2.0, timeout_seconds=5.0),
        limits=Limits(start_seconds=start, stop_seconds=10.0, silence_seconds=5.0),
        groups=groups,
        router=routing,
        capacity=request.capacity,
        endpoint=request.endpoint,
        placement_group=_placement_group(request),
        weights=weights_plan(size, first) if gpus else None,
        cost=cost(instances(request, gate)),
        region=request.region,
        suppress=request.suppress,
        ttl_seconds=request.ttl_seconds,
        notes=_notes(request) if gpus else (),
        gateway=gate,
        way_out=way_out(request.nat, outside, existing=request.existing_network),
        from_internet=outside,
    )


@dataclass(frozen=True)
class _Decided:
    """What all replicas of a group have in common; the launch of the first stands for all."""

    request: GroupRequest
    pick: parallelism.Pick
    places: tuple[GroupPlace, ...]
    launch: Launch
    software: SoftwarePlan
    memory: memory.MemoryPlan | None
    nearest: tuple[memory_nearest.Alternative, ...]


def _decide(request: Request, group: GroupRequest, ports: Ports) -> _Decided:
    instance = catalog.instance_type(group.instance_type)
    held = catalog.release(request.vllm.version)
    kind = software.runtime(request.vllm, instance)
    wire = topology.transport(instance, group.nodes)
    transfers = group.role != "serve"
    efa = bool(instance.max_efa) and (group.nodes > 1 or transfers)
    tag = software.image(request.vllm, held, efa=efa) if kind == "container" else None
    library = software.deepep(request.vllm, kind, tag)

    def backend_of(cut: Cut) -> BackendChoice:
        return choose_all2all(_backend_request(request, group, cut, library))

    def fits(cut: Cut) -> bool:
        wanted = _memory_request(request, group, cut, backend_of(cut))
        return wanted is None or memory.plan_memory(wanted).fits

    pick = parallelism.pick(group, instance, request.model_shape, fits)
    backend = backend_of(pick.cut)
    places = topology.lay_out(group, pick.cut)
    eager = _eager(group, backend, gpus=instance.gpu_count > 0)
    launch = Launch(
        release=held,
        runtime=kind,
        python=request.vllm.python,
        weights=_weights(request),
        group=places[0],
        transport=wire,
        backend=backend,
        deepep=library,
        eplb=group.eplb,
        placement=group.expert_placement_strategy,
        kv_transfer=kv_transfer(places[0], group.kv_transfer, held),
        gpu_memory_utilization=_utilization(group, gpus=instance.gpu_count > 0),
        enforce_eager=eager,
        cudagraph_mode=_graph_mode(group, backend, eager=eager),
        ports=ports,
    )
    wanted = _memory_request(request, group, pick.cut, backend)
    held = memory.plan_memory(wanted) if wanted else None
    return _Decided(
        request=group,
        pick=pick,
        places=places,
        launch=launch,
        software=_software(request, launch, tag),
        memory=held,
        nearest=memory_nearest.nearest_plans(wanted) if wanted and held and not held.fits else (),
    )


def _backend_request(
    request: Request, group: GroupRequest, cut: Cut, library: software.DeepEp
) -> BackendRequest:
    instance = catalog.instance_type(group.instance_type)
    shape = request.model_shape
    quantized = bool(group.options.quantization)
    sizes = {}
    if shape is not None:
        quantized = quantized or shape.quantization.method != "none"
        sizes = {
            "hidden_size": shape.hidden_size,
            "experts_per_token": shape.experts.per_token,
            "experts": shape.experts.count
            + (group.eplb.num_redundant_experts if group.eplb else 0),
        }
    return BackendRequest(
        requested=group.all2all_backend,
        version=request.vllm.version,
        role=group.role,
        nodes=group.nodes,
        ranks=cut.expert_parallel_size,
        data_parallel_size=cut.data_parallel_size,
        transport=topology.transport(instance, group.nodes),
        capability=catalog.gpu_of(instance).capability if instance.gpu_count else (0, 0),
        quantized=quantized,
        eplb=group.eplb is not None,
        enforce_eager=bool(group.options.enforce_eager),
        deepep=library,
        allow_fallback=group.allow_fallback,
        **sizes,
    )


def _memory_request(
    request: Request, group: GroupRequest, cut: Cut, backend: BackendChoice
) -> memory.MemoryRequest | None:
    """None on CPU types, and where the model's shape isn't known."""
    instance, options = catalog.instance_type(group.instance_type), group.options
    if not instance.gpu_count or request.model_shape is None:
        return None
    eager = _eager(group, backend, gpus=True)
    return memory.MemoryRequest(
        model=request.model_shape,
        gpu=catalog.gpu_of(instance),
        release=catalog.release(request.vllm.version).series,
        tensor_parallel_size=cut.tensor_parallel_size,
        data_parallel_size=cut.data_parallel_size,
        expert_parallel=cut.enable_expert_parallel,
        nodes=group.nodes,
        all2all_backend=backend.chosen,
        max_model_len=options.max_model_len,
        max_num_batched_tokens=options.max_num_batched_tokens,
        max_num_seqs=options.max_num_seqs,
        gpu_memory_utilization=_utilization(group, gpus=True),
        kv_cache_memory_bytes=options.kv_cache_memory_bytes,
        kv_cache_dtype=options.kv_cache_dtype,
        quantization=options.quantization,
        enforce_eager=eager,
        cudagraph_mode=_graph_mode(group, backend, eager=eager),
        num_redundant_experts=group.eplb.num_redundant_experts if group.eplb else None,
        dual_batch_overlap=options.enable_dbo,
        block_size=options.block_size,
        transfers_kv=group.role != "serve",
    )


def _utilization(group: GroupRequest, *, gpus: bool) -> float | None:
    """What is stated: the memory plan relies on it. Nothing on CPU, or where the cache is given."""
    given = group.options.gpu_memory_utilization
    if given is not None or not gpus or group.options.kv_cache_memory_bytes is not None:
        return given
    return _MEMORY_SHARE


def _eager(group: GroupRequest, backend: BackendChoice, *, gpus: bool) -> bool:
    """As asked for; else where the backend needs it, and on CPU types, which have no compiler."""
    given = group.options.enforce_eager
    if given is not None:
        return given or backend.enforce_eager
    return backend.enforce_eager or not gpus


def _graph_mode(group: GroupRequest, backend: BackendChoice, *, eager: bool) -> str | None:
    """The CUDA-graph mode that is stated, by role; None leaves it to vLLM.

    Prefill on high-throughput kernels runs without graphs anyway: vLLM turns them off itself.
    """
    given = (group.options.compilation_config or {}).get("cudagraph_mode")
    if isinstance(given, str):
        return given
    if eager or group.role != "decode" or not backend.cuda_graphs:
        return None
    return "FULL_DECODE_ONLY"


def _weights(request: Request) -> Weights:
    name, source = request.model_name, request.model_source
    if source == "hf":
        return Weights(name, name, request.model_revision)
    streamed = source.startswith("s3://") and all(
        group.options.load_format == "runai_streamer" for group in request.groups
    )
    return Weights(source if streamed else serve.model_folder(name), name)


def _software(request: Request, launch: Launch, tag: str | None) -> SoftwarePlan:
    if not launch.group.has_gpus:
        transfers = launch.kv_transfer is not None
        return software.on_cpu(request.vllm.python, request.vllm.version, transfers_kv=transfers)
    needs = software.Needs(
        release=launch.release,
        instance=launch.group.instance_type,
        runtime=launch.runtime,
        image=tag,
        deepep=launch.deepep,
        backend=launch.backend.chosen if launch.group.cut.expert_parallel_size > 1 else "none",
        across_nodes=len(launch.group.nodes) > 1,
        transfers_kv=launch.kv_transfer is not None,
    )
    return software.on_gpu(needs, request.vllm.python, request.vllm.version)


def _group(request: Request, decided: _Decided, place: GroupPlace) -> Group:
    cut, launch = place.cut, replace(decided.launch, group=place)
    nics = topology.interfaces(place.instance_type, decided.request.network_interfaces)
    transfer = launch.kv_transfer
    return Group(
        name=place.name,
        group=place.group,
        replica=place.replica,
        role=place.role,
        instance_type=place.instance_type.name,
        gpus_per_node=place.instance_type.gpu_count,
        transport=launch.transport,
        load_balancing=place.load_balancing,
        parallelism=Parallelism(decided.pick.mode, decided.pick.reason),
        tensor_parallel_size=cut.tensor_parallel_size,
        tensor_parallel_nodes=cut.tensor_parallel_nodes,
        data_parallel_size=cut.data_parallel_size,
        data_parallel_size_local=cut.data_parallel_size_local,
        expert_parallel_size=cut.expert_parallel_size,
        enable_expert_parallel=cut.enable_expert_parallel,
        all2all_backend=_all2all(launch),
        all2all_fallback=launch.backend.fallback,
        all2all_needs=launch.backend.needs,
        deepep=launch.deepep,
        eplb=launch.eplb,
        expert_placement_strategy=launch.placement,
        enforce_eager=launch.enforce_eager,
        cudagraph_mode=launch.cudagraph_mode,
        api_server_count=serve.api_server_count(launch),
        kv_transfer=without_notes(transfer),
        kv_cache_memory_bytes=serve.kv_cache_memory_bytes(place),
        bandwidth=Bandwidth(nics.efa_gbps, nics.ip_gbps, place.instance_type.nvlink_domain_gpus),
        memory=decided.memory,
        nearest=decided.nearest,
        options=place.options,
        notes=(
            *launch.backend.notes,
            *(transfer.notes if transfer else unused(decided.request.kv_transfer)),
            *serve.left_out(launch),
        ),
        nodes=tuple(
            _node(request, launch, node, decided.software, nics.interfaces) for node in place.nodes
        ),
    )


def _all2all(launch: Launch) -> All2All:
    backend = launch.backend
    if launch.group.cut.expert_parallel_size == 1:
        why = "one rank holds all experts: there is nothing to exchange"
        if launch.group.cut.gpus > 1:
            why = "without expert parallelism every GPU holds a slice of every expert"
        return All2All(backend.requested, "none", why)
    return All2All(backend.requested, backend.chosen, backend.reason)


def _node(
    request: Request,
    launch: Launch,
    node: NodePlace,
    installed: SoftwarePlan,
    nics: tuple[NetworkInterface, ...],
) -> Node:
    group = launch.group
    key = {"VLLM_API_KEY": api_key_parameter(request.stack)}
    return Node(
        name=node.name,
        position=node.position,
        instance_type=group.instance_type.name,
        first_rank=node.first_rank,
        ranks=node.ranks,
        argv=serve.argv(launch, node),
        env=environment.env(launch, node),
        secret_env=key if node.position != "headless" else {},
        network_interfaces=nics,
        software=installed,
        hardware=topology.hardware(group.instance_type, node, software.driver_floor(installed)),
        address=node.address,
    )


def _model(request: Request) -> Model:
    shape, config = request.model_shape, request.model_config
    # Families differ in the field's name: Qwen and gpt-oss, Mixtral, DeepSeek.
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    counts = (int(config[key]) for key in names if config.get(key))
    architectures = config.get("architectures") or ["unknown"]
    return Model(
        name=request.model_name,
        architecture=shape.architecture if shape else str(architectures[0]),
        experts=shape.experts.count if shape else next(counts, 0),
        files=request.model_files,
        source=request.model_source,
        shape=shape,
    )


def _notes(request: Request) -> tuple[Note, ...]:
    if not request.model_faults:
        return ()
    why = "; ".join(request.model_faults)
    message = f"memory can't be planned with the model's config.json: {why}"
    remedy = "give a whole config.json as model.config, or look at vLLM's log at its first start"
    return (Note("MODEL_CONFIG_NOT_COVERED", "WARNING", message, remedy),)


def _placement_group(request: Request) -> bool:
    """Nodes that exchange tokens or KV share one; capacity that is there already has its own."""
    together = (
        group.nodes > 1 or group.role != "serve"
        for group in request.groups
        if catalog.instance_type(group.instance_type).gpu_count
    )
    there_already = request.capacity.kind in ("capacity-block", "reservation")
    return not there_already and any(together)


def _checkpoint_bytes(request: Request) -> int:
    if request.model_files:
        return sum(file.size_bytes for file in request.model_files)
    return checkpoint_bytes(request.model_shape) if request.model_shape else 0
