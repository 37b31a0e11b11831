"""What a user may say about one group. Keys that are vLLM's are spelled as vLLM spells them.

What a key can't be on its own (a wrong type, an unknown instance type) is refused here; what can't
work together is left to the plan and its checks, which know the release, the type and the model.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from infra import catalog

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Auto = Literal["auto"]


class Section(BaseModel):
    """A part of the settings: unknown keys are faults, types are exact."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class EplbSettings(Section):
    """Expert load balancing: vLLM's EPLBConfig. `{}` turns it on with vLLM's own values."""

    num_redundant_experts: Annotated[
        int, Field(ge=0, description="spare expert slots of the whole group, not of each rank")
    ] = 0
    window_size: Annotated[
        Count | None, Field(description="engine steps whose expert load is kept")
    ] = None
    step_interval: Annotated[
        Count | None, Field(description="engine steps between two rearrangements")
    ] = None
    log_balancedness: Annotated[
        bool | None, Field(description="log the balance; there is no metric of it")
    ] = None
    log_balancedness_interval: Annotated[
        Count | None, Field(description="rearrangements between two log lines; from vLLM 0.14")
    ] = None
    use_async: Annotated[
        bool | None, Field(description="move experts while serving; from 0.12, default from 0.23")
    ] = None
    policy: Annotated[str | None, Field(description="only `default` exists; from vLLM 0.13")] = None
    communicator: Annotated[
        str | None, Field(description="what carries experts; torch_gloo on EFA; from vLLM 0.20")
    ] = None
    enable_migration_batching: Annotated[
        bool | None, Field(description="move several layers at once; from vLLM 0.32")
    ] = None


class KvTransferSettings(Section):
    """How prefill and decode groups hand KV over. Left out, the plan chooses."""

    kv_connector: Annotated[
        Literal["NixlConnector", "NixlPullConnector", "NixlPushConnector"],
        Field(description="pull is the default: small writes were seen to hang on EFA"),
    ] = "NixlConnector"
    backends: Annotated[
        tuple[str, ...] | None,
        Field(min_length=1, description="NIXL backends; LIBFABRIC on EFA, UCX elsewhere"),
    ] = None
    kv_load_failure_policy: Annotated[
        Literal["fail", "recompute"] | None,
        Field(description="what a failed transfer becomes; from vLLM 0.13"),
    ] = None
    kv_lease_duration: Annotated[
        Count | None, Field(description="seconds that prefill keeps KV nobody fetched")
    ] = None
    num_threads: Annotated[
        Count | None, Field(description="threads of NIXL's UCX backend; from vLLM 0.12")
    ] = None
    side_channel_port: Annotated[
        int | None,
        Field(ge=1024, le=65535, description="first of one port per rank; vLLM's own by default"),
    ] = None
    restart_with_peer: Annotated[
        bool | None,
        Field(description="decode starts anew after a prefill group did; by release and type"),
    ] = None


