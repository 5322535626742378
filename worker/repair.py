"""Puts set-aside rows back on the stream: repaired events, and rows of tables that were too many.

Each envelope has a claim under a request id that follows from the chunk, so it counts once, however often it is put. The chunk is
settled only when all its envelopes are on the stream.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgpack
from botocore.exceptions import BotoCoreError, ClientError

from shared import envelope, json_codec, names, rows
from shared.errors import BucketUnavailableError, EditRefusedError, InvalidJsonError, InvalidObjectError
from shared.event_id import derived_event_id
from worker.deadline import Deadline
from worker.delivery import Event, Happening, State
from worker.ledger import Place
from worker.selection import Selection
from worker.span import TOO_MANY_TABLES, ChunkKey, milliseconds

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

    # the `sluice` command checks events, and loads none of the modules that deliver
    from worker.execution import Delivery

_ATTEMPTS = 5  # to write the ledger, if others write the span too

Rows = Sequence[tuple[str, bytes]]
"""Table and MessagePack map of each row."""


class Returns:
    """Puts set-aside rows back on the stream.

    `kinesis` must not retry.
    """

    def __init__(self, delivery: "Delivery", kinesis: "KinesisClient", stream_name: str) -> None:
        self._delivery = delivery
        self._kinesis = kinesis
        self._stream_name = stream_name

    def events(self, place: Place, key: ChunkKey, repaired: Sequence[tuple[int, str]]) -> int:
        """Put repaired events on the stream in place of rejected ones; return how many.

        Args:
            place: of the span.
            key: of the chunk.
            repaired: for each event, the UNIX milliseconds at which it was received, and its JSON.

        Raises:
            EditRefusedError: an event breaks the rules, the chunk no longer holds rejected events, or the stream did not accept
                all events. In the last case the call can be repeated.
        """
        prefix = f"{place.chain.name}/{place.after}/{key.name}"
        made = []
        for index, (received_at, text) in enumerate(repaired):
            new_id = partial(derived_event_id, prefix, "repair", index)
            made.append(row_of(text, received_at, key.group.table, new_id))
        self._return(place, key, made, State.REJECTED, Event.REPAIRED)
        return len(made)

    def rows(self, place: Place, key: ChunkKey) -> int:
        """Put a chunk of rows of tables that were too many back on the stream; return how many.

        Raises:
            EditRefusedError: they are no longer set aside, their object cannot be read, or the stream did not accept them.
            BucketUnavailableError: S3 cannot be reached.
        """
        span = self._delivery.ledger.get(place)
        entry = None if span is None else span.entries.get(key)
        if span is None or entry is None or key.group.code != TOO_MANY_TABLES:
            raise EditRefusedError(
                "this chunk does not hold rows of tables that were too many, or no longer does"
            )
        try:
            stored = self._delivery.store.get(span, key, entry.edit, entry.digest)
        except InvalidObjectError as error:
            raise EditRefusedError("the set-aside object with its rows cannot be read") from error
        made = list(_rows_of(stored.payload))
        self._return(place, key, made, State.DEAD_LETTER, Event.RETURNED)
        return len(made)

    def run(self, selection: Selection, deadline: Deadline) -> int:
        """Put all selected rows of tables that were too many back on the stream; return how many.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
        """
        ledger, total = self._delivery.ledger, 0
        for place in selection.places(ledger, self._delivery.clock.now()):
            span = None if deadline.near else ledger.get(place)
            for key, entry in (span.entries if span else {}).items():
                if (
                    key.group.code == TOO_MANY_TABLES
                    and not key.group.is_rejected
                    and selection.has(key, entry)
                ):
                    try:
                        total += self.rows(place, key)
                    except (EditRefusedError, BucketUnavailableError) as error:
                        self._delivery.telemetry.warning("rows cannot be returned", reason=str(error))
        return total

    def _return(self, place: Place, key: ChunkKey, made: Rows, state: State, event: Event) -> None:
        delivery = self._delivery
        for attempt in range(_ATTEMPTS):
            span = delivery.ledger.get(place)
            entry = None if span is None else span.entries.get(key)
            if span is None or entry is None or entry.state is not state:
                raise EditRefusedError("this chunk is no longer set aside")
            if not attempt:
                self._put_all(place, key, made)
            happening = Happening(event, milliseconds(delivery.clock.now()), event.name.lower())
            changed = delivery.rules.follow(entry, happening)
            won, span = delivery.ledger.update(span.with_entries({key: changed}))
            if won:
                if entry.digest and delivery.store.may_delete(span, key):
                    delivery.store.delete(delivery.store.name(span, key, entry.edit, entry.digest))
                delivery.telemetry.info(event.name.lower(), account=key.account, rows=len(made))
                return
        raise EditRefusedError("other invocations are writing the same span: try again")

    def _put_all(self, place: Place, key: ChunkKey, made: Rows) -> None:
        """Put the rows on the stream, in envelopes with a claim.

        Raises:
            EditRefusedError: the stream did not acknowledge one.
        """
        name = f"return\n{place.chain.name}\n{place.after}\n{key.name}"
        request_id = hashlib.sha256(name.encode()).hexdigest()[:32]
        now = milliseconds(self._delivery.clock.now())
        for item in envelope.divide(made, key.account, key.group.owner.key_id, now, request_id):
            data = item._replace(claim=1).encode()
            try:
                answer = self._kinesis.put_record(
                    StreamName=self._stream_name, Data=data, PartitionKey=f"{key.account}/{item.request_id}"
                )
            except (ClientError, BotoCoreError) as error:
                raise EditRefusedError("the stream did not accept all rows: try again") from error
            if not str(answer.get("SequenceNumber", "")).isdecimal():
                raise EditRefusedError("the stream did not acknowledge all rows: try again")


def row_of(text: str, received_at: int, table: str, new_id: Callable[[], str]) -> tuple[str, bytes]:
    """Return the table and the row of a repaired event.

    Args:
        text: the event's JSON.
        received_at: UNIX milliseconds at which it was received; also the time of an event that has none.
        table: the table of an event that names none; empty if that is unknown.
        new_id: returns the id of an event that has none.

    Raises:
        EditRefusedError: it breaks the rules of rows.
    """
    try:
        event = json_codec.parse(text.encode())
        named = rows.table_of(event, table or None)
        return named, rows.encode(event, rows.Arrival(received_at), new_id)
    except InvalidJsonError as error:
        raise EditRefusedError(f"this is not JSON: {error}") from error
    except rows.Rejected as rejected:
        raise EditRefusedError(rejected.message) from rejected


def _rows_of(payload: bytes) -> Iterable[tuple[str, bytes]]:
    """Yield the table and the bytes of each row in a payload of `[table, number, rows]` values."""
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(payload)
    for table, number, packed in unpacker:
        if not names.is_table(table):
            raise EditRefusedError(f"{table!r} is not a table")
        inner = msgpack.Unpacker(max_buffer_size=0)
        inner.feed(packed)
        begin = 0
        for _ in range(number):
            inner.skip()
            yield table, packed[begin : inner.tell()]
            begin = inner.tell()
