"""Searches span objects and rejected events for persons, and forgets them there and in Treasure Data.

A search goes by the names of objects, so it can stop and go on. Delivered rows leave an object only after Treasure Data has
deleted them, or somebody has been told to: until then, the object is what says which rows those are.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import batched
from typing import Any

import msgpack
from urllib3.exceptions import HTTPError

from shared.clock import Clock
from shared.errors import (
    BucketUnavailableError,
    InvalidObjectError,
    ItemTooLargeError,
    SecretUnavailableError,
    UnavailableError,
)
from shared.telemetry import Telemetry
from worker.bucket import Bucket
from worker.deadline import Deadline
from worker.executor import Executors, run_parallel
from worker.forget.cut import Delivered, Forgetting, PersonRows
from worker.forget.person import Persons
from worker.forget.requests import STRAY, UNREAD, ForgetRequests, RequestDocument
from worker.forget.sql import by_id, counting, deleting
from worker.ledger import Ledger
from worker.rejected_events import PREFIX as REJECTED
from worker.rejected_events import events
from worker.rows import compress, decompress
from worker.span_object import Stored, parse
from worker.sweeper import judged, referring
from worker.treasure_data.question import Question
from worker.treasure_data.statement import End, Statements

SHOWN_SECONDS = 3600.0
"""How long after its import a row is sure to be found by a statement, at least."""
_AT_ONCE = 32
_BATCH = 96  # objects
_MOST_IDS = 500  # in one statement
_STATEMENTS_AT_ONCE = 8


@dataclass(slots=True)
class Findings:
    """What a search found.

    Attributes:
        after: the name behind which it goes on; empty if it has seen everything.
        objects: how many span objects it has looked at.
        rows: of persons that it found, by state; rejected events among them.
        forgotten: those of them that are gone now, by request and state.
        left: those of them that it had to leave, by request. What it could not read counts under UNREAD, what no span refers to under STRAY.
        deleted: rows that Treasure Data has deleted, by request and `database.table`.
        fresh: chunks with rows that a statement may not find yet.
        places: the spans that have rows of persons, each as its chain and the number that it follows.
    """

    after: str = ""
    objects: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    forgotten: Counter[tuple[str, str]] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    deleted: Counter[tuple[str, str]] = field(default_factory=Counter)
    fresh: set[str] = field(default_factory=set)
    places: list[list[str]] = field(default_factory=list)

    def add(self, cut: PersonRows) -> None:
        """Add what was found in a span."""
        self.rows.update(cut.rows)
        self.forgotten.update(cut.gone)
        self.left += cut.left
        self.places.append([cut.span.chain.name, cut.span.after])

    def told(self) -> dict[str, Any]:
        """Return it as a JSON object for the command."""
        unread = self.left[UNREAD] + self.left[STRAY]
        return {
            "after": self.after,
            "objects": self.objects,
            "left": {one: number for one, number in self.left.items() if one != STRAY} | {UNREAD: unread},
            "rows": self.rows,
            "places": self.places,
        }


@dataclass(eq=False)
class ForgetSearch:
    """Searches. `look` and `forget` raise UnavailableError if S3 or the ledger does not answer.

    After a delivery, it takes `shown_seconds` until a query is sure to find its rows.
    """

    _ledger: Ledger
    _bucket: Bucket
    _forgetting: Forgetting
    _requests: ForgetRequests
    _statements: Statements
    _executors: Executors
    _clock: Clock
    _telemetry: Telemetry
    _shown_seconds: float

    def look(self, prefix: str, after: str, persons: Persons, deadline: Deadline) -> Findings:
        """Look for persons in the objects whose names begin so, behind a name, until the deadline is near, and change nothing."""
        searched = Findings()
        for names in self._names(prefix, after, searched, deadline):
            if prefix.startswith(REJECTED):
                self._in_rejected(names, persons, searched, forgets=False)
            else:
                for cut in self._looks(names, persons, searched):
                    searched.add(cut)
        return searched

    def forget(self, prefix: str, after: str, deadline: Deadline, until: Deadline | None = None) -> Findings:
        """Forget everybody who is to be forgotten in the objects whose names begin so, behind a name, and note it.

        It looks at no more objects when the deadline, or `until`, is near. Until the deadline, Treasure Data may delete rows.
        """
        document, now, searched = self._requests.document(), self._clock.now(), Findings()
        persons = self._requests.persons_of(document.active)

        def note(found: RequestDocument) -> None:
            found.seen = dict.fromkeys(searched.fresh, now) | found.seen
            found.add_forgotten(searched.forgotten, now)
            found.add_deleted(searched.deleted)

        try:
            for names in self._names(prefix, after, searched, until or deadline):
                if prefix.startswith(REJECTED):
                    self._in_rejected(names, persons, searched, forgets=True)
                    continue
                found = self._looks(names, persons, searched)
                gone = self._delete_delivered(found, document.seen, searched, deadline)
                jobs = [partial(self._forget, cut, persons, gone) for cut in found]
                for cut in _known(run_parallel(self._executors, jobs, _AT_ONCE)):
                    searched.add(cut)
        finally:
            if searched.forgotten or searched.deleted or searched.fresh - document.seen.keys():
                self._requests.change(note)  # whatever fails, this is done
        return searched

    def _names(
        self, prefix: str, after: str, searched: Findings, deadline: Deadline
    ) -> Iterator[tuple[str, ...]]:
        """Yield the names of objects behind a name, some at a time, until the deadline is near; note how far that has come."""
        searched.after = after or prefix
        for batch in batched(self._bucket.names(prefix, after), _BATCH, strict=False):
            if deadline.near:
                return
            yield batch
            searched.after = batch[-1]
        searched.after = ""

    def _looks(self, names: Iterable[str], persons: Persons, searched: Findings) -> list[PersonRows]:
        """Return the spans with rows of persons, of those that these objects belong to."""
        stored = [one for one in map(parse, names) if one is not None]
        looks = [self._judged(one.name, partial(self._look, one, persons)) for one in stored]
        found = run_parallel(self._executors, looks, _AT_ONCE)
        searched.left.update(one for one in found if isinstance(one, str))
        searched.objects += len(looks)
        return [one for some in found if not isinstance(some, str) for one in some]

    def _judged[T](self, name: str, judge: Callable[[], T]) -> Callable[[], T | str]:
        return partial(judged, name, judge, UNREAD, self._telemetry)

    def _look(self, stored: Stored, persons: Persons) -> list[PersonRows] | str:
        """Return what an object has of persons, if any; STRAY if no span refers to it, and it must be looked at again.

        An object that nobody needs is deleted.
        """
        span, is_left = referring(self._ledger, stored, self._clock.now())
        if span is None:
            if not is_left:
                return STRAY
            self._bucket.erase(stored.name)
            return []
        found = self._forgetting.look(span, persons)
        return [found] if found.rows or found.left else []

    def _forget(
        self, cut: PersonRows, persons: Persons, gone: frozenset[Delivered]
    ) -> PersonRows | UnavailableError:
        try:
            return self._forgetting.forget(cut.span, persons, gone.__contains__)
        except (ItemTooLargeError, InvalidObjectError, BucketUnavailableError):  # the search goes on
            return PersonRows(cut.span, cut.rows, left=Counter({UNREAD: 1}))
        except UnavailableError as error:
            return error

    def _delete_delivered(
        self, cuts: Iterable[PersonRows], seen: Mapping[str, float], searched: Findings, deadline: Deadline
    ) -> frozenset[Delivered]:
        """Delete delivered rows in Treasure Data; return those that need not be remembered. What somebody else must run is noted first."""
        statements: dict[tuple[str, str], None] = {}
        wanted: dict[tuple[str, str], list[Delivered]] = {}
        gone: set[Delivered] = set()
        for row in (row for cut in cuts for row in cut.delivered):
            since = row.since or seen.get(row.chunk) or self._clock.now()
            if row.row.id is None:
                gone.add(row)  # no statement finds it but that of the command, by the value
            elif since + self._shown_seconds < self._clock.now():
                wanted.setdefault((row.database, row.table), []).append(row)
            else:
                searched.fresh.add(row.chunk)
        jobs = [
            partial(self._delete_rows, database, table, part, deadline)
            for (database, table), rows in wanted.items()
            for part in batched(rows, _MOST_IDS, strict=False)
        ]
        for database, table, part, (end, number) in run_parallel(self._executors, jobs, _STATEMENTS_AT_ONCE):
            # the command may have deleted some of them by the value
            searched.deleted.update((one.row.request, f"{database}.{table}") for one in part[:number])
            if end not in (End.SUCCESS, End.UNKNOWN):
                statements |= dict.fromkeys(
                    (request, f"{database}: {deleting(table, _condition(rows))}")
                    for request, rows in _by_request(part).items()
                )
            if end is not End.UNKNOWN:
                gone.update(part)
        if statements:
            self._requests.change(lambda document: document.add_statements(statements))
        return frozenset(gone)

    def _delete_rows(
        self, database: str, table: str, part: tuple[Delivered, ...], deadline: Deadline
    ) -> tuple[str, str, tuple[Delivered, ...], tuple[End, int]]:
        return database, table, part, self.delete(database, table, _condition(part), deadline)

    def delete(self, database: str, table: str, condition: str, deadline: Deadline) -> tuple[End, int]:
        """Delete rows in Treasure Data; return SUCCESS once a count finds none, UNKNOWN if that is not certain yet, and how many it has deleted.

        A database that is gone has none; a table that is gone may have been renamed.

        A job may take longer than this invocation, so the count comes first: it may have ended since an earlier one. It gets half of the time.
        """
        number, half = 0, deadline.within(deadline.left() / 2)
        try:
            counted = self._statements.run(database, counting(table, condition), half)
            if counted.count == 0 or counted.end is End.FORBIDDEN:
                return counted.end, 0
            if counted.end is End.MISSING:
                question = Question(self._statements, database, table, deadline, 0.0)
                return (End.SUCCESS if question.is_gone(End.MISSING) else End.MISSING), 0
            job = self._statements.run(database, deleting(table, condition), deadline)
            if job.end is not End.SUCCESS:
                return job.end, 0
            number = counted.count or 0
            left = self._statements.run(database, counting(table, condition), deadline).count
        except (HTTPError, SecretUnavailableError):
            return End.UNKNOWN, number
        return (End.SUCCESS if left == 0 else End.UNKNOWN), max(0, number - (left or 0))

    # Rejected events

    def _in_rejected(
        self, names: Iterable[str], persons: Persons, searched: Findings, *, forgets: bool
    ) -> None:
        """Find persons in rejected events; with `forgets`, delete these."""
        reads = [partial(self._rejected, name, persons, forgets=forgets) for name in names]
        jobs = [self._judged(name, read) for name, read in zip(names, reads, strict=True)]
        for requests in run_parallel(self._executors, jobs, _AT_ONCE):
            if isinstance(requests, str):
                searched.left[requests] += 1
                continue
            searched.rows["rejected"] += len(requests)
            searched.forgotten.update((request, "rejected") for request in requests if forgets)

    def _rejected(self, name: str, persons: Persons, *, forgets: bool) -> list[str]:
        """Return the requests that events of an object match."""
        matcher = persons.of(name.split("/")[1])
        data = self._bucket.get(name) if matcher is not None else None
        if matcher is None or data is None:
            return []
        held = list(events(decompress(data)))
        requests = [matcher.request_of_event(one.original, one.received_at) for one in held]
        if forgets and any(requests):
            kept = [one for one, request in zip(held, requests, strict=True) if not request]
            if kept:
                self._bucket.put(name, compress(b"".join(msgpack.packb(tuple(one)) for one in kept)))
            self._bucket.erase(name, but_latest=bool(kept))
        return [request for request in requests if request]


def _condition(rows: Iterable[Delivered]) -> str:
    return by_id(one.row.id for one in rows if one.row.id is not None)


def _by_request(rows: Iterable[Delivered]) -> dict[str, list[Delivered]]:
    found: dict[str, list[Delivered]] = {}
    for one in rows:
        found.setdefault(one.row.request, []).append(one)
    return found


def _known[T](results: Iterable[T | UnavailableError]) -> Iterator[T]:
    """Yield all results but those that are errors; then raise the last of these."""
    failure: UnavailableError | None = None
    for result in results:
        if isinstance(result, UnavailableError):
            failure = result
        else:
            yield result
    if failure is not None:
        raise failure
