"""Draws charts as SVG without a library, for light and dark pages."""

import math
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple
from xml.sax.saxutils import escape

_WIDTH = 760
_LABELS = 250  # width left of the bars
_VALUES = 110  # width right of the longest bar
_BAR = 22
_PLOT = (70, 68, 560, 300)  # left, top, width and height of a line chart's area
_STYLE = """
    .page { fill: #ffffff; } .title { font-size: 16px; font-weight: 600; fill: #17242f; }
    .head { font-size: 13px; font-weight: 600; fill: #45566a; } .text { font-size: 13px; fill: #45566a; }
    .grid { stroke: #dde3ea; } .other { fill: #b4c0cc; } .ours { fill: #1b7f72; }
    .line { fill: none; stroke: #7b8a9a; stroke-width: 2; } .oursline { stroke: #1b7f72; stroke-width: 3; }
    .dot { fill: #7b8a9a; } .oursdot { fill: #1b7f72; }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0f171e; } .title { fill: #eef3f7; } .head, .text { fill: #b4c1cd; } .grid { stroke: #2a3743; }
      .other { fill: #566879; } .ours, .oursdot { fill: #45b8a8; } .line { stroke: #8fa0b1; } .dot { fill: #8fa0b1; }
      .oursline { stroke: #45b8a8; }
    }
"""


class Bar(NamedTuple):
    """One bar.

    Attributes:
        label: the text to its left.
        value: its length in the group's unit; not negative.
        text: the text to its right: the value with its unit.
        ours: whether to draw it in Sluice's colour.
    """

    label: str
    value: float
    text: str
    ours: bool = False


class Group(NamedTuple):
    """Bars with a common scale and a heading."""

    heading: str
    bars: Sequence[Bar]


class Line(NamedTuple):
    """One line.

    Attributes:
        label: the text at its end.
        points: (x, y) from left to right.
        ours: whether to draw it in Sluice's colour.
    """

    label: str
    points: Sequence[tuple[float, float]]
    ours: bool = False


class Axis(NamedTuple):
    """One axis: its label, and whether it is logarithmic."""

    label: str
    logarithmic: bool = False


def bars(title: str, groups: Sequence[Group]) -> str:
    """Return a chart of horizontal bars, with each group scaled to its longest bar."""
    parts: list[str] = []
    y = 56
    for group in groups:
        parts.append(_text("head", 16, y, group.heading))
        y += 14
        longest = max(bar.value for bar in group.bars) or 1.0
        for bar in group.bars:
            width = max(1.0, bar.value / longest * (_WIDTH - _LABELS - _VALUES))
            parts.append(_text("text", _LABELS - 10, y + 16, bar.label, "end"))
            kind = "ours" if bar.ours else "other"
            parts.append(
                f'<rect class="{kind}" x="{_LABELS}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="3"/>'
            )
            parts.append(_text("text", _LABELS + width + 8, y + 16, bar.text))
            y += _BAR + 6
        y += 24
    return _page(title, y, parts)


def lines(title: str, x: Axis, y: Axis, series: Sequence[Line]) -> str:
    """Return a line chart. A linear axis starts at 0.

    A logarithmic axis accepts positive numbers only.
    """
    left, top, width, height = _PLOT
    columns = _ticks([point[0] for line in series for point in line.points], x)
    rows = _ticks([point[1] for line in series for point in line.points], y)

    def across(value: float) -> float:
        return left + _part(value, columns, x) * width

    def up(value: float) -> float:
        return top + height - _part(value, rows, y) * height

    parts = [_text("head", 16, 50, y.label), _text("head", left + width, top + height + 44, x.label, "end")]
    for tick in rows:
        parts.append(
            f'<line class="grid" x1="{left}" x2="{left + width}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>'
        )
        parts.append(_text("text", left - 8, up(tick) + 4, _number(tick), "end"))
    for tick in columns:
        parts.append(
            f'<line class="grid" x1="{across(tick):.1f}" x2="{across(tick):.1f}" y1="{top}" y2="{top + height}"/>'
        )
        parts.append(_text("text", across(tick), top + height + 20, _number(tick), "middle"))
    taken: list[float] = []
    for line in sorted(series, key=lambda line: line.points[-1][1]):
        prefix = "ours" if line.ours else ""
        path = " ".join(f"{across(px):.1f},{up(py):.1f}" for px, py in line.points)
        parts.append(f'<polyline class="line {prefix}line" points="{path}"/>')
        parts += [
            f'<circle class="{prefix}dot" cx="{across(px):.1f}" cy="{up(py):.1f}" r="3"/>'
            for px, py in line.points
        ]
        place = up(line.points[-1][1]) + 4
        # stack labels upwards so that they do not overlap
        place = min([place, *(other - 16 for other in taken)])
        taken.append(place)
        parts.append(_text("text", across(line.points[-1][0]) + 10, place, line.label))
    return _page(title, top + height + 60, parts)


def _part(value: float, ticks: Sequence[float], axis: Axis) -> float:
    """Return the position of a value between the first tick (0) and the last (1)."""
    if axis.logarithmic:
        return (math.log(value) - math.log(ticks[0])) / (math.log(ticks[-1]) - math.log(ticks[0]))
    return (value - ticks[0]) / (ticks[-1] - ticks[0])


def _ticks(values: Sequence[float], axis: Axis) -> list[float]:
    """Return round numbers that span the values."""
    most = max(values)
    if axis.logarithmic:
        low = math.floor(math.log10(min(values)) + 1e-9)
        high = max(low + 1, math.ceil(math.log10(most) - 1e-9))
        return [10.0**power for power in range(low, high + 1)]
    rough = (most or 1.0) / 4
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    ticks = [0.0]
    for number in count(1):
        ticks.append(step * number)
        if ticks[-1] >= most:
            break
    return ticks


def _number(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _page(title: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-labelledby="t"'
        " font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\">"
    )
    return (
        "\n  ".join(
            [
                head,
                f'<title id="t">{escape(title)}</title>',
                f"<style>{_STYLE}  </style>",
                f'<rect class="page" width="{_WIDTH}" height="{height:.0f}" rx="10"/>',
                _text("title", 16, 28, title),
                *parts,
            ]
        )
        + "\n</svg>\n"
    )
