"""Finds the span that has a record, or the gap to append one in.

A record is in a span only if the span's index has its number. Whatever else lies at or before the end of a chain lies in a gap: before
a span's first record, or between its borders, where the event source passed records over. Each gap has a chain of its own.
"""

from collections.abc import Sequence

from shared.errors import BucketUnavailableError, HeldError, IndexLostError, InvalidObjectError
from worker.chain import ChainId, Owner
from worker.ledger import Gap, Ledger
from worker.record import START, Number
from worker.span import Span, digest_of
from worker.span_object import SpanObjects

BORDERS = ("first", "last")
"""A span of at most this many records needs no index: its borders name them."""


class Membership:
    """Locates records."""

    def __init__(self, ledger: Ledger, objects: SpanObjects) -> None:
        self._ledger = ledger
        self._objects = objects

    def locate(self, root: ChainId, number: Number, beside: Sequence[Number] = ()) -> Span | Gap:
        """Return the span that has a record of a shard, or the gap to append one in.

        Args:
            root: the shard's own chain.
            number: the record's.
            beside: records that were delivered with it. If all that a span has are among them, its index need not be read.

        Raises:
            IndexLostError: an index that would show it is lost.
            HeldError: S3 does not answer.
            LedgerUnavailableError: the ledger cannot be reached.
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

    def gap_of(self, owner: Owner) -> Gap | None:
        """Return the gap in which the record that owns a claim would be appended; None if a span has it.

        A span whose index is lost has it, too. All indexes are, two weeks after the stream's retention: a copy that counted beside the
        record would be a second row, while a record that was passed over is reported in any case.

        Raises:
            HeldError, LedgerUnavailableError: as `locate`.
        """
        try:
            place = self.locate(*owner)
        except IndexLostError:
            return None
        return None if isinstance(place, Span) else place

    def numbers(self, span: Span, beside: Sequence[Number] = ()) -> frozenset[Number]:
        """Return the sequence numbers of a span's records. If all of them are among `beside`, its index is not read.

        Raises:
            IndexLostError: its index is lost.
            HeldError: S3 does not answer.
        """
        if span.records <= len(BORDERS):
            return frozenset((span.first, span.last)) if span.records else frozenset()
        between = {one for one in beside if span.first <= one <= span.last}
        if len(between) == span.records and digest_of(sorted(between)) == span.digest:
            return frozenset(between)
        try:
            return frozenset(self._objects.index(span).positions)
        except BucketUnavailableError as error:
            raise HeldError(f"{HeldError.UNREADABLE_INDEX}: {error}") from error
        except InvalidObjectError as error:
            raise IndexLostError(f"{HeldError.UNREADABLE_INDEX}: {error}") from error


def _lower(limit: Number | None, other: Number | None) -> Number | None:
    return min((one for one in (limit, other) if one is not None), default=None)
