"""How a group cuts the model over its GPUs: when which way fits, and the pick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from infra.plan.topology import Cut, geometry

if TYPE_CHECKING:
    from infra.catalog import InstanceType, ModelShape
    from infra.plan.request import GroupRequest

Mode = Literal["single", "tp", "ep", "ep+tp"]


@dataclass(frozen=True)
class Way:
    """One way to cut a model, when to use it and what it costs."""

    mode: Mode
    name: str
    use_when: str
    trade_off: str


WAYS = (
    Way(
        "single",
        "one GPU",
        "the model fits one GPU with room for its KV cache",
        "no communication at all; replicas add throughput",
    ),
    Way(
        "tp",
        "tensor parallel",
        "few GPUs, fewer experts than GPUs, or dense layers dominate",
        "every GPU holds a slice of every expert; an all-reduce in every layer, and MLA's KV cache"
        " is held again by every GPU",
    ),
    Way(
        "ep",
        "expert parallel, attention data parallel",
        "many GPUs and the experts are most of the weights; each GPU has room for all the rest",
        "whole experts spread over all GPUs, tokens travel to them; KV cache is held once",
    ),
    Way(
        "ep+tp",
        "expert parallel, attention tensor parallel",
        "as expert parallel, but the layers outside the experts don't fit one GPU",
        "whole experts spread, the rest sliced: the most communication",
    ),
)
"""The table of `when which way fits`, simplest first."""


def way(mode: Mode) -> Way:
    """The row of the table."""
    return next(w for w in WAYS if w.mode == mode)


@dataclass(frozen=True)
class Pick:
    """The cut of a group, and why."""

    cut: Cut
    mode: Mode
    reason: str


Fits = Callable[[Cut], bool]
"""Whether vLLM would start with a cut, by the memory plan."""


def pick(
    request: GroupRequest, instance: InstanceType, model: ModelShape | None, fits: Fits
) -> Pick:
    """Cut a group as asked for; what is None (auto) is picked.

    Args:
        request: the group; `tensor_parallel_size` and `enable_expert_parallel` may be None.
        instance: its type.
        model: None where no memory rule covers it; then auto takes TP 1.
        fits: the memory plan's verdict on a cut.
    """
    ep, why = _expert_parallel(request, instance, model)
    asked = request.tensor_parallel_size
    if asked is not None:
        cut = geometry(request, tensor_parallel_size=asked, enable_expert_parallel=ep)
        return _named(cut, "as asked for" if request.enable_expert_parallel is not None else why)
    sizes = _sizes(instance, model)
    cuts = [geometry(request, tensor_parallel_size=t, enable_expert_parallel=ep) for t in sizes]
    if not ep:  # every expert is sliced: over all GPUs of a node, or the fewest that fit
        chosen = next((c for c in cuts if fits(c)), cuts[-1])
        return _named(chosen, f"{why}; TP {chosen.tensor_parallel_size} is the least that fits")
    chosen = next((c for c in cuts if fits(c)), None)
    if chosen is None:
        return _named(cuts[0], f"{why}; no tensor-parallel size of this type makes it fit")
    if chosen.tensor_parallel_size == 1:
        return _named(chosen, f"{why}; each GPU has room for the layers outside the experts")
    size = chosen.tensor_parallel_size
    return _named(chosen, f"{why}; attention and dense layers fit from TP {size} on")


def _expert_parallel(
    request: GroupRequest, instance: InstanceType, model: ModelShape | None
) -> tuple[bool, str]:
    if request.enable_expert_parallel is not None:
        asked = "asked for" if request.enable_expert_parallel else "turned off"
        return request.enable_expert_parallel, f"expert parallelism is {asked}"
    gpus = max(1, instance.gpu_count) * request.nodes
    if gpus == 1:
        return False, "there is one GPU: nothing to spread"
    if model is None:
        return True, "several ranks: experts are spread"
    if model.experts.count < gpus:
        return False, f"{model.experts.count} experts are fewer than the {gpus} GPUs"
    share = _expert_share(model)
    if share < 0.5:
        return False, f"the experts are {share:.0%} of the weights: dense layers dominate"
    return True, f"the experts are {share:.0%} of the weights and {gpus} GPUs share them"


def _expert_share(model: ModelShape) -> float:
    """Part of the weights that the experts are, by a count of the large matrices."""
    from infra.plan.memory_weights import Sharding, weights  # noqa: PLC0415 - no import cycle

    held = weights(model, Sharding(1, 1, expert_parallel=False, num_redundant_experts=None))
    return held.experts / held.total


def _sizes(instance: InstanceType, model: ModelShape | None) -> list[int]:
    """Tensor-parallel sizes inside a node: powers of two that divide the attention heads."""
    gpus = max(1, instance.gpu_count)
    heads = model.heads if model else 1
    return [t for t in (1, 2, 4, 8) if t <= gpus and gpus % t == 0 and heads % t == 0] or [1]


def _named(cut: Cut, reason: str) -> Pick:
    mode: Mode
    if cut.gpus == 1:
        mode = "single"
    elif cut.enable_expert_parallel:
        mode = "ep" if cut.tensor_parallel_size == 1 else "ep+tp"
    else:
        # Without expert parallelism the experts are sliced over TP x DP ranks.
        mode = "tp"
    chosen = way(mode)
    return Pick(cut, mode, f"{chosen.name}: {reason}. Fits when {chosen.use_when}")
