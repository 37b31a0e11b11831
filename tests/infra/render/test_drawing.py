"""What `moe plan --svg` draws: checked by the places and sizes that it gives to things."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree as ET

import pytest

from infra.render import drawing
from infra.render.canvas import BOLD_WIDTH, CHARACTER_WIDTH, Font

SVG = "{http://www.w3.org/2000/svg}"
EXAMPLES = ("single-node", "wide-ep", "pd", "p6-b200", "p6-b300", "cpu-smoke")
CHANGES = (
    {"nodes": 64},
    {"nodes": 4, "replicas": 2, "instance_type": "p5.48xlarge"},
    {"nodes": 3, "replicas": 9},
    {"nodes": 1, "replicas": 16},
    {"nodes": 4, "load_balancing": "external"},
    {"tensor_parallel_size": 16, "eplb": None, "all2all_backend": "auto"},
    {"instance_type": "g6e.48xlarge", "eplb": None, "all2all_backend": "auto"},
)

Area = tuple[float, float, float, float]


@pytest.fixture(params=[*EXAMPLES, *CHANGES], ids=str)
def plan(request, plan_of):
    if isinstance(request.param, str):
        return plan_of(request.param)
    return plan_of("wide-ep", **request.param)


@pytest.fixture
def root(plan) -> ET.Element:
    return ET.fromstring(drawing.svg(plan))  # noqa: S314 - our own document


def area(rect: ET.Element) -> Area:
    x, y, width, height = (float(rect.get(k, 0)) for k in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def groups(root: ET.Element, kind: str) -> list[ET.Element]:
    return [g for g in root.iter(f"{SVG}g") if g.get("class") == kind]


def own_area(group: ET.Element) -> Area:
    """Of the frame of a group of shapes: its first rectangle."""
    frame = group.find(f"{SVG}rect")
    assert frame is not None
    return area(frame)


def apart(a: Area, b: Area) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def inside(inner: Area, outer: Area) -> bool:
    return (
        inner[0] >= outer[0] - 0.01
        and inner[1] >= outer[1] - 0.01
        and inner[2] <= outer[2] + 0.01
        and inner[3] <= outer[3] + 0.01
    )


def text_area(text: ET.Element) -> Area:
    size = float(text.get("font-size", 0))
    each = BOLD_WIDTH if text.get("font-weight") == "bold" else CHARACTER_WIDTH
    width = len(text.text or "") * size * each
    x, y = float(text.get("x", 0)), float(text.get("y", 0))
    x -= {"middle": width / 2, "end": width}.get(text.get("text-anchor", ""), 0)
    return x, y - size * 0.75, x + width, y


def counted(said: str, what: str) -> int:
    """The number in `a … d (4 nodes)`, 0 where there is none."""
    found = re.search(rf"\((\d+) {what}\)", said)
    return int(found[1]) if found else 0


def test_every_node_is_drawn_or_counted(plan, root):
    drawn = [g.get("data-name", "") for g in groups(root, "node")]
    number = sum(counted(name, "nodes") or 1 for name in drawn)
    alike = {counted(text.text or "", "replicas") for text in root.iter(f"{SVG}text")}
    number += max(alike) * len(plan.groups[0].nodes)
    assert number == len(plan.nodes)
    assert {name for name in drawn if "…" not in name} <= {node.name for node in plan.nodes}


def test_a_node_says_its_ranks(plan, root):
    by_name = {node.name: node for node in plan.nodes}
    for box in groups(root, "node"):
        node = by_name.get(box.get("data-name", ""))
        if node is None or not node.ranks:
            continue
        last = node.first_rank + node.ranks - 1
        wanted = f"rank {last}" if node.ranks == 1 else f"ranks {node.first_rank}-{last}"
        said = [text.text or "" for text in box.iter(f"{SVG}text")]
        assert any(text.split(",")[0] == wanted for text in said)


def test_boxes_do_not_overlap(root):
    for kind in ("node", "panel", "box"):
        for a, b in itertools.combinations(groups(root, kind), 2):
            assert apart(own_area(a), own_area(b)), (a.get("data-name"), b.get("data-name"))
    for box, panel in itertools.product(groups(root, "box"), groups(root, "panel")):
        assert apart(own_area(box), own_area(panel))


def test_nodes_lie_in_their_panel_and_everything_on_the_paper(root):
    paper = area(root[0])
    for panel in groups(root, "panel"):
        assert inside(own_area(panel), paper)
        for node in groups(panel, "node"):
            assert inside(own_area(node), own_area(panel))
    for rect in root.iter(f"{SVG}rect"):
        assert inside(area(rect), paper)


def test_all_shapes_of_a_box_lie_in_it(root):
    for group in (*groups(root, "node"), *groups(root, "box"), *groups(root, "panel")):
        for rect in group.iter(f"{SVG}rect"):
            assert inside(area(rect), own_area(group)), group.get("data-name")
        for text in group.iter(f"{SVG}text"):
            assert inside(text_area(text), own_area(group)), text.text


def test_texts_of_a_box_do_not_lie_on_each_other(root):
    for group in (*groups(root, "node"), *groups(root, "box"), *groups(root, "panel")):
        for a, b in itertools.combinations(group.findall(f"{SVG}text"), 2):
            assert apart(text_area(a), text_area(b)), (a.text, b.text)


def test_the_same_plan_gives_the_same_bytes(plan):
    assert drawing.svg(plan) == drawing.svg(plan)


def test_beyond_eight_nodes_the_rest_is_counted(plan_of):
    document = drawing.svg(plan_of("wide-ep", nodes=64))
    for part in ("56 more", "serve-0-8 … serve-0-63", "ranks 64-511, 8 each", "serve-0-7<"):
        assert part in document
    assert "serve-0-9<" not in document


def test_kv_runs_from_prefill_to_decode_and_requests_through_the_gateway(plan_of):
    document = drawing.svg(plan_of("pd"))
    assert "KV transfer: NixlConnector over LIBFABRIC" in document
    assert "vllm-router" in document
    assert "KV transfer" not in drawing.svg(plan_of("wide-ep"))


def test_interfaces_are_drawn_by_card_and_type(plan_of):
    root = ET.fromstring(drawing.svg(plan_of("wide-ep")))  # noqa: S314 - our own document
    (first, _) = groups(root, "node")
    fills = [rect.get("fill") for rect in first.iter(f"{SVG}rect")]
    assert fills.count("#93c5fd") == 1  # one ENA
    assert fills.count("#6ee7b7") == 16  # EFA-only on each of the cards


def test_the_bar_has_the_shares_of_the_memory(plan_of):
    plan = plan_of("wide-ep")
    root = ET.fromstring(drawing.svg(plan))  # noqa: S314 - our own document
    (panel,) = groups(root, "panel")
    memory = plan.groups[0].memory
    bars = [r for r in panel.findall(f"{SVG}rect") if r.get("height") == "18"]
    *parts, frame = bars
    weights = float(parts[0].get("width", 0)) / float(frame.get("width", 0))
    without_eplb = sum(i.gib for i in memory.items if i.part == "weights" and "EPLB" not in i.name)
    without_eplb -= next(i.gib for i in memory.items if i.name == "redundant experts")
    assert weights == pytest.approx(without_eplb / memory.gpu_total_gib, abs=1e-3)


def test_text_is_wrapped_to_a_width():
    font = Font(10)
    lines = font.wrap("expert parallel, attention data parallel " * 4, 200)
    assert len(lines) > 3
    assert all(font.width(line) <= 200 for line in lines)
