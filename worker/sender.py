"""The sender: sends what waits, every minute, and on request.

It finds spans through the ledger's worklist, and handles many in parallel: for each it reads the item, decides about all chunks at
once, writes that it is about to send them, sends, and writes what became of them. Rows go to a database only after the database has answered
a probe, or accepted rows of this function instance; one import that fails closes it again for the rest of the run.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import batched, chain
from random import Random
from typing import Any

from shared.accounts import Account
from shared.clock import Clock
from shared.errors import HeldError, InvalidObjectError, ObjectGoneError, UnavailableError, WrongCountError
from shared.telemetry import Telemetry, about
from worker.account_cache import AccountCache
from worker.admission import SPANS_AT_ONCE, Admission, MaySend
from worker.again import Again, event_of
from worker.claims import Claims
from worker.deadline import Deadline
from worker.executor import Executors, run_parallel
from worker.forget.cut import Forgetting, has_person, others
from worker.forget.person import Persons
from worker.health import DatabaseHealth
from worker.inquiry import Doubt, Inquiries, Inquiry
from worker.ledger import WORKLIST_KEYS, Ledger
from worker.plan import obstacle_of
from worker.rows import decompress, sample
from worker.selection import SCHEDULED, Selection
from worker.settlement import TOO_LARGE, Outcome, Settlement
from worker.span import ChunkKey, NotDeliverable, Place, Span, milliseconds
from worker.span_object import SpanObjects
from worker.states import IN_DOUBT, USUAL_AGAIN_SECONDS, Action, Entry, Event, Happening, Rules, State, Step
from worker.treasure_data.client import READ_SECONDS
from worker.upload import UNSENT, Upload, Uploader

UNSETTLED_SECONDS = 180.0
"""A span that nobody has settled is left to its worker for this long: longer than an invocation of the worker lasts."""
LEFT_SECONDS = 1800.0
"""How long a span that waits for failing databases alone is not read again while they fail. Then an account may have another database."""

_RUN_SECONDS = 60.0  # between two runs
_SENDS_AT_ONCE = 4  # of one span
_ROUNDS = 12  # of one span, while its chunks are split or other invocations write it
_SHUFFLED = 1000  # spans at a time
_ASK_SECONDS = 5.0  # for which chunks to ask about are collected
_MOST_NAMED = 100  # databases in a log line
_MOST_LEFT = 200_000
_PAUSE_SECONDS = 0.1  # before spans that wait for a database have another turn
_WRONG_COUNT = "wrong_row_count"
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


@dataclass(slots=True)
class _Run:
    """The state of one run, shared by its jobs.

    Attributes:
        asking: turns that need answers.
        ask_at: UNIX seconds at which to ask for them at the latest.
    """

    deadline: Deadline
    selection: Selection
    persons: Persons | None
    admission: Admission
    inquiry: Inquiry
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
    _inquiries: Inquiries
    _forgetting: Forgetting
    _accounts: AccountCache
    _uploader: Uploader
    _settlement: Settlement
    _health: DatabaseHealth
    _rules: Rules
    _executors: Executors
    _clock: Clock
    _telemetry: Telemetry
    # until when a span waits, and for which databases
    _left: dict[Place, tuple[float, frozenset[str]]] = field(default_factory=dict, init=False)

    def run(self, deadline: Deadline, selection: Selection | None = None) -> Report:
        """Handle every selected chunk, as far as the time allows; by default those that wait.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
        """
        selection, now = selection or Selection(), self._clock.now()
        persons, admission = self._forgetting.persons(), Admission(self._health, self._executors, deadline)
        run = _Run(deadline, selection, persons, admission, Inquiry(deadline, persons, admission))
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
        self._telemetry.info("sent", **asdict(run.report), failing=admission.closed()[:_MOST_NAMED])
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
                while under_way < SPANS_AT_ONCE and (job := self._next_job(run, turns, end, not under_way)):
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
            return partial(self._find_out, run, asking)
        return None

    def _find_out(self, run: _Run, turns: list[_Turn]) -> list[_Turn]:
        """Find out what turns have noted; return these turns."""
        self._inquiries.carry_out(run.inquiry)
        return turns

    def _must_wait(self, turn: _Turn) -> bool:
        """Return whether a span needs no look now: others are using the database that it waits for, or all of its databases are closed."""
        return turn.run.admission.is_busy(turn.waits_for) or self._is_left(turn)

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
        awaited = turn.run.admission.awaited(left)
        if awaited is None:
            return False
        turn.waits_for = awaited
        turn.complete &= bool(awaited)
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
                run.admission.release(work.admitted)
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
        run.admission.probe_untried(
            dict.fromkeys(database for step, database, _ in steps.values() if step.action in _SENDING)
        )
        for key, (step, database, obstacle) in steps.items():
            if step.action is Action.DECIDE or (
                step.action is Action.ASK and _is_undecided(run, key, selected[key])
            ):
                work.again.append(key)
            elif step.action is Action.APPLY and step.event is not None:
                self._apply(work, key, selected[key], step.event, step.reason)
            elif step.action in _SENDING and obstacle and not database:  # nobody can be asked
                self._apply(work, key, selected[key], Event.NO_DATABASE, obstacle)
            elif step.action in _SENDING and self._may_send(work, key, database):
                self._prepare(work, key, step, database)
            elif step.reason == IN_DOUBT and self._is_beyond_asking(span, key, database, obstacle):
                self._apply(work, key, replace(selected[key], since=None), Event.DROPPED)
            elif step.action is Action.WAIT and obstacle is None:
                work.closed[key] = f"?{key.account}"
                run.admission.close(work.closed[key], step.reason)
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

    def _is_beyond_asking(self, span: Span, key: ChunkKey, database: str, obstacle: str | None) -> bool:
        """Return whether nobody can ask for a dead chunk any more: its account has no database, or its rows are gone."""
        if span.entry(key).state is not State.DEAD:
            return False
        if obstacle and not database:
            return True
        try:
            self._objects.body(span, key)
        except InvalidObjectError as error:
            return isinstance(error, ObjectGoneError)
        return False

    def _may_send(self, work: _Work, key: ChunkKey, database: str) -> bool:
        """Return whether a database may get rows of this span now; note why it may not."""
        if database and not work.run.deadline.near:
            match work.run.admission.admit(database, work.admitted):
                case MaySend.YES:
                    return True
                case MaySend.LATER:
                    work.turn.waits_for = database
                    return False
                case MaySend.NO:
                    work.closed[key] = database
        work.turn.complete = False
        return False

    def _prepare(self, work: _Work, key: ChunkKey, step: Step, database: str) -> None:
        """Read a chunk, and note it to be sent; or to be asked about, if that is due and there is no answer yet."""
        run, span, entry, event = work.run, work.span, work.span.entry(key), step.event
        if step.action is Action.ASK:
            event = run.inquiry.answers.get((span.place, key, entry))
            if event is None and self._inquiries.is_paused(span.place, key):
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
            run.inquiry.ask_about(Doubt(span, key, entry, database, rows))
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

    def _must_cut(self, work: _Work, key: ChunkKey, renewed: Entry, body: bytes) -> bool:
        """Return whether a chunk has rows of persons, and no doubt any more, so that it is not sent before it is cut."""
        try:
            if renewed.since is not None or not has_person(work.persons, work.span, key, body):
                return False
        except InvalidObjectError:  # it cannot be cut
            self._apply(work, key, renewed, Event.NOT_DELIVERABLE, _WRONG_COUNT)
            return True
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
            self._apply(work, key, entry, Event.NOT_DELIVERABLE, _WRONG_COUNT)
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
            event = run.inquiry.answers.get(key.group.request_id)
            if event is None:
                left.append(key)
            else:
                self._apply_again(work, key, event)
        if not left or turn.asks:
            return
        if turn.looked or run.inquiry.is_full:
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
            run.inquiry.look_for({key.group.request_id: receipts[key.group.request_id] for key in left})
            turn.asks = turn.looked = True

    def _apply_again(self, work: _Work, key: ChunkKey, found: Event) -> None:
        event = event_of(key, found)
        is_kept = event in {Event.NO_COPY, Event.NOT_RECORDED}
        self._apply(work, key, work.span.entry(key), event, "" if is_kept else event.name.lower())

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
        closed = run.admission.reason(upload.database)
        since, reply = span.entry(upload.key).since, UNSENT
        if closed:
            return upload.key, Outcome(Event.UNANSWERED, closed, surely_not=True)
        if since is not None and self._rules.may_repeat(since, self._clock.now()):
            reply = self._uploader.attempt(upload, READ_SECONDS, run.deadline)
        outcome = upload.outcome(reply)
        run.admission.note(upload.database, outcome, reply)
        return upload.key, outcome


def _is_undecided(run: _Run, key: ChunkKey, entry: Entry) -> bool:
    """Return whether indexes may still decide about rows that were put again and died before: Treasure Data does not have a copy that waits."""
    was_never_sent = bool(key.group.request_id) and entry.state is State.DEAD and not entry.database
    return was_never_sent and run.inquiry.answers.get(key.group.request_id) is not Event.INDEX_GONE


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
