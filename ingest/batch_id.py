"""What follows from a batch id: the sender may send the same events again, and they count once.

Every envelope of a request with a batch id is a claim: of all copies on the stream, the worker counts the rows of one.
Copies are recognised by their request id. It is a hash of the account, the batch id, the events that the envelope covers,
and all events of the request as they were sent, rejected ones included. So a copy that arrives from another address, or
after the rules have changed, has the same id, and other events under the same batch id have another one.

For the same reason an envelope's borders depend on the events as they were sent. What becomes of them here does not move
a border: neither what the ingest adds to a row nor whether an event is rejected.
"""

import hashlib
from collections.abc import Iterator, Mapping

from ingest.batch import Batch
from shared import envelope, rows
from shared.envelope import Envelope
from shared.event_id import derived_event_id
from shared.write_key import WriteKey

MAX_CHARACTERS = 64

_ADDED_BYTES = 1536
"""More than what the ingest adds to an event: the product's columns, the visitor's, and a table of its own."""


def envelopes(
    batch: Batch, encoded: Mapping[int, tuple[str, bytes]], key: WriteKey, received_at: int
) -> Iterator[Envelope]:
    """Yield the rows of a request that has a batch id, in their order.

    Args:
        batch: the request.
        taken: table and row of each event that was not rejected, by its index.
        key: whose they are.
        received_at: UNIX milliseconds.
    """
    texts = [rows.text_of(event).encode(errors="replace") for event in batch.events]
    sent = hashlib.sha256()
    for text in (rows.text_of(batch.table).encode(errors="replace"), *texts):
        sent.update(b"%d:%b" % (len(text), text))
    named = f"{len(key.account)}:{key.account}{len(batch.id)}:{batch.id}".encode(errors="replace")
    for covered in _shares(batch, texts):
        if share := [encoded[index] for index in covered if index in encoded]:
            place = f"{covered.start}-{covered.stop}:".encode()
            request_id = hashlib.sha256(named + place + sent.digest()).hexdigest()[:32]
            yield envelope.gather(share, key.account, key.key_id, received_at, request_id)


def _shares(batch: Batch, texts: list[bytes]) -> Iterator[range]:
    """Yield the indices of the events that each envelope covers: as many as surely fit, at least one."""
    start, size = 0, 0
    for index, (event, text) in enumerate(zip(batch.events, texts, strict=True)):
        cost = _max_bytes(event, text)
        if index > start and size + cost > envelope.ROOM:
            yield range(start, index)
            start, size = index, 0
        size += cost
    yield range(start, len(texts))


def _max_bytes(event: object, text: bytes) -> int:
    """Return more bytes than what an event takes in an envelope, whatever is added to it."""
    columns = len(event) if isinstance(event, dict) else 0
    return len(text) + columns * rows.COLUMN_GROWTH + _ADDED_BYTES


def event_id(account: str, batch_id: str, index: int, event: object) -> str:
    """Return the id of an event that brings none: the same one each time that it is sent under this batch id."""
    digest = hashlib.sha256(rows.text_of(event).encode(errors="replace")).hexdigest()
    return derived_event_id(account, f"{batch_id}/{digest}", index)
