"""Edits dead letters: an operator replaces rows that Treasure Data has rejected.

This is possible only if Treasure Data cannot have any of the old rows. The edited rows are sent under a new id, and their
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
    # the `sluice` command checks rows, and loads none of the modules that deliver
    from worker.execution import Delivery

_FIXED = ("event_id", "received_at")  # they identify the event


class Edits:
    """Edits dead letters."""

    def __init__(self, delivery: "Delivery") -> None:
        self._delivery = delivery

    def make(self, place: Place, key: ChunkKey, payload: bytes) -> None:
        """Replace a dead letter's rows with `payload`: the same number of MessagePack maps, back to back, in the same order.

        This writes the new object first, then the ledger. If a send has begun meanwhile, the write to the ledger fails, and the old
        rows stay.

        Raises:
            EditRefusedError: the rows break the rules, or the chunk is not a dead letter (any more).
            BucketUnavailableError: S3 cannot be reached.
            LedgerUnavailableError: the ledger cannot be reached.
        """
        ledger, store = self._delivery.ledger, self._delivery.store
        span = ledger.get(place)
        entry = None if span is None else span.entries.get(key)
        if span is None or entry is None or key.group.code or entry.state is not State.DEAD_LETTER:
            raise EditRefusedError(
                "this is not a dead letter of rows, or is one no longer: `sluice dead list` shows them"
            )
        try:
            stored = store.get(span, key, entry.edit, entry.digest)
            begin, end = offsets(stored.payload, key.within(stored.rows))
        except (InvalidObjectError, ValueError) as error:
            raise EditRefusedError("the set-aside object with its rows cannot be read") from error
        edited = stored.edited(
            stored.payload[:begin] + revised(stored.payload[begin:end], payload) + stored.payload[end:]
        )
        store.put(span, edited)
        changed = self._delivery.follow(entry, Event.EDITED, digest=edited.digest)
        won, _ = ledger.update(span.with_entries({key: changed}))
        if not won:
            raise EditRefusedError("it is being sent right now: try again")
        self._delivery.telemetry.info("edited", account=key.account, table=key.group.table, rows=entry.rows)


def decoded(payload: bytes) -> list[dict[str, Any]]:
    """Decode rows: MessagePack maps, back to back.

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
        raise EditRefusedError("these are not rows: each must be a MessagePack map")
    return found


def revised(old: bytes, new: bytes) -> bytes:
    """Check and encode new rows that replace old ones, one for one.

    Raises:
        EditRefusedError: their number differs, or one breaks the rules.
    """
    before, after = decoded(old), decoded(new)
    if len(before) != len(after):
        raise EditRefusedError(
            f"the number of rows is {len(after)}, not {len(before)}: rows can be changed, not added or removed"
        )
    return b"".join(map(revised_row, before, after))


def revised_row(old: dict[str, Any], new: dict[str, Any]) -> bytes:
    """Check and encode a new row that replaces an old one; return it as one MessagePack map.

    Columns follow the rules by which the ingest turns events into rows. `time` must be UNIX seconds, and `event_id` and
    `received_at` must not change.

    Raises:
        EditRefusedError: it breaks the rules.
    """
    for name in _FIXED:
        if name not in old or new.get(name) != old[name]:
            raise EditRefusedError(f"{name} identifies the event and must stay {old.get(name)!r}")
    if type(new.get("time")) is not int:
        raise EditRefusedError("time must be UNIX seconds, a whole number")
    event = {name: value for name, value in new.items() if name != "received_at"}
    arrival = rows.Arrival(received_at=old["received_at"], table_is_column=True)
    try:
        row = rows.encode(event, arrival, lambda: str(old["event_id"]))
    except rows.Rejected as rejected:
        raise EditRefusedError(rejected.message) from rejected
    if msgpack.unpackb(row)["time"] != new["time"]:
        raise EditRefusedError(
            "time must be UNIX seconds between the year 2000 and three days after the event arrived"
        )
    return row
