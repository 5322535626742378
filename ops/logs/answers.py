"""The local gateway's log of its responses: a file with one line per response.

The gateway writes each line before it sends the response, independently of the functions, so a loss between the response and the
ledger shows.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ANSWERS = "answers.log"
"""The file's name, in the folder of the local stack."""


@dataclass(slots=True)
class Answers:
    """Sums over the responses.

    Attributes:
        accepted: events that responses call accepted.
        refused: refused requests by code.
    """

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, lines: Iterable[str]) -> None:
        """Count lines of the file."""
        for line in lines:
            kind, _, rest = line.partition(" ")
            if kind == "accepted":
                self.accepted += int(rest)
            elif kind == "refused":
                self.refused[rest] += 1


def read(folder: Path) -> Answers:
    """Return the sums of the local stack in a folder."""
    answers = Answers()
    with suppress(FileNotFoundError):
        answers.add((folder / ANSWERS).read_text().splitlines())
    return answers


NO_EVENTS = frozenset(
    {
        "/",
        "/get_cookie_id",
        "/health",
        "/health/ready",
        "/robots.txt",
        "/js/v3/global_id",
        "/js/v3/enable_global_id",
    }
)
"""Paths that accept no events."""
_ONE_EVENT: Sequence[Any] = ({}, {"created": True})


def answer_line(
    method: str, target: str, status: int, headers: Sequence[tuple[str, str]], body: bytes
) -> bytes:
    """Return the line for a response; empty if it says nothing about events.

    Dialects answer with a count, with a receipt for each event, or only with the status, which counts as one event. Any other
    form counts as no event.
    """
    names = {name.lower(): value for name, value in headers}
    code = names.get("x-sluice-error", f"http_{status}" if status >= 400 else "")
    if code:
        return f"refused {code}\n".encode()
    if method not in ("GET", "POST") or target.partition("?")[0] in NO_EVENTS or status not in (200, 302):
        return b""
    is_json = names.get("content-type", "").startswith("application/json")
    count = _count(body) if is_json else 1
    return f"accepted {count}\n".encode() if count else b""


def _count(body: bytes) -> int:
    value: Any = json.loads(body)
    match value:
        case {"accepted": int(count)}:
            return count
        case {"receipts": list(receipts)}:
            return sum(one["success"] is True for one in receipts)
        case dict() if value and all(isinstance(one, list) for one in value.values()):
            return sum(one["success"] is True for receipts in value.values() for one in receipts)
    return 1 if value in _ONE_EVENT else 0
