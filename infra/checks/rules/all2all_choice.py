"""All2all backends that can't be: the choice itself says why, these rules say what follows.

`infra.plan.backends` judges a backend while it chooses one; a rule here for each of its notes
makes a finding of it, so that it can be explained, suppressed and documented as any other.
"""

# ruff: noqa: PLR0913 - each argument is one field of the reference

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infra.checks.finding import Severity
from infra.checks.rule import Hit, Hits, Rule

if TYPE_CHECKING:
    from collections.abc import Callable

Notes = tuple[tuple[str, str, str, str], ...]
"""Notes of a group: code, severity, message, remedy."""

_NEEDS = "vllm/distributed/device_communicators/all2all.py@0.33.0"
_CHOICES = "vllm/config/parallel.py@0.11.0 to @0.33.0, vllm/envs.py@0.11.0"
_SOURCES = {
    "efa": "deepseek-ai/DeepEP#369, vllm-project/vllm#27898: EFA has no IBGDA",
    "v2": "vllm-project/vllm#41183, #52632; docker/Dockerfile@0.24.0, Dockerfile.efa@0.33.0",
    "hidden": "vllm prepare_finalize/deepep_ll.py@0.33.0 L57, deepep_ll_prepare_finalize.py@0.11.0",
    "top_k": "DeepEP csrc/kernels/legacy/internode_ll.cu@dd758ca L493-501, L1166-1179",
    "moonep": "vllm/config/parallel.py@0.31.0 (moonep: one node, BF16, eager, no EPLB)",
}


def note_rule(
    code: str,
    severity: Severity,
    where: str,
    *,
    fact: str,
    consequence: str,
    remedy: str,
    source: str,
    example: str,
    scope: Any = "group",
    suppressible: bool = True,
) -> Rule:
    """A rule for one kind of note that a decision of the plan makes."""
    return Rule(
        code=code,
        severity=severity,
        scope=scope,
        where=where,
        fact=fact,
        consequence=consequence,
        remedy=remedy,
        source=source,
        example=example,
        suppressible=suppressible,
        judge=_notes_of(code),
        takes=("notes",),
    )


def _notes_of(code: str) -> Callable[..., Hits]:
    def judge(notes: Notes) -> Hits:
        return [Hit(fact=message, remedy=remedy) for c, _, message, remedy in notes if c == code]

    return judge


def _backend(
    code: str, fact: str, consequence: str, source: str, example: str, *, warning: bool = False
) -> Rule:
    return note_rule(
        code,
        Severity.WARNING if warning else Severity.ERROR,
        "all2all_backend",
        fact=fact,
        consequence=consequence,
        remedy="all2all_backend: auto picks one that works, and the plan says why",
        source=source,
        example=example,
    )


