"""The drawing of a boot."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from infra.render.timeline import WIDTH, Span, svg, tick_seconds

SPANS = (
    Span("serve-0-0", "boot", 0.0, 30.0),
    Span("serve-0-0", "weights", 30.0, 200.0),
    Span("serve-0-0", "vLLM, generation 1", 200.0, None),
    Span("serve-0-1", "boot", 0.0, 33.0),
)
NS = "{http://www.w3.org/2000/svg}"


def drawn(spans: tuple[Span, ...] = SPANS) -> ET.Element:
    return ET.fromstring(svg("dev: from boot to ready", spans, 220.0))  # noqa: S314 - just drawn


def test_each_phase_is_a_bar_as_long_as_it_took():
    groups = drawn().findall(f"{NS}g")
    titles = [g.findtext(f"{NS}title") for g in groups]
    assert titles[0] == "serve-0-0: boot"
    assert len(titles) == 4
    widths = [float(g.find(f"{NS}rect").get("width")) for g in groups]
    assert widths[1] == pytest.approx(widths[0] * 170 / 30, rel=0.01)


def test_a_phase_that_goes_on_says_so():
    assert "vLLM, generation 1 goes on" in "".join(drawn().itertext())


def test_nothing_is_drawn_outside():
    for rect in drawn().iter(f"{NS}rect"):
        assert float(rect.get("x", 0)) + float(rect.get("width")) <= WIDTH


def test_the_same_spans_give_the_same_bytes():
    assert svg("x", SPANS, 220.0) == svg("x", SPANS, 220.0)


def test_a_stack_that_never_booted_gives_an_empty_drawing():
    assert drawn(()).findall(f"{NS}g") == []


@pytest.mark.parametrize(
    ("most", "step"), [(1.0, 0.2), (30.0, 5.0), (400.0, 50.0), (2000.0, 500.0)]
)
def test_marks_are_few_and_round(most, step):
    assert tick_seconds(most) == step
