"""The panel of a group in the drawing: choices, the memory of one GPU, nodes, token routing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra.render import node_box, words
from infra.render.canvas import FRAME, INK, PAPER, QUIET, Box, Canvas, Font

if TYPE_CHECKING:
    from infra.plan.memory import MemoryPlan
    from infra.plan.plan import Group, Node

COLUMNS = 3
_NODES_SHOWN = 8
_PAD, _GAP, _LINE = 16, 16, 16
_ABOVE_NODES, _BELOW_NODES, _BUS = 30, 44, 20
_BAR, _CHIP = 18, 18
_OVER = "#dc2626"
"""Marks where the GPU ends in a bar that is longer than it."""
_TEXT, _TITLE = Font(11, INK), Font(14, bold=True)
_COLORS = dict(
    zip(
        words.MEMORY_PARTS,
        (
            *("#60a5fa", "#c084fc", "#22d3ee", "#fbbf24"),
            *("#818cf8", "#9aa5b1", "#34d399", "#f1f5f9"),
        ),
        strict=True,
    )
)


@dataclass(frozen=True)
class Panel:
    """One replica of a group, or replicas of one node each.

    nodes: all of them. replicas: how many the panel stands for. more: names of the replicas that
    are equal and not drawn.
    """

    name: str
    group: Group
    nodes: tuple[Node, ...]
    replicas: int
    more: tuple[str, ...]

    @property
    def cells(self) -> int:
        """Nodes that are drawn, and one more box for the rest."""
        return min(len(self.nodes), _NODES_SHOWN + 1)


def width(columns: int) -> float:
    """Width of a panel with room for that many nodes side by side."""
    return 2 * _PAD + columns * node_box.WIDTH + (columns - 1) * _GAP


def height(panel: Panel, columns: int) -> float:
    """Height of a panel."""
    rows = -(-panel.cells // columns)
    row = _ABOVE_NODES + node_box.height(panel.group) + _under(panel)
    return _nodes_top(panel, columns) + rows * row + _PAD


def draw(canvas: Canvas, panel: Panel, box: Box, columns: int, api_port: int) -> tuple[float, ...]:
    """Draw a panel.

    Returns:
        Heights at which requests enter through its left edge.
    """
    canvas.open("panel", panel.name)
    canvas.rect(box, "#f8fafc", FRAME, round_=8)
    y = box.y + _PAD + 10
    canvas.text(box.x + _PAD, y, words.title(panel.name, panel.group, panel.replicas), _TITLE)
    for line in _lines(panel, columns):
        y += _LINE
        canvas.text(box.x + _PAD, y, line, _TEXT)
    if panel.group.memory is not None:
        _memory(canvas, panel.group.memory, Box(box.x + _PAD, y + 12, box.width - 2 * _PAD, _BAR))
    entries = _nodes(canvas, panel, box, columns, api_port)
    canvas.close()
    return entries


def _lines(panel: Panel, columns: int) -> list[str]:
    group = panel.group
    backend = group.all2all_backend
    said = [
        f"all2all {backend.chosen}: {backend.reason}",
        f"{group.parallelism.mode}: {group.parallelism.reason}",
        words.bandwidth(group),
    ]
    if transfer := words.kv_transfer(group):
        said.append(f"KV transfer: {transfer}")
    if panel.more:
        said.append(f"and the same again: {words.run_name(panel.more, 'replicas')}")
    if group.memory is not None:
        said += [f"does not fit: {problem}" for problem in group.memory.problems]
    inner = width(columns) - 2 * _PAD
    return [line for text in said for line in _TEXT.wrap(text, inner)]


def _nodes_top(panel: Panel, columns: int) -> float:
    """From the panel's upper edge to the space above its first row of nodes."""
    top = _PAD + 10 + _LINE * len(_lines(panel, columns)) + 6
    memory = panel.group.memory
    if memory is None:
        return top
    chips = _chips(memory, width(columns) - 2 * _PAD)
    return top + 6 + _BAR + _CHIP * (1 + max(row for row, _, _ in chips)) + 6


def _memory(canvas: Canvas, memory: MemoryPlan, bar: Box) -> None:
    """The bar of one GPU, and below it what its colors mean."""
    parts = words.memory_parts(memory)
    total = sum(part.gib for part in parts) or 1.0
    x = bar.x
    for part in parts:
        share = part.gib / total * bar.width
        canvas.rect(Box(x, bar.y, share, bar.height), _COLORS[part.name], PAPER)
        x += share
    canvas.rect(bar, "none", FRAME)
    if total > memory.gpu_total_gib * 1.001:
        full = bar.x + memory.gpu_total_gib / total * bar.width
        canvas.line([(full, bar.y - 3), (full, bar.bottom + 3)], _OVER, end=False)
    for (row, left, said), name in zip(
        _chips(memory, bar.width), [part.name for part in parts if part.gib >= 0.005], strict=True
    ):
        y = bar.bottom + 6 + row * _CHIP
        canvas.rect(Box(bar.x + left, y, 10, 10), _COLORS[name])
        canvas.text(bar.x + left + 15, y + 9, said, Font(10, QUIET))


