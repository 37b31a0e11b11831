"""Where a plan doesn't fit the GPUs: the nearest ones that do."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from infra.plan.memory import MemoryRequest, effective, plan_memory

if TYPE_CHECKING:
    from collections.abc import Iterable

_LEAST_TOKENS, _LEAST_SEQS, _LEAST_CONTEXT = 256, 32, 2048
_NO_SETTINGS = ("data_parallel_size",)
"""Fields of a memory request that follow from the settings of a group and aren't ones."""


@dataclass(frozen=True)
class Alternative:
    """A near plan that fits: the settings that change, and the KV tokens it gives."""

    change: str
    settings: tuple[tuple[str, str], ...]
    kv_cache_tokens: int


@dataclass(frozen=True)
class _Change:
    """One kind of change; `steps` are fields of the request, the smallest change first."""

    name: str
    steps: tuple[dict[str, Any], ...]


def nearest_plans(request: MemoryRequest) -> tuple[Alternative, ...]:
    """The nearest plans that fit, cheapest change first.

    One change where one is enough; else each with a smaller batch; else with a smaller batch and a
    shorter context. A smaller batch costs no hardware and no quality, and with many ranks the
    profiling run grows with ranks times batch; a model's own context is often longer than needed.
    """
    used = effective(request)
    changes = _changes(request)
    batch = _halved("max_num_batched_tokens", used.max_num_batched_tokens, _LEAST_TOKENS)
    context = _halved("max_model_len", used.max_model_len, _LEAST_CONTEXT)
    both = _joined(context, batch)
    other = [c for c in changes if c.name not in ("smaller batch", "shorter context")]
    rounds: tuple[list[_Change], ...] = (
        changes,
        [
            *(_with(change, "a smaller batch", batch, " and") for change in other),
            _Change("shorter context and a smaller batch", both),
        ],
        [_with(change, "a smaller batch and a shorter context", both, ",") for change in other],
    )
    for tried in rounds:
        found = tuple(plan for plan in (_first_fit(request, c) for c in tried) if plan)
        if found:
            return found
    return ()


def _first_fit(request: MemoryRequest, change: _Change) -> Alternative | None:
    for step in change.steps:
        plan = plan_memory(replace(request, **step))
        if plan.fits:
            shown = {key: value for key, value in step.items() if key not in _NO_SETTINGS}
            settings = tuple((key, str(value)) for key, value in shown.items())
            return Alternative(change.name, settings, plan.kv_cache_tokens)
    return None


def _changes(request: MemoryRequest) -> list[_Change]:
    used = effective(request)
    found = [
        _Change("fewer redundant experts", _redundant(request)),
        _Change(
            "smaller batch",
            _halved("max_num_batched_tokens", used.max_num_batched_tokens, _LEAST_TOKENS),
        ),
        _Change("fewer requests at once", _halved("max_num_seqs", used.max_num_seqs, _LEAST_SEQS)),
        _Change("shorter context", _halved("max_model_len", used.max_model_len, _LEAST_CONTEXT)),
    ]
    if request.model.quantization.method == "none" and not request.quantization:
        found.append(_Change("fp8 weights", ({"quantization": "fp8"},)))
    if not request.kv_cache_dtype.startswith("fp8"):
        found.append(_Change("fp8 KV cache", ({"kv_cache_dtype": "fp8"},)))
    more = [request.nodes * factor for factor in (2, 4, 8, 16)]
    fewer = [step["nodes"] for step in _halved("nodes", request.nodes, 1)]
    found.append(_Change("more nodes", _of_nodes(request, more)))
    # Where every rank gathers the tokens of all, a large group is what doesn't fit.
    found.append(_Change("fewer nodes per group and more replicas", _of_nodes(request, fewer)))
    return found


def _redundant(request: MemoryRequest) -> tuple[dict[str, Any], ...]:
    lower = range((request.num_redundant_experts or 0) - 1, -1, -1)
    steps = [{"num_redundant_experts": r} for r in lower]
    return tuple(step for step in steps if _shared_out(replace(request, **step)))


def _of_nodes(request: MemoryRequest, counts: Iterable[int]) -> tuple[dict[str, Any], ...]:
    """Other numbers of nodes, where data parallelism grows with them and experts don't run out."""
    per_node, left = divmod(request.data_parallel_size, max(request.nodes, 1))
    if left or not per_node:
        return ()
    steps = [{"nodes": n, "data_parallel_size": n * per_node} for n in counts]
    return tuple(step for step in steps if _shared_out(replace(request, **step)))


def _shared_out(request: MemoryRequest) -> bool:
    """Whether every rank gets an expert, and with EPLB all of them equally many."""
    if not request.expert_parallel:
        return True
    ranks, redundant = request.cut.expert_ranks, request.num_redundant_experts
    experts = request.model.experts.count + (redundant or 0)
    return ranks <= experts and (redundant is None or experts % ranks == 0)


def _with(change: _Change, second: str, steps: tuple[dict[str, Any], ...], link: str) -> _Change:
    return _Change(f"{change.name}{link} {second}", _joined(change.steps, steps))


def _joined(
    first: tuple[dict[str, Any], ...], second: tuple[dict[str, Any], ...]
) -> tuple[dict[str, Any], ...]:
    return tuple({**a, **b} for a, b in itertools.product(first, second))


def _halved(key: str, value: int, least: int) -> tuple[dict[str, Any], ...]:
    steps = []
    while value // 2 >= least:
        value //= 2
        steps.append({key: value})
    return tuple(steps)
