"""What the sender must find out before it can go on with rows: whether Treasure Data has them, and whether another copy counts.

The turns of a run note what they need; then all of it is asked at once, because one query counts the rows of many chunks, and one look at the
indexes finds the copies of many envelopes.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from threading import Lock

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
_MOST_ROWS = 800  # in one query; of a chunk of which more must be asked for, several queries ask for parts
_MOST_NOTED = 100_000  # rows to ask for at once, about: they must fit into memory
_MOST_WANTED = 20_000  # envelopes to look for at once, about
_RARER = 3  # of chunks that were asked about in vain, a query has an eighth, then one
_QUERIES_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Doubt:
    """A chunk to ask about, as the ledger had it, with rows that show whether Treasure Data has it, or one part of these."""

    span: Span
    key: ChunkKey
    entry: Entry
    database: str
    rows: list[object]


_Subject = tuple[Place, ChunkKey, Entry]
Answers = dict[_Subject | str, Event]
"""What was found out about chunks, and by request id about envelopes that were put again."""


@dataclass(slots=True)
class Inquiry:
    """What one run must find out, and what it has. Safe to use from several threads.

    Attributes:
        answers: what was found out; an answer holds only for the entry that it was asked for.
    """

    deadline: Deadline
    persons: Persons | None
    admission: Admission
    answers: Answers = field(default_factory=dict)
    _doubts: list[Doubt] = field(default_factory=list, init=False)
    _rows: int = field(default=0, init=False)
    _wanted: dict[str, Times] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def ask_about(self, doubt: Doubt) -> None:
        """Note a chunk to ask about."""
        with self._lock:
            self._rows += len(doubt.rows)
            parts = (doubt.rows[at : at + _MOST_ROWS] for at in range(0, max(1, len(doubt.rows)), _MOST_ROWS))
            self._doubts += [replace(doubt, rows=rows) for rows in parts]

    def look_for(self, wanted: Mapping[str, Times]) -> None:
        """Note envelopes whose copies to look for, by request id."""
        with self._lock:
            self._wanted |= wanted

    @property
    def is_full(self) -> bool:
        """Whether no more can be asked for at once."""
        return len(self._wanted) >= _MOST_WANTED or self._rows >= _MOST_NOTED

    def take(self) -> tuple[list[Doubt], dict[str, Times]]:
        """Return what was noted since the last call."""
        with self._lock:
            taken = self._doubts, self._wanted
            self._doubts, self._rows, self._wanted = [], 0, {}
            return taken


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

    def carry_out(self, inquiry: Inquiry) -> None:
        """Find out what was noted, as far as there are answers."""
        doubts, wanted = inquiry.take()
        alike: dict[tuple[str, str, int], list[Doubt]] = {}
        for doubt in doubts:
            _, vain = self._pauses.get((doubt.span.place, doubt.key), (0.0, 0))
            alike.setdefault((doubt.database, doubt.key.group.table, vain), []).append(doubt)
        jobs: list[Callable[[], Iterable[tuple[Doubt, Presence]]]] = [
            partial(self._ask, inquiry, database, table, part)
            for (database, table, vain), found in alike.items()
            for part in batches(found, _rows_of, _MOST_ROWS, max(1, _MOST_ASKED >> _RARER * vain))
        ]
        if wanted:
            jobs.append(partial(self._look_for, inquiry, wanted))
        presences: dict[_Subject, set[Presence]] = {}
        for doubt, presence in chain.from_iterable(run_parallel(self._executors, jobs, _QUERIES_AT_ONCE)):
            presences.setdefault((doubt.span.place, doubt.key, doubt.entry), set()).add(presence)
        by_subject = {(doubt.span.place, doubt.key, doubt.entry): doubt for doubt in doubts}
        for subject, found_of_parts in presences.items():
            # some of the rows without the others are neither a chunk that was sent, nor one that was not
            presence = found_of_parts.pop() if len(found_of_parts) == 1 else Presence.UNDECIDED
            self._conclude(inquiry, by_subject[subject], presence)

    def _conclude(self, inquiry: Inquiry, doubt: Doubt, presence: Presence) -> None:
        place, key, entry = doubt.span.place, doubt.key, doubt.entry
        event = self._rules.after_query(presence, was_sent=was_sent(key, entry))
        if event is None:
            self._pause(place, key)
            return
        self._pauses.pop((place, key), None)
        inquiry.answers[place, key, entry] = event
        if presence is Presence.UNASKABLE:
            self._report_ambiguous(doubt)

    def _look_for(self, inquiry: Inquiry, wanted: Mapping[str, Times]) -> tuple[()]:
        """Look for copies of envelopes that were put again, and note what is decided about them."""
        try:
            events, obstacle = self._again.decide(wanted, inquiry.deadline.within(LONGEST_QUERY_SECONDS))
        except UnavailableError as error:
            events, obstacle = {}, str(error)
        except Exception as error:  # noqa: BLE001 -- one surprise must not keep the other spans from their turns
            self._telemetry.count("UnforeseenErrors")
            self._telemetry.error("copies cannot be looked for", error)
            events, obstacle = {}, type(error).__name__
        if len(events) < len(wanted):
            self._telemetry.info("rows that were put again wait", reason=obstacle)
        inquiry.answers.update(events.items())
        return ()

    def _ask(
        self, inquiry: Inquiry, database: str, table: str, doubts: Sequence[Doubt]
    ) -> Iterable[tuple[Doubt, Presence]]:
        """Query Treasure Data for rows of one table; return the presence of each chunk's or part's."""
        try:
            found = self._presences(inquiry, database, table, doubts)
            if Presence.ABSENT in found and self._forgetting.persons(0.0) != inquiry.persons:
                # a statement may have deleted the rows that were asked for; a later run asks for others
                found = [Presence.UNDECIDED if one is Presence.ABSENT else one for one in found]
        except Exception as error:  # noqa: BLE001 -- the surprise of one question must not keep the others from their answers
            self._telemetry.count("UnforeseenErrors")
            self._telemetry.error("rows cannot be asked about", error, database=database, table=table)
            found = [Presence.UNDECIDED for _ in doubts]
        return zip(doubts, found, strict=True)

    def _presences(
        self, inquiry: Inquiry, database: str, table: str, doubts: Collection[Doubt]
    ) -> list[Presence]:
        not_before = max(self._rules.askable_from(one.entry.since or 0) for one in doubts)

        def ask() -> list[Presence]:
            patience = inquiry.deadline.within(LONGEST_QUERY_SECONDS)
            rows = [one.rows for one in doubts]
            return self._treasure_data.ask(database, table, rows, patience, not_before)

        found = ask()
        if Presence.UNASKABLE in found and self._rules.sends_unasked:
            # ask again: only of a key that may import do we believe that it may not query
            if inquiry.admission.probe(database):
                return [Presence.UNDECIDED if one is Presence.UNASKABLE else one for one in found]
            found = ask()
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


def _rows_of(doubt: Doubt) -> int:
    return len(doubt.rows)


def was_sent(key: ChunkKey, entry: Entry) -> bool:
    """Return whether a chunk that waits or is dead may have been sent itself: if it was put again, only once no other copy counts."""
    return not key.group.request_id or entry.state is State.WAITING or bool(entry.database)
