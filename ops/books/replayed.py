"""Counts the rows of a replay by outcome, from the ledger before and after it."""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ops.books.accounting import by_group
from worker.chain import ChainId
from worker.delivery import State
from worker.ledger import Ledger, Place
from worker.record import Number
from worker.span import Span


@dataclass(frozen=True, slots=True)
class Replayed:
    """The rows of a replay by outcome. Together they are all rows that were read.

    Attributes:
        sent: delivered during the replay.
        passed_over: delivered before, or left out.
        kept: set aside, dropped, missing or still pending.
    """

    sent: int = 0
    passed_over: int = 0
    kept: int = 0


@dataclass(slots=True)
class Planned:
    """Compares the spans of replayed records before and after the replay.

    Args:
        ledger: the ledger.
    """

    ledger: Ledger
    _before: dict[Place, int] = field(default_factory=dict)
    _after: dict[Place, Counter[State]] = field(default_factory=dict)

    def note_before(self, chain: ChainId, numbers: Sequence[Number]) -> None:
        """Note how many rows of these records' spans are already delivered. The first note of a span counts.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
        """
        for span in self._spans(chain, numbers):
            self._before.setdefault(Place(span.chain, span.after), _states(span)[State.DELIVERED])

    def note_after(self, chain: ChainId, numbers: Sequence[Number]) -> None:
        """Note the states of these records' spans. The last note of a span counts.

        Raises: as `note_before`.
        """
        for span in self._spans(chain, numbers):
            place = Place(span.chain, span.after)
            self._before.setdefault(place, 0)
            self._after[place] = _states(span)

    def forget(self) -> None:
        """Forget all notes, before another pass."""
        self._before.clear()
        self._after.clear()

    def replayed(self, rows: int) -> Replayed:
        """Return the outcomes of the rows that were read, capped at that number: a span may extend beyond the replayed range."""
        delivered = sum(states[State.DELIVERED] for states in self._after.values())
        sent = max(0, delivered - sum(self._before[place] for place in self._after))
        kept = sum(states.total() for states in self._after.values()) - delivered
        sent = min(rows, sent)
        kept = min(rows - sent, kept)
        return Replayed(sent, rows - sent - kept, kept)

    def _spans(self, chain: ChainId, numbers: Sequence[Number]) -> Iterable[Span]:
        at = 0
        while at < len(numbers):
            found = self.ledger.locate(chain, numbers[at])
            if isinstance(found, Span):
                yield found
                at = bisect_right(numbers, found.last, at)
            elif found.limit is None:
                return
            else:
                at = bisect_left(numbers, found.limit, at + 1)


def _states(span: Span) -> Counter[State]:
    total: Counter[State] = Counter()
    for states in by_group(span).values():
        total.update(states)
    return total
