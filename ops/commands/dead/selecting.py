"""Options that select dead rows, and how a chunk of them is described."""

from typing import Any

import click

from ops import screen
from ops.books.chunks import ListedChunk
from ops.moment import MOMENT

ACCOUNT = click.option("--account", help="Only rows of this account.")
TABLE = click.option("--table", help="Only rows of this table.")
REASON = click.option("--reason", help="Only rows with this reason, as `sluice status` shows it.")
REJECTED = click.option("--rejected", is_flag=True, help="Rejected events instead of dead rows.")
SINCE = click.option("--since", type=MOMENT, help="Only rows in this state since this time.")


def described_chunk(chunk: ListedChunk) -> dict[str, Any]:
    """Return what a list shows of a chunk of dead rows, as a JSON object."""
    return {
        "id": chunk.id,
        "account": chunk.key.account,
        "table": chunk.key.group.label,
        "reason": chunk.reason,
        "rows": chunk.rows,
        "since": screen.utc(int(chunk.since)),
        "words": chunk.entry.words,
    }
