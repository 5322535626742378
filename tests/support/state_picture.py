"""Draws the diagram of a chunk's states from the table of transitions.

`make docs` writes it, and a test checks that it is up to date.
"""

from collections.abc import Iterator
from math import hypot
from pathlib import Path

from worker.delivery import ASIDE, FINAL, TRANSITIONS, Condition, Event, State

FILE = Path(__file__).parents[2] / "docs/chunk-states.svg"

_PLACES = {
    State.PENDING: (130, 310),
    State.SPLIT: (130, 90),
    State.MISSING: (130, 530),
    State.PARKED: (640, 90),
    State.IN_DOUBT: (640, 310),
    State.DEAD_LETTER: (640, 530),
    State.REJECTED: (640, 640),
    State.DELIVERED: (1010, 200),
    State.DROPPED: (1010, 440),
    State.RETURNED: (1010, 640),
}
_WIDTH, _HEIGHT = 150, 44
_WORDS = {
    Event.DOUBT_OPENS: "sent again",
    Event.ACCEPTED: "accepted",
    Event.REFUSED: "refused",
    Event.ROWS_REFUSED: "rows refused",
    Event.TOO_LARGE: "too large",
    Event.MISMATCHED: "wrong MD5",
    Event.UNANSWERED: "no answer",
    Event.DATABASE_FAILS: "database fails",
    Event.HELD_TOO_LONG: "held too long",
    Event.NOT_DELIVERABLE: "undeliverable",
    Event.INVALID: "rejected events",
    Event.UNRESOLVED: "account unresolved",
    Event.FORGOTTEN: "too old to repeat",
    Event.PARKED_TOO_LONG: "parked too long",
    Event.DROPPED: "dropped",
    Event.REPAIRED: "repaired",
    Event.RETURNED: "put on the stream",
    Event.RECORDS_EXPIRED: "records expired",
}
_LABELS = {  # where along an arrow its label is; the default is the middle
    (State.PENDING, State.PARKED): 0.42,
    (State.PENDING, State.IN_DOUBT): 0.45,
    (State.PENDING, State.DEAD_LETTER): 0.45,
    (State.PENDING, State.REJECTED): 0.62,
    (State.IN_DOUBT, State.SPLIT): 0.86,
    (State.DEAD_LETTER, State.DELIVERED): 0.8,
}
_CURVES = {  # those that would run through a box, and where their labels are
    (State.PENDING, State.DELIVERED): ("M205,294 C420,170 700,205 931,205", (850, 204)),
    (State.PARKED, State.DEAD_LETTER): ("M565,104 C470,240 470,400 562,520", (494, 262)),
}


def edges() -> dict[tuple[State, State], list[str]]:
    """Return what leads from each state to each other one."""
    found: dict[tuple[State, State], list[str]] = {}
    for one in TRANSITIONS:
        for state in one.states:
            if state is one.to:
                continue
            words = _WORDS[one.event]
            if one.when is Condition.DOUBTED:
                words += " *"
            labels = found.setdefault((state, one.to), [])
            if words not in labels:
                labels.append(words)
    return found


def picture() -> str:
    """Return the SVG."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1140 720" font-family="system-ui, sans-serif" '
        'font-size="13" role="img" aria-label="States of a chunk">'
    )
    yield '<rect width="1140" height="720" fill="#ffffff"/>'
    yield (
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0,0 L10,5 L0,10 z" fill="#475569"/></marker></defs>'
    )
    for pair, labels in edges().items():
        yield from _arrow(pair, labels)
    for state, (x, y) in _PLACES.items():
        fill, stroke = _colours(state)
        yield (
            f'<rect x="{x - _WIDTH / 2:g}" y="{y - _HEIGHT / 2:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" '
            f'fill="{fill}" stroke="{stroke}" stroke-width="1.5"/>'
        )
        name = state.value.replace("_", " ")
        yield f'<text x="{x}" y="{y + 5}" text-anchor="middle" font-weight="600" fill="#0f172a">{name}</text>'
    yield (
        '<text x="30" y="700" fill="#475569">* Treasure Data may have the rows; without the mark it cannot, '
        "or its response settles them. Each half of a split chunk has its own state.</text>"
    )
    yield "</svg>"


def _colours(state: State) -> tuple[str, str]:
    if state in FINAL:
        return "#dcfce7" if state is State.DELIVERED else "#f1f5f9", "#64748b"
    return ("#fef3c7", "#b45309") if state in ASIDE | {State.REJECTED} else ("#dbeafe", "#1d4ed8")


def _arrow(pair: tuple[State, State], labels: list[str]) -> Iterator[str]:
    if pair in _CURVES:
        path, place = _CURVES[pair]
        yield f'<path d="{path}" fill="none" stroke="#475569" marker-end="url(#head)"/>'
        yield from _label(*place, labels)
        return
    (x1, y1), (x2, y2) = (_PLACES[state] for state in pair)
    length = hypot(x2 - x1, y2 - y1)
    along_x, along_y = (x2 - x1) / length, (y2 - y1) / length
    beside = 13 if (pair[1], pair[0]) in edges() else 0
    x1, y1, x2, y2 = (
        x1 - along_y * beside,
        y1 + along_x * beside,
        x2 - along_y * beside,
        y2 + along_x * beside,
    )
    gap = min(
        (_WIDTH / 2 + 2) / abs(along_x) if along_x else 1e9,
        (_HEIGHT / 2 + 2) / abs(along_y) if along_y else 1e9,
    )
    x1, y1, x2, y2 = x1 + along_x * gap, y1 + along_y * gap, x2 - along_x * gap, y2 - along_y * gap
    yield (
        f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" stroke="#475569" marker-end="url(#head)"/>'
    )
    share = _LABELS.get(pair, 0.5)
    side = 60 if beside and not along_x else 0
    sign = -1 if along_y > 0 else 1
    yield from _label(x1 + (x2 - x1) * share + side * sign, y1 + (y2 - y1) * share, labels)


def _label(x: float, y: float, labels: list[str]) -> Iterator[str]:
    height = 16 * len(labels)
    width = 7 * max(map(len, labels)) + 8
    top = y - height / 2
    yield (
        f'<rect x="{x - width / 2:.0f}" y="{top:.0f}" width="{width}" height="{height}" fill="#ffffff" opacity="0.92"/>'
    )
    for number, text in enumerate(labels):
        yield (
            f'<text x="{x:.0f}" y="{top + 12 + 16 * number:.0f}" text-anchor="middle" font-size="12" '
            f'fill="#334155">{text}</text>'
        )
