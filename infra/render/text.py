"""A plan as text: what a person reads in a terminal of 80 columns or more."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from infra import catalog
from infra.render import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from infra.plan.memory import MemoryPlan
    from infra.plan.plan import Group, Plan

_REPLICAS_SHOWN = 3
_LEAST_BAR, _MOST_BAR = 40, 100
_INDENT = (0, 0, 0, 2)
_FILLS = dict(zip(words.MEMORY_PARTS, "█▓#▒+:=.", strict=True))
"""Signs tell the parts apart where there is no color."""
_COLORS = dict(
    zip(
        words.MEMORY_PARTS,
        ("blue", "magenta", "cyan", "yellow", "bright_blue", "white", "green", "dim"),
        strict=True,
    )
)


def show(plan: Plan, console: Console) -> None:
    """Print everything of a plan but the findings."""
    _head(plan, console)
    for _, same in groupby(plan.groups, lambda group: group.group):
        _group(tuple(same), console)
    _foot(plan, console)


def _head(plan: Plan, console: Console) -> None:
    console.print(Text(f"{plan.stack}: {plan.model.name} on vLLM {plan.vllm_version}", "bold"))
    console.print(words.model(plan))


def _group(replicas: Sequence[Group], console: Console) -> None:
    group = replicas[0]
    console.print()
    console.print(Text(words.title(group.group, group, len(replicas)), "bold"))
    console.print(Padding(_choices(group), _INDENT))
    console.print(Padding(_nodes(replicas), _INDENT))
    if group.memory is not None:
        _memory(group.memory, group, console)
    elif group.kv_cache_memory_bytes is not None:
        size = group.kv_cache_memory_bytes / 2**20
        console.print(Padding(f"KV cache {size:.0f} MiB per rank", _INDENT))


def _choices(group: Group) -> Table:
    """What was decided for the group, each with its reason."""
    backend, mode = group.all2all_backend, group.parallelism
    asked = "" if backend.requested == backend.chosen else f" (asked for: {backend.requested})"
    rows = {
        "parallelism": f"{mode.mode}: {mode.reason}",
        "all2all": f"{backend.chosen}{asked}: {backend.reason}",
        "KV transfer": words.kv_transfer(group),
        "bandwidth": words.bandwidth(group),
        "vLLM": words.software(group),
    }
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, said in rows.items():
        if said:
            table.add_row(name, Text(said))
    return table


def _nodes(replicas: Sequence[Group]) -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(4):
        table.add_column(overflow="fold")
    few = len(replicas) <= _REPLICAS_SHOWN
    for group in replicas if few else replicas[:1]:
        for run in words.node_runs(group.nodes):
            nics = words.interfaces(run.nodes[0].network_interfaces)
            table.add_row(Text(run.name), run.nodes[0].position, run.ranks, Text(nics))
    if not few:
        more = [group.name for group in replicas[1:]]
        table.add_row(Text(words.run_name(more, "replicas")), "the same", "", "")
    return table


def _memory(memory: MemoryPlan, group: Group, console: Console) -> None:
    gpu = catalog.instance_type(group.instance_type).gpus
    name = f" of one {gpu.name}" if gpu else ""
    parts = words.memory_parts(memory)
    console.print(Padding(f"memory{name}: {memory.gpu_total_gib:.1f} GiB", _INDENT))
    width = min(_MOST_BAR, max(_LEAST_BAR, console.width - 4))
    console.print(Padding(_bar(parts, width), _INDENT))
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold", style="dim")
    for part in parts:
        if part.gib >= 0.005:
            sign = Text(_FILLS[part.name], _COLORS[part.name])
            table.add_row(sign, part.name, f"{part.gib:.1f} GiB", Text(part.detail))
    console.print(Padding(table, _INDENT))
    for problem in memory.problems:
        console.print(Padding(Text(f"does not fit: {problem}", "red"), _INDENT))
    for near in group.nearest:
        said = f"would fit: {near.change}, {near.kv_cache_tokens:,} KV tokens per GPU"
        console.print(Padding(Text(said), _INDENT))


def _bar(parts: Sequence[words.MemoryPart], width: int) -> Text:
    """One sign for each share of the GPU; ends are rounded, so that the bar is `width` long."""
    total = sum(part.gib for part in parts) or 1.0
    bar, begun = Text(no_wrap=True), 0.0
    for part in parts:
        ended = begun + part.gib
        signs = round(ended / total * width) - round(begun / total * width)
        bar.append(_FILLS[part.name] * signs, _COLORS[part.name])
        begun = ended
    return bar


def _foot(plan: Plan, console: Console) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    if plan.router is not None:
        router = plan.router
        said = f"vllm-router {router.version} on {router.node} ({router.instance_type})"
        table.add_row("router", said)
    if plan.weights is not None and plan.weights.load_times:
        times = [f"{t.seconds:.0f} s {t.source}" for t in plan.weights.load_times]
        table.add_row("weights", Text("; ".join(times)))
    ports = plan.ports
    rpc = f"data-parallel RPC {ports.data_parallel_rpc}"
    table.add_row("ports", f"API {ports.api}, agents {ports.agent}, {rpc}")
    table.add_row("cost", words.cost(plan.cost))
    console.print()
    console.print(table)
