"""Shortens a JSON value to a number of bytes, and marks with `…` where something was left out."""

import json
from itertools import accumulate, islice
from typing import Any

_BARE_MARK = 8  # bytes of a mark without words
_MEMBER = 16  # bytes of a short member of an object


def as_text(value: Any) -> str:
    """Return a value as JSON text that can be encoded, whatever characters it has."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode(errors="replace").decode()


def size(value: Any) -> int:
    """Return the bytes that a value takes as JSON text inside a JSON message."""
    return len(as_text(as_text(value)).encode()) - 2


def fitted(value: Any, most: int) -> Any:
    """Return a value if its size is at most `most`, which is at least 8; else as much of each long text, list and object as fits."""
    shown, share = value, most
    while size(shown) > most:
        shown, share = _cut(value, share), share * 3 // 4
    return shown


def _cut(value: Any, share: int) -> Any:
    """Return the beginning of a value, so that no text, list or object in it is much larger than `share` bytes."""
    if (needed := size(value)) <= share:
        return value
    match value:
        case str() if share >= _BARE_MARK:
            kept = value[: len(value) * share // needed]
            return f"{kept}… {len(value) - len(kept)} more characters"
        case list() if share >= _BARE_MARK:
            whole = sum(end <= share for end in accumulate(size(one) + 1 for one in value))
            items = value[:whole] or [_cut(value[0], share - 2)]
            left = len(value) - len(items)
            return [*items, f"… {left} of {len(value)} left out"] if left else items
        case dict() if share >= _BARE_MARK:
            first = islice(value.items(), share // _MEMBER + 1)
            members = {name: _cut(one, share - 2) for name, one in first if size(name) <= share}
            left = len(value) - len(members)
            return members | {"…": f"{left} left out"} if left else members
    return "…"
