"""Decides envelopes that were put on the stream again, because an earlier put of them may have landed.

Once every shard has passed the time from which a copy must claim, each copy without a claim is in a span, and the span's index shows it.
If one counts, the rows that were put again are a copy. If none does, they wait to be sent like any others.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter

from shared.errors import BucketUnavailableError, InvalidObjectError
from worker.claims import LATE_SECONDS
from worker.ledger import Ledger
from worker.passing import MARGIN_SECONDS, Passing
from worker.span import ChunkKey, Span
from worker.span_object import SpanObjects
from worker.states import Event

CLOCK_SECONDS = 20
"""By how much the ingest's clock may be wrong."""

TOGETHER_SECONDS = 300
"""Envelopes that were received within this time are decided at once: a run cannot read the indexes of days."""


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
        of = {key: key.group.request_id for key in keys}
        wanted = {one: receipts[one] for one in of.values()}
        for some in _together(wanted):
            obstacle = self._passing.obstacle(max(some.values()) + LATE_SECONDS * 1000)
            if obstacle:
                return {}, obstacle
            if events := self._look_up(some):
                found = {key: events.get(one) for key, one in of.items()}
                reason = "an index cannot be read, or others come first"
                return {key: event_of(key, one) for key, one in found.items() if one is not None}, reason
        return {}, "an index cannot be read"

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
            later = self._ledger.first_later(chain, until + MARGIN_SECONDS * 1000)
            for span in (
                self._ledger.latest(chain) if later is None else self._ledger.latest(chain, later.last)
            ):
                if span.latest < since and span.records:
                    break
                if span.records and span.chunks and span.earliest <= until:
                    yield span


def _together(wanted: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Yield the envelopes by when they were received, the oldest first, in parts that are decided at once."""
    left = sorted(wanted.items(), key=itemgetter(1))
    while left:
        some = {one: at for one, at in left if at <= left[0][1] + TOGETHER_SECONDS * 1000}
        yield some
        left = left[len(some) :]


def event_of(key: ChunkKey, found: Event) -> Event:
    """Return the event for a chunk: rejected events are never sent, so they are recorded unless a copy certainly counts."""
    return Event.NOT_RECORDED if key.group.is_rejected and found is not Event.COPY_COUNTS else found
