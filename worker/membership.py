"""Finds the span that has a record, or the gap to append one in.

A record is in a span only if the span's index has its number. Whatever else lies at or before the end of a chain lies in a gap: before
a span's first record, or between its borders, where the event source passed records over. Each gap has a chain of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shared.errors import BucketUnavailableError, HeldError, InvalidObjectError
from worker.chain import ChainId
from worker.ledger import Gap, Ledger
from worker.record import START, Number
from worker.span import Span, digest_of
from worker.span_object import SpanObjects

BORDERS = ("first", "last")
"""A span of at most this many records needs no index: its borders name them."""


@dataclass(eq=False)
class Membership:
    """Locates records."""

    _ledger: Ledger
    _objects: SpanObjects

    def locate(self, root: ChainId, number: Number, beside: Sequence[Number] = ()) -> Span | Gap:
        """Return the span that has a record of a shard, or the gap to append one in.

        Args:
            root: the shard's own chain.
            number: the record's.
            beside: records that were delivered with it. If all that a span has are among them, its index need not be read.

        Raises:
            HeldError: an index that would show it cannot be read.
        """
        chain, limit = root, None
        while True:
            span = self._ledger.preceding(chain, number)
            if span is None:
                return Gap(chain, START, limit)
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

    def numbers(self, span: Span, beside: Sequence[Number] = ()) -> frozenset[Number]:
        """Return the sequence numbers of a span's records. If all of them are among `beside`, its index is not read.

        Raises:
            HeldError: its index cannot be read.
        """
        if span.records <= len(BORDERS):
            return frozenset((span.first, span.last)) if span.records else frozenset()
        between = {one for one in beside if span.first <= one <= span.last}
        if len(between) == span.records and digest_of(sorted(between)) == span.digest:
            return frozenset(between)
        try:
            return frozenset(self._objects.index(span).positions)
        except (BucketUnavailableError, InvalidObjectError) as error:
            raise HeldError(f"{HeldError.UNREADABLE_INDEX}: {error}") from error


def _lower(limit: Number | None, other: Number | None) -> Number | None:
    return min((one for one in (limit, other) if one is not None), default=None)
