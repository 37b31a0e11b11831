"""A bench as a drawing: the same results give the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log10
from typing import TYPE_CHECKING

from infra.render.canvas import FRAME, INK, QUIET, Box, Canvas, Font

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.bench.result import Bench

COLORS = ("#0b6e99", "#c2571a", "#4c7a34", "#7b4ea3", "#a3294b", "#5c5c5c")
PANELS = (
    ("ttft_p50_ms", "time to first token, median (ms)"),
    ("ttft_p99_ms", "time to first token, p99 (ms)"),
    ("itl_p50_ms", "between tokens, median (ms)"),
    ("output_tokens_per_second", "output tokens per second"),
)
_WIDTH, _PANEL_HEIGHT, _MARGIN = 900.0, 250.0, 24.0
_LEFT, _BOTTOM, _TOP = 56.0, 36.0, 30.0
_TITLE_HEIGHT = 54.0


@dataclass(frozen=True)
class _Scale:
    """From values to pixels, for one axis. step: between two lines of the grid."""

    most: float
    step: float
    start: float
    length: float

    def at(self, value: float) -> float:
        return self.start + self.length * value / self.most


def draw(benches: Sequence[Bench]) -> str:
    """An SVG document: medians over the seeds as lines, least and most as whiskers."""
    canvas = Canvas(_WIDTH)
    _title(canvas, benches)
    width = (_WIDTH - 3 * _MARGIN) / 2
    for place, (name, title) in enumerate(PANELS):
        x = _MARGIN + (place % 2) * (width + _MARGIN)
        y = _TITLE_HEIGHT + _MARGIN + (place // 2) * (_PANEL_HEIGHT + _MARGIN)
        _panel(canvas, Box(x, y, width, _PANEL_HEIGHT), title, name, benches)
    rows = ceil(len(PANELS) / 2)
    height = _TITLE_HEIGHT + _MARGIN + rows * (_PANEL_HEIGHT + _MARGIN)
    caveats = sorted({bench.caveat for bench in benches if bench.caveat})
    for caveat in caveats:
        canvas.text(_MARGIN, height + 4, caveat, Font(11, QUIET))
        height += 18
    return canvas.finish(height + 8)


def _title(canvas: Canvas, benches: Sequence[Bench]) -> None:
    first = benches[0]
    load = first.load
    canvas.text(
        _MARGIN,
        26,
        f"{first.target.model}: {load.input_tokens} tokens in, {load.output_tokens} out,"
        f" {len(load.seeds)} seeds",
        Font(15, INK, bold=True),
    )
    x = _MARGIN
    for bench, color in zip(benches, _colors(benches), strict=True):
        canvas.line([(x, 46), (x + 22, 46)], color, end=False)
        canvas.text(x + 28, 50, bench.label, Font(12))
        x += 28 + Font(12).width(bench.label) + 24


def _panel(canvas: Canvas, box: Box, title: str, name: str, benches: Sequence[Bench]) -> None:
    canvas.open("panel", title)
    canvas.text(box.x, box.y + 14, title, Font(12, INK, bold=True))
    plot = Box(box.x + _LEFT, box.y + _TOP, box.width - _LEFT - 8, box.height - _TOP - _BOTTOM)
    rows = [(b, row) for b in benches for row in b.rows if name in row.values]
    across = _scale(max((row.rate for _, row in rows), default=1.0), plot.x, plot.width)
    up = _scale(
        max((row.values[name].most for _, row in rows), default=1.0), plot.bottom, -plot.height
    )
    _axes(canvas, plot, across, up)
    for bench, color in zip(benches, _colors(benches), strict=True):
        points = []
        for row in bench.rows:
            if (spread := row.values.get(name)) is None:
                continue
            x = across.at(row.rate)
            points.append((x, up.at(spread.median)))
            canvas.line([(x, up.at(spread.least)), (x, up.at(spread.most))], color, end=False)
            canvas.rect(Box(x - 2.5, up.at(spread.median) - 2.5, 5, 5), color, None)
        if len(points) > 1:
            canvas.line(points, color, end=False)
    canvas.close()


def _axes(canvas: Canvas, plot: Box, across: _Scale, up: _Scale) -> None:
    for value in _ticks(up):
        y = up.at(value)
        canvas.rect(Box(plot.x, y, plot.width, 0.5), FRAME, None)
        canvas.text(plot.x - 6, y + 4, f"{value:g}", Font(10, QUIET, anchor="end"))
    for value in _ticks(across):
        x = across.at(value)
        canvas.text(x, plot.bottom + 16, f"{value:g}", Font(10, QUIET, anchor="middle"))
    canvas.text(
        plot.middle, plot.bottom + 31, "requests per second", Font(10, QUIET, anchor="middle")
    )


def _scale(most: float, start: float, length: float) -> _Scale:
    """An axis from 0 to a round number above `most`, with four to eight steps."""
    raw = max(most, 1e-9) / 5
    power = 10.0 ** floor(log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    return _Scale(step * ceil(max(most, 1e-9) / step), step, start, length)


def _ticks(scale: _Scale) -> list[float]:
    return [scale.step * n for n in range(round(scale.most / scale.step) + 1)]


def _colors(benches: Sequence[Bench]) -> list[str]:
    return [COLORS[place % len(COLORS)] for place in range(len(benches))]
