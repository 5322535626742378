"""`sluice record`: saves records of the stream or the archive as a Kinesis event, for `sam local invoke` and for tests."""

import json
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click
import msgpack

from ops import screen
from ops.failure import Failure
from ops.personal_data import scrub
from ops.replay import PLACE
from ops.stack import Stack, works_on_stack
from ops.stream import Border, Piece, Read, batches_of, member
from shared import envelope
from shared.clock import SystemClock
from shared.envelope import Envelope, TableRows
from shared.errors import EnvelopeError


@click.command("record")
@works_on_stack
@click.option("--shard", metavar="ID", help="Shard to read. Default: the first.")
@click.option(
    "--from",
    "start",
    type=PLACE,
    default=Border(),
    help="Start time or sequence number. Default: the stream's oldest record.",
)
@click.option(
    "--count", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Number of records."
)
@click.option(
    "-o",
    "--output",
    "file",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write the event to.",
)
@click.option(
    "--scrub",
    is_flag=True,
    help="Replace personal data such as addresses and visitor ids. Equal values get equal replacements.",
)
@screen.json_option
def command(
    stack: Stack, *, shard: str | None, start: Border, count: int, file: Path, scrub: bool, as_json: bool
) -> None:
    """Save records of the stream, or of the archive, to a file, as an event for `sam local invoke` and for tests."""
    history = stack.history(SystemClock())
    history.check(start)
    shard = history.names(start, Border(), shard)[0]
    pieces = history.pieces(shard, start, Border())
    found = list(islice(chain.from_iterable(piece.records for piece in pieces), count))
    shard = history.chain(shard).shard
    if not found:
        raise Failure(f"{shard} has no records in this range: use an earlier --from, or another --shard")
    event = event_of(found, shard, scrubs=scrub)
    screen.write(file, json.dumps(event, indent=2) + "\n")
    written = len(event["Records"])
    if as_json:
        screen.show_json({"file": str(file), "records": written, "shard": shard})
        return
    screen.say(
        f"{screen.plural(written, 'record')} of {shard} in {file}. Use it with `sam local invoke WorkerFunction --event {file}`."
    )


def event_of(records: list[Read], shard: str, *, scrubs: bool) -> dict[str, Any]:
    """Return a Lambda event with as many of the records as fit."""
    members = []
    for record in next(batches_of([Piece(records)])).records:
        kept = {**record, "Data": scrubbed(record["Data"])} if scrubs else record
        members.append(member(kept, shard))
    return {"Records": members}


def scrubbed(data: bytes) -> bytes:
    """Return a record's data with personal data replaced by stand-ins.

    Data that is not an envelope cannot be parsed. It is replaced by question marks of the same length.
    """
    try:
        found = envelope.decode(data)
    except EnvelopeError:
        return b"?" * len(data)
    tables = tuple(TableRows(one.table, one.row_count, _scrub_rows(one.rows)) for one in found.tables)
    return Envelope(
        found.account, found.key_id, found.received_at, found.request_id, found.claim, tables
    ).encode()


def _scrub_rows(rows: bytes) -> bytes:
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(rows)
    return b"".join(msgpack.packb(scrub(row)) for row in unpacker)
