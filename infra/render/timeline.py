"""The boot of a stack as a drawing: each node's phases on one axis of seconds since its boot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from infra.render.canvas import QUIET, Box, Canvas, Font

WIDTH, LEFT, RIGHT = 1000.0, 190.0, 90.0
ROW, GAP, TOP = 20.0, 14.0, 58.0
_COLORS = ("#9aa5b1", "#3e8ed0", "#48a17a", "#d9a441", "#8a6fc0", "#c76b6b")
_RUNNING = "#f0c9c9"
_TICKS = 8
_NICE = (1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Span:
    """One phase of one node. end: None while it goes on."""

    node: str
    phase: str
    begin: float
    end: float | None


def svg(title: str, spans: Sequence[Span], elapsed: float) -> str:
    """The drawing: the same spans give the same bytes.

    Args:
        title: stands above it.
        spans: in seconds since each node's boot, in the order in which they are drawn.
        elapsed: seconds that a phase without an end is drawn to.
    """
    ends = [elapsed if s.end is None else s.end for s in spans]
    most = max([1.0, *ends])
    canvas = Canvas(WIDTH)
    canvas.text(16, 26, title, Font(size=16, bold=True))
    bottom = TOP + sum(ROW for _ in spans) + GAP * len({s.node for s in spans})
    _axis(canvas, most, bottom)
    y, last, color = TOP, "", 0
    for span, end in zip(spans, ends, strict=True):
        if span.node != last:
            y, last, color = y + (GAP if last else 0), span.node, 0
            canvas.text(16, y + 14, span.node, Font(bold=True))
        _bar(canvas, span, end, y, (most, _COLORS[color % len(_COLORS)]))
        y, color = y + ROW, color + 1
    return canvas.finish(bottom + 24)


def _x(seconds: float, most: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * max(0.0, seconds) / most


def _bar(canvas: Canvas, span: Span, end: float, y: float, scale: tuple[float, str]) -> None:
    most, color = scale
    begin = _x(span.begin, most)
    wide = max(1.0, _x(end, most) - begin)
    canvas.open("phase", f"{span.node}: {span.phase}")
    canvas.rect(Box(begin, y + 3, wide, ROW - 6), _RUNNING if span.end is None else color, None)
    seconds = f"{end - span.begin:.1f} s" if span.end is not None else "goes on"
    label, font = f"{span.phase} {seconds}", Font(size=10)
    # Right of the bar, or left of it where the drawing would end.
    if begin + wide + 6 + font.width(label) < WIDTH:
        canvas.text(begin + wide + 6, y + 14, label, font)
    else:
        canvas.text(begin - 6, y + 14, label, Font(size=10, anchor="end"))
    canvas.close()


def _axis(canvas: Canvas, most: float, bottom: float) -> None:
    step = tick_seconds(most)
    for n in range(int(most / step) + 1):
        x = _x(n * step, most)
        canvas.line([(x, TOP - 6), (x, bottom)], "#e4e7eb", end=False)
        canvas.text(x, TOP - 12, f"{n * step:g} s", Font(size=10, color=QUIET, anchor="middle"))


def tick_seconds(most: float) -> float:
    """The distance of two marks: 1, 2 or 5 times a power of ten, so that there are few."""
    power = 10.0 ** math.floor(math.log10(most / _TICKS))
    return next((n * power for n in _NICE if n * power * _TICKS >= most), 10 * power)
