"""The drawing of a plan: who talks to whom over what, for a design review.

From top to bottom: clients and gateway, a panel for each group, the legend. Requests run down the
left margin, KV from prefill to decode down the right one; tokens between nodes run inside a panel.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from infra.render import node_box, panel, words
from infra.render.canvas import FRAME, INK, QUIET, Box, Canvas, Font

if TYPE_CHECKING:
    from infra.plan.plan import Group, Plan

_MARGIN, _TOP, _GAP = 76, 96, 26
_REPLICAS_SHOWN = 3
_REQUESTS_X, _KV_INSET = 30, 34


@dataclass(frozen=True)
class Drawn:
    """A panel that has been drawn."""

    role: str
    box: Box
    entries: tuple[float, ...]


def svg(plan: Plan) -> str:
    """The plan as an SVG document: the same plan gives the same bytes."""
    panels = _panels(plan)
    columns = max(2, *(min(panel.COLUMNS, len(shown.nodes)) for shown in panels))
    inner = panel.width(columns)
    canvas = Canvas(inner + 2 * _MARGIN)
    _title(canvas, plan)
    source = _clients(canvas, plan)
    y, drawn = source.bottom + 2 * _GAP, []
    for shown in panels:
        box = Box(_MARGIN, y, inner, panel.height(shown, columns))
        entries = panel.draw(canvas, shown, box, columns, plan.ports.api)
        drawn.append(Drawn(shown.group.role, box, entries))
        y = box.bottom + _GAP
    _requests(canvas, source, drawn)
    _kv_transfer(canvas, plan, drawn, inner + 2 * _MARGIN - _KV_INSET)
    return canvas.finish(_legend(canvas, plan, y) + _GAP)


def _panels(plan: Plan) -> list[panel.Panel]:
    """A panel per replica; replicas of one node share a panel, and many replicas are counted."""
    panels = []
    for name, same in groupby(plan.groups, lambda group: group.group):
        replicas = list(same)
        first = replicas[0]
        if len(first.nodes) == 1:
            nodes = tuple(group.primary for group in replicas)
            panels.append(panel.Panel(name, first, nodes, len(replicas), ()))
            continue
        few = replicas if len(replicas) <= _REPLICAS_SHOWN else replicas[:1]
        more = [group.name for group in replicas[len(few) :]]
        panels += [panel.Panel(g.name, g, g.nodes, 1, tuple(more)) for g in few]
    return panels


def _title(canvas: Canvas, plan: Plan) -> None:
    heading = f"{plan.stack}: {plan.model.name} on vLLM {plan.vllm_version}"
    canvas.text(_MARGIN, 32, heading, Font(18, bold=True))
    canvas.text(_MARGIN, 52, words.model(plan), Font(12, QUIET))
    canvas.text(_MARGIN, 70, words.cost(plan.cost), Font(12, QUIET))


def _clients(canvas: Canvas, plan: Plan) -> Box:
    """Clients and, where there is one, the gateway; the box that requests to the groups leave."""
    clients = Box(_MARGIN, _TOP, 200, 52)
    _labelled(canvas, clients, "clients", f"{plan.endpoint.exposure} endpoint")
    if plan.router is None:
        return clients
    router = plan.router
    gateway = Box(clients.right + 70, _TOP, 300, 52)
    said = f"vllm-router {router.version} on {router.instance_type}"
    _labelled(canvas, gateway, router.node, said)
    middle = clients.y + clients.height / 2
    canvas.line([(clients.right, middle), (gateway.x, middle)], node_box.REQUESTS)
    return gateway


def _labelled(canvas: Canvas, box: Box, name: str, said: str) -> None:
    canvas.open("box", name)
    canvas.rect(box, "#eff6ff", FRAME, round_=6)
    canvas.text(box.middle, box.y + 22, name, Font(13, bold=True, anchor="middle"))
    canvas.text(box.middle, box.y + 39, said, Font(10, QUIET, anchor="middle"))
    canvas.close()


def _requests(canvas: Canvas, source: Box, drawn: list[Drawn]) -> None:
    """From clients or the gateway down the left margin and into each panel."""
    y = source.bottom + _GAP
    last = max(entry for shown in drawn for entry in shown.entries)
    path = [(source.middle, source.bottom), (source.middle, y), (_REQUESTS_X, y)]
    canvas.line([*path, (_REQUESTS_X, last)], node_box.REQUESTS, end=False)
    for shown in drawn:
        for entry in shown.entries:
            start, end = (_REQUESTS_X, entry), (shown.box.x, entry)
            canvas.line([start, end], node_box.REQUESTS, end=False)


def _kv_transfer(canvas: Canvas, plan: Plan, drawn: list[Drawn], x: float) -> None:
    """From the prefill panels down the right margin to the decode panels."""
    froms = [shown.box for shown in drawn if shown.role == "prefill"]
    tos = [shown.box for shown in drawn if shown.role == "decode"]
    if not froms or not tos:
        return
    heights = [_half(box) for box in (*froms, *tos)]
    canvas.line([(x, min(heights)), (x, max(heights))], node_box.KV, end=False)
    for box in froms:
        canvas.line([(box.right, _half(box)), (x, _half(box))], node_box.KV, end=False)
    for box in tos:
        canvas.line([(x, _half(box)), (box.right, _half(box))], node_box.KV)
    group = next(group for group in plan.groups if group.role == "decode")
    said = f"KV transfer: {_over(group)}"
    canvas.text(x + 8, min(heights), said, Font(10, node_box.KV), turned=True)


def _half(box: Box) -> float:
    return box.y + box.height / 2


def _over(group: Group) -> str:
    transfer = group.kv_transfer
    return f"{transfer.connector} over {', '.join(transfer.backends)}" if transfer else ""


def _legend(canvas: Canvas, plan: Plan, y: float) -> float:
    """What lines and colors mean; the lower edge."""
    canvas.open("legend", "legend")
    x = float(_MARGIN)
    font = Font(10, INK)
    lines = {
        "client requests": node_box.REQUESTS,
        "token routing between ranks": node_box.TOKENS,
        "KV transfer, prefill to decode": node_box.KV,
    }
    if plan.router is None:
        del lines["KV transfer, prefill to decode"]
    for said, color in lines.items():
        canvas.line([(x, y + 8), (x + 26, y + 8)], color)
        canvas.text(x + 32, y + 12, said, font)
        x += 52 + font.width(said)
    x, y = float(_MARGIN), y + 22
    used = {nic.interface_type for node in plan.nodes for nic in node.network_interfaces}
    for kind, color in node_box.INTERFACE_COLORS.items():
        if kind not in used:
            continue
        said = {"interface": "ENA, with an IP address", "efa": "EFA with ENA"}.get(kind, "EFA-only")
        canvas.rect(Box(x, y + 2, 14, 12), color)
        canvas.text(x + 20, y + 12, said, font)
        x += 40 + font.width(said)
    canvas.text(x, y + 12, "below a strip: index of its network card", Font(10, QUIET))
    canvas.close()
    return y + 16
