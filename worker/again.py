"""Decides envelopes that were put on the stream again, because an earlier put of them may have landed.

Once every shard has passed the time from which a copy must claim, each copy without a claim is in a span, and the span's index shows it.
If one counts, the rows that were put again are a copy. If none does, they wait to be sent like any others.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from shared.errors import BucketUnavailableError, InvalidObjectError
from worker.claims import LATE_SECONDS
from worker.ledger import Ledger
from worker.passing import MARGIN_SECONDS, Passing
from worker.span import ChunkKey, Span
from worker.span_object import SpanObjects
from worker.states import Event

CLOCK_SECONDS = 20
"""By how much the ingest's clock may be wrong."""


@dataclass(eq=False)
class Again:
    """Decides what was put again."""

    _passing: Passing
    _ledger: Ledger
    _objects: SpanObjects

    def decide(self, span: Span, keys: Iterable[ChunkKey]) -> tuple[dict[ChunkKey, Event], str]:
        """Return what is decided about chunks of a span now, and why the others still wait.

        Raises:
            InvalidObjectError: the span's own index cannot be read.
            UnavailableError: S3, the ledger or Kinesis does not answer.
        """
        receipts = self._receipts(span)
        wanted = {key.group.request_id: receipts[key.group.request_id] for key in keys}
        obstacle = self._passing.obstacle(max(wanted.values()) + LATE_SECONDS * 1000)
        if obstacle:
            return {}, obstacle
        events = self._look_up(wanted)
        return {
            key: event_of(key, events[key.group.request_id]) for key in keys if key.group.request_id in events
        }, "an index cannot be read"

    def _receipts(self, span: Span) -> Mapping[str, int]:
        """Return when the ingest received each envelope of a span, by request id, in UNIX milliseconds."""
        index = self._objects.index(span)
        return dict(zip(index.request_ids, index.receipts, strict=True))

    def _look_up(self, wanted: Mapping[str, int]) -> dict[str, Event]:
        """Look for copies without a claim, in the indexes of all spans that may have them; leave out what cannot be decided now."""
        since = min(wanted.values()) - (CLOCK_SECONDS + MARGIN_SECONDS) * 1000
        until = max(wanted.values()) + LATE_SECONDS * 1000
        found: set[str] = set()
        is_gone, is_readable = False, True
        for span in self._around(since, until):
            if span.object is None:
                is_gone = True
                continue
            try:
                index = self._objects.index(span)
            except (BucketUnavailableError, InvalidObjectError):
                is_readable = False
                continue
            for position, (request_id, claim) in enumerate(zip(index.request_ids, index.claims, strict=True)):
                if not claim and request_id in wanted and position not in index.uncounted:
                    found.add(request_id)
        events = dict.fromkeys(found, Event.COPY_COUNTS)
        if is_readable:
            rest = Event.INDEX_GONE if is_gone else Event.NO_COPY
            events |= dict.fromkeys(wanted.keys() - found, rest)
        return events

    def _around(self, since: int, until: int) -> Iterator[Span]:
        """Yield the spans of all shards whose records may have arrived between two times (UNIX milliseconds).

        Gaps need no look: every record in a gap has a claim.
        """
        listed = [lineage.chain for lineage in self._passing.lineages()]
        for chain in dict.fromkeys([*listed, *self._ledger.chains()]):
            for span in self._ledger.latest(chain):
                if span.latest < since and span.records:
                    break
                if span.records and span.chunks and span.earliest <= until:
                    yield span


def event_of(key: ChunkKey, found: Event) -> Event:
    """Return the event for a chunk: rejected events are never sent, so they are recorded unless a copy certainly counts."""
    return Event.NOT_RECORDED if key.group.is_rejected and found is not Event.COPY_COUNTS else found
