"""Edits of dead letters: a person puts other rows in the place of those that Treasure Data has refused.

Only where none of the old rows can be in Treasure Data. The edited rows travel under an id of their own, and the object
keeps the original ones beside them until they are delivered.
"""

from dataclasses import replace
from typing import Any

import msgpack

from shared import errors, rows
from worker.aside import Aside
from worker.journal import Journal
from worker.ledger import Ledger
from worker.record import is_reason
from worker.span import Kind, State

_FIXED = ("event_id", "received_at")  # they tell one event from another


class EditRefusedError(errors.EditRefusedError):
    """An edit that cannot be; the message says why."""


class Edits:
    """Edits dead letters.

    Args:
        aside: where they are.
        ledger: tells what may have become of them.
        journal: hears of it.
    """

    def __init__(self, aside: Aside, ledger: Ledger, journal: Journal) -> None:
        self._aside = aside
        self._ledger = ledger
        self._journal = journal

    def make(self, name: str, payload: bytes) -> None:
        """Put these rows in the place of a dead letter's.

        The ledger is written first: a send that has begun meanwhile makes it refuse. Broken off after that, the old rows
        stand there as before.

        Args:
            name: of the object.
            payload: as many MessagePack maps as it has rows, one after another, in the same order.

        Raises:
            EditRefusedError: the rows break the rules, or the dead letter may not be edited, or has gone.
            AsideUnavailableError: S3 cannot be reached.
            LedgerUnavailableError: the ledger cannot be reached.
        """
        chunk = self._aside.get(name)
        if chunk is None:
            raise EditRefusedError("it has gone: it was delivered meanwhile")
        if chunk.kind is not Kind.DEAD_LETTER or is_reason(chunk.table):
            raise EditRefusedError("only rows of dead letters can be edited")
        edited = revised(chunk.payload, payload)
        span = self._ledger.get(chunk.chain, chunk.after)
        entry = None if span is None else span.chunk(chunk.chunk)
        if span is None or entry is None or entry.state is not State.ASIDE or entry.kind != chunk.kind:
            raise EditRefusedError("it has gone: it was delivered meanwhile")
        if entry.since is not None:
            raise EditRefusedError("Treasure Data may have its rows already: redrive it as it is")
        generation = entry.generation + 1
        changed = replace(entry, generation=generation)
        ours, _ = self._ledger.update(span.with_chunks({chunk.chunk: changed}))
        if not ours:
            raise EditRefusedError("it is being sent at this moment: look again")
        self._aside.put(
            replace(
                chunk,
                payload=edited,
                original=chunk.original or chunk.payload,
                unique_id=span.unique_id(chunk.chunk, chunk.database, generation),
            )
        )
        self._journal.note(
            "edited", account=chunk.account, table=chunk.table, rows=chunk.rows, object_id=chunk.object_id
        )


def decoded(payload: bytes) -> list[dict[str, Any]]:
    """Return the rows that stand one after another.

    Raises:
        EditRefusedError: these are no rows.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(payload))
    unpacker.feed(payload)
    found: list[Any] = []
    try:
        while unpacker.tell() < len(payload):
            found.append(unpacker.unpack())
    except (ValueError, msgpack.UnpackException) as error:
        raise EditRefusedError(f"these are no rows: {error}") from error
    if not all(isinstance(row, dict) for row in found):
        raise EditRefusedError("these are no rows")
    return found


def revised(old: bytes, new: bytes) -> bytes:
    """Return new rows in the place of old ones, brought to the rules of rows.

    Raises:
        EditRefusedError: they are not as many, or one breaks the rules.
    """
    before, after = decoded(old), decoded(new)
    if len(before) != len(after):
        raise EditRefusedError(
            f"there were {len(before)} rows and are {len(after)}: rows can be changed, not added or removed"
        )
    return b"".join(map(revised_row, before, after))


def revised_row(old: dict[str, Any], new: dict[str, Any]) -> bytes:
    """Return a row in the place of another, as one MessagePack map.

    Columns follow the rules by which the ingest makes rows of events. `time` is UNIX seconds, and `event_id` and
    `received_at` stay what they are.

    Raises:
        EditRefusedError: it breaks the rules.
    """
    for name in _FIXED:
        if name not in old or new.get(name) != old[name]:
            raise EditRefusedError(f"{name} tells one event from another and stays {old.get(name)!r}")
    if type(new.get("time")) is not int:
        raise EditRefusedError("time is UNIX seconds, a whole number")
    event = {name: value for name, value in new.items() if name != "received_at"}
    arrival = rows.Arrival(received_at=old["received_at"], table_is_column=True)
    try:
        row = rows.encode(event, arrival, lambda: str(old["event_id"]))
    except rows.Rejected as rejected:
        raise EditRefusedError(rejected.message) from rejected
    if msgpack.unpackb(row)["time"] != new["time"]:
        raise EditRefusedError(
            "time is UNIX seconds between the year 2000 and three days after the event arrived"
        )
    return row
