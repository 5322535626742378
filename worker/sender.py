"""The sender: sends what waits, every minute, and on request.

It finds spans through the ledger's worklist, and handles many in parallel: for each it reads the item, decides about all chunks at
once, writes that it is about to send them, sends, and writes what became of them. Rows go to a database only after the database has answered
a probe, or accepted rows of this function instance; one import that fails closes it again for the rest of the run.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import batched, chain
from random import Random
from threading import Lock
from typing import Any

from shared.accounts import Account
from shared.clock import Clock
from shared.errors import HeldError, InvalidObjectError, ObjectGoneError, UnavailableError, WrongCountError
from shared.telemetry import Telemetry, about
from worker.account_cache import AccountCache
from worker.again import Again, event_of
from worker.claims import Claims
from worker.deadline import Deadline
from worker.executor import Executors, run_parallel
from worker.forget.cut import Forgetting, has_person, others
from worker.forget.person import Persons
from worker.health import SENDER_PROBE_SECONDS, DatabaseHealth
from worker.ledger import WORKLIST_KEYS, Ledger
from worker.plan import obstacle_of
from worker.rows import decompress, sample
from worker.selection import SCHEDULED, Selection
from worker.settlement import TOO_LARGE, Outcome, Settlement
from worker.span import ChunkKey, NotDeliverable, Place, Span, milliseconds
from worker.span_object import SpanObjects
from worker.states import USUAL_AGAIN_SECONDS, Action, Entry, Event, Happening, Presence, Rules, State, Step
from worker.treasure_data import READ_SECONDS, TreasureDataClient
from worker.upload import UNSENT, Upload, Uploader

UNSETTLED_SECONDS = 180.0
"""A span that nobody has settled is left to its worker for this long: longer than an invocation of the worker lasts."""
LONGEST_QUERY_SECONDS = 90.0
"""How long to wait for an answer, which may take two queries. After that, a later run asks again."""
FIRST_PAUSE_SECONDS = 300.0
LONGEST_PAUSE_SECONDS = 6 * 3600.0
"""The pauses between queries for a chunk whose presence no answer settles: the first, and the longest."""
LEFT_SECONDS = 1800.0
"""How long a span that waits for failing databases alone is not read again while they fail. Then an account may have another database."""
MOST_VAIN_PROBES = 32
"""After so many, and no success, a run probes no other database that has failed here."""

_RUN_SECONDS = 60.0  # between two runs
_AT_ONCE = 32  # spans handled in parallel
_SENDS_AT_ONCE = 4  # of one span
_PROBES_AT_ONCE = 16  # for one span
_ROUNDS = 12  # of one span, while its chunks are split or other invocations write it
_SHUFFLED = 1000  # spans at a time
_MOST_PAUSES = 10_000
_ASK_SECONDS = 5.0  # for which chunks to ask about are collected
_MOST_ASKED = 32  # chunks in one query
_MOST_WANTED = 20_000  # envelopes to look for at once, about
_RARER = 3  # of chunks that were asked about in vain, a query has an eighth, then one
_QUERIES_AT_ONCE = 8
_MOST_NAMED = 100  # databases in a log line
_MOST_LEFT = 200_000
_PAUSE_SECONDS = 0.1  # before spans that wait for a database have another turn
_THROTTLED = "http_429"
_SENDING = frozenset((Action.ASK, Action.SEND))


@dataclass(slots=True)
class Report:
    """The numbers of selected rows by what a run did with them; each row is counted once.

    Attributes:
        delivered: sent, or found in Treasure Data.
        kept: still waiting or dead.
        dead: have become dead.
        dropped: given up, as an operator decided.
        copies: are copies of rows that count elsewhere.
        complete: everything selected had its turn.
    """

    delivered: int = 0
    kept: int = 0
    dead: int = 0
    dropped: int = 0
    copies: int = 0
    complete: bool = True


@dataclass(slots=True)
class _Database:
    """What one run knows of a database.

    Attributes:
        closed: why it gets no more rows in this run; empty while it may.
        is_proven: it has answered a probe, or accepted rows.
        is_probed: a span is probing it.
        limit: how many spans may send to it at once.
        under_way: how many do.
    """

    closed: str = ""
    is_proven: bool = False
    is_probed: bool = False
    limit: int = _AT_ONCE
    under_way: int = 0

    @property
    def is_busy(self) -> bool:
        """Whether other spans must wait for it."""
        return self.is_probed or self.under_way >= self.limit


_UNTRIED = _Database()


@dataclass(slots=True)
class _Turn:
    """One span's turn in a run.

    Attributes:
        span: as it is in the ledger, once it was read.
        selected: the entries that were selected when its turn began.
        waits_for: a database that others are sending to or probing; then it needs another turn in this run.
        asks: it has chunks that must be asked about; then it needs another turn once there are answers.
        looked: copies of its envelopes that were put again have been looked for.
        complete: everything selected was tried.
    """

    run: "_Run"
    place: Place
    span: Span = field(init=False)
    selected: dict[ChunkKey, Entry] = field(default_factory=dict)
    waits_for: str = ""
    asks: bool = False
    looked: bool = False
    complete: bool = True


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A chunk to ask about, as the ledger had it, with rows that show whether Treasure Data has it."""

    span: Span
    key: ChunkKey
    entry: Entry
    database: str
    rows: list[object]