RULES = (
    _backend(
        "ALL2ALL_REPLACED",
        "The backend asked for was renamed or removed, and another does its work.",
        "The plan uses the other one; a later release may refuse the old name",
        _CHOICES,
        "`all2all_backend: pplx` on vLLM 0.33.0 runs as allgather_reducescatter.",
        warning=True,
    ),
    _backend(
        "ALL2ALL_UNKNOWN",
        "No vLLM release has a backend of that name.",
        "vllm serve would stop at once with an argparse error (exit status 2)",
        _CHOICES,
        "`all2all_backend: deepep` is none; deepep_low_latency is one.",
    ),
    _backend(
        "ALL2ALL_NOT_IN_RELEASE",
        "The vLLM release of the stack doesn't have the backend.",
        "vllm serve would stop at once with an argparse error (exit status 2)",
        _CHOICES,
        "`all2all_backend: deepep_v2` with vLLM 0.23.0.",
    ),
    _backend(
        "ALL2ALL_NEEDS_GPU",
        "The backend needs GPUs and the group's type has none.",
        "vLLM would only warn and run allgather_reducescatter, not what was asked for",
        "vllm cpu_communicator.py@0.33.0 L57-65",
        "`all2all_backend: deepep_low_latency` on c7i.large.",
    ),
    _backend(
        "ALL2ALL_WRONG_GPU",
        "The backend is for GPUs that AWS doesn't offer.",
        "Its library can't be imported on any node, so no rank would start",
        "vllm/config/parallel.py@0.23.0 (mori_*: ROCm)",
        "`all2all_backend: mori_low_latency` on any EC2 type.",
    ),
    _backend(
        "ALL2ALL_NOT_ACROSS_NODES",
        "The backend maps its peers' memory over NVLink and the group has several nodes.",
        "Ranks on other nodes can't be mapped, so the group would never become ready",
        _NEEDS,
        "`all2all_backend: flashinfer_nvlink_one_sided` with `nodes: 2`.",
    ),
    _backend(
        "ALL2ALL_NOT_ON_EFA",
        "The backend's kernels send between nodes with mlx5's IBGDA, which EFA doesn't have.",
        "Ranks would stop with `init failed for transport: IBGDA` after every node is paid for",
        _SOURCES["efa"],
        "`all2all_backend: deepep_low_latency` with `nodes: 2` on p5en.48xlarge.",
    ),
    _backend(
        "ALL2ALL_NOT_ON_TCP",
        "The backend needs RDMA between nodes and these have TCP alone.",
        "Its communicator can't be made, so the group would never become ready",
        "aws-ofi-nccl doc/gin-getting-started.md@2daf7d3",
        "`all2all_backend: deepep_v2` with `nodes: 2` on a type without EFA.",
    ),
    _backend(
        "ALL2ALL_NEEDS_NVLINK",
        "The backend needs NVLink between the GPUs of a node and this type has PCIe.",
        "Peer memory can't be mapped, so ranks would stop while they start",
        _NEEDS,
        "`all2all_backend: deepep_high_throughput` on g6e.48xlarge.",
    ),
    _backend(
        "ALL2ALL_OLD_GPU",
        "The backend's kernels need a newer GPU than the type has.",
        "No kernel image for the device: every rank would stop at its first dispatch",
        "DeepEP README (SM90 and later); deepseek-ai/DeepEP setup.py",
        "`all2all_backend: deepep_low_latency` on p4de.24xlarge (A100, 8.0).",
    ),
    _backend(
        "ALL2ALL_HIDDEN_SIZE",
        "The backend has no kernel for the model's hidden size.",
        "vLLM would stop with an assertion once the weights are loaded",
        _SOURCES["hidden"],
        "`all2all_backend: deepep_low_latency` with hidden size 2880 on vLLM 0.11.0.",
    ),
    _backend(
        "ALL2ALL_TOP_K",
        "The backend routes a token to fewer experts than the model does.",
        "The dispatch kernel would stop with an assertion at its first batch",
        _SOURCES["top_k"],
        "`all2all_backend: deepep_low_latency` with a model of 16 experts per token.",
    ),
    _backend(
        "ALL2ALL_QUANTIZED",
        "The backend carries unquantised experts only and these are quantised.",
        "vLLM would refuse the combination while it builds the layers",
        _SOURCES["moonep"],
        "`all2all_backend: moonep` with DeepSeek-V3 (fp8).",
    ),
    _backend(
        "ALL2ALL_NO_EPLB",
        "The backend can't move experts and EPLB is on.",
        "vLLM would refuse the combination while it builds the layers",
        _SOURCES["moonep"],
        "`all2all_backend: moonep` with an `eplb` section.",
    ),
    _backend(
        "ALL2ALL_NEEDS_EAGER",
        "The backend runs without CUDA graphs only and eager mode isn't on.",
        "vLLM would refuse the combination at start",
        _SOURCES["moonep"],
        "`all2all_backend: moonep` without `enforce_eager: true`.",
    ),
    _backend(
        "ALL2ALL_V2_NEEDS_EAGER",
        "DeepEP V2 crashes at start with CUDA graphs before vLLM 0.29.",
        "Every rank would stop while it captures graphs, after the weights are loaded",
        _SOURCES["v2"],
        "`all2all_backend: deepep_v2` on vLLM 0.28.0 without `enforce_eager: true`.",
    ),
    _backend(
        "ALL2ALL_V2_NOT_IN_IMAGE",
        "vLLM's images up to 0.26 hold DeepEP V1, which lacks deepep_v2's ElasticBuffer.",
        "vLLM would stop with an import error",
        _SOURCES["v2"],
        "`all2all_backend: deepep_v2` on vLLM 0.25.1 with its stock image.",
    ),
    _backend(
        "ALL2ALL_V2_NO_EFA_IMAGE",
        "vLLM's images before 0.33 lack the EFA userspace that NCCL GIN needs between nodes.",
        "vLLM would stop with `DeepEPv2 requires NCCL GIN`",
        _SOURCES["v2"],
        "`all2all_backend: deepep_v2` with `nodes: 2` on vLLM 0.30.0.",
    ),
    _backend(
        "ALL2ALL_V2_NOT_UCCL",
        "UCCL-EP stands in for DeepEP V1 and has no ElasticBuffer, which deepep_v2 needs.",
        "vLLM would stop with an import error",
        "uccl-project/uccl ep/deep_ep_wrapper@da914a2",
        "`all2all_backend: deepep_v2` with `deepep: uccl`.",
    ),
    _backend(
        "ALL2ALL_NO_LIBRARY",
        "The backend's library isn't on the nodes.",
        "vLLM would stop with an import error, or fall back unseen where that is allowed",
        "the vLLM wheel has no DeepEP: vllm tools/ep_kernels/README.md@0.33.0",
        "`all2all_backend: deepep_low_latency` with `deepep: none`.",
    ),
)
