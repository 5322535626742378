"""The sweep: deletes span objects that nobody needs any more, by the hours in their names. Only forgetting deletes others.

An object goes if the ledger, read consistently, says that every row of it is in a final state, or that its span has another object. Rows go
ArchiveDays after their span was planned, unless they wait or are dead, or are to be deleted for a forgotten person. The index stays until
the stream's own retention has passed, and two weeks more: a redelivered record, or an envelope that was put again, is judged by it. If only
some chunks of a span are final, or if rows go before their index does, the object is written again with what is needed.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import batched, takewhile

from shared.clock import Clock
from shared.errors import BucketUnavailableError, InvalidObjectError, ObjectGoneError, UnavailableError
from shared.telemetry import Telemetry
from worker.claims import QUEUED_SECONDS
from worker.deadline import Deadline
from worker.executor import Executors, run_parallel
from worker.forget.cut import Forgetting
from worker.ledger import SWEPT, WORKLIST_KEYS, Ledger
from worker.shards import Shards
from worker.span import Place, Span
from worker.span_object import SpanObjects, Stored, moment_of, name_of
from worker.states import State

INDEX_SECONDS = QUEUED_SECONDS
"""How long an index stays after the stream's retention: an envelope that was put again may come so late."""
UNREFERENCED_SECONDS = 86_400.0
"""How long an object stays that no span refers to: its writer may be about to append the span, or somebody may still read it after a rewrite."""
EARLIER_SECONDS = 3600.0
"""How long before its receipt an envelope's first copy may have been planned, by clocks that differ, with ample room."""
_HOUR = 3600.0
_AT_ONCE = 16  # objects


@dataclass(frozen=True, slots=True)
class Sweep:
    """The old objects that a sweep found, by what it did with them.

    Attributes:
        reduced: written anew with less.
        needed: still needed as they are.
        failed: could not be read, written or deleted; the next sweep tries again.
        complete: it has looked at every old object.
    """

    deleted: int = 0
    reduced: int = 0
    needed: int = 0
    failed: int = 0
    complete: bool = True


