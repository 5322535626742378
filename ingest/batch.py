"""The events of one request, and how a batch id makes it safe for the sender to retry them.

Every envelope of a request with a batch id is a claim: of all its copies on the stream, the worker counts the rows of
only one. Copies share a request id, which is a hash of the account, the batch id, the events that the envelope covers, and
all events of the request as they were sent, including rejected ones. A retry therefore has the same id even if it comes from
another address or after the rules have changed, and other events under the same batch id have a different one.

For the same reason, envelope boundaries depend only on the events as sent, not on columns that the ingest adds or on which
events it rejects.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from shared import envelope, rows
from shared.envelope import Envelope
from shared.event_id import derived_event_id
from shared.write_key import WriteKey

MAX_ID_CHARACTERS = 64

_ADDED_BYTES = 1536
"""Upper bound for what the ingest adds to an event: its own columns, the visitor's, and a table entry."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a dialect reads from a request.

    Attributes:
        events: parsed JSON values.
        table: the table of events that name none.
        single_table: every event goes to `table`, and an event's own `table` member is a column.
        columns: added to each row whose event does not have them.
        sent_at: when the request was sent, by the sender's clock; None if unknown.
        earliest: UNIX seconds; an earlier event time is out of range.
        id: the batch id; empty if the sender gives none.
    """

    events: Sequence[Any]
    table: object = None
    single_table: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict)
    sent_at: object = None
    earliest: int = rows.EARLIEST_TIME
    id: str = ""

    def claims(
        self, encoded: Mapping[int, tuple[str, bytes]], key: WriteKey, received_at: int
    ) -> Iterator[Envelope]:
        """Yield the rows of a request with a batch id, in order.

        Args:
            encoded: table and row of each event that was not rejected, by index.
            key: whose rows they are.
            received_at: UNIX milliseconds.
        """
        texts = [rows.text_of(event).encode(errors="replace") for event in self.events]
        sent = hashlib.sha256()
        for text in (rows.text_of(self.table).encode(errors="replace"), *texts):
            sent.update(b"%d:%b" % (len(text), text))
        prefix = f"{len(key.account)}:{key.account}{len(self.id)}:{self.id}".encode(errors="replace")
        for covered in self._ranges(texts):
            if share := [encoded[index] for index in covered if index in encoded]:
                span = f"{covered.start}-{covered.stop}:".encode()
                request_id = hashlib.sha256(prefix + span + sent.digest()).hexdigest()[:32]
                yield envelope.gather(share, key.account, key.key_id, received_at, request_id)

    def event_id(self, account: str, index: int) -> str:
        """Return the id for an event that has none: the same each time it is sent under this batch id."""
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


def _max_bytes(event: object, text: bytes) -> int:
    """Return an upper bound for an event's size in an envelope, including added columns."""
    columns = len(event) if isinstance(event, dict) else 0
    return len(text) + columns * rows.COLUMN_GROWTH + _ADDED_BYTES
