"""Shapes and text of an SVG drawing: the same calls give the same bytes."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from xml.etree import ElementTree as ET

_NAMESPACE = "http://www.w3.org/2000/svg"
_FONT = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"
CHARACTER_WIDTH = 0.62
"""Mean width of a character in parts of the font's size, of the widest of these fonts."""
BOLD_WIDTH = 0.70
INK, QUIET, FRAME, PAPER = "#1f2933", "#52606d", "#9aa5b1", "#ffffff"


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels; y grows downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """Half way between left and right."""
        return self.x + self.width / 2


@dataclass(frozen=True)
class Font:
    """How text is set. size: in pixels. anchor: which end of the text stands at its x."""

    size: float = 11
    color: str = INK
    bold: bool = False
    anchor: str = "start"

    def width(self, text: str) -> float:
        """About how wide the text will be, in pixels; rather more than less."""
        return len(text) * self.size * (BOLD_WIDTH if self.bold else CHARACTER_WIDTH)

    def wrap(self, text: str, width: float) -> list[str]:
        """The text in lines that are no wider than `width` pixels; long words are cut."""
        each = self.size * (BOLD_WIDTH if self.bold else CHARACTER_WIDTH)
        return textwrap.wrap(text, max(1, int(width / each)))


class Canvas:
    """Collects shapes; what is drawn later lies above."""

    def __init__(self, width: float) -> None:
        self._root = ET.Element("svg", {"xmlns": _NAMESPACE, "font-family": _FONT})
        self._into = [self._root]
        self._width = width

    def open(self, kind: str, name: str) -> None:
        """Begin a group of shapes that belong together, with the title that a viewer shows."""
        group = ET.SubElement(self._into[-1], "g", {"class": kind, "data-name": name})
        ET.SubElement(group, "title").text = name
        self._into.append(group)

    def close(self) -> None:
        """End the group that was begun last."""
        self._into.pop()

    def rect(
        self, box: Box, fill: str = PAPER, stroke: str | None = FRAME, *, round_: float = 0
    ) -> None:
        """A rectangle; stroke None: without an outline."""
        place = {"x": box.x, "y": box.y, "width": box.width, "height": box.height}
        attributes = {key: _number(value) for key, value in place.items()} | {"fill": fill}
        if stroke:
            attributes["stroke"] = stroke
        if round_:
            attributes["rx"] = _number(round_)
        ET.SubElement(self._into[-1], "rect", attributes)

    def text(self, x: float, y: float, text: str, font: Font, *, turned: bool = False) -> None:
        """Text on the base line y; turned: it reads downwards."""
        attributes = {
            "x": _number(x),
            "y": _number(y),
            "font-size": _number(font.size),
            "fill": font.color,
        }
        if font.bold:
            attributes["font-weight"] = "bold"
        if font.anchor != "start":
            attributes["text-anchor"] = font.anchor
        if turned:
            attributes["transform"] = f"rotate(90 {_number(x)} {_number(y)})"
        ET.SubElement(self._into[-1], "text", attributes).text = text

    def line(
        self,
        points: list[tuple[float, float]],
        color: str,
        *,
        begin: bool = False,
        end: bool = True,
    ) -> None:
        """A line through the points, with arrow heads at its ends."""
        attributes = {
            "points": " ".join(f"{_number(x)},{_number(y)}" for x, y in points),
            "fill": "none",
            "stroke": color,
            "stroke-width": "2",
        }
        ET.SubElement(self._into[-1], "polyline", attributes)
        if end:
            self._head(points[-2], points[-1], color)
        if begin:
            self._head(points[1], points[0], color)

    def finish(self, height: float) -> str:
        """The drawing as a document of that height in pixels."""
        width, tall = _number(self._width), _number(height)
        for key, value in {
            "width": width,
            "height": tall,
            "viewBox": f"0 0 {width} {tall}",
        }.items():
            self._root.set(key, value)
        paper = ET.Element("rect", {"width": width, "height": tall, "fill": PAPER})
        self._root.insert(0, paper)
        ET.indent(self._root, " ")
        return ET.tostring(self._root, encoding="unicode") + "\n"

    def _head(self, came: tuple[float, float], at: tuple[float, float], color: str) -> None:
        """An arrow head at the end of a level or upright line."""
        (x0, y0), (x, y) = came, at
        if x0 == x:
            back = y - 7 if y > y0 else y + 7
            corners = [(x, y), (x - 4, back), (x + 4, back)]
        else:
            back = x - 7 if x > x0 else x + 7
            corners = [(x, y), (back, y - 4), (back, y + 4)]
        points = " ".join(f"{_number(a)},{_number(b)}" for a, b in corners)
        ET.SubElement(self._into[-1], "polygon", {"points": points, "fill": color})


def _number(value: float) -> str:
    return f"{round(value, 2):g}"