@dataclass(eq=False)
class Sweeper:
    """Sweeps the bucket. Rows are kept for `archive_seconds` after their span was planned, if they are in a final state by then."""

    _ledger: Ledger
    _objects: SpanObjects
    _shards: Shards
    _forgetting: Forgetting
    _executors: Executors
    _archive_seconds: float
    _clock: Clock
    _telemetry: Telemetry

    def run(self, deadline: Deadline) -> Sweep:
        """Sweep, as far as the time allows; the next run goes on where this one stops."""
        after, counts, complete = self._ledger.noted(SWEPT) or "", Counter[str](), False
        last, index_seconds = after, self._index_seconds(deadline.within(deadline.left() / 2))
        try:
            for some in batched(self._old(after), _AT_ONCE, strict=False):
                jobs = [partial(self._sweep, one, index_seconds, deadline) for one in some]
                found = run_parallel(self._executors, jobs, _AT_ONCE)
                counts.update(filter(None, found))
                done = list(takewhile(lambda one: one is not None, found))
                last = some[len(done) - 1].name if done else last
                if len(done) < len(some):
                    break
            else:
                complete = True
        finally:  # whatever fails, the next run does not begin with the same objects
            self._ledger.note(SWEPT, "" if complete else last)
        sweep = Sweep(**counts, complete=complete)
        self._telemetry.info("sweep", **asdict(sweep))
        return sweep

    def _old(self, after: str) -> Iterator[Stored]:
        """Yield the objects that are old enough for a look, behind the name `after`."""
        for stored in self._objects.listed(after=after):
            if age(stored.hour, self._clock.now()) < UNREFERENCED_SECONDS:
                return
            yield stored

    def _index_seconds(self, deadline: Deadline) -> float:
        """Return how long indexes are kept: longer than usual while an envelope that was put again so long ago waits for them.

        If there is no time to look at all spans that wait, they are kept anyhow.
        """
        retention = self._shards.retention_seconds()
        oldest = now = self._clock.now()
        for number in range(WORKLIST_KEYS):
            for span in self._ledger.work("waiting", number):
                if span.planned_at / 1000 > now - retention:
                    break
                if deadline.near:
                    return float("inf")
                if State.AGAIN in span.states():
                    oldest = min(oldest, span.received_at / 1000 - EARLIER_SECONDS)
        return max(self._archive_seconds, retention + INDEX_SECONDS, now - oldest)

    def _sweep(self, stored: Stored, index_seconds: float, deadline: Deadline) -> str | None:
        """Return what was done with an object, as Sweep names it; None if there was no time to look at it."""
        if deadline.near:
            return None
        return judged(stored.name, partial(self._judge, stored, index_seconds), "failed", self._telemetry)

    def _judge(self, stored: Stored, index_seconds: float) -> str:
        now = self._clock.now()
        span, is_left = referring(self._ledger, stored, now)
        if span is None:
            return self._delete(stored) if is_left else "needed"
        planned_age = now - span.planned_at / 1000
        if planned_age < self._archive_seconds or (not span.has_rows and planned_age < index_seconds):
            return "needed"
        if span.is_final and planned_age >= index_seconds:
            if self._has_person(span):
                return "needed"
            won, _ = self._ledger.update(replace(span, object=None))
            return self._delete(stored) if won else "needed"
        return self._reduce(span)

    def _has_person(self, span: Span) -> bool:
        """Return whether an object has rows that a search must still delete in Treasure Data, or nobody knows: only it says which they are.

        If S3 has answered with other bytes, perhaps only now, this raises InvalidObjectError.
        """
        persons = self._forgetting.persons()
        try:
            return persons is None or bool(self._forgetting.look(span, persons).delivered)
        except ObjectGoneError:
            return False

    def _delete(self, stored: Stored) -> str:
        return "deleted" if self._objects.delete(stored.name) else "failed"

    def _reduce(self, span: Span) -> str:
        """Write an object anew without the chunks that are final, unless it has no such chunk. The old one goes later."""
        members = self._objects.index(span).members
        final = {key for key in span.chunks if not key.group.is_rejected and span.is_final_chunk(key)}
        if not any(member.length for key, member in members.items() if key in final):
            return "needed"
        if self._has_person(span):
            return "needed"
        encoded = self._objects.without(span, lambda key: key not in final, self._clock.now())
        rewritten = replace(span, object=encoded.ref)
        self._objects.put(rewritten, encoded.data)
        won, _ = self._ledger.update(rewritten)
        return "reduced" if won else "needed"


def judged[T, F](name: str, judge: Callable[[], T], failure: F, telemetry: Telemetry) -> T | F:
    """Return the judgement of an object, or `failure` if the object cannot be read, or is a surprise: others must have their turn, too.

    Without the ledger no object can be judged, so this raises UnavailableError.
    """
    try:
        return judge()
    except (BucketUnavailableError, InvalidObjectError) as error:
        telemetry.warning("an object cannot be judged", object=name, error=type(error).__name__)
    except UnavailableError:
        raise
    except Exception as error:  # noqa: BLE001 -- whatever it is, it concerns this object
        telemetry.unforeseen("an object cannot be judged", error, object=name)
    return failure


def span_there(ledger: Ledger, stored: Stored) -> Span | None:
    """Return the span in whose place an object was written; None if there is none. It may refer to another object."""
    if stored.chain.is_of_stream:
        return ledger.preceding(stored.chain, stored.first)
    return ledger.get(Place(stored.chain, stored.first))


def referring(ledger: Ledger, stored: Stored, now: float) -> tuple[Span | None, bool]:
    """Return the span that refers to an object; or None, and whether no span has referred to it for so long that it may go."""
    span, hours = span_there(ledger, stored), [stored.hour]
    if span is not None and span.object is not None:
        if name_of(span) == stored.name:
            return span, False
        hours.append(span.object.hour)
    return None, age(max(hours), now) >= UNREFERENCED_SECONDS


def age(hour: str, now: float) -> float:
    """Return how many seconds ago an hour ended."""
    return now - moment_of(hour) - _HOUR
