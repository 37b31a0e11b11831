"""Expert maps for the CPU expert kernels.

With expert parallelism the router numbers the experts of the whole model, and each rank holds some
of them. The CPU kernels index this rank's weights with the router's numbers; and those for
quantized experts can't be corrected from outside.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class UnsupportedExpertsError(NotImplementedError):
    """These experts can't be computed rightly with expert parallelism on CPU."""


def install() -> list[str]:
    """Correct the unquantized experts, refuse the others; returns what was changed, in words."""
    from vllm.model_executor.layers.fused_moe.experts import cpu_moe  # noqa: PLC0415

    # Its subclasses, one for each processor architecture, inherit apply.
    unquantized = cpu_moe.CPUUnquantizedExperts
    if hasattr(unquantized.apply, "__wrapped__"):
        return []
    unquantized.apply = with_expert_map(unquantized.apply)
    for cls in uncovered(cpu_moe):
        refuse(cls)
    return ["expert maps honoured by the unquantized CPU experts, quantized ones refused"]


def to_local(
    topk_ids: torch.Tensor, topk_weights: torch.Tensor, expert_map: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Expert numbers and weights as this rank's kernel needs them.

    Args:
        topk_ids: (tokens, k) expert numbers of the whole model; negative where a slot is unused.
        topk_weights: (tokens, k) weights in the sum.
        expert_map: (experts of the model,) number on this rank, or -1 where another rank holds it.

    Returns:
        Numbers on this rank, and weights; an expert of another rank becomes expert 0 with weight 0.
    """
    numbers = topk_ids.long()
    local = torch.where(numbers >= 0, expert_map[numbers.clamp(min=0)].long(), -1)
    away = local < 0
    return local.masked_fill(away, 0).to(topk_ids.dtype), topk_weights.masked_fill(away, 0)


def with_expert_map(apply: Callable[..., None]) -> Callable[..., None]:
    """Wrap CPUUnquantizedExperts.apply: the same, for the experts that this rank holds.

    The wrapped method writes this rank's part of the sum into `output`; the ranks' parts add up to
    what one rank with all experts computes.
    """
    from vllm.logger import init_logger  # noqa: PLC0415

    signature = inspect.signature(apply)
    logger = init_logger("vllm.vllm_cpu_ep")

    @functools.wraps(apply)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        call = signature.bind(*args, **kwargs)
        given = call.arguments
        if given["expert_map"] is None:
            return apply(*args, **kwargs)
        if given["apply_router_weight_on_input"]:
            # The kernel then multiplies no weights, so a weight of 0 would not leave an expert out.
            raise UnsupportedExpertsError(
                "vllm_cpu_ep: this model multiplies the router's weights into the experts' inputs "
                "(apply_router_weight_on_input), which is not supported with expert parallelism on "
                "CPU: serve it without --enable-expert-parallel."
            )
        held, of_the_model = given["w1"].shape[0], given["expert_map"].numel()
        logger.info_once("vllm_cpu_ep: this rank computes %d of %d experts", held, of_the_model)
        if held == 0 or given["hidden_states"].shape[0] == 0:
            given["output"].zero_()
            return None
        given["topk_ids"], given["topk_weights"] = to_local(
            given["topk_ids"], given["topk_weights"], given["expert_map"]
        )
        return apply(*call.args, **call.kwargs)

    return wrapped


def uncovered(module: Any) -> Iterator[type]:
    """The expert classes of a module, without the unquantized ones."""
    for value in vars(module).values():
        if (
            isinstance(value, type)
            and value.__module__ == module.__name__
            and "_supports_parallel_config" in vars(value)
            and not issubclass(value, module.CPUUnquantizedExperts)
        ):
            yield value


def refuse(cls: Any) -> None:
    """Make experts of this class an error with expert parallelism.

    vLLM asks _supports_parallel_config when it chooses the class, which stops the start with the
    reason; apply is the last guard, for a class chosen without asking.
    """
    supports, apply = cls._supports_parallel_config, cls.apply
    signature = inspect.signature(apply)

    def without_expert_parallelism(moe_parallel_config: Any) -> bool:
        return not moe_parallel_config.use_ep and supports(moe_parallel_config)

    @functools.wraps(apply)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if signature.bind(*args, **kwargs).arguments.get("expert_map") is not None:
            raise UnsupportedExpertsError(
                f"vllm_cpu_ep: {cls.__name__} (quantized experts on CPU) ignores which experts "
                "this rank holds and would read other memory: serve the unquantized model, or "
                "without --enable-expert-parallel."
            )
        return apply(*args, **kwargs)

    cls._supports_parallel_config = staticmethod(without_expert_parallelism)
    cls.apply = guarded
