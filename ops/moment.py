"""Times on the command line."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)")
_SECONDS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86_400}


def moment(text: str, now: float) -> float:
    """Return the UNIX seconds that a text means: ISO 8601, in UTC unless it says otherwise, or `90min`, `2h`, `3d` ago.

    Raises:
        ValueError: it means none.
    """
    if text == "now":
        return now
    if _AGO.fullmatch(text):
        return now - length(text)
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def length(text: str) -> float:
    """Return the seconds that a text means: `90min`, `2h`, `3d`.

    Raises:
        ValueError: it means none.
    """
    found = _AGO.fullmatch(text)
    if found is None:
        raise ValueError(text)
    return float(found[1]) * _SECONDS[found[2]]


def is_relative(text: str) -> bool:
    """Tell whether a text means another time whenever it is read."""
    return text == "now" or _AGO.fullmatch(text) is not None


class TimeOption(click.ParamType):
    """A time, or a length of time.

    Args:
        name: of such values, for the help.
        parse: returns the seconds that a text means, or raises ValueError.
        hint: says, of a text that means none, what it is not, with examples.
    """

    def __init__(self, name: str, parse: Callable[[str], float], hint: str) -> None:
        self.name = name
        self._parse = parse
        self._hint = hint

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the option's text."""
        if isinstance(value, float):
            return value
        try:
            return self._parse(value)
        except ValueError:
            self.fail(f"{value!r} is no {self._hint}, 2h, 3d", param, ctx)


MOMENT = TimeOption("time", lambda text: moment(text, time.time()), "time: 2026-11-24T03:00, 90min (ago)")
"""A time, as UNIX seconds."""
LENGTH = TimeOption("length", length, "length of time: 90min")
"""A length of time, in seconds."""
