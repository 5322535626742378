"""Times and durations on the command line."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, override

import click

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)")
_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400}


def moment(text: str, now: float) -> float:
    """Parse a time into UNIX seconds: `now`, ISO 8601 (in UTC without an offset), or how long ago (`90min`, `2h`, `3d`). 1970 is the earliest.

    Raises:
        ValueError: the text is not a time.
    """
    if text == "now":
        return now
    if _AGO.fullmatch(text):
        return max(0.0, now - length(text))
    found = datetime.fromisoformat(text)
    return max(0.0, (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())


def length(text: str) -> float:
    """Parse a duration into seconds: `90min`, `2h`, `3d`.

    Raises:
        ValueError: the text is not a duration.
    """
    found = _AGO.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return float(found[1]) * _SECONDS[found[2]]


def is_relative(text: str) -> bool:
    """Return whether the meaning of a time depends on when it is read."""
    return text == "now" or _AGO.fullmatch(text) is not None


class TimeOption(click.ParamType):
    """An option's type: a time or a duration. `parse` may raise ValueError; `hint` says what the text should have been."""

    def __init__(self, name: str, parse: Callable[[str], float], hint: str) -> None:
        self.name = name
        self._parse = parse
        self._hint = hint

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse the option's text."""
        if isinstance(value, float):
            return value
        try:
            return self._parse(value)
        except ValueError:
            self.fail(f"{value!r} is not {self._hint}", param, ctx)


MOMENT = TimeOption(
    "time",
    lambda text: moment(text, time.time()),
    "a time: use 2026-11-24T03:00 or, for how long ago, 90min, 2h or 3d",
)
"""A time, as UNIX seconds."""
LENGTH = TimeOption("length", length, "a duration: use 90min, 2h or 3d")
"""A duration, in seconds."""
