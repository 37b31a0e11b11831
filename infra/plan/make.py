"""From a request to the plan: every decision, in the order in which they depend on one another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from infra import catalog
from infra.plan import (
    environment,
    memory,
    memory_nearest,
    parallelism,
    per_cut,
    serve,
    software,
    topology,
)
from infra.plan.assignments import staged_prefix
from infra.plan.backends import BackendChoice, choose_all2all
from infra.plan.cost import cost, instances
from infra.plan.gateway import gateway
from infra.plan.kv_transfer import kv_transfer, unused, without_notes
from infra.plan.notes import Note
from infra.plan.plan import (
    BUCKET,
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
from infra.plan.request import THERE_ALREADY
from infra.plan.router import router
from infra.plan.serve import Launch, Weights
from infra.plan.topology import Cut, GroupPlace, NodePlace, Ports
from infra.plan.transfer import pair_transfer, transfer
from infra.plan.weights import checkpoint_bytes, weights_plan
from node_bootstrap.assignment import Limits, Probe

if TYPE_CHECKING:
    from infra.plan.nics import NetworkInterface
    from infra.plan.request import GroupRequest, Request
    from infra.plan.software import SoftwarePlan

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
    outside = from_internet(groups, gate, request.model_source, own_image=request.own_image)
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
        return choose_all2all(per_cut.backend_request(request, group, cut, library))

    def fits(cut: Cut) -> bool:
        wanted = per_cut.memory_request(request, group, cut, backend_of(cut))
        return wanted is None or memory.plan_memory(wanted).fits

    pick = parallelism.pick(group, instance, request.model_shape, fits)
    backend = backend_of(pick.cut)
    places = topology.lay_out(group, pick.cut)
    eager = per_cut.eager(group, backend, gpus=instance.gpu_count > 0)
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
        gpu_memory_utilization=per_cut.utilization(group, gpus=instance.gpu_count > 0),
        enforce_eager=eager,
        cudagraph_mode=per_cut.graph_mode(group, backend, eager=eager),
        ports=ports,
    )
    wanted = per_cut.memory_request(request, group, pick.cut, backend)
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


def _weights(request: Request) -> Weights:
    name, source = request.model_name, request.model_source
    if source == "hf":
        # One node copies it to the stack's bucket; from there it is read as any model in S3.
        source = f"s3://{BUCKET}/{staged_prefix(name, request.model_revision)}"
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
    kv, wire = launch.kv_transfer, launch.transport
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
        kv_transfer=without_notes(kv, pair_transfer(request.transfer, place, kv)),
        kv_cache_memory_bytes=serve.kv_cache_memory_bytes(place),
        bandwidth=Bandwidth(nics.efa_gbps, nics.ip_gbps, place.instance_type.nvlink_domain_gpus),
        memory=decided.memory,
        nearest=decided.nearest,
        options=place.options,
        notes=(
            *launch.backend.notes,
            *(kv.notes if kv else unused(decided.request.kv_transfer)),
            *serve.left_out(launch),
        ),
        nodes=tuple(
            _node(request, launch, node, decided.software, nics.interfaces) for node in place.nodes
        ),
        transfer=transfer(request.transfer, place.instance_type, len(place.nodes), wire, kv),
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
        hardware=topology.hardware(
            group.instance_type, node, software.driver_floor(installed), request.dcgm_level
        ),
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
        revision=request.model_revision,
        with_token=request.model_token,
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
    there_already = request.capacity.kind in THERE_ALREADY
    return not there_already and any(together)


def _checkpoint_bytes(request: Request) -> int:
    if request.model_files:
        return sum(file.size_bytes for file in request.model_files)
    return checkpoint_bytes(request.model_shape) if request.model_shape else 0
