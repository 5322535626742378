"""The redrive: sends set-aside chunks to Treasure Data once they can be delivered.

On schedule it handles parked chunks and chunks in doubt; an operator can also have it send dead letters. Only the redrive closes
breakers. It finds spans through the ledger's worklist, decides from each span's entries what to do, and handles several spans in
parallel. It skips a database that keeps failing for the rest of the run, and tries databases with an open breaker after all others.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import batched
from random import Random
from threading import Lock

from shared.accounts import Account
from shared.errors import InvalidObjectError, UnavailableError
from worker.account_cache import AccountCache
from worker.breaker import SLOW, Breakers
from worker.chunk import Chunk, compress, sample
from worker.deadline import Deadline
from worker.delivery import TOO_LARGE, Action, Entry, Event, Presence, State, Step
from worker.execution import Delivery, Execution
from worker.ledger import OpenBreaker, Place
from worker.plan import obstacle_of
from worker.selection import SCHEDULED, Selection
from worker.set_aside import SetAside
from worker.span import ChunkKey, Database, Span, milliseconds
from worker.treasure_data import READ_SECONDS, Meaning
from worker.upload import EVENTS, UNSENT, Outcome, Upload, Uploader

BREAKER_LEFT_SECONDS = 300.0
"""A database whose breaker has been open for this long is probed if nothing is set aside for it."""
QUICK_SECONDS = 2.0
"""A database that was slow counts as working again if it answers within this time."""
SLOW_SECONDS = 3600.0
"""After this time the breaker of a slow database is closed if it accepts rows, however slow it is."""
LONGEST_QUERY_SECONDS = 90.0
"""How long to wait for an answer, which may take two queries. After that, the next run asks again."""

_AT_ONCE = 16  # spans handled in parallel, with their objects in memory
_FAILURES = 3  # consecutive failed sends after which a database is skipped
_ROUNDS = 12  # of one span, while its chunks are split or other invocations write it
_SHUFFLED = 1000  # at a time
_PROBE_TABLE = "sluice_probe"
_TOO_LARGE = Outcome(Event.TOO_LARGE, TOO_LARGE, definitely_not_delivered=True)


@dataclass(slots=True)
class RedriveReport:
    """The numbers of selected rows by what a run did with them; each row is counted once.

    Attributes:
        delivered: sent, or found in Treasure Data.
        kept: still set aside, including dead letters that were dead letters before.
        dead: have become dead letters.
        dropped: given up, as an operator decided.
        complete: everything selected had its turn.
    """

    delivered: int = 0
    kept: int = 0
    dead: int = 0
    dropped: int = 0
    complete: bool = True


@dataclass(slots=True)
class _Database:
    """What one run knows of a database.

    Attributes:
        breaker: its breaker, if it was open when the run began and still is.
        failures: consecutive failed sends.
        is_reserved: a span is trying it.
        quickest: seconds that its fastest successful import took; None while it has accepted nothing.
    """

    breaker: OpenBreaker | None = None
    failures: int = 0
    is_reserved: bool = False
    quickest: float | None = None

    @property
    def is_failing(self) -> bool:
        """Whether to skip it for the rest of the run."""
        return self.failures >= (1 if self.is_unproven else _FAILURES)

    @property
    def is_unproven(self) -> bool:
        """Whether its breaker was open, and it has accepted nothing since."""
        return self.breaker is not None and self.quickest is None


@dataclass(slots=True)
class _Run:
    """The state of one run of the redrive, shared by its jobs."""

    deadline: Deadline
    selection: Selection
    databases: defaultdict[str, _Database] = field(default_factory=lambda: defaultdict(_Database))
    aimed: set[str] = field(default_factory=set)  # databases that something set aside goes to
    probes: bool = False  # databases with an open breaker may be tried now
    lock: Lock = field(default_factory=Lock)


@dataclass(slots=True)
class _Turn:
    """One span's turn.

    Attributes:
        selected: the entries that were selected when its turn began.
        waits: some chunks need another turn in this run.
        complete: everything selected was tried.
    """

    place: Place
    selected: dict[ChunkKey, Entry] = field(default_factory=dict)
    span: Span | None = None
    waits: bool = False
    complete: bool = True

    def was_dead(self, key: ChunkKey) -> bool:
        """Return whether a chunk, or the chunk that it is a part of, was a dead letter when the turn began."""
        before = (self.selected[one] for one in key.lineage() if one in self.selected)
        return any(entry.state is State.DEAD_LETTER for entry in before)


class Redrive:
    """Sends set-aside chunks."""

    def __init__(
        self,
        delivery: Delivery,
        accounts: AccountCache,
        uploader: Uploader,
        breakers: Breakers,
    ) -> None:
        self._delivery = delivery
        self._rules = delivery.rules
        self._ledger = delivery.ledger
        self._store = delivery.store
        self._clock = delivery.clock
        self._telemetry = delivery.telemetry
        self._accounts = accounts
        self._uploader = uploader
        self._breakers = breakers

    def run(self, deadline: Deadline, selection: Selection | None = None) -> RedriveReport:
        """Handle every selected chunk, as far as the time allows; by default those that are parked or in doubt.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
        """
        selection = selection or Selection()
        run, report = _Run(deadline, selection), RedriveReport()
        for breaker in self._ledger.breakers():
            run.databases[breaker.database] = _Database(breaker)
        now = self._clock.now()
        places = _shuffled(selection.places(self._ledger, now), now)
        waiting = self._pass(run, map(_Turn, places), report)
        run.probes = True
        while waiting and not deadline.near:
            waiting = self._pass(run, iter(waiting), report)
        for turn in waiting:
            _count(turn, report)
        report.complete &= not waiting
        if selection == Selection() and not deadline.near:
            self._probe_idle(run)
        self._close_breakers(run)
        if selection == Selection() and report.kept:
            self._telemetry.count("RowsKept", report.kept)
        self._telemetry.info(
            "redrive",
            **asdict(report),
            failing=sorted(name for name, one in run.databases.items() if one.is_failing),
        )
        return report

    def _pass(self, run: _Run, turns: Iterator[_Turn], report: RedriveReport) -> list[_Turn]:
        """Run turns in parallel; return those that must wait, because their database has an open breaker or another span is trying it."""
        waiting, under_way = [], 0
        with self._delivery.executors() as executor:
            while True:
                while under_way < _AT_ONCE and not run.deadline.near:
                    turn = next(turns, None)
                    if turn is None:
                        break
                    executor.submit(partial(self._take_turn, run, turn))
                    under_way += 1
                if not under_way:
                    break
                turn = executor.wait(1.0)
                if turn is None:
                    continue
                under_way -= 1
                report.complete &= turn.complete
                if turn.waits:
                    waiting.append(turn)
                else:
                    _count(turn, report)
                self._close_breakers(run)
        if run.probes:
            waiting.extend(turns)
        report.complete &= not run.deadline.near
        return waiting

    def _take_turn(self, run: _Run, turn: _Turn) -> _Turn:
        turn.waits = False
        try:
            self._redrive(run, turn)
        except UnavailableError as error:
            self._telemetry.warning(
                "the redrive could not finish a span", error=type(error).__name__, reason=str(error)
            )
            turn.complete = False
        except Exception as error:  # noqa: BLE001 -- one span's surprise must not keep the others from their turns
            self._telemetry.count("UnforeseenErrors")
            self._telemetry.error("a span cannot be redriven", error, chain=turn.place.chain.name)
            turn.complete = False
        return turn

    def _redrive(self, run: _Run, turn: _Turn) -> None:
        span = self._ledger.get(turn.place)
        for _ in range(_ROUNDS):
            if span is None:
                return
            turn.span, turn.waits = span, False
            entries = _shuffled(span.entries.items(), self._clock.now())
            selected = {key: entry for key, entry in entries if run.selection.has(key, entry)}
            turn.selected = turn.selected or selected
            if run.deadline.near:
                return
            work = _SpanWork(self._delivery, span)
            try:
                for key, entry in selected.items():
                    self._decide(run, work, key, entry, turn)
                if not work.changes:
                    return
                write = self._ledger.fence if work.sends else self._ledger.update
                won, span = write(span.with_entries(work.changes))
                turn.span = span
                if not won:
                    continue  # another invocation has written the span: decide again
                for key, entry in work.changes.items():
                    self._report(turn, key, entry)
                span = turn.span = self._send(run, work, span, turn)
            finally:
                self._release(run, work)
            self._delete_final(span, selected)
            if not any(span.entry(key).state is State.SPLIT for key in work.sends):
                return
        turn.complete = False

    def _release(self, run: _Run, work: "_SpanWork") -> None:
        with run.lock:
            for database in work.reserved:
                run.databases[database].is_reserved = False

    def _decide(self, run: _Run, work: "_SpanWork", key: ChunkKey, entry: Entry, turn: _Turn) -> None:
        """Decide what to do with a chunk, and note in `work` the entry to write first."""
        now = self._clock.now()
        database, obstacle = self._destination(work.span, key, entry)
        work.databases[key] = database
        step = self._rules.next_step(entry, obstacle, run.selection.decision, now)
        if step.action in (Action.SEND, Action.ASK) and not self._may_try(run, work, database, turn):
            return
        self._prepare(run, work, key, step, turn)

    def _may_try(self, run: _Run, work: "_SpanWork", database: str, turn: _Turn) -> bool:
        """Return whether a database may be tried now. An unproven one is tried after all others, by one span at a time."""
        with run.lock:
            run.aimed.add(database)
            known = run.databases[database]
            if known.is_failing:
                turn.complete = False
                return False
            if known.is_unproven and database not in work.reserved:
                if not run.probes or known.is_reserved:
                    turn.waits = True
                    return False
                known.is_reserved = True
                work.reserved.add(database)
            return True

    def _prepare(self, run: _Run, work: "_SpanWork", key: ChunkKey, step: Step, turn: _Turn) -> None:
        entry, database = work.span.entry(key), work.databases.get(key, "")
        if step.action is Action.APPLY and step.event is not None:
            work.apply(key, entry, step.event, step.reason)
            return
        if step.action is Action.WAIT:
            return
        chunk = work.load(key, entry)
        if chunk is None:
            self._telemetry.error("a set-aside object cannot be read", object_id=work.span.object_id(key))
            turn.complete = False
            return
        event = step.event
        if step.action is Action.ASK:
            event = self._ask(run, chunk, database, entry)
            if event is None:
                return
            if event is Event.ACCEPTED:
                work.apply(key, entry, event)
                return
        renewed = entry if event is None else self._delivery.follow(entry, event)
        if event is not None and renewed is entry:
            return  # it is not in Treasure Data, but may still come from the stream
        if event is Event.UNASKED:
            self._report_ambiguous(work.span, key, entry, database)
        if self._rules.is_halved_first(entry, renewed) and work.span.can_split(key):
            work.too_large.add(key)
        work.fence(key, renewed, database)

    def _destination(self, span: Span, key: ChunkKey, entry: Entry) -> tuple[str, str | None]:
        """Return the database that a chunk goes to, and what prevents its delivery: empty for nothing, None if that is unknown."""
        if key.group.code:
            return "", key.group.code
        planned = span.destination(key)
        if self._rules.keeps_database(entry) and isinstance(planned, Database):
            return planned.name, ""
        account = self._accounts.resolve([key.account]).get(key.account)
        if isinstance(account, Account):
            return account.database, obstacle_of(account, key.group.owner.key_id)
        return "", account

    def _ask(self, run: _Run, chunk: Chunk, database: str, entry: Entry) -> Event | None:
        """Query Treasure Data for a chunk; return the event to apply, None if the answer settles nothing."""
        event = self._rules.after_query(self._presence(run, chunk, database, entry))
        if event is not Event.UNASKED:
            return event
        if not self._accepts_imports(database, chunk.key.group.table, run.deadline):
            with run.lock:  # our key has no access now: skip the database for the rest of the run
                run.databases[database].failures = _FAILURES
            return None
        # ask again: access may have been missing at the query, and restored before the import
        return self._rules.after_query(self._presence(run, chunk, database, entry))

    def _presence(self, run: _Run, chunk: Chunk, database: str, entry: Entry) -> Presence:
        patience = run.deadline.within(LONGEST_QUERY_SECONDS)
        not_before = self._clock.now() if entry.since is None else self._rules.askable_from(entry.since)
        rows, table = sample(chunk.payload()), chunk.key.group.table
        return self._uploader.treasure_data.ask(database, table, rows, patience, not_before)

    def _accepts_imports(self, database: str, table: str, deadline: Deadline) -> bool:
        """Return whether a database accepts imports, as an import without rows shows."""
        if deadline.near:
            return False
        unique_id = f"{milliseconds(self._clock.now()):032x}"
        seconds = min(READ_SECONDS, deadline.left())
        reply = self._uploader.treasure_data.send(database, table, unique_id, compress(b""), seconds)
        is_missing = reply.meaning is Meaning.NO_TABLE and reply.definitely_not_delivered
        return reply.meaning is Meaning.ACCEPTED or is_missing

    def _send(self, run: _Run, work: "_SpanWork", span: Span, turn: _Turn) -> Span:
        """Send the fenced chunks; return the span as it is afterwards."""
        if not work.sends:
            return span

        execution = Execution(
            self._delivery,
            span,
            work.chunks,
            describe=work.describe,
            report=partial(self._report, turn),
            opened=set(work.opened),
            whole=False,
        )
        uploads = [execution.upload(key, work.databases[key]) for key in work.sends]

        def send(uploads: list[Upload], _deadline: Deadline) -> list[Outcome]:
            return [
                _TOO_LARGE
                if upload.chunk.key in work.too_large
                else self._attempt(run, execution.span, upload)
                for upload in uploads
            ]

        execution.deliver(send, run.deadline, uploads)
        for key in work.sends:
            turn.complete &= execution.span.entry(key).state not in SCHEDULED
        return execution.span

    def _attempt(self, run: _Run, span: Span, upload: Upload) -> Outcome:
        with run.lock:
            known = run.databases[upload.database]
            if known.is_failing:
                return Outcome(
                    Event.UNANSWERED, definitely_not_delivered=True
                )  # the chunk stays set aside, with its reason
        since = span.entry(upload.chunk.key).since
        began = self._clock.now()
        reply = UNSENT
        if since is not None and self._rules.may_repeat(since, began):
            reply = self._uploader.attempt(upload, READ_SECONDS, run.deadline)
        event = EVENTS.get(reply.meaning, Event.UNANSWERED)
        with run.lock:
            if event is not Event.UNANSWERED:
                known.failures = 0
            elif reply is not UNSENT:
                known.failures += 1
            if event is Event.ACCEPTED:
                took = self._clock.now() - began
                known.quickest = took if known.quickest is None else min(took, known.quickest)
        return Outcome(event, "" if reply is UNSENT else reply.reason, upload.definitely_not_delivered)

    def _report(self, turn: _Turn, key: ChunkKey, entry: Entry) -> None:
        if entry.state is State.DEAD_LETTER and not turn.was_dead(key):
            self._telemetry.count("RowsDeadLettered", entry.rows)
            self._delivery.report_set_aside(key, entry)

    def _report_ambiguous(self, span: Span, key: ChunkKey, entry: Entry, database: str) -> None:
        self._telemetry.count("RowsAmbiguous", entry.rows)
        self._telemetry.warning(
            "ambiguous: sent again although Treasure Data may have the rows",
            account=key.account,
            table=key.group.table,
            database=database,
            rows=entry.rows,
            unique_id=span.unique_id(key, database),
            new_unique_id=span.unique_id(key, database, entry.generation + 1),
        )

    def _delete_final(self, span: Span, selected: Mapping[ChunkKey, Entry]) -> None:
        """Delete the objects whose rows are all in a final state; the sweeper deletes those that this misses."""
        names = {
            self._store.name(span, key, entry.edit, entry.digest)
            for key, entry in selected.items()
            if entry.digest and self._store.may_delete(span, key)
        }
        for name in names:
            self._store.delete(name)

    def _probe_idle(self, run: _Run) -> None:
        """Probe databases that have an open breaker but nothing set aside: nothing else would close the breaker."""
        before = self._clock.now() - BREAKER_LEFT_SECONDS
        for name, known in run.databases.items():
            breaker = known.breaker
            if breaker is None or name in run.aimed or breaker.since / 1000 >= before:
                continue
            began = self._clock.now()
            if self._accepts_imports(name, _PROBE_TABLE, run.deadline):
                known.quickest = self._clock.now() - began

    def _close_breakers(self, run: _Run) -> None:
        for name, known in run.databases.items():
            breaker = known.breaker
            if breaker is None or known.quickest is None:
                continue
            age = self._clock.now() - breaker.since / 1000
            if breaker.reason == SLOW and known.quickest > QUICK_SECONDS and age < SLOW_SECONDS:
                continue  # it accepts rows, but as slowly as before
            known.breaker = None
            self._breakers.close(name)


def _count(turn: _Turn, report: RedriveReport) -> None:
    """Add the rows that a turn selected to the report, each once."""
    if turn.span is None:
        return
    for key, before in turn.selected.items():
        for state, rows in _outcomes(turn.span, key, before):
            match state:
                case State.DELIVERED:
                    report.delivered += rows
                case State.DROPPED:
                    report.dropped += rows
                case State.DEAD_LETTER if before.state is not State.DEAD_LETTER:
                    report.dead += rows
                case _:
                    report.kept += rows


def _outcomes(span: Span, key: ChunkKey, before: Entry) -> Iterator[tuple[State, int]]:
    """Yield the state and the rows of a chunk, or of the halves that it was split into since."""
    for leaf in span.leaves(key):
        joined = next((one for one in leaf.lineage() if one in span.entries), leaf.planned)
        entry = span.entry(joined)  # of the chunk that it was joined to, unless that is split
        rows = len(leaf.within(before.rows, key))
        yield span.entry(leaf).state if entry.state is State.SPLIT else entry.state, rows


def _shuffled[T](things: Iterable[T], now: float) -> Iterator[T]:
    """Yield things in a different order in each run, so that a chunk that always fails is not always the first."""
    for part in batched(things, _SHUFFLED, strict=False):
        found = list(part)
        Random(now).shuffle(found)  # noqa: S311 -- the order is no secret
        yield from found


class _SpanWork:
    """What a turn is about to do with one span: the entries to write first, then the chunks to send."""

    def __init__(self, delivery: Delivery, span: Span) -> None:
        self._delivery = delivery
        self._objects: dict[str, SetAside] = {}
        self.span = span
        self.changes: dict[ChunkKey, Entry] = {}
        self.databases: dict[ChunkKey, str] = {}
        self.sends: list[ChunkKey] = []
        self.opened: list[ChunkKey] = []
        self.too_large: set[ChunkKey] = set()  # to be halved without another send
        self.reserved: set[str] = set()
        self.chunks: dict[ChunkKey, Chunk] = {}

    def apply(self, key: ChunkKey, entry: Entry, event: Event, reason: str = "") -> None:
        """Note an event that needs no send."""
        changed = self._delivery.follow(entry, event, reason=reason)
        if changed is not entry:
            self.changes[key] = changed

    def fence(self, key: ChunkKey, entry: Entry, database: str) -> None:
        """Note that a chunk is about to be sent."""
        planned = self.span.destinations.get(key.group.owner)
        override = "" if planned == Database(database) and not entry.database else database
        self.changes[key] = self._delivery.follow(entry, Event.DOUBT_OPENS, database=override)
        self.sends.append(key)
        if entry.since is None:
            self.opened.append(key)

    def load(self, key: ChunkKey, entry: Entry) -> Chunk | None:
        """Return a chunk's rows; None if its object does not hold them.

        Raises:
            BucketUnavailableError: S3 cannot be reached.
        """
        name = self._delivery.store.name(self.span, key, entry.edit, entry.digest)
        try:
            stored = self._objects.get(name)
            if stored is None:
                stored = self._delivery.store.get(self.span, key, entry.edit, entry.digest)
                self._objects[name] = stored
            planned = Chunk.of_payload(key.planned, stored.rows, stored.payload)
            leaf = planned.leaf(key)
        except (InvalidObjectError, ValueError):
            return None
        self.chunks[key] = planned
        return leaf

    def describe(self, _span: Span, chunk: Chunk) -> SetAside:
        """Return the object of a chunk, which is in S3 already."""
        return next(one for one in self._objects.values() if one.key == chunk.key)
