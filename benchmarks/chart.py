"""Draws charts as SVG without a library, for light and dark pages."""

from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

_WIDTH = 760
_LABELS = 250  # width left of the bars
_VALUES = 110  # width right of the longest bar
_BAR = 22
_STYLE = """
    .page { fill: #ffffff; } .title { font-size: 16px; font-weight: 600; fill: #17242f; }
    .head { font-size: 13px; font-weight: 600; fill: #45566a; } .text { font-size: 13px; fill: #45566a; }
    .other { fill: #b4c0cc; } .ours { fill: #1b7f72; }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0f171e; } .title { fill: #eef3f7; } .head, .text { fill: #b4c1cd; }
      .other { fill: #566879; } .ours { fill: #45b8a8; }
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
    fonts = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" aria-labelledby="t" font-family="{fonts}">',
        f'<title id="t">{escape(title)}</title>',
        f"<style>{_STYLE}  </style>",
        f'<rect class="page" width="{_WIDTH}" height="{y}" rx="10"/>',
        _text("title", 16, 28, title),
        *parts,
    ]
    return "\n  ".join(drawn) + "\n</svg>\n"


def _text(kind: str, x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
