"""Sets aside messages that cannot be moved from the overflow queue to the stream.

Each envelope gets a span of its own, so the ledger accounts for it and the redrive handles it like any other. Parked rows
bypass the stream. Rows in doubt are settled once Treasure Data shows that it has them. That it does not have them proves nothing
while they may still come from the stream, so they then wait for an operator.

First the envelope is claimed, then its objects are written, then its span. Each step can be repeated. If a run stops anywhere, the
message stays on the queue, and the next run completes the work.
"""

from collections.abc import Mapping
from dataclasses import replace

from shared.envelope import Envelope
from worker.archive import Archive
from worker.chain import ChainId, ClaimOwner
from worker.chunk import Chunk
from worker.delivery import UNSEARCHED, Entry, State
from worker.execution import Delivery
from worker.ledger import Claim
from worker.message import Message
from worker.record import NOBODY, START, Block, Record, decode, packed
from worker.set_aside import SetAside
from worker.span import Archived, ChunkKey, Cut, Destination, Group, NotDeliverable, Owner, Span, milliseconds

REFUSED = "stream_refused"

_UNCUT = Cut(rows=1_000_000, bytes=1 << 30)  # an envelope's rows of one table are one chunk


class OverflowSetAside:
    """Sets aside overflow messages."""

    def __init__(self, delivery: Delivery, *, seconds_kept: int, archive: Archive, archive_days: int) -> None:
        self._ledger = delivery.ledger
        self._store = delivery.store
        self._clock = delivery.clock
        self._seconds_kept = seconds_kept
        self._archive = archive
        self._archive_days = archive_days

    def set_aside(self, envelope: Envelope, sent_at: float, *, absent: bool) -> bool:
        """Set aside an envelope; return False, and do nothing, if a record on the stream counts in its place.

        Args:
            envelope: to set aside.
            sent_at: UNIX seconds at which it came to the queue.
            absent: True if no record on the stream carries it without a claim. Its claim then rules out all copies, and it is
                parked. If False, Treasure Data may have its rows, and it is in doubt.

        Raises:
            BucketUnavailableError: S3 cannot be reached.
            LedgerUnavailableError: the ledger cannot be reached, or does not say who owns the envelope.
        """
        chain = ChainId.overflow(envelope.request_id)
        # Puts of the drainer may have landed, or may land later. The worker then finds that their envelope is claimed.
        claim = Claim(ClaimOwner(chain), int(sent_at))
        if not self._ledger.claim_one(envelope.request_id, claim, self._seconds_kept):
            return False
        entry = Entry(State.PARKED, reason=REFUSED)
        if not absent:
            entry = Entry(State.IN_DOUBT, since=milliseconds(sent_at), reason=UNSEARCHED)
        owner = Owner(envelope.account)
        groups = {Group(owner, one.table): one for one in envelope.tables}
        destinations = {owner: NotDeliverable(entry.reason)}
        record = decode(envelope.encode(), chain.shard, START, sent_at)
        self._write(chain, destinations, groups, entry, seen=envelope.received_at, record=record)
        return True

    def bury(self, message: Message) -> bool:
        """Set aside a message that does not hold an envelope, as a dead letter.

        Raises:
            BucketUnavailableError: S3 cannot be reached.
            LedgerUnavailableError: the ledger cannot be reached.
        """
        entry = Entry(State.DEAD_LETTER, reason=message.fault)
        group = Group(Owner(NOBODY), "", message.fault)
        original = (message.fault, 1, packed(message.body.encode()))
        chain = ChainId.overflow(message.message_id)
        self._write(chain, {}, {group: original}, entry, seen=milliseconds(message.sent_at))
        return True

    def _write(
        self,
        chain: ChainId,
        destinations: Mapping[Owner, Destination],
        groups: Mapping[Group, Block],
        entry: Entry,
        *,
        seen: int,
        record: Record | None = None,
    ) -> None:
        """Write the objects, then the span that refers to them."""
        now = milliseconds(self._clock.now())
        span = Span(
            chain=chain,
            after=START,
            first=START,
            last=START,
            planned_at=now,
            destinations=destinations,
            cut=_UNCUT,
            counts={group: block[1] for group, block in groups.items()},
            records=0 if record is None else 1,
            archived=None if record is None else Archived.of([record], self._archive_days),
            done=True,
        )
        entries = {}
        for group, block in groups.items():
            chunk = Chunk(ChunkKey(group, 0), [block], block[1])
            stored = SetAside.of(span, chunk, [seen])
            self._store.put(span, stored)
            entries[chunk.key] = replace(entry, rows=chunk.count, aside_at=now, digest=stored.digest)
        if record is not None:
            self._archive.put(span, [record])
        self._ledger.note_set_aside_by_drainer()
        self._ledger.append(span.with_entries(entries))
