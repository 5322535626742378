"""Conditions on events, on the command line."""

import re
from typing import Any, override

import click

from shared.rows import column_name

ALIASES = {"visitor": "td_client_id"}
"""Short names of columns on the command line."""
_COLUMN = re.compile(r"[a-z_][a-z0-9_]*=[^=].*")


class ColumnCondition(click.ParamType):
    """`COLUMN=VALUE`, as a pair. With `ids`, any other text is an id: a pair with an empty column."""

    name = "condition"

    def __init__(self, *, ids: bool = False) -> None:
        self._ids = ids

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Split the argument's text."""
        if isinstance(value, tuple):
            return value
        name, equals, wanted = value.partition("=")
        if self._ids and value and name and not _COLUMN.fullmatch(value):
            return "", value
        if not equals or not name:
            self.fail(f"{value!r} is not a condition: write COLUMN=VALUE, such as page=home", param, ctx)
        return ALIASES.get(name, name), wanted


def column_of(name: str) -> str:
    """Return the column that a name on the command line or in a file stands for, in rows."""
    column = column_name(name.strip())
    return ALIASES.get(column, column)
