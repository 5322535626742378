"""Edits of dead letters: an operator replaces rows that Treasure Data has rejected.

This is possible only if Treasure Data cannot have any of the old rows. The edited rows are sent under an id of their own, and their
object keeps the original ones.
"""

from typing import TYPE_CHECKING, Any

import msgpack

from shared import rows
from shared.errors import EditRefusedError, InvalidObjectError
from worker.chunk import offsets
from worker.delivery import Event, State
from worker.ledger import Place
from worker.span import ChunkKey

if TYPE_CHECKING:
    from worker.execution import Delivery  # commands check rows without all that executes spans

_FIXED = ("event_id", "received_at")  # they tell one event from another


class Edits:
    """Edits dead letters."""

    def __init__(self, delivery: "Delivery") -> None:
        self._delivery = delivery

    def make(self, place: Place, key: ChunkKey, payload: bytes) -> None:
        """Replace a dead letter's rows: as many MessagePack maps, back to back, in the same order.

        The new object is written first, then the ledger. If a send has begun meanwhile, that write fails, and the old rows stay.

        Raises:
            EditRefusedError: the rows break the rules, or the chunk is not a dead letter, or not any more.
            BucketUnavailableError: S3 cannot be reached.
            LedgerUnavailableError: the ledger cannot be reached.
        """
        ledger, store = self._delivery.ledger, self._delivery.store
        span = ledger.get(place)
        entry = None if span is None else span.entries.get(key)
        if span is None or entry is None or key.group.code or entry.state is not State.DEAD_LETTER:
            raise EditRefusedError("it is not a dead letter of rows, or not any more")
        try:
            stored = store.get(span, key, entry.edit, entry.digest)
            begin, end = offsets(stored.payload, key.within(stored.rows))
        except (InvalidObjectError, ValueError) as error:
            raise EditRefusedError("its rows cannot be read") from error
        edited = stored.edited(
            stored.payload[:begin] + revised(stored.payload[begin:end], payload) + stored.payload[end:]
        )
        store.put(span, edited)
        changed = self._delivery.follow(entry, Event.EDITED, digest=edited.digest)
        won, _ = ledger.update(span.with_entries({key: changed}))
        if not won:
            raise EditRefusedError("it is being sent at this moment: try again")
        self._delivery.telemetry.info("edited", account=key.account, table=key.group.table, rows=entry.rows)


def decoded(payload: bytes) -> list[dict[str, Any]]:
    """Return rows that stand back to back.

    Raises:
        EditRefusedError: these are not rows.
    """
    unpacker = msgpack.Unpacker(max_buffer_size=len(payload))
    unpacker.feed(payload)
    found: list[Any] = []
    try:
        while unpacker.tell() < len(payload):
            found.append(unpacker.unpack())
    except (ValueError, msgpack.UnpackException) as error:
        raise EditRefusedError(f"these are not rows: {error}") from error
    if not all(isinstance(row, dict) for row in found):
        raise EditRefusedError("these are not rows")
    return found


def revised(old: bytes, new: bytes) -> bytes:
    """Return new rows in place of old ones, encoded by the rules of rows.

    Raises:
        EditRefusedError: their number differs, or one breaks the rules.
    """
    before, after = decoded(old), decoded(new)
    if len(before) != len(after):
        raise EditRefusedError(
            f"there were {len(before)} rows and are {len(after)}: rows can be changed, not added or removed"
        )
    return b"".join(map(revised_row, before, after))


def revised_row(old: dict[str, Any], new: dict[str, Any]) -> bytes:
    """Return a row in place of another, as one MessagePack map.

    Columns follow the rules by which the ingest turns events into rows. `time` is UNIX seconds, and `event_id` and
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
