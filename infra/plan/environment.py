"""The environment of vLLM on every node: sockets, EFA, NCCL, time limits, by release and type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.plan import kv_transfer
from infra.plan.backends import emission
from infra.plan.serve import ROLE_STATE, Launch
from node_bootstrap.assignment import PRIMARY_INTERFACE

if TYPE_CHECKING:
    from infra.plan.topology import NodePlace

CACHE = f"{ROLE_STATE}/vllm-cache"
_READY_SECONDS = "7200"


def env(launch: Launch, node: NodePlace) -> dict[str, str]:
    """Environment of the role on one node; a group's own `env` wins."""
    made = {
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": CACHE,
        **(_gpu(launch, node) if launch.group.has_gpus else _cpu(launch)),
        **_backend(launch),
    }
    if launch.kv_transfer is not None:
        made |= kv_transfer.environment(launch.kv_transfer, node)
    return {**made, **launch.group.options.env}


def _cpu(launch: Launch) -> dict[str, str]:
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # Forked engines skip the import of torch and vLLM: half the start on CPU. vLLM's CPU
        # platform would overwrite it with spawn; the plugin vllm_cpu_ep keeps it.
        "VLLM_WORKER_MULTIPROC_METHOD": "fork",
        # Gloo binds to what the host name resolves to, else to loopback: no peer reaches that.
        "GLOO_SOCKET_IFNAME": PRIMARY_INTERFACE,
        # vLLM compiles its log-probability code even with --enforce-eager; nodes have no g++.
        "TORCHDYNAMO_DISABLE": "1",
        "OMP_NUM_THREADS": str(_threads(launch)),
    }


def _threads(launch: Launch) -> int:
    """Cores per rank: a vCPU is half a core on these types, and engines that share one crawl."""
    group = launch.group
    return max(1, group.instance_type.vcpus // 2 // group.cut.data_parallel_size_local)


def _gpu(launch: Launch, node: NodePlace) -> dict[str, str]:
    # One folder has all that is compiled at a start: it is kept for the nodes after this one.
    made = {
        "DG_JIT_CACHE_DIR": f"{CACHE}/deep_gemm",
        "FLASHINFER_WORKSPACE_BASE": f"{CACHE}/flashinfer",
        "TRITON_CACHE_DIR": f"{CACHE}/triton",
    }
    if len(launch.group.nodes) > 1 or launch.kv_transfer is not None:
        # A node has many interfaces and one address: sockets must use that one.
        made |= {
            "VLLM_HOST_IP": node.address,
            "GLOO_SOCKET_IFNAME": PRIMARY_INTERFACE,
            "NCCL_SOCKET_IFNAME": PRIMARY_INTERFACE,
        }
    if "VLLM_ENGINE_READY_TIMEOUT_S" in launch.release.env:
        # 600 s by default: loading and warming a large model up takes longer (vllm#32116).
        made["VLLM_ENGINE_READY_TIMEOUT_S"] = _READY_SECONDS
    attention = launch.group.options.attention_backend
    if attention is not None and not launch.release.accepts("--attention-backend"):
        made["VLLM_ATTENTION_BACKEND"] = attention
    return made | (_efa(launch) if launch.on_efa else {})


def _efa(launch: Launch) -> dict[str, str]:
    made = {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1", "FI_EFA_FORK_SAFE": "1"}
    if launch.transport == "efa":
        # A path instead of the name makes NCCL before 2.28 fall back to TCP without a word.
        made |= {"NCCL_NET_PLUGIN": "ofi", "NCCL_TUNER_PLUGIN": "ofi"}
    if launch.kv_transfer is not None:
        # GPU memory can't go through libfabric's shared-memory path between ranks of a node.
        made["FI_EFA_ENABLE_SHM_TRANSFER"] = "0"
    return made


def _backend(launch: Launch) -> dict[str, str]:
    """What the all2all backend needs: the release's own form of the choice, and its transport."""
    if launch.group.cut.expert_parallel_size == 1:
        return {}
    made = dict(emission(launch.backend, launch.release.version)[1])
    chosen = launch.backend.chosen
    if chosen == "deepep_v2" and launch.transport == "efa":
        # Type 2 goes through a CPU proxy and works on every type with EFA; kernel-initiated GIN
        # needs an EFA driver that the image of the node may not have.
        made |= {"NCCL_GIN_ENABLE": "1", "NCCL_GIN_TYPE": "2"}
    elif chosen == "deepep_v2":
        made["EP_DISABLE_GIN"] = "1"
    if launch.backend.needs and launch.deepep == "uccl" and launch.transport == "efa":
        made["UCCL_SOCKET_IFNAME"] = PRIMARY_INTERFACE
    return made
