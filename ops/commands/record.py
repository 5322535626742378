"""`sluice record`: saves records of the stream as a Kinesis event, for `sam local invoke` and for tests."""

import json
from itertools import chain, islice
from pathlib import Path
from typing import Any

import click
import msgpack

from ops import personal_data, screen
from ops.failure import Failure
from ops.stack import Stack, works_on_stack
from ops.stream.place import from_option
from ops.stream.reader import RangeEnd, Read, StreamReader, batches_of, member
from shared import envelope
from shared.clock import SystemClock
from shared.envelope import Envelope, TableRows
from shared.errors import EnvelopeError, InvalidObjectError
from worker.rows import values


@click.command("record")
@works_on_stack
@click.option("--shard", metavar="ID", help="Shard to read. Default: the first.")
@from_option
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
    stack: Stack, *, shard: str | None, start: RangeEnd, count: int, file: Path, scrub: bool, as_json: bool
) -> None:
    """Save records of the stream to a file, as an event for `sam local invoke` and for tests."""
    reader = StreamReader(stack.shards(), SystemClock())
    reader.check(start)
    shard = reader.shards(shard)[0]
    found = list(islice(chain.from_iterable(reader.read(shard, start, RangeEnd())), count))
    if not found:
        raise Failure(f"{shard} has no records in this range: use an earlier --from, or another --shard")
    event = _event_of(found, shard, scrubs=scrub)
    screen.write(file, json.dumps(event, indent=2) + "\n")
    written = len(event["Records"])
    if as_json:
        screen.show_json({"file": str(file), "records": written, "shard": shard})
        return
    screen.say(
        f"{screen.plural(written, 'record')} of {shard} in {file}. Use it with `sam local invoke WorkerFunction --event {file}`."
    )


def _event_of(records: list[Read], shard: str, *, scrubs: bool) -> dict[str, Any]:
    """Return a Lambda event with as many of the records as fit."""
    members = []
    for record in next(batches_of([records])):
        kept = {**record, "Data": _scrubbed(record["Data"])} if scrubs else record
        members.append(member(kept, shard))
    return {"Records": members}


def _scrubbed(data: bytes) -> bytes:
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
    return b"".join(msgpack.packb(personal_data.scrub(row)) for row, _ in values(rows))
