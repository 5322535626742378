"""New rows in place of a chunk: edited rows, repaired events, and rows of tables that were too many.

The new rows are a span of their own, in a chain whose name follows from the chunk's. It is appended, and the old chunk marked as replaced, in one
transaction, so the rows exist once whatever fails. That is possible only if Treasure Data cannot have any of the old rows.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgpack

from shared import json_codec, names, rows
from shared.clock import Clock
from shared.errors import BucketUnavailableError, EditRefusedError, InvalidJsonError, InvalidObjectError
from shared.event_id import derived_event_id
from shared.telemetry import Telemetry
from worker.deadline import Deadline
from worker.ledger import Ledger
from worker.rows import values
from worker.selection import Selection
from worker.span import TOO_MANY_TABLES, ChunkKey, Group, Place, RowSender, Span
from worker.span_object import Chunk, SpanObjects, span_of_rows
from worker.states import Event, Happening, Rules, State

MOST_TABLES = 400
"""A span of new rows has at most this many tables, so that the ledger's item holds them. Rows of others stay those of too many tables."""

_FIXED = ("event_id", "received_at")  # they identify the event

Blocks = Iterable[tuple[str, int, bytes]]
"""Table, number of rows, and their MessagePack maps back to back."""


@dataclass(eq=False)
class Replacements:
    """Replaces chunks.

    Each method returns the new span, and raises EditRefusedError if the rows break the rules, cannot be read, or are no longer in the state
    that it expects; BucketUnavailableError or LedgerUnavailableError if S3 or the ledger cannot be reached.
    """

    _ledger: Ledger
    _objects: SpanObjects
    _rules: Rules
    _clock: Clock
    _telemetry: Telemetry

    def edit(self, place: Place, key: ChunkKey, payload: bytes) -> Span:
        """Replace a dead chunk's rows with `payload`: as many MessagePack maps, back to back, in the same order."""
        span = self._span(place, key, State.DEAD)
        if key.group.code:
            raise EditRefusedError("this chunk does not hold rows: `sluice dead list` shows those that do")
        made = revised(self._payload(span, key), payload)
        return self._replace(span, key, [(key.group.table, len(made), b"".join(made))])

    def repair(self, place: Place, key: ChunkKey, repaired: Sequence[tuple[int, str]]) -> Span:
        """Replace rejected events with repaired ones: for each, the UNIX milliseconds at which it was received, and its JSON."""
        span = self._span(place, key, State.REJECTED)
        made = []
        for index, (received_at, text) in enumerate(repaired):
            new_id = partial(derived_event_id, f"{place.name}/{key.name}", "repair", index)
            table, row = row_of(text, received_at, key.group.table, new_id)
            made.append((table, 1, row))
        return self._replace(span, key, made)

    def resend_all(self, selection: Selection, deadline: Deadline) -> int:
        """Replace all selected chunks of rows of tables that were too many, as far as that is possible; return how many rows."""
        total = 0
        for place in selection.places(self._ledger, self._clock.now()):
            if deadline.near:
                break
            span = self._ledger.get(place)
            if span is None:
                continue
            for key, _ in selection.of(span):
                if key.group.code == TOO_MANY_TABLES and not key.group.is_rejected:
                    try:
                        span = self._span(place, key, State.DEAD)
                        self._replace(span, key, _blocks_of(self._payload(span, key)))
                        total += span.rows(key)
                    except (EditRefusedError, BucketUnavailableError) as error:
                        self._telemetry.warning("rows cannot be sent again", reason=str(error))
        return total

    def _span(self, place: Place, key: ChunkKey, state: State) -> Span:
        """Return the span of a chunk that is in this state, without a doubt."""
        span = self._ledger.get(place)
        is_there = span is not None and key.planned in span.chunks and key in set(span.leaves(key.planned))
        if span is None or not is_there or span.entry(key).state is not state:
            raise EditRefusedError(
                f"this chunk is not {state.value} any more: `sluice dead list` shows those that are"
            )
        if span.entry(key).since is not None:
            raise EditRefusedError(
                "Treasure Data may have these rows: `sluice redrive --kind dead` asks it first"
            )
        return span

    def _payload(self, span: Span, key: ChunkKey) -> bytes:
        try:
            return self._objects.payload(span, key)
        except InvalidObjectError as error:
            raise EditRefusedError("the span object with its rows cannot be read") from error

    def _replace(self, span: Span, key: ChunkKey, made: Blocks) -> Span:
        now, sender, origin = self._clock.now(), RowSender(key.account), f"{span.place.name}/{key.name}"
        chunks: dict[Group, Chunk] = {}
        for table, count, block in made:
            group, part = Group(sender, table), block
            if group not in chunks and len(chunks) >= MOST_TABLES:
                group, part = Group(sender, "", TOO_MANY_TABLES), msgpack.packb((table, count, block))
            chunks.setdefault(group, Chunk(ChunkKey(group, 0))).add(part, count)
        chain = span.place.replacement_of(key).chain
        # however often rows are edited that a forced replay sends, they count apart
        first = span.origin if span.is_forced and not span.chain.is_forced else origin
        new, data = span_of_rows(chain, list(chunks.values()), span.received_at, now, first)
        self._objects.put(new, data)
        replaced = self._rules.follow(span.entry(key), Happening(Event.REPLACED, new.planned_at))
        if not self._ledger.replace(span.with_entries({key: replaced}), new):
            raise EditRefusedError("these rows are being written right now: try again")
        self._telemetry.info("replaced", account=key.account, rows=sum(new.chunks.values()), span=origin)
        return new


