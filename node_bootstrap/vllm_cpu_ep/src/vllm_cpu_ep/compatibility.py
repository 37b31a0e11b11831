"""The corrections replace methods of vLLM: exactly those that they were written for."""

# pyright: reportMissingImports=false

from __future__ import annotations

import importlib
import importlib.metadata
import inspect

CHECKED_RELEASES = ("0.32.0",)

COMMUNICATOR = "vllm.distributed.device_communicators.cpu_communicator:CpuCommunicator"
PLATFORM = "vllm.platforms.cpu:CpuPlatform"
EXPERTS = "vllm.model_executor.layers.fused_moe.experts.cpu_moe:CPUUnquantizedExperts"

SIGNATURES: dict[tuple[str, str], tuple[str, ...]] = {
    (COMMUNICATOR, "all_gatherv"): ("self", "input_", "dim", "sizes"),
    (COMMUNICATOR, "reduce_scatterv"): ("self", "input_", "dim", "sizes"),
    (PLATFORM, "check_and_update_config"): ("vllm_config",),
    (EXPERTS, "_supports_parallel_config"): ("moe_parallel_config",),
    (EXPERTS, "apply"): (
        *("self", "output", "hidden_states", "w1", "w2", "topk_weights", "topk_ids", "activation"),
        *("global_num_experts", "expert_map", "a1q_scale", "a2_scale", "workspace13", "workspace2"),
        *("expert_tokens_meta", "apply_router_weight_on_input"),
    ),
}


class UnsupportedVllmError(RuntimeError):
    """The installed vLLM isn't one that these corrections are known to be right for."""


def check() -> None:
    """Compare the installed vLLM with what the corrections expect.

    Raises:
        UnsupportedVllmError: its message names the release and all that differs.
    """
    release = importlib.metadata.version("vllm").partition("+")[0]
    faults = differences(release)
    if faults:
        raise UnsupportedVllmError(
            "vllm_cpu_ep corrects expert parallelism on CPU in vLLM "
            f"{', '.join(CHECKED_RELEASES)}, and this is vLLM {release}: {'; '.join(faults)}. Its "
            "results could be wrong without a sign, so it stops here. Install a checked release, a "
            "vllm_cpu_ep for this one, or, to serve without data parallelism, set VLLM_PLUGINS to "
            "a list that leaves vllm_cpu_ep out."
        )


def differences(release: str) -> list[str]:
    """What is not as expected in the installed vLLM, in words; empty when all is."""
    faults = [] if release in CHECKED_RELEASES else ["this release was never checked"]
    for (place, method), expected in SIGNATURES.items():
        found = _parameters(place, method)
        name = f"{place.rpartition(':')[2]}.{method}"
        if found is None:
            faults.append(f"{name} is gone")
        elif found != expected:
            faults.append(f"{name} takes ({', '.join(found)}) instead of ({', '.join(expected)})")
    return faults


def _parameters(place: str, method: str) -> tuple[str, ...] | None:
    module, _, name = place.partition(":")
    try:
        function = getattr(getattr(importlib.import_module(module), name), method)
    except (ImportError, AttributeError):
        return None
    return tuple(inspect.signature(function).parameters)
