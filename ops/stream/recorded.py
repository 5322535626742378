"""Records of the stream as Lambda passes them, without personal data if that is wanted."""

from typing import Any

import msgpack

from ops.events.seen_event import unpacked
from ops.personal_data import scrub
from ops.stream.reader import Read, batches_of, member
from shared import envelope
from shared.envelope import Envelope, TableRows
from shared.errors import EnvelopeError, InvalidObjectError


def event_of(records: list[Read], shard: str, *, scrubs: bool) -> dict[str, Any]:
    """Return a Lambda event with as many of the records as fit."""
    members = []
    for record in next(batches_of([records])):
        kept = {**record, "Data": scrubbed(record["Data"])} if scrubs else record
        members.append(member(kept, shard))
    return {"Records": members}


def scrubbed(data: bytes) -> bytes:
    """Return a record's data with personal data replaced by stand-ins.

    Data that is not an envelope, or is damaged, is replaced by question marks of the same length.
    """
    try:
        found = envelope.decode(data)
        tables = tuple(TableRows(one.table, one.row_count, _scrub_rows(one.rows)) for one in found.tables)
    except (EnvelopeError, InvalidObjectError):
        return b"?" * len(data)
    return Envelope(
        found.account, found.key_id, found.received_at, found.request_id, found.claim, tables
    ).encode()


def _scrub_rows(rows: bytes) -> bytes:
    return b"".join(msgpack.packb(scrub(row)) for row in unpacked(rows))
