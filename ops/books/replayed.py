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
        passed_over: delivered before, copies of other rows, or given up.
        waiting: to be sent by the sender.
    """

    sent: int = 0
    passed_over: int = 0
    waiting: int = 0
    dead: int = 0

    def left(self, option: str) -> str:
        """Return the rest of a sentence: how many rows are not delivered, and where to see why; empty if all are."""
        parts = [f"{self.waiting:,} waiting to be sent"] * bool(self.waiting)
        parts += [f"{self.dead:,} dead"] * bool(self.dead)
        return f", {', '.join(parts)} (`sluice status {option}` shows why)" if parts else ""


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
            self._before.setdefault(span.place, delivered_in([span]))
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
        return outcome(rows, self._after.values(), sum(self._before[place] for place in self._after))

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


def outcome(rows: int, spans: Iterable[Span], delivered_before: int) -> Replayed:
    """Return the outcomes of some rows, from their spans after the replay and the number of rows in these that were delivered before."""
    after: Counter[State] = Counter()
    for span in spans:
        after.update(_states(span))
    sent = min(rows, max(0, after[State.DELIVERED] - delivered_before))
    waiting = min(rows - sent, after[State.WAITING] + after[State.AGAIN])
    dead = min(rows - sent - waiting, after[State.DEAD])
    return Replayed(sent, rows - sent - waiting - dead, waiting, dead)


def delivered_in(spans: Iterable[Span]) -> int:
    """Return how many rows of spans are delivered."""
    return sum(_states(span)[State.DELIVERED] for span in spans)


def kept_in(spans: Iterable[Span]) -> int:
    """Return how many rows of spans are not those of forgotten persons."""
    leaves = ((span, *leaf) for span in spans for leaf in span.all_leaves())
    return sum(span.rows(key) for span, key, entry in leaves if entry.state is not State.FORGOTTEN)


def _states(span: Span) -> Counter[State]:
    total: Counter[State] = Counter()
    for group, states in by_group(span).items():
        if not group.is_rejected:
            total.update(states)
    return total
