"""The command line and environment of vLLM on every node (release 0.32.0 on CPU)."""

from __future__ import annotations

from infra.plan.request import EngineOptions
from infra.plan.topology import GroupPlace, NodePlace, Ports
from node_bootstrap.assignment import PRIMARY_INTERFACE

ROLE_STATE = "/var/lib/moe"


def model_folder(model_name: str) -> str:
    """Folder of the model on a node."""
    return f"{ROLE_STATE}/models/{model_name}"


def argv(
    group: GroupPlace, node: NodePlace, model_name: str, python: str, ports: Ports
) -> tuple[str, ...]:
    """The process of one node. Addresses are the placeholders of the plan."""
    return (
        *(python, "-m", "vllm.entrypoints.cli.main", "serve", model_folder(model_name)),
        *("--served-model-name", model_name),
        *_front_end(node, ports),
        *_parallelism(group, node, ports),
        *_options(group.options),
        # With one process per rank and no multiprocessing, vLLM's own executor must be "uni":
        # under data parallelism it would pick "mp" and add a worker process for every rank.
        *("--distributed-executor-backend", "uni"),
        *group.options.extra_args,
    )


def env(group: GroupPlace) -> dict[str, str]:
    """Environment of the role on a CPU node; a group's own `env` wins."""
    return {
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": f"{ROLE_STATE}/vllm-cache",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Forked engines skip the import of torch and vLLM: half the start on CPU. vLLM's CPU
        # platform would overwrite it with spawn; the plugin vllm_cpu_ep keeps it.
        "VLLM_WORKER_MULTIPROC_METHOD": "fork",
        # Gloo binds to what the host name resolves to, else to loopback: no peer reaches that.
        "GLOO_SOCKET_IFNAME": PRIMARY_INTERFACE,
        # vLLM compiles its log-probability code even with --enforce-eager; nodes have no g++.
        "TORCHDYNAMO_DISABLE": "1",
        "OMP_NUM_THREADS": str(_threads(group)),
        **group.options.env,
    }


def kv_cache_memory_bytes(group: GroupPlace) -> int:
    """KV cache per rank: as set, or an eighth of the node's memory shared by its ranks."""
    if group.options.kv_cache_memory_bytes is not None:
        return group.options.kv_cache_memory_bytes
    return int(group.instance_type.memory_gib * 2**30) // 8 // group.data_parallel_size_local


def all2all(group: GroupPlace) -> tuple[str, str]:
    """The all2all backend and why: (name, reason)."""
    if group.expert_parallel_size == 1:
        return "none", "one rank holds all experts: there is nothing to exchange"
    return "allgather_reducescatter", "the only backend of vLLM on CPU"


def _front_end(node: NodePlace, ports: Ports) -> tuple[str, ...]:
    """A headless node has no API: vLLM refuses an API server count there."""
    if node.position == "headless":
        return ("--headless", "--data-parallel-start-rank", str(node.first_rank))
    return ("--host", "0.0.0.0", "--port", str(ports.api), "--api-server-count", "1")  # noqa: S104 - security groups decide who gets here


def _parallelism(group: GroupPlace, node: NodePlace, ports: Ports) -> tuple[str, ...]:
    flags: tuple[str, ...] = ()
    if group.tensor_parallel_size > 1:
        flags += ("--tensor-parallel-size", str(group.tensor_parallel_size))
    if group.data_parallel_size > 1:
        flags += (
            *("--data-parallel-size", str(group.data_parallel_size)),
            *("--data-parallel-size-local", str(node.ranks)),
            *("--data-parallel-address", group.primary.address),
            *("--data-parallel-rpc-port", str(ports.data_parallel_rpc)),
        )
    if group.expert_parallel_size > 1:
        flags += ("--enable-expert-parallel", "--all2all-backend", all2all(group)[0])
    return (*flags, "--kv-cache-memory-bytes", str(kv_cache_memory_bytes(group)))


def _options(options: EngineOptions) -> tuple[str, ...]:
    given = {
        "--dtype": options.dtype,
        "--max-model-len": options.max_model_len,
        "--max-num-batched-tokens": options.max_num_batched_tokens,
        "--max-num-seqs": options.max_num_seqs,
    }
    flags = tuple(p for flag, v in given.items() if v is not None for p in (flag, str(v)))
    return flags + (("--enforce-eager",) if options.enforce_eager else ())


def _threads(group: GroupPlace) -> int:
    """Cores per rank: a vCPU is half a core on these types, and engines that share one crawl."""
    return max(1, group.instance_type.vcpus // 2 // group.data_parallel_size_local)
