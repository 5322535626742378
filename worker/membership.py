"""Finds the span that has a record, or the gap to append one in.

A record is in a span only if the span's index has its number. Whatever else lies at or before the end of a chain lies in a gap: before
a span's first record, or between its borders, where the event source passed records over. Each gap has a chain of its own.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import batched

from shared.errors import (
    BucketUnavailableError,
    HeldError,
    IndexDamagedError,
    IndexLostError,
    InvalidObjectError,
    ObjectGoneError,
)
from worker.chain import ChainId, Owner
from worker.executor import Executors, run_parallel
from worker.ledger import Gap, Ledger
from worker.record import START, Number
from worker.span import Span, digest_of_numbers
from worker.span_object import SpanObjects

BORDERS = 2
"""A span of at most this many records needs no index: its borders name them."""
_LOOKS_AT_ONCE = 16
_LEAST_LOOKS = 20  # one after the other, because neighbours share a span


@dataclass(eq=False)
class Membership:
    """Locates records."""

    _ledger: Ledger
    _objects: SpanObjects

    def locate(
        self,
        root: ChainId,
        number: Number,
        beside: Sequence[Number] = (),
        spans: dict[ChainId, Span] | None = None,
    ) -> Span | Gap:
        """Return the span that has a record of a shard, or the gap to append one in; `root` is the shard's own chain.

        Records that were delivered with it are `beside`: if all that a span has are among them, its index need not be read. `spans` has those of
        chains that were read before, and need not be read again; what is read is added. If an index that would show the record is deleted or
        damaged, this raises IndexLostError or IndexDamagedError.
        """
        spans, chain, limit = {} if spans is None else spans, root, None
        while True:
            span = spans.get(chain)
            if span is None or not span.after < number <= span.last:
                span = self._ledger.preceding(chain, number)
            if span is None:
                return Gap(chain, START, limit)
            spans[chain] = span
            if span.last < number:
                return Gap(chain, span.last, limit, span.latest)
            if number < span.first:
                chain, limit = chain.before(span.after), _lower(limit, span.first)
                continue
            numbers = self.numbers(span, beside)
            if number in numbers:
                return span
            behind = min((one for one in numbers if one > number), default=None)
            chain, limit = chain.within(span.after), _lower(limit, behind)

    def gaps_of(self, owners: Iterable[Owner], executors: Executors) -> dict[Owner, Gap | None]:
        """Return the gaps in which those of the owners of claims would be appended that no span has; None if a damaged index hides it.

        A span whose index is deleted has them, too. All indexes are, two weeks after the stream's retention: a copy that counted beside
        the record would be a second row, while a record that was passed over is reported in any case. This raises HeldError for the same reasons
        as `locate`, and LedgerUnavailableError.
        """
        # those in one span side by side
        wanted = sorted(owners, key=lambda one: (one.chain.name, one.number))
        each = max(_LEAST_LOOKS, -(-len(wanted) // _LOOKS_AT_ONCE))
        jobs = [partial(self._gaps_of, part) for part in batched(wanted, each, strict=False)]
        return {owner: gap for found in run_parallel(executors, jobs) for owner, gap in found.items()}

    def _gaps_of(self, owners: Sequence[Owner]) -> dict[Owner, Gap | None]:
        found: dict[Owner, Gap | None] = {}
        spans: dict[ChainId, Span] = {}
        for owner in owners:
            try:
                place = self.locate(*owner, spans=spans)
            except IndexLostError:
                continue
            except IndexDamagedError:
                found[owner] = None
            else:
                if isinstance(place, Gap):
                    found[owner] = place
        return found

    def numbers(self, span: Span, beside: Sequence[Number] = ()) -> Collection[Number]:
        """Return the sequence numbers of a span's records. If all of them are among `beside`, its index is not read.

        If it is read, and deleted or damaged, this raises IndexLostError or IndexDamagedError.
        """
        if span.records <= BORDERS:
            return frozenset((span.first, span.last)) if span.records else frozenset()
        between = {one for one in beside if span.first <= one <= span.last}
        if len(between) == span.records and digest_of_numbers(sorted(between)) == span.digest:
            return frozenset(between)
        try:
            return self._objects.index(span).positions
        except BucketUnavailableError as error:
            raise HeldError(f"{HeldError.UNREADABLE_INDEX}: {error}") from error
        except ObjectGoneError as error:
            raise IndexLostError(f"{HeldError.UNREADABLE_INDEX}: {error}") from error
        except InvalidObjectError as error:
            raise IndexDamagedError(f"{HeldError.UNREADABLE_INDEX}: {error}") from error


def _lower(limit: Number | None, other: Number | None) -> Number | None:
    return min((one for one in (limit, other) if one is not None), default=None)
