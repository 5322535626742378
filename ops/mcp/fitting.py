"""Shortens a JSON value to a number of bytes, and marks with `…` where something was left out."""

import json
from itertools import accumulate, takewhile
from typing import Any

_MARK = 48  # bytes that a mark and the brackets around it take at most
_LEAST = 64  # bytes below which nothing is worth showing
_BARE_MARK = 8  # bytes of a mark without words


def as_text(value: Any) -> str:
    """Return a value as JSON text that can be encoded, whatever characters it has."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace").decode()


def size(value: Any) -> int:
    """Return the bytes that a value takes as JSON text inside a JSON message."""
    return len(as_text(as_text(value)).encode()) - 2


def fitted(value: Any, most: int) -> Any:
    """Return a value if its size is at most `most`; else, of each long text, list and object, as much of its beginning as fits.

    Small members of an object stay whole; the large ones share what they leave.
    """
    if size(value) <= most:
        return value
    if most >= _LEAST:
        match value:
            case str():
                return _text(value, most)
            case list():
                return _list(value, most - _MARK)
            case dict():
                return _object(value, most - _MARK)
    return "…"


def _text(text: str, most: int) -> str:
    kept = len(text) * (most - _MARK) // size(text)
    while size(shown := f"{text[:kept]}… {len(text) - kept} more characters") > most:
        kept //= 2
    return shown


def _list(items: list[Any], most: int) -> list[Any]:
    ends = accumulate(size(item) + 1 for item in items)
    fitting = sum(1 for _ in takewhile(lambda end: end <= most, ends))
    kept = items[:fitting] or [fitted(items[0], most - 1)]
    left = len(items) - len(kept)
    return [*kept, f"… {left} of {len(items)} left out"] if left else kept


def _object(members: dict[str, Any], most: int) -> dict[str, Any]:
    names = list(members)[: most // _LEAST + 1]
    sizes = {name: size({name: members[name]}) for name in names}
    share, rest = most, most
    for place, needed in enumerate(sorted(sizes.values())):
        share = rest // (len(names) - place)
        if needed > share:
            break
        rest -= needed
    rooms = {name: share - sizes[name] + size(members[name]) for name in names}
    kept = {name: fitted(members[name], room) for name, room in rooms.items() if room >= _BARE_MARK}
    left = len(members) - len(kept)
    return kept | {"…": f"{left} left out"} if left else kept