def decoded(payload: bytes) -> list[dict[str, Any]]:
    """Decode rows: MessagePack maps, back to back; raise EditRefusedError if these are not rows."""
    try:
        found = [row for row, _ in values(payload)]
    except InvalidObjectError as error:
        raise EditRefusedError(f"these are not rows: {error}") from error
    if not all(isinstance(row, dict) and all(isinstance(name, str) for name in row) for row in found):
        raise EditRefusedError("these are not rows: each must be a MessagePack map with names")
    return found


def revised(old: bytes, new: bytes) -> list[bytes]:
    """Check and encode new rows that replace old ones, one for one; raise EditRefusedError if their number differs, or one breaks the rules."""
    before, after = decoded(old), decoded(new)
    if len(before) != len(after):
        raise EditRefusedError(
            f"the number of rows is {len(after)}, not {len(before)}: rows can be changed, not added or removed"
        )
    return list(map(revised_row, before, after))


def revised_row(old: dict[str, Any], new: dict[str, Any]) -> bytes:
    """Check and encode a new row as one MessagePack map; raise EditRefusedError if it breaks the rules, or may not replace the old one.

    Columns follow the rules by which the ingest turns events into rows. `time` must be UNIX seconds, and `event_id` and
    `received_at` must not change.
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


def row_of(text: str, received_at: int, table: str, new_id: Callable[[], str]) -> tuple[str, bytes]:
    """Return the table and the row of a repaired event, given its JSON; raise EditRefusedError if it breaks the rules of rows.

    It was received at `received_at` (UNIX milliseconds), which is also the time of an event that has none. An event that names no table has
    `table`, empty if that is unknown; one that has no id gets what `new_id` returns.
    """
    try:
        event = json_codec.parse(text.encode())
        named = rows.table_of(event, table or None)
        return named, rows.encode(event, rows.Arrival(received_at), new_id)
    except InvalidJsonError as error:
        raise EditRefusedError(f"this is not JSON: {error}") from error
    except rows.Rejected as rejected:
        raise EditRefusedError(rejected.message) from rejected


def _blocks_of(payload: bytes) -> Blocks:
    """Yield the blocks in a payload of `[table, number, rows]` values."""
    for (table, number, packed), _ in values(payload):
        if not names.is_table(table):
            raise EditRefusedError(f"{table!r} is not a table")
        try:
            found = sum(1 for _ in values(packed))
        except InvalidObjectError as error:
            raise EditRefusedError("an envelope has something else than rows") from error
        if found != number:
            raise EditRefusedError("an envelope has another number of rows than it says")
        yield table, number, packed
