"""Counts the rows of a replay by outcome, from the ledger before and after it."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ops.books.accounting import by_group
from worker.chain import ChainId
from worker.membership import Membership
from worker.record import Number
from worker.span import Place, Span
from worker.states import UNSETTLED, State


@dataclass(frozen=True, slots=True)
class Replayed:
    """The rows of a replay by outcome. Together they are all rows that were read.

    Attributes:
        sent: delivered during the replay.
        passed_over: delivered before, or copies of other rows.
        kept: waiting, dead or dropped.
    """

    sent: int = 0
    passed_over: int = 0
    kept: int = 0


@dataclass(slots=True)
class Planned:
    """Compares the spans of replayed records before and after the replay."""

    membership: Membership
    _before: dict[Place, int] = field(default_factory=dict)
    _after: dict[Place, Span] = field(default_factory=dict)

    def note_before(self, chain: ChainId, numbers: Sequence[Number]) -> frozenset[Number]:
        """Note how many rows of these records' spans are delivered already; return which of the records are in a span.

        Raises:
            HeldError: an index cannot be read.
        """
        members: set[Number] = set()
        for span, found in self._spans(chain, numbers):
            members |= found
            self._before.setdefault(span.place, _states(span)[State.DELIVERED])
        return frozenset(members)

    def note_after(self, chain: ChainId, numbers: Sequence[Number]) -> None:
        """Note these records' spans as they are now. The last note of a span counts.

        Raises: as `note_before`.
        """
        for span, _ in self._spans(chain, numbers):
            self._before.setdefault(span.place, 0)
            self._after[span.place] = span

    def refresh(self, spans: Iterable[Span]) -> None:
        """Note spans as they are now."""
        self._after |= {span.place: span for span in spans}

    def waiting(self) -> dict[Place, list[list[str]]]:
        """Return the chunks that wait, by span, as the sender takes them."""
        found = {
            place: [
                [place.chain.name, place.after, key.name]
                for key, entry in span.all_leaves()
                if entry.state in UNSETTLED
            ]
            for place, span in self._after.items()
        }
        return {place: names for place, names in found.items() if names}

    def replayed(self, rows: int) -> Replayed:
        """Return the outcomes of the rows that were read, capped at that number: a span may extend beyond the replayed range."""
        after = {place: _states(span) for place, span in self._after.items()}
        delivered = sum(states[State.DELIVERED] for states in after.values())
        sent = max(0, delivered - sum(self._before[place] for place in after))
        kept = sum(states.total() - states[State.COPY] for states in after.values()) - delivered
        sent = min(rows, sent)
        kept = min(rows - sent, kept)
        return Replayed(sent, rows - sent - kept, kept)

    def _spans(self, chain: ChainId, numbers: Sequence[Number]) -> Iterator[tuple[Span, set[Number]]]:
        """Yield the spans of records, each with those of the records that it has."""
        at = 0
        while at < len(numbers):
            found = self.membership.locate(chain, numbers[at], numbers)
            if not isinstance(found, Span):
                if found.limit is None:
                    return
                at = bisect_left(numbers, found.limit, at + 1)
                continue
            members = self.membership.numbers(found, numbers)
            rest = at
            while rest < len(numbers) and numbers[rest] in members:
                rest += 1
            yield found, set(numbers[at:rest])
            at = rest


def _states(span: Span) -> Counter[State]:
    total: Counter[State] = Counter()
    for group, states in by_group(span).items():
        if not group.is_rejected:
            total.update(states)
    return total
