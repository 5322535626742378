"""Treasure Data's own explanation of a refusal, as it stays with the chunk: bounded in bytes, and without values of rows."""

import re
from collections.abc import Iterator
from typing import Any

from shared.errors import InvalidObjectError
from worker.rows import decompress, values
from worker.treasure_data.answer import TdAnswer

MOST_BYTES = 200
"""How many bytes of an explanation are kept."""

_MOST_READ = 1000  # characters
_MOST_SEARCHED = 4 << 20  # bytes of rows
_MOST_NAMED = 1000  # values
_SHORTEST = 3  # characters of a value that is looked for
_QUOTED = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`""")
_OMITTED = "\u2026"


def explanation_of(answer: TdAnswer) -> str:
    """Return the beginning of the explanation in an answer, on one line, without what it quotes, which may be a value of a row."""
    text = str(answer.document.get("message") or answer.document.get("text") or "")
    return _QUOTED.sub(_OMITTED, " ".join(text.split()))[:_MOST_READ]


def kept(explanation: str, body: bytes) -> str:
    """Return what the ledger keeps of an explanation of why these rows (gzip of MessagePack maps) are refused.

    That is nothing if there are too many rows to look for all their values, or if it has many of them.
    """
    try:
        payload = decompress(body)
        known = {_text(value) for value in _values(payload)} if len(payload) <= _MOST_SEARCHED else None
    except InvalidObjectError:
        known = None
    folded, text = explanation.casefold(), explanation
    named = [one for one in known or () if len(one) >= _SHORTEST and one.casefold() in folded]
    if known is None or len(named) > _MOST_NAMED:
        return ""
    for value in sorted(named, key=len, reverse=True):
        text = re.sub(re.escape(value), _OMITTED, text, flags=re.IGNORECASE)
    short = text.encode(errors="replace")[:MOST_BYTES].decode(errors="ignore")
    # the end of what was read may be the beginning of a value
    return "" if len(explanation) == _MOST_READ and short == text else short


def _values(payload: bytes) -> Iterator[Any]:
    """Yield the values of rows, and those within them."""
    left: list[Any] = []
    for row, _ in values(payload):
        left.extend(row.values() if isinstance(row, dict) else [row])
        while left:
            value = left.pop()
            if isinstance(value, dict):
                left.extend(value.values())
            elif isinstance(value, list):
                left.extend(value)
            else:
                yield value


def _text(value: Any) -> str:
    return " ".join(str(value).split())
