"""Which all2all backend a group runs: chosen by release, role, nodes and transport, or kept."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from infra.catalog.all2all import All2AllBackend, all2all_backends
from infra.catalog.releases import Release, release
from infra.plan.notes import Note

DEFAULT = "allgather_reducescatter"
HIGH_THROUGHPUT, LOW_LATENCY, V2 = "deepep_high_throughput", "deepep_low_latency", "deepep_v2"
_V2_WITHOUT_EAGER, _V2_IN_EFA_IMAGE, _V2_IN_IMAGE = (0, 29), (0, 33), (0, 27)
_NVSHMEM_AS_IT_IS = (0, 12)
_FLAG_SINCE_PATCH = "0.11.1"

Role = Literal["serve", "prefill", "decode"]
Transport = Literal["nvlink", "pcie", "efa", "tcp", "none"]


@dataclass(frozen=True)
class BackendRequest:
    """What the choice depends on.

    Attributes:
        requested: `auto` or a name as vLLM spells it.
        version: vLLM release.
        role: what the group does.
        nodes: nodes of the group.
        ranks: GPUs of the expert-parallel group; 1 where expert parallelism is off.
        data_parallel_size: of the group; at 1 no tokens change ranks.
        transport: between the ranks: between nodes `efa` or `tcp`, inside one `nvlink` or `pcie`;
            `none` on CPU.
        capability: CUDA compute capability.
        hidden_size: of the model.
        experts_per_token: of the model.
        experts: physical experts, redundant ones counted; 0 where that isn't known.
        quantized: whether the checkpoint or `--quantization` quantises the experts.
        eplb: whether EPLB is on.
        enforce_eager: whether the settings ask for eager mode.
        deepep: which `deep_ep` the nodes have: `stock`, `efa` (V2 for EFA), `uccl` or `none`.
        allow_fallback: whether a node without the library may start with the default.
        runtime: how a node has vLLM; in a `venv` it builds the library itself.
    """

    requested: str
    version: str
    role: Role
    nodes: int
    ranks: int
    data_parallel_size: int
    transport: Transport
    capability: tuple[int, int] = (9, 0)
    hidden_size: int = 7168
    experts_per_token: int = 8
    experts: int = 0
    quantized: bool = False
    eplb: bool = False
    enforce_eager: bool = False
    deepep: Literal["stock", "efa", "uccl", "none"] = "stock"
    allow_fallback: bool = False
    runtime: Literal["venv", "container"] = "container"


@dataclass(frozen=True)
class BackendChoice:
    """The backend in effect and why. `fallback` is what a node without the library starts with."""

    requested: str
    chosen: str
    reason: str
    enforce_eager: bool = False
    fallback: str | None = None
    needs: tuple[str, ...] = ()
    notes: tuple[Note, ...] = field(default=())

    @property
    def refused(self) -> bool:
        """Whether the request can't work at all."""
        return any(note.severity == "ERROR" for note in self.notes)

    @property
    def cuda_graphs(self) -> bool:
        """Whether vLLM captures CUDA graphs with this backend when DP > 1."""
        return all2all_backends()[self.chosen].graphs != "no" and not self.enforce_eager


def choose_all2all(request: BackendRequest) -> BackendChoice:
    """Choose or judge the backend of a group. A name no release knows is an ERROR note."""
    choice = _automatic(request) if request.requested == "auto" else _explicit(request)
    if choice.refused:
        return choice
    backend = all2all_backends()[choice.chosen]
    fallback = DEFAULT if request.allow_fallback and backend.library else None
    eager = choice.enforce_eager or request.enforce_eager
    return replace(choice, fallback=fallback, enforce_eager=eager, needs=_needs(backend, request))


