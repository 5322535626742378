"""A place on the stream, on the command line."""

from collections.abc import Callable
from typing import Any, override

import click

from ops.moment import MOMENT, is_relative
from ops.stream.reader import RangeEnd


class _Place(click.ParamType):
    name = "time|number"

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> RangeEnd:
        if isinstance(value, RangeEnd):
            return value
        if value.isdigit() and len(value) != 4:
            return RangeEnd(number=int(value), is_fixed=True)
        return RangeEnd(at=MOMENT.convert(value, param, ctx), is_fixed=not is_relative(value))


PLACE = _Place()
from_option: Callable[..., Any] = click.option(
    "--from",
    "start",
    type=PLACE,
    default=RangeEnd(),
    help="Start time or sequence number. Default: the stream's oldest record.",
)
