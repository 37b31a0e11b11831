"""all_gatherv and reduce_scatterv for vLLM's CPU communicator, for any number of ranks.

vLLM calls them around each MoE layer: every rank gives its tokens to all (dispatch), and gets back
the sum of what all ranks computed for its own (combine). Ranks hold different numbers of tokens,
some none.
"""

# pyright: reportMissingImports=false

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


class Communicator(Protocol):
    """What is used of vLLM's CpuCommunicator."""

    world_size: int
    rank_in_group: int

    def all_gather(self, input_: torch.Tensor, dim: int = -1) -> torch.Tensor:
        """Concatenate the tensors of all ranks, all of one shape."""
        ...

    def all_reduce(self, input_: torch.Tensor) -> torch.Tensor:
        """Sum over all ranks, in place."""
        ...


def install() -> list[str]:
    """Give CpuCommunicator the methods that it lacks; returns what was changed, in words."""
    from vllm.distributed.device_communicators import cpu_communicator  # noqa: PLC0415

    communicator = cpu_communicator.CpuCommunicator
    base = cpu_communicator.DeviceCommunicatorBase
    changed = []
    for name, method in (("all_gatherv", all_gatherv), ("reduce_scatterv", reduce_scatterv)):
        if getattr(communicator, name) is getattr(base, name):
            setattr(communicator, name, method)
            changed.append(f"{name} added")
    return changed


def all_gatherv(
    self: Communicator,
    input_: torch.Tensor | list[torch.Tensor],
    dim: int = 0,
    sizes: list[int] | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Concatenate the tensors of all ranks along `dim`.

    Args:
        self: the group's communicator.
        input_: this rank's tensor, or several with the same length along `dim`, which travel
            together.
        dim: the dimension along which ranks may differ.
        sizes: each rank's length along `dim`; None where all are equal.

    Raises:
        ValueError: the sizes don't fit the group or this rank's tensor.
    """
    tensors = list(input_) if isinstance(input_, (list, tuple)) else [input_]
    rows = [tensor.movedim(dim, 0) for tensor in tensors]
    lengths = _checked(self, sizes or [rows[0].shape[0]] * self.world_size)
    for row in rows:
        if row.shape[0] != lengths[self.rank_in_group]:
            raise ValueError(
                f"all_gatherv: rank {self.rank_in_group} holds {row.shape[0]} along dimension "
                f"{dim}, sizes say {lengths}"
            )
    gathered = rows if self.world_size == 1 else _gather_rows(self, rows, lengths)
    out = [tensor.movedim(0, dim) for tensor in gathered]
    return out if isinstance(input_, (list, tuple)) else out[0]


def reduce_scatterv(
    self: Communicator,
    input_: torch.Tensor,
    dim: int = -1,
    sizes: list[int] | None = None,
) -> torch.Tensor:
    """Sum the tensors of all ranks, and keep this rank's part along `dim`.

    Args:
        self: the group's communicator.
        input_: this rank's summand, of the same shape on all ranks; left as it is.
        dim: the dimension that is split.
        sizes: each rank's part along `dim`; None for equal parts.

    Raises:
        ValueError: the sizes don't fit the group or the tensor.
    """
    length = input_.shape[dim]
    if sizes is None and length % self.world_size:
        raise ValueError(
            f"reduce_scatterv: {length} can't be split into {self.world_size} equal parts"
        )
    lengths = _checked(self, sizes or [length // self.world_size] * self.world_size)
    if sum(lengths) != length:
        raise ValueError(
            f"reduce_scatterv: sizes {lengths} don't add up to the {length} along dimension {dim}"
        )
    if self.world_size == 1:
        return input_
    # all_reduce overwrites what it is given, and Gloo wants it in one piece.
    total = input_.clone(memory_format=torch.contiguous_format)
    if total.numel():
        total = self.all_reduce(total)
    start = sum(lengths[: self.rank_in_group])
    return total.narrow(dim, start, lengths[self.rank_in_group]).contiguous()


def _checked(self: Communicator, sizes: Sequence[int]) -> list[int]:
    lengths = [int(size) for size in sizes]
    if len(lengths) != self.world_size or min(lengths) < 0:
        raise ValueError(f"sizes {lengths} for a group of {self.world_size} ranks")
    return lengths


def _gather_rows(
    self: Communicator, tensors: list[torch.Tensor], lengths: list[int]
) -> list[torch.Tensor]:
    """One collective for all tensors: their rows side by side as bytes, padded to the longest rank.

    Over a network of hosts a collective costs a round trip, whatever its size: hidden states,
    router weights and expert numbers of a decode step are a few kilobytes together.
    """
    longest = max(lengths)
    widths = [math.prod(tensor.shape[1:]) * tensor.element_size() for tensor in tensors]
    mine = torch.zeros((longest, sum(widths)), dtype=torch.uint8)
    starts = [0, *itertools.accumulate(widths)]
    for tensor, start, width in zip(tensors, starts, widths, strict=False):
        if tensor.numel():
            as_bytes = tensor.contiguous().view(tensor.shape[0], -1).view(torch.uint8)
            mine[: tensor.shape[0], start : start + width] = as_bytes
    if not mine.numel():
        return [tensor.new_empty((sum(lengths), *tensor.shape[1:])) for tensor in tensors]
    padded = self.all_gather(mine, dim=0).view(self.world_size, longest, sum(widths))
    rows = torch.cat([padded[rank, :length] for rank, length in enumerate(lengths)])
    return [
        _from_bytes(rows[:, start : start + width], tensor)
        for tensor, start, width in zip(tensors, starts, widths, strict=False)
    ]


def _from_bytes(rows: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    shape = (rows.shape[0], *like.shape[1:])
    if not rows.numel():
        return like.new_empty(shape)
    return rows.contiguous().view(like.dtype).view(shape)