_Answers = dict[tuple[Place, ChunkKey, Entry] | str, Event]
"""What was found out about chunks, and by request id about envelopes that were put again."""


@dataclass(slots=True)
class _Run:
    """The state of one run, shared by its jobs.

    Attributes:
        vain_probes: probes without an answer, while no database has answered one.
        doubts: to ask about next.
        wanted: envelopes whose copies to look for next: when the ingest received each, by request id.
        answers: what was found out; an answer holds only for the entry that it was asked for.
        asking: turns that need answers.
        ask_at: UNIX seconds at which to ask for them at the latest.
    """

    deadline: Deadline
    selection: Selection
    persons: Persons | None
    databases: dict[str, _Database] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)
    vain_probes: int = 0
    doubts: list[_Doubt] = field(default_factory=list)
    wanted: dict[str, int] = field(default_factory=dict)
    answers: _Answers = field(default_factory=dict)
    asking: list[_Turn] = field(default_factory=list)
    ask_at: float = float("inf")
    report: Report = field(default_factory=Report)


@dataclass(slots=True)
class _Work:
    """What a turn is about to do with its span: the entries to write first, then the chunks to send, each with its database and body.

    Attributes:
        opened: chunks whose doubt it opens.
        admitted: databases that it counts against.
        again: chunks whose envelope was put again.
        closed: databases that may get nothing, by the chunks that are left for that; `?` and an account if Redis does not answer for it.
        forgets: a chunk has rows of a person, and must be cut before it is sent.
    """

    run: _Run
    turn: _Turn
    span: Span
    persons: Persons
    changes: dict[ChunkKey, Entry] = field(default_factory=dict)
    sends: dict[ChunkKey, tuple[str, bytes]] = field(default_factory=dict)
    opened: set[ChunkKey] = field(default_factory=set)
    admitted: set[str] = field(default_factory=set)
    again: list[ChunkKey] = field(default_factory=list)
    closed: dict[ChunkKey, str] = field(default_factory=dict)
    forgets: bool = False


