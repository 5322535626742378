"""What the sender must find out before it can go on with rows: whether Treasure Data has them, and whether another copy counts.

The turns of a run note what they need; then all of it is asked at once, because one query counts the rows of many chunks, and one look at the
indexes finds the copies of many envelopes.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from shared.clock import Clock
from shared.errors import UnavailableError
from shared.puts import batches
from shared.telemetry import Telemetry
from worker.admission import Admission
from worker.again import Again, Times
from worker.deadline import Deadline
from worker.executor import Executors, run_parallel
from worker.forget.cut import Forgetting
from worker.forget.person import Persons
from worker.rows import MOST_SPREAD
from worker.selection import Selection
from worker.span import ChunkKey, Place, Span
from worker.states import Entry, Event, Presence, Rules, State
from worker.treasure_data.client import TreasureDataClient

LONGEST_QUERY_SECONDS = 90.0
"""How long to wait for an answer, which may take two queries. After that, a later run asks again. Before rows are sent without an answer,
the question is asked twice."""
FIRST_PAUSE_SECONDS = 300.0
LONGEST_PAUSE_SECONDS = 6 * 3600.0
"""The pauses between queries for a chunk whose presence no answer settles: the first, and the longest."""

_MOST_PAUSES = 10_000
_MOST_ASKED = 32  # chunks in one query
_MOST_NOTED = 16 * MOST_SPREAD  # rows and envelopes, about
_RARER = 3  # of chunks that were asked about in vain, a query has an eighth, then one
_QUERIES_AT_ONCE = 8
_SHARE = 0.75  # of the time that is left, for one query: the rest is for what its answer decides


@dataclass(frozen=True, slots=True)
class Doubt:
    """A chunk to ask about, as the ledger had it, with rows that show whether Treasure Data has it."""

    span: Span
    key: ChunkKey
    entry: Entry
    database: str
    rows: list[object]


Answers = dict[tuple[Place, ChunkKey, Entry] | str, Event]
"""What was found out about chunks, and by request id about envelopes that were put again."""


@dataclass(slots=True)
class Run:
    """What the turns of one run of the sender share.

    Attributes:
        persons: who is to be forgotten; None if nobody knows.
        answers: what was found out; an answer holds only for the entry that it was asked for.
        noted: how many rows and envelopes the run is going to ask about at once; roughly, because threads add to it without a lock.
    """

    deadline: Deadline
    selection: Selection
    persons: Persons | None
    admission: Admission
    answers: Answers = field(default_factory=dict, init=False)
    noted: int = field(default=0, init=False)

    @property
    def is_full(self) -> bool:
        """Whether no more envelopes, and no more chunks of which many rows must be asked for, can be asked about at once."""
        return self.noted >= _MOST_NOTED

    @property
    def is_late(self) -> bool:
        """Whether no time is left to wait for the answer to another query, and to act on it."""
        return self.deadline.left() < LONGEST_QUERY_SECONDS


@dataclass(eq=False)
class Inquiries:
    """Finds out what runs must know. It remembers what was asked in vain, as long as this function instance lives."""

    _treasure_data: TreasureDataClient
    _again: Again
    _forgetting: Forgetting
    _rules: Rules
    _executors: Executors
    _clock: Clock
    _telemetry: Telemetry
    # when to ask for a chunk again, and how often it was asked for
    _pauses: dict[tuple[Place, ChunkKey], tuple[float, int]] = field(default_factory=dict, init=False)

    def is_paused(self, place: Place, key: ChunkKey) -> bool:
        """Return whether it is too early to ask about a chunk again."""
        return self._clock.now() < self._pauses.get((place, key), (0.0, 0))[0]

    def carry_out(self, run: Run, doubts: Iterable[Doubt], wanted: Mapping[str, Times]) -> None:
        """Find out whether Treasure Data has chunks, and whether envelopes have copies, as far as there are answers."""
        alike: dict[tuple[str, str, int], list[Doubt]] = {}
        for doubt in doubts:
            _, vain = self._pauses.get((doubt.span.place, doubt.key), (0.0, 0))
            alike.setdefault((doubt.database, doubt.key.group.table, vain), []).append(doubt)
        jobs: list[Callable[[], Answers]] = [
            partial(self._ask, run, database, table, part)
            for (database, table, vain), found in alike.items()
            for part in batches(
                found, lambda doubt: len(doubt.rows), MOST_SPREAD, max(1, _MOST_ASKED >> _RARER * vain)
            )
        ]
        if wanted:
            jobs.append(partial(self._look_for, run, wanted))
        for answers in run_parallel(self._executors, jobs, _QUERIES_AT_ONCE):
            run.answers |= answers

    def _look_for(self, run: Run, wanted: Mapping[str, Times]) -> Answers:
        """Look for copies of envelopes that were put again; return what is decided about them."""
        try:
            events, obstacle = self._again.decide(wanted, run.deadline.within(LONGEST_QUERY_SECONDS))
        except UnavailableError as error:
            events, obstacle = {}, str(error)
        except Exception as error:  # noqa: BLE001 -- one surprise must not keep the other spans from their turns
            self._telemetry.unforeseen("copies cannot be looked for", error)
            events, obstacle = {}, type(error).__name__
        if len(events) < len(wanted):
            self._telemetry.info("rows that were put again wait", reason=obstacle)
        return {one: events.get(one, Event.UNANSWERED) for one in wanted}

    def _ask(self, run: Run, database: str, table: str, doubts: Sequence[Doubt]) -> Answers:
        """Query Treasure Data for chunks of one table; return the events that its answer is, as far as it settles anything."""
        if run.is_late:  # other questions have taken the time; the next run asks this one
            return {}
        try:
            found = self._presences(run, database, table, doubts)
            if Presence.ABSENT in found and self._forgetting.persons(0.0) != run.persons:
                # a statement may have deleted the rows that were asked for; a later run asks for others
                found = [Presence.UNDECIDED if one is Presence.ABSENT else one for one in found]
        except Exception as error:  # noqa: BLE001 -- the surprise of one question must not keep the others from their answers
            self._telemetry.unforeseen("rows cannot be asked about", error, database=database, table=table)
            found = [Presence.UNDECIDED for _ in doubts]
        answers: Answers = {}
        for doubt, presence in zip(doubts, found, strict=True):
            sent = was_sent(doubt.key, doubt.entry)
            place, event = doubt.span.place, self._rules.after_query(presence, was_sent=sent)
            if event is None:
                self._pause(place, doubt.key)
            else:
                self._pauses.pop((place, doubt.key), None)
                answers[place, doubt.key, doubt.entry] = event
        return answers

    def _presences(self, run: Run, database: str, table: str, doubts: Collection[Doubt]) -> list[Presence]:
        not_before = max(self._rules.askable_from(one.entry.since or 0) for one in doubts)

        def ask() -> list[Presence]:
            patience = run.deadline.within(min(LONGEST_QUERY_SECONDS, _SHARE * run.deadline.left()))
            rows = [one.rows for one in doubts]
            return self._treasure_data.ask(database, table, rows, patience, not_before)

        found = ask()
        if Presence.UNASKABLE in found and self._rules.sends_unasked:
            # ask again: only of a key that may import do we believe that it may not query
            if run.admission.probe(database):
                return [Presence.UNDECIDED if one is Presence.UNASKABLE else one for one in found]
            found = ask()
            for doubt, presence in zip(doubts, found, strict=True):
                if presence is Presence.UNASKABLE:
                    self._report_ambiguous(doubt)
        return found

    def _pause(self, place: Place, key: ChunkKey) -> None:
        """Wait longer each time before the same question."""
        if len(self._pauses) >= _MOST_PAUSES:
            self._pauses.clear()
        _, vain = self._pauses.get((place, key), (0.0, 0))
        pause = min(FIRST_PAUSE_SECONDS * 2**vain, LONGEST_PAUSE_SECONDS)
        self._pauses[place, key] = self._clock.now() + pause, vain + 1

    def _report_ambiguous(self, doubt: Doubt) -> None:
        span, key = doubt.span, doubt.key
        self._telemetry.count("RowsAmbiguous", span.rows(key))
        self._telemetry.warning(
            "ambiguous: sent again although Treasure Data may have the rows",
            span=span.place.name,
            account=key.account,
            table=key.group.table,
            database=doubt.database,
            rows=span.rows(key),
            unique_id=span.unique_id(key, doubt.database),
        )


def was_sent(key: ChunkKey, entry: Entry) -> bool:
    """Return whether a chunk that waits or is dead may have been sent itself: if it was put again, only once no other copy counts."""
    return not key.group.request_id or entry.state is State.WAITING or bool(entry.database)
