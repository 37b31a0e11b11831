"""One node of the drawing: its ranks, its GPUs in their NVLink domain, its network cards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.render.canvas import FRAME, INK, PAPER, QUIET, Box, Canvas, Font

if TYPE_CHECKING:
    from infra.plan.nics import NetworkInterface
    from infra.plan.plan import Group, Node

WIDTH = 316
TOKENS, KV, REQUESTS = "#d97706", "#7c3aed", "#2563eb"
INTERFACE_COLORS = {"interface": "#93c5fd", "efa": "#fcd34d", "efa-only": "#6ee7b7"}
_PAD, _HEADER, _GPUS, _CARD_HEIGHT = 12, 46, 78, 34
_CARDS_IN_ROW = 17
_DOMAIN, _GPU = "#ecfdf5", "#a7f3d0"
_SMALL, _TINY = Font(10, QUIET), Font(9, INK, anchor="middle")


def height(group: Group) -> float:
    """Height of each node of a group, in pixels."""
    rows = len(_card_rows(group.primary.network_interfaces))
    return _HEADER + _GPUS + 20 + rows * _CARD_HEIGHT + _PAD


def draw(canvas: Canvas, group: Group, node: Node, box: Box, api_port: int) -> None:
    """Draw a node of the group into the box."""
    canvas.open("node", node.name)
    canvas.rect(box, round_=6)
    canvas.text(box.x + _PAD, box.y + 19, node.name, Font(13, bold=True))
    api = _api(group, node, api_port)
    font = Font(10, REQUESTS if api else QUIET, anchor="end")
    canvas.text(box.right - _PAD, box.y + 19, f"{node.position}{api}", font)
    canvas.text(box.x + _PAD, box.y + 36, _ranks(group, node), Font(11))
    domain = Box(box.x + _PAD, box.y + _HEADER, box.width - 2 * _PAD, _GPUS)
    _processors(canvas, group, node, domain)
    _cards(canvas, node.network_interfaces, Box(domain.x, domain.bottom, domain.width, 0))
    canvas.close()


def _api(group: Group, node: Node, port: int) -> str:
    """The ports of the node's API: external load balancing has one for each rank."""
    if node.position == "headless":
        return ""
    if group.load_balancing == "external" and node.ranks > 1:
        return f", API :{port}-{port + node.ranks - 1}"
    return f", API :{port}"


def _ranks(group: Group, node: Node) -> str:
    if not node.ranks:
        return "part of a rank that spans nodes"
    last = node.first_rank + node.ranks - 1
    ranks = f"rank {last}" if node.ranks == 1 else f"ranks {node.first_rank}-{last}"
    each = group.tensor_parallel_size
    return f"{ranks}, {each} GPUs each" if each > 1 else ranks


def _processors(canvas: Canvas, group: Group, node: Node, domain: Box) -> None:
    """The GPUs with the rank that each has, or the ranks on a CPU type."""
    gpus = group.gpus_per_node
    nvlink = gpus and group.bandwidth.nvlink_gpus == gpus > 1
    canvas.rect(domain, _DOMAIN if nvlink else PAPER, FRAME, round_=4)
    name = "NVLink domain" if nvlink else "PCIe" if gpus else "CPU"
    what = f"{gpus} GPU{'s' if gpus > 1 else ''}, with their ranks" if gpus else "ranks"
    canvas.text(domain.x + 8, domain.y + 14, f"{name}: {what}", _SMALL)
    ranks = _rank_of_each(group, node)
    step = min(35.0, (domain.width - 12) / max(1, len(ranks)))
    for index, rank in enumerate(ranks):
        gpu = Box(domain.x + 8 + index * step, domain.y + 21, step - 4, 28)
        canvas.rect(gpu, _GPU if rank is not None else PAPER, FRAME, round_=2)
        told = "-" if rank is None else str(rank)
        canvas.text(gpu.middle, gpu.y + 18, told, _TINY)
    if len(ranks) > 1 and group.tensor_parallel_size * group.data_parallel_size > 1:
        y = domain.y + 63
        end = domain.x + 4 + len(ranks) * step
        canvas.line([(domain.x + 8, y), (end, y)], TOKENS, begin=True)


def _rank_of_each(group: Group, node: Node) -> list[int | None]:
    """The data-parallel rank of each GPU of the node; None for a GPU without one."""
    if not group.gpus_per_node:
        return [node.first_rank + index for index in range(node.ranks)]
    if group.tensor_parallel_nodes > 1:
        index = group.nodes.index(node) // group.tensor_parallel_nodes
        return [index] * group.gpus_per_node
    each = group.tensor_parallel_size
    used = [node.first_rank + gpu // each for gpu in range(node.ranks * each)]
    return [*used, *[None] * (group.gpus_per_node - len(used))]


def _card_rows(nics: tuple[NetworkInterface, ...]) -> list[list[int]]:
    cards = sorted({nic.network_card_index for nic in nics})
    most = _CARDS_IN_ROW if len(cards) <= _CARDS_IN_ROW else 16
    return [cards[at : at + most] for at in range(0, len(cards), most)]


def _cards(canvas: Canvas, nics: tuple[NetworkInterface, ...], at: Box) -> None:
    """A strip per network card: what it carries, the primary interface first."""
    rows = _card_rows(nics)
    number = sum(len(row) for row in rows)
    what = f"{number} network card{'s' if number > 1 else ''}, {len(nics)} interface"
    canvas.text(at.x, at.y + 15, f"{what}{'s' if len(nics) > 1 else ''}", _SMALL)
    step = at.width / max(16, *(len(row) for row in rows))
    for place, row in enumerate(rows):
        top = at.y + 20 + place * _CARD_HEIGHT
        for column, card in enumerate(row):
            kinds = sorted(
                (nic for nic in nics if nic.network_card_index == card),
                key=lambda nic: nic.device_index,
            )
            cell = Box(at.x + column * step, top, step - 2, 18)
            share = cell.height / len(kinds)
            for level, nic in enumerate(kinds):
                part = Box(cell.x, cell.y + level * share, cell.width, share)
                canvas.rect(part, INTERFACE_COLORS[nic.interface_type], FRAME)
            canvas.text(cell.middle, cell.bottom + 10, str(card), Font(8, QUIET, anchor="middle"))
