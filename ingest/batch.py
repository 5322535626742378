"""The events of one request, and how a batch id makes it safe for the sender to retry them.

Every envelope of a request with a batch id has a claim: of all its copies on the stream, the worker counts the rows of
only one. Copies share a request id, which is a hash of the account, the batch id, the events that the envelope covers, and
all events of the request as they were sent, including rejected ones. A retry therefore has the same id even if it comes from
another address or after the rules have changed, and other events under the same batch id have a different one.

For the same reason, envelope boundaries depend only on the events as sent, not on columns that the ingest adds or on which
events it rejects.

Mobile SDKs give no batch id. They name each event with `uuid` and may repeat it in another group, so each of their events has
an envelope of its own, with a claim by account, table, uuid and content.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from shared import envelope, json_codec, rows
from shared.envelope import Envelope, RejectedEvent
from shared.event_id import derived_event_id
from shared.write_key import WriteKey

MAX_ID_CHARACTERS = 64

_ADDED_BYTES = 1536
"""Upper bound for what the ingest adds to an event: its own columns, the visitor's, and a table entry."""


class Batch(NamedTuple):
    """What a dialect reads from a request.

    Attributes:
        events: parsed JSON values.
        table: the table of events that name none.
        single_table: every event goes to `table`, and an event's own `table` member is a column.
        columns: added to each row whose event does not have them.
        sent_at: when the request was sent, by the sender's clock; None if unknown.
        id: the batch id; empty if the sender gives none.
        sent: the events as they were sent, if the sender names each with `uuid` and may resend it in another group; else empty.
        rewrite: the dialect's change to each event, made after their number is checked; None for no change. In a batch with an id
            it must be the same for every retry.
        originals: returns each event as it was sent, alone; called only if one is rejected. If it does not return as many as there
            are events, their copies are made from `events`.
    """

    events: Sequence[Any]
    table: object = None
    single_table: bool = False
    columns: Mapping[str, Any] = MappingProxyType({})
    sent_at: object = None
    id: str = ""
    sent: Sequence[Any] = ()
    rewrite: Callable[[Any], Any] | None = None
    originals: Callable[[], Sequence[bytes]] = tuple

    def claims(
        self, encoded: Mapping[int, tuple[str, bytes]], key: WriteKey, received_at: int
    ) -> Iterator[Envelope]:
        """Yield the rows of a request with a batch id, in order.

        Args:
            encoded: table and row of each event that was not rejected, by index.
            key: the sender's write key.
            received_at: UNIX milliseconds.
        """
        texts = self._texts()
        name = self._namer(key, texts)
        for covered in self._ranges(texts):
            if share := [encoded[index] for index in covered if index in encoded]:
                request_id = name(f"{covered.start}-{covered.stop}")
                yield envelope.gather(share, key.account, key.key_id, received_at, request_id)

    def rejected_claim(
        self, rejected: tuple[RejectedEvent, ...], key: WriteKey, received_at: int
    ) -> Envelope:
        """Return the rejected events of a request with a batch id, so that retries count them once."""
        request_id = self._namer(key, self._texts())("rejected")
        return Envelope(key.account, key.key_id, received_at, request_id, 1, (), rejected)

    def _texts(self) -> list[bytes]:
        return [rows.text_of(event).encode(errors="replace") for event in self.events]

    def _namer(self, key: WriteKey, texts: list[bytes]) -> Callable[[str], str]:
        """Return a function that derives a request id for each part of a request with a batch id."""
        sent = hashlib.sha256()
        for text in (rows.text_of(self.table).encode(errors="replace"), *texts):
            sent.update(b"%d:%b" % (len(text), text))
        prefix = f"{len(key.account)}:{key.account}{len(self.id)}:{self.id}".encode(errors="replace")

        def name(part: str) -> str:
            return hashlib.sha256(prefix + f"{part}:".encode() + sent.digest()).hexdigest()[:32]

        return name

    def single_claims(
        self,
        encoded: Mapping[int, tuple[str, bytes]],
        key: WriteKey,
        received_at: int,
        new_id: Callable[[], str],
    ) -> Iterator[Envelope]:
        """Yield one envelope per row, in order, for a sender that names its events; arguments as for `claims`.

        An event without a usable name gets no claim, and its envelope gets the request id that `new_id` returns.
        """
        for index, (table, row) in encoded.items():
            rows_of_table = (envelope.TableRows(table, 1, row),)
            if uuid := self.uuid(index):
                parts = ("uuid", key.account, table, uuid, rows.text_of(_sorted(self.sent[index])))
                text = "".join([f"{len(part)}:{part}" for part in parts]).encode(errors="replace")
                request_id, claim = hashlib.sha256(text).hexdigest()[:32], 1
            else:
                request_id, claim = new_id(), 0
            yield Envelope(key.account, key.key_id, received_at, request_id, claim, rows_of_table)

    def uuid(self, index: int) -> str:
        """Return the `uuid` that names an event; empty if it has no usable one, or if its sender does not name events."""
        event = self.events[index]
        uuid = event.get("uuid") if self.sent and isinstance(event, dict) else None
        return uuid if isinstance(uuid, str) and len(uuid) <= rows.MAX_EVENT_ID else ""

    def event_id(self, account: str, index: int) -> str:
        """Return the id for an event that has none. It is the same each time the event is sent under this batch id."""
        digest = hashlib.sha256(rows.text_of(self.events[index]).encode(errors="replace")).hexdigest()
        return derived_event_id(account, f"{self.id}/{digest}", index)

    def _ranges(self, texts: list[bytes]) -> Iterator[range]:
        """Yield the indices of the events that each envelope covers: as many as are certain to fit, at least one."""
        start, size = 0, 0
        for index, (event, text) in enumerate(zip(self.events, texts, strict=True)):
            cost = _max_bytes(event, text)
            if index > start and size + cost > envelope.ROOM:
                yield range(start, index)
                start, size = index, 0
            size += cost
        yield range(start, len(texts))


def _sorted(value: Any, depth: int = json_codec.MAX_DEPTH) -> Any:
    """Return a value with the members of its objects sorted by name: an SDK may serialize a retry in another order.

    Only what does not become a column can be nested more deeply than `depth`. It is left as it is.
    """
    if isinstance(value, dict) and depth:
        return {name: _sorted(value[name], depth - 1) for name in sorted(value)}
    return [_sorted(item, depth - 1) for item in value] if isinstance(value, list) and depth else value


def _max_bytes(event: object, text: bytes) -> int:
    """Return an upper bound for an event's size in an envelope, including added columns."""
    columns = len(event) if isinstance(event, dict) else 0
    return len(text) + columns * rows.COLUMN_GROWTH + _ADDED_BYTES