@dataclass(eq=False)
class Sender:
    """Sends what waits."""

    _ledger: Ledger
    _objects: SpanObjects
    _claims: Claims
    _again: Again
    _forgetting: Forgetting
    _accounts: AccountCache
    _uploader: Uploader
    _settlement: Settlement
    _treasure_data: TreasureDataClient
    _health: DatabaseHealth
    _rules: Rules
    _executors: Executors
    _clock: Clock
    _telemetry: Telemetry
    # when to ask for a chunk again, and how often it was asked for
    _pauses: dict[tuple[Place, ChunkKey], tuple[float, int]] = field(default_factory=dict, init=False)
    # until when a span waits, and for which databases
    _left: dict[Place, tuple[float, frozenset[str]]] = field(default_factory=dict, init=False)

    def run(self, deadline: Deadline, selection: Selection | None = None) -> Report:
        """Handle every selected chunk, as far as the time allows; by default those that wait.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
        """
        selection, now = selection or Selection(), self._clock.now()
        run = _Run(deadline, selection, self._forgetting.persons())
        places = _shuffled(selection.places(self._ledger, now), now)
        waiting = self._pass(run, map(partial(_Turn, run), places))
        while waiting and not deadline.near:
            self._clock.sleep(_PAUSE_SECONDS)
            waiting = self._pass(run, iter(waiting))
        for turn in (*waiting, *run.asking):
            _count(turn, run.report)
        run.report.complete &= not (waiting or run.asking or deadline.near)
        if selection == Selection():
            self._report_oldest(deadline)
        closed = {name: one.closed for name, one in run.databases.items() if one.closed}
        self._telemetry.info("sent", **asdict(run.report), failing=sorted(closed)[:_MOST_NAMED])
        return run.report

    def _report_oldest(self, deadline: Deadline) -> None:
        """Report the age of the oldest waiting row, which raises an alarm. What was put again counts once it waits for unusually long."""
        now = self._clock.now()
        oldest = [self._oldest(number, now, deadline) for number in range(WORKLIST_KEYS)]
        age = max((now - at / 1000 for at in oldest if at is not None), default=0.0)
        self._telemetry.gauge("OldestWaitingSeconds", max(0, round(age)))

    def _oldest(self, number: int, now: float, deadline: Deadline) -> int | None:
        """Return when the first span of a part of the worklist that counts was planned, in UNIX milliseconds; None if none does.

        Without time to look at more, the next one counts.
        """
        work = self._ledger.work("waiting", number)
        return next((at for at, span in work if _counts(span, now) or deadline.near), None)

    def _pass(self, run: _Run, turns: Iterator[_Turn]) -> list[_Turn]:
        """Run turns in parallel; return those that must wait for their database."""
        waiting: list[_Turn] = []
        under_way = 0

        def end(turn: _Turn) -> None:
            run.report.complete &= turn.complete
            if turn.asks:
                run.asking.append(turn)
                run.ask_at = min(run.ask_at, self._clock.now() + _ASK_SECONDS)
            elif turn.waits_for:
                waiting.append(turn)
            else:
                _count(turn, run.report)

        with self._executors() as executor:
            while True:
                while under_way < _AT_ONCE and (job := self._next_job(run, turns, end, not under_way)):
                    executor.submit(job)
                    under_way += 1
                if not under_way:
                    return waiting
                done = executor.wait(1.0)
                under_way -= done is not None
                if isinstance(done, _Turn):
                    end(done)
                elif done is not None:
                    turns = chain(done, turns)

    def _next_job(
        self,
        run: _Run,
        turns: Iterator[_Turn],
        end: Callable[[_Turn], None],
        is_idle: bool,  # noqa: FBT001 -- internal
    ) -> Callable[[], Any] | None:
        """Return what to do next: a turn, or to ask for what earlier turns need; None if nothing can begin now."""
        if run.deadline.near:
            return None
        while self._clock.now() < run.ask_at and (turn := next(turns, None)) is not None:
            if not self._must_wait(turn):
                return partial(self._take_turn, turn)
            turn.asks = False  # what there was to ask is answered
            end(turn)
        if run.asking and (is_idle or self._clock.now() >= run.ask_at):
            asking, run.asking, run.ask_at = run.asking, [], float("inf")
            return partial(self._ask_for, run, asking)
        return None

    def _must_wait(self, turn: _Turn) -> bool:
        """Return whether a span needs no look now: others are using the database that it waits for, or all of its databases are closed."""
        with turn.run.lock:
            known = turn.run.databases.get(turn.waits_for, _UNTRIED)
            return (not known.closed and known.is_busy) or self._is_left(turn)

    def _take_turn(self, turn: _Turn) -> _Turn:
        turn.waits_for, turn.asks = "", False
        with about(span=turn.place.name):
            try:
                self._handle(turn.run, turn)
            except (UnavailableError, HeldError) as error:
                self._telemetry.warning("a span has to wait", error=type(error).__name__, reason=str(error))
                turn.complete = False
            except Exception as error:  # noqa: BLE001 -- one span's surprise must not keep the others from their turns
                self._telemetry.count("UnforeseenErrors")
                self._telemetry.error("a span cannot be sent", error)
                turn.complete = False
        if turn.waits_for and all(turn.span.entry(key) == entry for key, entry in turn.selected.items()):
            turn.selected = {}  # as if it had not begun: a hundred thousand spans may wait for a database, and do not fit into memory
            del turn.span
        return turn

    def _is_left(self, turn: _Turn) -> bool:
        """Return whether all chunks of a span wait for databases that are closed or being probed, as far as this instance knows."""
        until, left = self._left.get(turn.place, (0.0, frozenset()))
        if self._clock.now() >= until or turn.run.selection != Selection():
            return False
        known = {name: turn.run.databases.get(name, _UNTRIED) for name in left}
        if not all(one.closed or one.is_probed for one in known.values()):
            return False
        turn.waits_for = next((name for name, one in known.items() if one.is_probed), "")
        turn.complete &= bool(turn.waits_for)
        return True

    def _note_left(self, work: _Work, selected: Mapping[ChunkKey, Entry]) -> None:
        """Note a span whose chunks all wait for closed databases, so that an outage does not have each run read every waiting span."""
        self._left.pop(work.turn.place, None)
        if work.closed and work.closed.keys() == selected.keys() and work.run.selection == Selection():
            if len(self._left) >= _MOST_LEFT:
                self._left.clear()
            until = self._clock.now() + LEFT_SECONDS
            self._left[work.turn.place] = until, frozenset(work.closed.values())

    def _handle(self, run: _Run, turn: _Turn) -> None:
        for _ in range(_ROUNDS):
            span = self._ledger.get(turn.place)
            if span is None or run.deadline.near:
                break
            if not span.settled and self._clock.now() - span.planned_at / 1000 < UNSETTLED_SECONDS:
                break
            turn.span, turn.waits_for = span, ""
            selected = self._selected(run, span)
            turn.selected = turn.selected or selected
            if run.persons is None:
                raise UnavailableError("nobody knows who is to be forgotten")
            awaited = self._claims.awaited(span)
            work = _Work(run, turn, replace(span, copies=awaited), run.persons)
            try:
                self._decide_all(work, selected)
                if work.forgets:
                    self._forgetting.forget_unsent(span, run.persons)
                    turn.selected = {}
                    continue  # with other chunks
                self._note_left(work, selected)
                if work.span == span and not work.changes:
                    return
                won, turn.span = self._ledger.update(work.span.with_entries(work.changes, settled=True))
                if not won:
                    continue  # another invocation has written the span: decide again
                self._settlement.report(work.span, work.changes)
                self._send(work)
            finally:
                self._release(work)
            if not self._has_more(work, turn.span):
                return
        turn.complete = False

    def _selected(self, run: _Run, span: Span) -> dict[ChunkKey, Entry]:
        leaves = (
            (key, entry)
            for key, entry in span.all_leaves()
            if run.selection.has(span.place, key, entry, span.planned_at)
        )
        return dict(_shuffled(leaves, self._clock.now()))

    @staticmethod
    def _has_more(work: _Work, span: Span) -> bool:
        """Return whether a round has made chunks that can be sent at once: halves, or rows that are no copy after all."""
        states = {span.entry(key).state for key in (*work.sends, *work.changes)}
        decided = any(span.entry(key).state is State.WAITING for key in work.again)
        return State.SPLIT in states or decided

    # Deciding

    def _decide_all(self, work: _Work, selected: Mapping[ChunkKey, Entry]) -> None:
        span, run = work.span, work.run
        accounts = self._accounts.resolve(
            dict.fromkeys(key.account for key, one in selected.items() if not _goes_to(span, key, one))
        )
        steps: dict[ChunkKey, tuple[Step, str, str | None]] = {}
        for key, entry in selected.items():
            database, obstacle = self._destination(span, key, entry, accounts)
            step = self._rules.next_step(entry, obstacle, run.selection.decision, self._clock.now())
            steps[key] = step, database, obstacle
        self._probe_untried(
            run, dict.fromkeys(database for step, database, _ in steps.values() if step.action in _SENDING)
        )
        for key, (step, database, obstacle) in steps.items():
            if step.action is Action.DECIDE or (
                step.action is Action.ASK and _is_undecided(run, key, selected[key])
            ):
                work.again.append(key)
            elif step.action is Action.APPLY and step.event is not None:
                self._apply(work, key, selected[key], step.event, step.reason)
            elif step.action in _SENDING and self._may_send(work, key, database):
                self._prepare(work, key, step, database)
            elif step.action is Action.WAIT and obstacle is None:
                work.closed[key] = f"?{key.account}"
                with run.lock:
                    run.databases.setdefault(work.closed[key], _Database(closed=step.reason))
        if work.again:
            self._decide_again(work)

    def _destination(
        self, span: Span, key: ChunkKey, entry: Entry, accounts: Mapping[str, Account | str]
    ) -> tuple[str, str | None]:
        """Return the database that a chunk goes to, and what prevents its delivery: empty for nothing, None if that is unknown."""
        planned = span.destination(key)
        if key.group.code and isinstance(planned, NotDeliverable):
            return "", planned.reason
        if database := _goes_to(span, key, entry):
            return database, ""
        account = accounts.get(key.account)
        if isinstance(account, Account):
            return account.database, obstacle_of(account, key.group.sender.key_id)
        return "", account

    def _probe_untried(self, run: _Run, databases: Iterable[str]) -> None:
        """Probe the databases of a span that nobody has tried in this run, side by side: those that answer wait for no others for long."""
        if run.deadline.near:
            return
        with run.lock:
            untried = [name for name in databases if name and self._is_untried(run, name)]
            for name in untried:
                run.databases[name].is_probed = True
        run_parallel(self._executors, [partial(self._try, run, name) for name in untried], _PROBES_AT_ONCE)

    def _is_untried(self, run: _Run, database: str) -> bool:
        """Return whether a database must be probed before it gets rows; note if it need not be."""
        known = run.databases.setdefault(database, _Database())
        if known.closed or known.is_busy:
            return False
        known.is_proven |= self._health.works(database)
        return not known.is_proven

    def _try(self, run: _Run, database: str) -> None:
        """Probe a database, unless so many others have failed since that this would be in vain."""
        known = run.databases[database]
        with run.lock:
            failure = self._health.reason(database) if run.vain_probes >= MOST_VAIN_PROBES else ""
        failure = failure or self._probe(run, database)
        with run.lock:
            known.is_probed, known.is_proven, known.closed = False, not failure, failure
            run.vain_probes = run.vain_probes + 1 if failure and run.vain_probes >= 0 else -1

    def _may_send(self, work: _Work, key: ChunkKey, database: str) -> bool:
        """Return whether a database may get rows of this span now. One that nobody has tried is probed, by one span at a time."""
        run, turn = work.run, work.turn
        if not database or run.deadline.near:
            turn.complete = False
            return False
        with run.lock:
            must_probe = self._is_untried(run, database)
            run.databases[database].is_probed |= must_probe
        if must_probe:  # an account has another database than a moment ago
            self._try(run, database)
        with run.lock:
            known = run.databases[database]
            if not known.closed:
                if database in work.admitted:
                    return True
                if known.is_busy or not known.is_proven:
                    turn.waits_for = database
                    return False
                known.under_way += 1
                work.admitted.add(database)
                return True
        turn.complete = False
        work.closed[key] = database
        return False

    def _probe(self, run: _Run, database: str) -> str:
        return self._health.probe(database, min(SENDER_PROBE_SECONDS, run.deadline.left()))

    def _release(self, work: _Work) -> None:
        with work.run.lock:
            for database in work.admitted:
                work.run.databases[database].under_way -= 1

    def _prepare(self, work: _Work, key: ChunkKey, step: Step, database: str) -> None:
        """Read a chunk, and note it to be sent; or to be asked about, if that is due and there is no answer yet."""
        run, span, entry, event = work.run, work.span, work.span.entry(key), step.event
        if step.action is Action.ASK:
            event = run.answers.get((span.place, key, entry))
            if event is None and self._clock.now() < self._pauses.get((span.place, key), (0.0, 0))[0]:
                work.turn.complete = False
                return
            if event is Event.ACCEPTED:
                self._apply(work, key, entry, event)
                return
        body = self._read(work, key, entry)
        if body is None:
            return
        if step.action is Action.ASK and event is None:
            rows = sample(others(work.persons, key, decompress(body)))
            with run.lock:
                run.doubts.append(_Doubt(span, key, entry, database, rows))
            work.turn.asks = True
            return
        renewed = entry if event is None else self._follow(entry, event)
        if self._must_cut(work, key, renewed, body):
            return
        if event is Event.ABSENT:
            work.changes[key] = renewed
            database = self._anew(work, key, renewed, entry.reason)
            if not database:
                return
        is_planned = not renewed.database and span.destination(key).text == database
        work.changes[key] = self._follow(renewed, Event.OPENED, database="" if is_planned else database)
        work.sends[key] = database, body
        if renewed.since is None:
            work.opened.add(key)

    @staticmethod
    def _must_cut(work: _Work, key: ChunkKey, renewed: Entry, body: bytes) -> bool:
        """Return whether a chunk has rows of persons, and no doubt any more, so that it is cut before it is sent."""
        if renewed.since is not None or not has_person(work.persons, work.span, key, body):
            return False
        if work.span.entry(key).since is None:
            work.forgets = True
        else:  # in a later run: first, the ledger must know that its doubt is over
            work.changes[key], work.turn.complete = renewed, False
        return True

    def _read(self, work: _Work, key: ChunkKey, entry: Entry) -> bytes | None:
        """Return a chunk's import body; note why there is none."""
        try:
            return self._objects.body(work.span, key)
        except ObjectGoneError:
            self._apply(work, key, entry, Event.OBJECT_GONE, "object_gone")
        except WrongCountError:
            self._apply(work, key, entry, Event.NOT_DELIVERABLE, "wrong_row_count")
        except InvalidObjectError as error:
            self._telemetry.error("a span object cannot be read", error)
            work.turn.complete = False
        return None

    def _anew(self, work: _Work, key: ChunkKey, renewed: Entry, reason: str) -> str:
        """Decide about a chunk whose doubt is over; return the database to send it to now, an empty string for none.

        `reason` is that of its last refusal. Its account is looked up again: it may have another database, or none.
        """
        span = work.span
        if reason == TOO_LARGE and span.rows(key) > 1 and span.can_split(key):
            # a proxy said so, or Treasure Data while there was a doubt
            halved = self._follow(renewed, Event.PARTLY_REFUSED, divisible=True)
            work.changes[key] = halved
            work.changes |= dict.fromkeys(key.halves, self._rules.half(halved))
            return ""
        accounts = self._accounts.resolve([key.account])
        database, obstacle = self._destination(span, key, renewed, accounts)
        if obstacle:
            self._apply(work, key, renewed, Event.NOT_DELIVERABLE, obstacle)
        if obstacle == "" and self._may_send(work, key, database):
            return database
        work.turn.complete &= bool(obstacle)
        return ""

    def _apply(self, work: _Work, key: ChunkKey, entry: Entry, event: Event, reason: str = "") -> None:
        """Note an event that needs no send."""
        changed = self._follow(entry, event, reason=reason)
        if changed != entry:
            work.changes[key] = changed

    def _follow(self, entry: Entry, event: Event, **details: Any) -> Entry:
        return self._rules.follow(entry, Happening(event, milliseconds(self._clock.now()), **details))

    def _decide_again(self, work: _Work) -> None:
        """Decide about envelopes that were put again, or note them: for all that a run finds, copies are looked for at once."""
        run, turn, left = work.run, work.turn, []
        for key in work.again:
            event = run.answers.get(key.group.request_id)
            if event is None:
                left.append(key)
            else:
                self._apply_again(work, key, event)
        if not left or turn.asks:
            return
        if turn.looked or len(run.wanted) >= _MOST_WANTED:
            turn.complete = False
            return
        try:
            receipts = self._again.receipts(work.span)
        except ObjectGoneError:
            for key in left:
                self._apply_again(work, key, Event.OBJECT_GONE)
        except (UnavailableError, InvalidObjectError) as error:
            turn.complete = False
            self._telemetry.info("rows that were put again wait", reason=str(error))
        else:
            with run.lock:
                run.wanted |= {key.group.request_id: receipts[key.group.request_id] for key in left}
            turn.asks = turn.looked = True

    def _apply_again(self, work: _Work, key: ChunkKey, found: Event) -> None:
        event = event_of(key, found)
        is_kept = event in {Event.NO_COPY, Event.NOT_RECORDED}
        self._apply(work, key, work.span.entry(key), event, "" if is_kept else event.name.lower())

    # Asking

    def _ask_for(self, run: _Run, turns: list[_Turn]) -> list[_Turn]:
        """Ask about what turns have noted, and return these turns. One query counts the rows of many chunks."""
        with run.lock:
            doubts, run.doubts = run.doubts, []
            wanted, run.wanted = run.wanted, {}
        alike: dict[tuple[str, str, int], list[_Doubt]] = {}
        for doubt in doubts:
            _, vain = self._pauses.get((doubt.span.place, doubt.key), (0.0, 0))
            alike.setdefault((doubt.database, doubt.key.group.table, vain), []).append(doubt)
        jobs: list[Callable[[], _Answers]] = [
            partial(self._ask, run, database, table, part)
            for (database, table, vain), found in alike.items()
            for part in batched(found, max(1, _MOST_ASKED >> _RARER * vain), strict=False)
        ]
        if wanted:
            jobs.append(partial(self._look_for, run, wanted))
        for answers in run_parallel(self._executors, jobs, _QUERIES_AT_ONCE):
            run.answers |= answers
        return turns

    def _look_for(self, run: _Run, wanted: Mapping[str, int]) -> _Answers:
        """Look for copies of envelopes that were put again; return what is decided about them."""
        try:
            events, obstacle = self._again.decide(wanted, run.deadline.within(LONGEST_QUERY_SECONDS))
        except UnavailableError as error:
            events, obstacle = {}, str(error)
        if len(events) < len(wanted):
            self._telemetry.info("rows that were put again wait", reason=obstacle)
        return dict(events.items())

    def _ask(self, run: _Run, database: str, table: str, doubts: Sequence[_Doubt]) -> _Answers:
        """Query Treasure Data for chunks of one table; return the events that its answer is, as far as it settles anything."""
        try:
            found = self._presences(run, database, table, doubts)
            if Presence.ABSENT in found and self._forgetting.persons(0.0) != run.persons:
                # a statement may have deleted the rows that were asked for; a later run asks for others
                found = [Presence.UNDECIDED if one is Presence.ABSENT else one for one in found]
        except Exception as error:  # noqa: BLE001 -- the surprise of one question must not keep the others from their answers
            self._telemetry.count("UnforeseenErrors")
            self._telemetry.error("rows cannot be asked about", error, database=database, table=table)
            found = [Presence.UNDECIDED for _ in doubts]
        answers: _Answers = {}
        for doubt, presence in zip(doubts, found, strict=True):
            was_sent = not doubt.key.group.request_id or bool(doubt.entry.database)
            place, event = doubt.span.place, self._rules.after_query(presence, was_sent=was_sent)
            if event is None:
                self._pause(place, doubt.key)
            else:
                self._pauses.pop((place, doubt.key), None)
                answers[place, doubt.key, doubt.entry] = event
        return answers

    def _presences(self, run: _Run, database: str, table: str, doubts: Sequence[_Doubt]) -> list[Presence]:
        not_before = max(self._rules.askable_from(one.entry.since or 0) for one in doubts)

        def ask() -> list[Presence]:
            patience = run.deadline.within(LONGEST_QUERY_SECONDS)
            rows = [one.rows for one in doubts]
            return self._treasure_data.ask(database, table, rows, patience, not_before)

        found = ask()
        if Presence.UNASKABLE in found and self._rules.sends_unasked:
            # ask again: only of a key that may import do we believe that it may not query
            if self._probe(run, database):
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

    def _report_ambiguous(self, doubt: _Doubt) -> None:
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

    # Sending

    def _send(self, work: _Work) -> None:
        """Send the chunks that the ledger says are about to be sent, and settle them."""
        turn, span = work.turn, work.turn.span
        if not work.sends:
            return
        jobs = [
            partial(self._attempt, work.run, span, Upload(key, to, span.unique_id(key, to), body))
            for key, (to, body) in work.sends.items()
        ]
        outcomes = dict(run_parallel(self._executors, jobs, _SENDS_AT_ONCE))
        turn.span = span = self._settlement.settle(span, work.opened, outcomes)
        turn.complete &= all(span.entry(key).state not in SCHEDULED for key in work.sends)

    def _attempt(self, run: _Run, span: Span, upload: Upload) -> tuple[ChunkKey, Outcome]:
        with run.lock:
            known = run.databases[upload.database]
            closed = known.closed
        since, reply = span.entry(upload.key).since, UNSENT
        if closed:
            return upload.key, Outcome(Event.UNANSWERED, closed, surely_not=True)
        if since is not None and self._rules.may_repeat(since, self._clock.now()):
            reply = self._uploader.attempt(upload, READ_SECONDS, run.deadline)
        outcome = upload.outcome(reply)
        with run.lock:
            if outcome.event is Event.ACCEPTED:
                self._health.succeeded(upload.database)
            elif reply.reason == _THROTTLED and reply.definitely_not_delivered:
                known.limit = max(1, known.limit // 2)
            elif outcome.event is Event.UNANSWERED and reply is not UNSENT:
                known.closed = reply.reason
                self._health.failed(upload.database, reply.reason)
        return upload.key, outcome


def _is_undecided(run: _Run, key: ChunkKey, entry: Entry) -> bool:
    """Return whether indexes may still decide about rows that were put again and died before: Treasure Data does not have a copy that waits."""
    was_never_sent = bool(key.group.request_id) and entry.state is State.DEAD and not entry.database
    return was_never_sent and run.answers.get(key.group.request_id) is not Event.INDEX_GONE


def _goes_to(span: Span, key: ChunkKey, entry: Entry) -> str:
    """Return the database that a chunk goes to while it is in doubt; empty if it is in none."""
    return span.database(key) if entry.since is not None else ""


_COUNTED = {
    State.DELIVERED: "delivered",
    State.DEAD: "dead",
    State.DROPPED: "dropped",
    State.COPY: "copies",
}


def _count(turn: _Turn, report: Report) -> None:
    """Add the rows that a turn selected to the report, each once."""
    for key, before in turn.selected.items():
        for state, rows in _rows_by_state(turn.span, key):
            name = "kept" if state is before.state else _COUNTED.get(state, "kept")
            setattr(report, name, getattr(report, name) + rows)


def _rows_by_state(span: Span, key: ChunkKey) -> Iterator[tuple[State, int]]:
    """Yield the state and the rows of a chunk, or of the halves that it was split into since; nothing if it was cut anew."""
    if key.planned not in span.chunks:
        return
    for leaf in span.leaves(key):
        joined = next((one for one in leaf.lineage() if one in span.entries), leaf.planned)
        entry = span.entry(joined)  # of the chunk that it was joined to, unless that is split
        yield span.entry(leaf).state if entry.state is State.SPLIT else entry.state, span.rows(leaf)


def _shuffled[T](things: Iterable[T], now: float) -> Iterator[T]:
    """Yield things in a different order in each run, so that a chunk that always fails is not always the first."""
    for part in batched(things, _SHUFFLED, strict=False):
        found = list(part)
        Random(now).shuffle(found)  # noqa: S311 -- the order is no secret
        yield from found


def _counts(span: Span, now: float) -> bool:
    """Return whether a span has rows that wait for longer than they usually do."""
    states, age = span.states(), now - span.planned_at / 1000
    if not span.settled and age < UNSETTLED_SECONDS + _RUN_SECONDS:
        return False  # its worker is at work; or was killed, and this run or the next one sends its rows
    is_long = age > USUAL_AGAIN_SECONDS
    return State.WAITING in states or (is_long and (State.AGAIN in states or bool(span.copies)))
