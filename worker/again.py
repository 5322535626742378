"""Decides envelopes that were put on the stream again, because an earlier put of them may have landed.

Once every shard has passed the time from which a copy must claim, each copy without a claim is in a span, and the span's index shows it.
If one counts, the rows that were put again are a copy. If none does, they wait to be sent like any others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import batched
from operator import itemgetter
from threading import Lock
from typing import NamedTuple

from shared.errors import BucketUnavailableError, InvalidObjectError, ObjectGoneError
from worker.chain import ChainId
from worker.claims import LATE_SECONDS
from worker.deadline import Deadline
from worker.executor import Executors, run_parallel
from worker.ledger import BEHIND_ALL, Ledger
from worker.passing import CLOCK_SECONDS, MARGIN_SECONDS, Passing
from worker.record import CLAIMED, START, Number
from worker.span import Span
from worker.span_object import SpanObjects
from worker.states import UNSETTLED, Event

TOGETHER_SECONDS = 300
"""Envelopes that were received within this time are decided at once: a run cannot read the indexes of days."""
_AT_ONCE = 16  # indexes


class Times(NamedTuple):
    """When the ingest received an envelope, by its own clock, and when it was sent to the overflow queue, by SQS's; in UNIX milliseconds."""

    received_at: int
    queued_at: int


@dataclass(slots=True)
class _Look:
    """How far copies of some envelopes have been looked for.

    Attributes:
        wanted: their times, by request id.
        found: those with a copy that counts.
        reached: by chain, the `after` of the last span that was looked at, from its end back; START if none is left.
        is_gone: an index has been deleted.
        is_readable: all others could be read.
    """

    wanted: Mapping[str, Times] = field(default_factory=dict)
    found: set[str] = field(default_factory=set)
    reached: dict[ChainId, Number] = field(default_factory=dict)
    is_gone: bool = False
    is_readable: bool = True


@dataclass(eq=False)
class Again:
    """Decides what was put again. Safe to use from several threads: beside one that looks for copies, others decide nothing."""

    _passing: Passing
    _ledger: Ledger
    _objects: SpanObjects
    _executors: Executors
    _look: _Look = field(default_factory=_Look, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def times(self, span: Span, request_id: str) -> Times:
        """Return the times of an envelope of a span that was put again; raise InvalidObjectError if the span's index cannot be read."""
        index = self._objects.index(span)
        records = zip(index.request_ids, index.receipts, index.claims, strict=True)
        own = ((received_at, claim) for one, received_at, claim in records if one == request_id)
        return next(Times(*one) for one in own if one[1] > CLAIMED)

    def decide(self, wanted: Mapping[str, Times], deadline: Deadline) -> tuple[dict[str, Event], str]:
        """Return what is decided about envelopes, whose times are `wanted`, by request id, and why the others still wait.

        On a busy stream, that may take longer than there is time until the deadline. The next call goes on where this one stops.
        """
        if not self._lock.acquire(blocking=False):
            return {}, "others are looked for"
        events: dict[str, Event] = {}
        try:
            begun = {one: at for one, at in wanted.items() if one in self._look.wanted}
            rest = {one: at for one, at in wanted.items() if one not in begun}
            for some in filter(None, (begun, *_together(rest))):
                if deadline.near:
                    break
                if obstacle := self._passing.obstacle(_latest(some) + LATE_SECONDS * 1000):
                    return events, obstacle
                events |= self._look_up(some, deadline)
        finally:
            self._lock.release()
        return events, "an index cannot be read, or there are too many to read them all now"

    def _look_up(self, wanted: Mapping[str, Times], deadline: Deadline) -> dict[str, Event]:
        """Look for copies without a claim, in the indexes of all spans that may have them; leave out what cannot be decided now."""
        if not wanted.keys() <= self._look.wanted.keys():
            self._look = _Look(wanted)
        look = self._look
        look.wanted = wanted
        listed = [shard.chain for shard in self._passing.shards()]
        for chain in dict.fromkeys([*listed, *self._ledger.chains()]):
            if look.reached.get(chain) == START:
                continue
            for some in batched(self._around(look, chain), _AT_ONCE, strict=False):
                jobs = [partial(self._read, wanted, span) for span in some]
                for span, shown in zip(some, run_parallel(self._executors, jobs, _AT_ONCE), strict=True):
                    look.is_gone |= shown is Event.INDEX_GONE
                    look.is_readable &= shown is not Event.UNANSWERED
                    look.found |= frozenset() if isinstance(shown, Event) else shown
                    look.reached[chain] = span.after
                if deadline.near:
                    return {}
            look.reached[chain] = START
            if deadline.near:
                return {}
        self._look = _Look()
        events = dict.fromkeys(look.found & wanted.keys(), Event.COPY_COUNTS)
        if look.is_readable:
            rest = Event.INDEX_GONE if look.is_gone else Event.NO_COPY
            events |= dict.fromkeys(wanted.keys() - look.found, rest)
        return events

    def _read(self, wanted: Mapping[str, Times], span: Span) -> set[str] | Event:
        """Return the envelopes of which a span has a copy that counts, or why its index does not show that."""
        if span.object is None:
            return Event.INDEX_GONE
        try:
            index = self._objects.index(span)
        except ObjectGoneError:
            now = self._ledger.get(span.place)
            # meanwhile, it was written anew; or a copy in it may yet be sent: Treasure Data could not know of that
            may_show = now is not None and (now.object != span.object or now.states() & UNSETTLED)
            return Event.UNANSWERED if may_show else Event.INDEX_GONE
        except (BucketUnavailableError, InvalidObjectError):
            return Event.UNANSWERED
        return {
            request_id
            for position, (request_id, claim) in enumerate(zip(index.request_ids, index.claims, strict=True))
            if not claim and request_id in wanted and position not in index.uncounted
        }

    def _around(self, look: _Look, chain: ChainId) -> Iterator[Span]:
        """Yield the spans of a chain whose records may be first copies, as far as they were not looked at yet.

        Gaps need no look: every record in a gap has a claim. A first copy arrived before its envelope was sent to the queue; if the ingest's clock
        was ahead, that was before it says to have received it.
        """
        since = min(map(min, look.wanted.values())) - (CLOCK_SECONDS + MARGIN_SECONDS) * 1000
        until = _latest(look.wanted) + LATE_SECONDS * 1000
        before = look.reached.get(chain)
        if before is None:
            end = self._ledger.end(chain)
            if end is None or end.latest < since:
                return  # as with most chains of a stream that was resharded every day
            later = self._ledger.first_later(chain, until + MARGIN_SECONDS * 1000)
            before = BEHIND_ALL + "9" if later is None else later.last
        for span in self._ledger.latest(chain, before):
            if span.latest < since and span.records:
                return
            if span.records and span.chunks and span.earliest <= until:
                yield span


def _latest(wanted: Mapping[str, Times]) -> int:
    return max(one.received_at for one in wanted.values())


def _together(wanted: Mapping[str, Times]) -> Iterator[dict[str, Times]]:
    """Yield the envelopes by when they were received, the oldest first, in parts that are decided at once."""
    left = sorted(wanted.items(), key=itemgetter(1))
    while left:
        until = left[0][1].received_at + TOGETHER_SECONDS * 1000
        some = {one: at for one, at in left if at.received_at <= until}
        yield some
        left = left[len(some) :]