def emission(choice: BackendChoice, version: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The argv and environment that give vLLM the choice in that release's own form."""
    if release(version).all2all.how == "env":
        return (), {"VLLM_ALL2ALL_BACKEND": choice.chosen}
    return ("--all2all-backend", choice.chosen), {}


def _took(name: str, reason: str, *, eager: bool = False) -> BackendChoice:
    return BackendChoice("auto", name, reason, enforce_eager=eager)


def _automatic(request: BackendRequest) -> BackendChoice:
    if request.transport == "none":
        return _took(DEFAULT, "on CPU vLLM has no other backend")
    if request.ranks == 1 or request.data_parallel_size == 1:
        reason = "with one data-parallel rank no tokens change ranks, so it is never used"
        return _took(DEFAULT, reason)
    by_role = {"prefill": HIGH_THROUGHPUT, "decode": LOW_LATENCY}.get(request.role)
    if request.nodes > 1:
        return _automatic_between_nodes(request, by_role)
    return _automatic_in_node(request, by_role)


def _automatic_in_node(request: BackendRequest, by_role: str | None) -> BackendChoice:
    if by_role is None:
        reason = "one group serves both phases: it has CUDA graphs and needs no further library"
        return _took(DEFAULT, reason)
    against = _against(by_role, request)
    if against:
        return _took(DEFAULT, f"{by_role} is out: {against}")
    reasons = {
        HIGH_THROUGHPUT: "prefill sends large batches inside one NVLink domain",
        LOW_LATENCY: "decode sends small batches inside one NVLink domain and keeps CUDA graphs",
    }
    return _took(by_role, reasons[by_role])


def _automatic_between_nodes(request: BackendRequest, by_role: str | None) -> BackendChoice:
    if request.transport != "efa":
        return _took(DEFAULT, "the nodes have no EFA: NCCL over TCP carries it, nothing else does")
    if request.deepep == "uccl" and by_role and not _against(by_role, request):
        reason = "UCCL-EP is declared: DeepEP's API over EFA (there are open reports of hangs)"
        return _took(by_role, reason)
    series = release(request.version).series
    against = _against(V2, request) if series >= _V2_IN_EFA_IMAGE else ""
    if series >= _V2_IN_EFA_IMAGE and not against:
        eager = request.role == "prefill"
        mode = "eager, its memory-frugal mode for prefill" if eager else "with CUDA graphs"
        reason = f"from 0.33 DeepEP V2 crosses EFA through NCCL GIN; {mode}"
        return _took(V2, reason, eager=eager)
    if against:
        return _took(DEFAULT, f"{V2} is out: {against}")
    return _took(
        DEFAULT,
        f"it is the one that crosses EFA with vLLM {request.version} as installed:"
        " DeepEP V1 needs IBGDA, which EFA lacks",
    )


def _against(name: str, request: BackendRequest) -> str:
    """Why `auto` doesn't take a backend; empty if nothing speaks against it."""
    faults = _faults(all2all_backends()[name], replace(request, requested=name))
    if faults:
        return faults[0].message
    if request.experts % request.ranks:
        return (
            f"DeepEP deals experts out evenly, {request.experts} over {request.ranks} ranks aren't"
        )
    most = _most_ranks(name, request)
    if request.ranks > most:
        return f"its kernels are known to work up to {most} ranks, the group has {request.ranks}"
    return ""


def _most_ranks(name: str, request: BackendRequest) -> int:
    """Largest group that the kernels were seen to work with."""
    if name == LOW_LATENCY:
        return 64
    if name == HIGH_THROUGHPUT:
        return 64 if request.deepep == "uccl" else 160
    return request.ranks


def _explicit(request: BackendRequest) -> BackendChoice:
    held = release(request.version)
    name = request.requested
    known = all2all_backends()
    if name not in known:
        return _refuse(request, _unknown(name, held))
    replaced = _replacement(name, request, held)
    notes: list[Note] = []
    if replaced:
        name, message = replaced
        remedy = f"write all2all_backend: {name}, or auto"
        notes.append(Note("ALL2ALL_REPLACED", "WARNING", message, remedy))
    elif name not in held.all2all.choices:
        return _refuse(request, _absent(name, held))
    faults = _faults(known[name], replace(request, requested=name))
    if faults:
        return replace(_refuse(request, *faults), notes=(*notes, *faults))
    reason = notes[0].message if notes else "as asked for"
    return BackendChoice(request.requested, name, reason, notes=tuple(notes))


def _refuse(request: BackendRequest, *faults: Note) -> BackendChoice:
    reason = "refused: " + "; ".join(fault.message for fault in faults)
    return BackendChoice(request.requested, DEFAULT, reason, notes=faults)


def _replacement(name: str, request: BackendRequest, held: Release) -> tuple[str, str] | None:
    mapped = held.all2all.mapped.get(name)
    if mapped:
        return mapped, f"vLLM {held.version} takes {mapped} where {name} is asked for"
    if name == "naive":
        return DEFAULT, f"naive broadcasts every token to every rank; {DEFAULT} does the same work"
    if name == "pplx" and request.nodes > 1:
        return DEFAULT, "pplx failed for its users across EFA (vllm#27633) and left vLLM in 0.17"
    if name == "mori" and name not in held.all2all.choices:
        return "mori_high_throughput", "mori was split into mori_high_throughput and _low_latency"
    return None


def _faults(backend: All2AllBackend, request: BackendRequest) -> list[Note]:
    if request.transport == "none" and backend.name != DEFAULT:
        message = f"{backend.name} needs GPUs; on CPU vLLM falls back to {DEFAULT}"
        return [Note("ALL2ALL_NEEDS_GPU", "ERROR", message, "all2all_backend: auto")]
    checks = (_reach, _hardware, _model, _v2, _limits)
    return [note for check in checks for note in check(backend, request)]


def _reach(backend: All2AllBackend, request: BackendRequest) -> list[Note]:
    remedy = "all2all_backend: auto, or a group that fits one node"
    found = []
    if backend.reach == "rocm":
        message = f"{backend.name} is for AMD GPUs; AWS has none"
        found.append(Note("ALL2ALL_WRONG_GPU", "ERROR", message, "all2all_backend: auto"))
    if request.nodes > 1 and backend.reach == "nvlink":
        message = f"{backend.name} works inside one NVLink domain, the group has {request.nodes}"
        found.append(Note("ALL2ALL_NOT_ACROSS_NODES", "ERROR", f"{message} nodes", remedy))
    uccl = request.deepep == "uccl" and backend.library == "deep_ep"
    if request.nodes > 1 and backend.reach == "ibgda" and not uccl:
        message = f"{backend.name} can't cross {_wire(request)}: {backend.because}"
        if backend.library == "deep_ep":
            remedy += "; or declare UCCL-EP as the nodes' deep_ep"
        found.append(Note("ALL2ALL_NOT_ON_EFA", "ERROR", message, remedy))
    if request.nodes > 1 and backend.reach == "gin" and request.transport != "efa":
        message = f"{backend.name} needs RDMA between nodes; these have TCP"
        found.append(Note("ALL2ALL_NOT_ON_TCP", "ERROR", message, remedy))
    if request.transport == "pcie" and backend.reach != "group":
        message = f"{backend.name} needs NVLink between the GPUs of a node; this type has PCIe"
        found.append(Note("ALL2ALL_NEEDS_NVLINK", "ERROR", message, remedy))
    return found


def _wire(request: BackendRequest) -> str:
    return {"efa": "EFA"}.get(request.transport, "TCP")


def _hardware(backend: All2AllBackend, request: BackendRequest) -> list[Note]:
    if request.capability >= backend.capability:
        return []
    need, have = (".".join(map(str, pair)) for pair in (backend.capability, request.capability))
    message = f"{backend.name} needs compute capability {need}, the GPUs have {have}"
    return [Note("ALL2ALL_OLD_GPU", "ERROR", message, "all2all_backend: auto")]


def _model(backend: All2AllBackend, request: BackendRequest) -> list[Note]:
    found = []
    held = release(request.version)
    sizes = {
        LOW_LATENCY: held.deepep_ll_hidden_sizes,
        "nixl_ep": held.nixl_ep_hidden_sizes,
    }.get(backend.name, ())
    # From 0.11.1 vLLM rounds a hidden size up to the next compiled one; 0.11.0 wants it exact.
    exact = held.version == "0.11.0"
    fits = request.hidden_size in sizes if exact else request.hidden_size <= max(sizes, default=0)
    if sizes and not fits:
        listed = ", ".join(map(str, sizes))
        message = f"{backend.name} has no kernel for hidden size {request.hidden_size} ({listed})"
        found.append(Note("ALL2ALL_HIDDEN_SIZE", "ERROR", message, f"use {DEFAULT}"))
    if backend.max_top_k and request.experts_per_token > backend.max_top_k:
        message = (
            f"{backend.name} routes a token to at most {backend.max_top_k} experts, the model to"
            f" {request.experts_per_token}"
        )
        found.append(Note("ALL2ALL_TOP_K", "ERROR", message, f"use {DEFAULT}"))
    if backend.unquantized_only and request.quantized:
        message = f"{backend.name} carries BF16 experts only, these are quantised"
        found.append(Note("ALL2ALL_QUANTIZED", "ERROR", message, f"use {DEFAULT}"))
    if backend.no_eplb and request.eplb:
        message = f"{backend.name} can't move experts: EPLB must be off"
        found.append(Note("ALL2ALL_NO_EPLB", "ERROR", message, "eplb off, or another"))
    return found


def _v2(backend: All2AllBackend, request: BackendRequest) -> list[Note]:
    if backend.name != V2:
        return []
    series, found = release(request.version).series, []
    if series < _V2_WITHOUT_EAGER and not request.enforce_eager:
        message = f"{V2} crashes at start with CUDA graphs on vLLM {request.version} (vllm#52632)"
        remedy = "enforce_eager: true, or vLLM 0.29 and later"
        found.append(Note("ALL2ALL_V2_NEEDS_EAGER", "ERROR", message, remedy))
    if series < _V2_IN_IMAGE and request.deepep == "stock":
        message = f"the vLLM {request.version} image holds DeepEP V1, which has no ElasticBuffer"
        remedy = "an image or build with DeepEP V2 (deepep: efa), or vLLM 0.27 and later"
        found.append(Note("ALL2ALL_V2_NOT_IN_IMAGE", "ERROR", message, remedy))
    elif request.nodes > 1 and series < _V2_IN_EFA_IMAGE and request.deepep == "stock":
        message = f"the vLLM {request.version} image lacks the EFA userspace that NCCL GIN needs"
        remedy = "vLLM 0.33 with its -efa image, or a build of your own (deepep: efa)"
        found.append(Note("ALL2ALL_V2_NO_EFA_IMAGE", "ERROR", message, remedy))
    if request.deepep == "uccl":
        message = "UCCL-EP has DeepEP V1's API alone, without ElasticBuffer"
        remedy = f"{HIGH_THROUGHPUT} or {LOW_LATENCY}"
        found.append(Note("ALL2ALL_V2_NOT_UCCL", "ERROR", message, remedy))
    return found


def _limits(backend: All2AllBackend, request: BackendRequest) -> list[Note]:
    if backend.eager_only and not request.enforce_eager:
        message = f"{backend.name} runs without CUDA graphs only"
        return [Note("ALL2ALL_NEEDS_EAGER", "ERROR", message, "enforce_eager: true")]
    if backend.library.startswith("deep_ep") and request.deepep == "none":
        message = f"{backend.name} needs {backend.library}, which the nodes don't have"
        remedy = "runtime: container, or an image with DeepEP"
        return [Note("ALL2ALL_NO_LIBRARY", "ERROR", message, remedy)]
    if request.runtime == "venv" and (why := _not_built(backend, request)):
        message = f"{backend.name} needs {backend.library}, which a node can't build: {why}"
        remedy = "runtime: container, whose image has it"
        return [Note("ALL2ALL_NO_LIBRARY", "ERROR", message, remedy)]
    return []


def _not_built(backend: All2AllBackend, request: BackendRequest) -> str:
    """Why a node can't build the backend's library; empty if it can, or needs none."""
    if backend.library == "pplx_kernels":
        return "its build wants NVSHMEM's CMake files, which NVSHMEM's wheel lacks"
    unpatched = release(request.version).series < _NVSHMEM_AS_IT_IS
    if backend.library.startswith("deep_ep") and request.deepep != "uccl" and unpatched:
        return f"for vLLM {request.version} NVSHMEM has to be patched, which its wheel isn't"
    return ""


def _absent(name: str, held: Release) -> Note:
    since = ".".join(map(str, all2all_backends()[name].since))
    message = f"vLLM {held.version} has no {name} (first in {since})"
    if all2all_backends()[name].since <= held.series:
        message = f"vLLM {held.version} no longer has {name}"
    return Note("ALL2ALL_NOT_IN_RELEASE", "ERROR", message, _one_of(held))


def _unknown(name: str, held: Release) -> Note:
    if name == "passthrough":
        message = "passthrough is vLLM's own, set through --moe-backend; it can't be asked for"
    else:
        message = f"no vLLM release has an all2all backend {name!r}"
    return Note("ALL2ALL_UNKNOWN", "ERROR", message, _one_of(held))


def _one_of(held: Release) -> str:
    return "auto, or one of " + ", ".join(sorted(held.all2all.choices))


def _needs(backend: All2AllBackend, request: BackendRequest) -> tuple[str, ...]:
    needs = [backend.library] if backend.library else []
    if request.nodes > 1 and request.transport == "efa":
        needs.append("EFA userspace with aws-ofi-nccl")
        if backend.name == V2:
            needs[-1] = f"EFA userspace with aws-ofi-nccl >= {backend.aws_ofi_nccl}"
            needs += [f"NCCL >= {backend.nccl}", f"GDRCopy >= {backend.gdrcopy} with gdrdrv"]
    return tuple(needs)