def _chips(memory: MemoryPlan, wide: float) -> list[tuple[int, float, str]]:
    """Row, left edge and text of each part's label."""
    chips: list[tuple[int, float, str]] = []
    row, left = 0, 0.0
    for part in words.memory_parts(memory):
        if part.gib < 0.005:
            continue
        said = f"{part.name} {part.gib:.1f} GiB"
        if part.name == "KV cache":
            said = f"{said}: {part.detail}"
        size = 15 + Font(10).width(said) + 12
        if left + size > wide and left:
            row, left = row + 1, 0.0
        chips.append((row, left, said))
        left += size
    return chips


def _between(panel: Panel) -> str | None:
    """What runs between the nodes of the panel, if anything does."""
    group = panel.group
    if len(group.nodes) == 1 or group.tensor_parallel_size * group.data_parallel_size == 1:
        return None
    carrier = "EFA" if group.transport == "efa" else "TCP"
    gbps = group.bandwidth.efa_gbps if carrier == "EFA" else group.bandwidth.ip_gbps
    what = f"token routing: {group.all2all_backend.chosen}"
    if not group.enable_expert_parallel:
        what = "tensor-parallel all-reduce"
    return f"{what} over {carrier}, {gbps:g} Gbit/s per node"


def _under(panel: Panel) -> float:
    return _BELOW_NODES if _between(panel) else 0


def _nodes(
    canvas: Canvas, panel: Panel, box: Box, columns: int, api_port: int
) -> tuple[float, ...]:
    """The rows of nodes with requests above and token routing below each."""
    tall = node_box.height(panel.group)
    shown = panel.nodes[:_NODES_SHOWN]
    top = box.y + _nodes_top(panel, columns)
    entries: list[float] = []
    buses: list[float] = []
    for begin in range(0, panel.cells, columns):
        row = Box(box.x + _PAD, top + _ABOVE_NODES, 0, tall)
        places = [
            Box(row.x + at * (node_box.WIDTH + _GAP), row.y, node_box.WIDTH, tall)
            for at in range(min(columns, panel.cells - begin))
        ]
        nodes = shown[begin : begin + columns]
        for node, place in zip(nodes, places, strict=False):
            node_box.draw(canvas, panel.group, node, place, api_port)
        if len(places) > len(nodes):
            _more(canvas, panel, places[-1])
        entries += _requests(canvas, box.x, nodes, places)
        top = row.bottom
        if said := _between(panel):
            buses.append(row.bottom + _BUS)
            trunk = box.right - _PAD / 2 if panel.cells > columns else places[-1].middle
            _bus(canvas, places, trunk, said)
            top += _BELOW_NODES
    if len(buses) > 1:
        x = box.right - _PAD / 2
        canvas.line([(x, buses[0]), (x, buses[-1])], node_box.TOKENS, end=False)
    return tuple(entries)


def _more(canvas: Canvas, panel: Panel, place: Box) -> None:
    """One box for the nodes that are not drawn."""
    run = words.NodeRun(panel.nodes[_NODES_SHOWN:])
    canvas.open("node", run.name)
    canvas.rect(place, PAPER, FRAME, round_=6)
    y = place.y + place.height / 2 - 18
    canvas.text(place.middle, y, f"{len(run.nodes)} more", Font(15, bold=True, anchor="middle"))
    first, last = run.nodes[0].name, run.nodes[-1].name
    names = first if first == last else f"{first} … {last}"
    canvas.text(place.middle, y + 20, names, Font(11, anchor="middle"))
    said = run.ranks if panel.replicas == 1 else "the same"
    canvas.text(place.middle, y + 38, said, Font(11, QUIET, anchor="middle"))
    canvas.close()


def _requests(
    canvas: Canvas, left: float, nodes: tuple[Node, ...], places: list[Box]
) -> list[float]:
    """Requests to each node of the row that has an API, from the panel's left edge."""
    reached = [
        place.x + 40
        for node, place in zip(nodes, places, strict=False)
        if node.position != "headless"
    ]
    if not reached:
        return []
    y = places[0].y - 18
    canvas.line([(left, y), (reached[-1], y)], node_box.REQUESTS, end=False)
    for x in reached:
        canvas.line([(x, y), (x, places[0].y)], node_box.REQUESTS)
    return [y]


def _bus(canvas: Canvas, places: list[Box], right: float, said: str) -> None:
    """Token routing between the nodes of a row, from their network cards."""
    y = places[0].bottom + _BUS
    canvas.line([(places[0].middle, y), (right, y)], node_box.TOKENS, end=False)
    for place in places:
        points = [(place.middle, y), (place.middle, place.bottom)]
        canvas.line(points, node_box.TOKENS)
    canvas.text(places[0].x, y + 15, said, Font(10, node_box.TOKENS))