class GroupSettings(Section):
    """One group: an engine of one primary and its further nodes, `replicas` times."""

    role: Annotated[
        Literal["serve", "prefill", "decode"],
        Field(description="serve: both phases; prefill and decode: one each, with a router"),
    ] = "serve"
    instance_type: Annotated[str, Field(description="EC2 instance type of its nodes")]
    nodes: Annotated[Count, Field(description="nodes of one replica")] = 1
    replicas: Annotated[Count, Field(description="copies of the whole group")] = 1
    network_interfaces: Annotated[
        Literal["one-ip", "ip-bandwidth"],
        Field(description="one address, or one on every card that adds IP bandwidth (GPU types)"),
    ] = "one-ip"
    tensor_parallel_size: Annotated[
        Count | Auto, Field(description="GPUs that share one rank; auto: picked by memory")
    ] = 1
    data_parallel_size_local: Annotated[
        Count | None, Field(description="ranks per node; GPUs / tensor_parallel_size by default")
    ] = None
    enable_expert_parallel: Annotated[
        bool | Auto, Field(description="whole experts spread over all ranks, or all sliced")
    ] = True
    load_balancing: Annotated[
        Literal["internal", "hybrid", "external"],
        Field(description="one API for all ranks, one per node, or one per rank"),
    ] = "internal"
    api_server_count: Annotated[
        Count | None, Field(description="API processes of the primary (per node where hybrid)")
    ] = None
    all2all_backend: Annotated[
        str, Field(pattern=r"^[a-z0-9_]+$", description="auto, or a backend as vLLM spells it")
    ] = "auto"
    allow_fallback: Annotated[
        bool, Field(description="start with allgather_reducescatter where the library is missing")
    ] = False
    eplb: Annotated[EplbSettings | None, Field(description="expert load balancing; off")] = None
    expert_placement_strategy: Annotated[
        Literal["linear", "round_robin"] | None, Field(description="which rank holds which expert")
    ] = None
    dtype: Annotated[
        Literal["auto", "bfloat16", "float16", "float32"],
        Field(description="of weights and activations"),
    ] = "auto"
    quantization: Annotated[
        str | None,
        Field(pattern=r"^[a-z0-9_-]+$", description="online; a quantised checkpoint needs none"),
    ] = None
    kv_cache_dtype: Annotated[
        str | None, Field(pattern=r"^[a-z0-9_]+$", description="of the KV cache, e.g. fp8")
    ] = None
    max_model_len: Annotated[
        Count | None, Field(description="longest context, in tokens; the model's by default")
    ] = None
    max_num_batched_tokens: Annotated[
        Count | None, Field(description="tokens per step of one rank; sizes low-latency buffers")
    ] = None
    max_num_seqs: Annotated[Count | None, Field(description="requests at once on one rank")] = None
    gpu_memory_utilization: Annotated[
        Share | None, Field(description="share of a GPU that vLLM may use; 0.9 by default")
    ] = None
    kv_cache_memory_bytes: Annotated[
        int | None, Field(ge=1 << 20, description="KV cache of one rank instead of what is left")
    ] = None
    block_size: Annotated[Count | None, Field(description="tokens per KV cache block")] = None
    enforce_eager: Annotated[
        bool | None, Field(description="no CUDA graphs; true on CPU types")
    ] = None
    compilation_config: Annotated[
        dict[str, Any] | None, Field(description="vLLM's, e.g. cudagraph_mode; set by role")
    ] = None
    enable_dbo: Annotated[bool, Field(description="dual-batch overlap")] = False
    dbo_decode_token_threshold: Annotated[
        Count | None, Field(description="fewest decode tokens that are split into two batches")
    ] = None
    dbo_prefill_token_threshold: Annotated[
        Count | None, Field(description="fewest prefill tokens that are split into two batches")
    ] = None
    attention_backend: Annotated[
        str | None, Field(pattern=r"^[A-Za-z0-9_]+$", description="as vLLM spells it")
    ] = None
    moe_backend: Annotated[
        str | None, Field(pattern=r"^[a-z0-9_]+$", description="expert kernels; from vLLM 0.17")
    ] = None
    load_format: Annotated[
        str | None, Field(pattern=r"^[a-z0-9_]+$", description="how weights are read")
    ] = None
    numa_bind: Annotated[
        bool | None, Field(description="bind each rank to the NUMA node of its GPU; from 0.20")
    ] = None
    enable_ep_weight_filter: Annotated[
        bool | None, Field(description="a rank reads its own experts alone; from vLLM 0.18")
    ] = None
    kv_transfer: Annotated[
        KvTransferSettings | None, Field(description="prefill and decode alone")
    ] = None
    extra_args: Annotated[
        tuple[str, ...], Field(description="further flags of `vllm serve`, put last")
    ] = ()
    env: Annotated[
        dict[str, str], Field(description="environment of vLLM; wins over the plan's")
    ] = {}

    @field_validator("instance_type")
    @classmethod
    def _known_type(cls, name: str) -> str:
        try:
            found = catalog.instance_type(name)
        except catalog.UnknownNameError as error:
            raise ValueError(f"an EC2 instance type of the catalog: {error}") from error
        if found.architecture != "x86_64":
            raise ValueError("a type with x86_64 processors: the node image is built for those")
        return name

    @field_validator("extra_args")
    @classmethod
    def _nothing_the_plan_owns(cls, args: tuple[str, ...]) -> tuple[str, ...]:
        spelled = {a.split("=")[0].replace("_", "-") for a in args if a.startswith("-")}
        owned = sorted(spelled & PLANNED_FLAGS)
        if owned:
            raise ValueError(f"vLLM flags that the plan doesn't set itself; it sets {owned}")
        return args


PLANNED_FLAGS = frozenset(
    {
        "--host", "--port", "--headless", "--api-server-count", "-asc", "--api-key",
        "--served-model-name", "--model", "--revision",
        "--data-parallel-size", "-dp", "--data-parallel-size-local", "-dpl",
        "--data-parallel-start-rank", "-dpr", "--data-parallel-rank", "-dpn",
        "--data-parallel-address", "-dpa", "--data-parallel-rpc-port", "-dpp",
        "--data-parallel-hybrid-lb", "-dph", "--data-parallel-external-lb", "-dpe",
        "--data-parallel-multi-port-external-lb", "--data-parallel-backend", "-dpb",
        "--nnodes", "-n", "--node-rank", "-r", "--master-addr", "--master-port",
        "--tensor-parallel-size", "-tp", "--enable-expert-parallel", "-ep",
        "--no-enable-expert-parallel", "--all2all-backend", "--distributed-executor-backend",
        "--enable-eplb", "--eplb-config", "--num-redundant-experts", "--eplb-window-size",
        "--eplb-step-interval", "--eplb-log-balancedness", "--expert-placement-strategy",
        "--dtype", "--quantization", "-q", "--kv-cache-dtype", "--max-model-len",
        "--max-num-batched-tokens", "--max-num-seqs", "--gpu-memory-utilization",
        "--kv-cache-memory-bytes", "--block-size", "--enforce-eager", "--compilation-config", "-O",
        "-cc", "--enable-dbo", "--dbo-decode-token-threshold", "--dbo-prefill-token-threshold",
        "--attention-backend", "--moe-backend", "--load-format", "--numa-bind",
        "--enable-ep-weight-filter", "--kv-transfer-config",
    }
)  # fmt: skip
"""Flags that topology and settings decide: given twice, the last one would win unseen."""
