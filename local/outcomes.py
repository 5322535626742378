"""Reads the outcomes of events: the rows in Treasure Data, and those that wait in S3 or are dead."""

import json
from collections.abc import Iterator, Mapping
from urllib.request import ProxyHandler, build_opener

from local.reconciliation import TableOutcome, TablePlace, place_of
from ops.books.chunks import chunks
from shared.accounts import Account
from worker.ledger import Ledger
from worker.rows import values
from worker.selection import Selection
from worker.span_object import SpanObjects
from worker.states import UNSETTLED, State

_DIRECT = build_opener(ProxyHandler({}))
_TIMEOUT_SECONDS = 30
_UNDELIVERED = Selection((*UNSETTLED, State.DEAD))


def delivered(treasure_data: str) -> Iterator[TableOutcome]:
    """Yield the rows that the Treasure Data double has imported, one outcome for each table.

    Args:
        treasure_data: the double's URL.
    """
    with _DIRECT.open(f"{treasure_data}/-/event_ids", timeout=_TIMEOUT_SECONDS) as response:
        for database, tables in json.load(response).items():
            for table, event_ids in tables.items():
                yield TableOutcome(TablePlace(database, table), tuple(event_ids))


def undelivered(
    ledger: Ledger, objects: SpanObjects, accounts: Mapping[str, Account]
) -> Iterator[TableOutcome]:
    """Yield the rows that wait or are dead, one outcome for each chunk.

    Args:
        ledger: says what became of rows, and why.
        objects: have the rows.
        accounts: the accounts by name, for the databases of their rows.
    """
    for chunk in chunks(ledger, _UNDELIVERED):
        if not chunk.span.is_forced:
            rows = (row for row, _ in values(objects.payload(chunk.span, chunk.key)))
            ids = tuple(row.get("event_id", "") if isinstance(row, dict) else "" for row in rows)
            place = place_of(chunk.key.account, chunk.key.group.label, accounts)
            yield TableOutcome(place, ids, chunk.entry.state.value, chunk.reason)
