"""Options that select rows by their chunks, or events, and how a chunk is listed."""

from typing import Any

import click

from ops import screen
from ops.books.chunks import ListedChunk
from ops.moment import MOMENT

rejected_option = click.option("--rejected", is_flag=True, help="Rejected events instead of dead rows.")
selects_rows = screen.with_options(
    click.option("--account", help="Only rows of this account."),
    click.option("--table", help="Only rows of this table."),
    click.option("--reason", help="Only rows with this reason, as `sluice status` shows it."),
    click.option("--since", type=MOMENT, help="Only rows in this state since this time."),
)
"""Gives a command the options `account`, `table`, `reason` and `since`."""


since_option = click.option(
    "--since",
    type=MOMENT,
    default="1d",
    show_default=True,
    help="Begin at this time, or so long ago, such as 3d. S3 has the rows of ArchiveDays.",
)
"""Selects events that arrived."""


def listed(chunk: ListedChunk) -> dict[str, Any]:
    """Return what a list shows of a chunk, as a JSON object."""
    return {
        "id": chunk.id,
        "account": chunk.key.account,
        "table": chunk.key.group.label,
        "reason": chunk.reason,
        "rows": chunk.rows,
        "since": screen.utc(int(chunk.since)),
        "words": chunk.entry.words,
    }
