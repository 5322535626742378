"""One span's turn in a run of the sender: decide about all its chunks at once, write what is about to be sent, send, and settle."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from copy import replace
from dataclasses import dataclass, field
from functools import partial
from itertools import batched, zip_longest
from random import Random
from typing import Any

from shared.accounts import Account
from shared.clock import Clock
from shared.errors import InvalidObjectError, ObjectGoneError, UnavailableError, WrongCountError
from shared.telemetry import Telemetry
from worker.account_cache import AccountCache
from worker.again import Again, Times
from worker.claims import Claims
from worker.deadline import Deadline
from worker.executor import Executors, run_parallel
from worker.forget.cut import Forgetting, has_person, others
from worker.forget.person import Persons
from worker.inquiry import Doubt, Inquiries, Run, was_sent
from worker.ledger import Ledger
from worker.plan import obstacle_of
from worker.rows import decompress, sample, spread
from worker.settlement import TOO_LARGE, Settlement
from worker.span import ChunkKey, Place, Span, milliseconds
from worker.span_object import SpanObjects
from worker.states import LEDGER_RESTORED, UNSETTLED, Action, Entry, Event, Happening, Rules, State, Step
from worker.treasure_data.client import UNSENT, Outcome
from worker.upload import Upload, Uploader

UNSETTLED_SECONDS = 180.0
"""A span that nobody has settled is left to its worker for this long: longer than an invocation of the worker lasts."""

_SENDS_AT_ONCE = 4  # of one span
_ROUNDS = 12  # of one span, while its chunks are split or other invocations write it
_WRONG_COUNT = "wrong_row_count"
_SHUFFLED = 1000  # things at a time
_UNSURE = frozenset((LEDGER_RESTORED, Event.INDEX_GONE.name.lower()))
_SENDING = frozenset((Action.ASK, Action.SEND))


@dataclass(slots=True)
class Turn:
    """One span's turn in a run.

    Attributes:
        span: as it is in the ledger, once it was read.
        selected: the entries that were selected when its turn began.
        ready: chunks that wait because of it: halves, and rows that had a doubt, were dead, or are no copy after all.
        waits_for: a database that others are sending to or probing; then it needs another turn in this run.
        closed: the databases that may get nothing, if all selected chunks are left for these; `?` and an account if Redis does not answer
            for it.
        asks: it has chunks that must be asked about; then it needs another turn once there are answers.
        wanted: envelopes whose copies to look for, by request id.
        complete: everything selected was tried.
    """

    run: Run
    place: Place
    span: Span = field(init=False)
    selected: dict[ChunkKey, Entry] = field(default_factory=dict)
    ready: set[ChunkKey] = field(default_factory=set)
    waits_for: str = ""
    closed: frozenset[str] = frozenset()
    asks: bool = False
    doubts: dict[ChunkKey, Doubt] = field(default_factory=dict)
    wanted: dict[str, Times] = field(default_factory=dict)
    complete: bool = True


@dataclass(slots=True)
class _Work:
    """What a turn is about to do with its span: the entries to write first, then the chunks to send, each with its database and body.

    Attributes:
        admitted: databases that its turn counts against, in all its rounds, but for those that it leaves to others while it sends to slow ones.
        until: when it prepares no more chunks: those that it has read must be sent.
        closed: the databases that may get nothing, by the chunks that are left for that.
        forgets: a chunk has rows of a person, and must be cut before it is sent.
    """

    turn: Turn
    span: Span
    persons: Persons
    admitted: set[str]
    until: Deadline
    changes: dict[ChunkKey, Entry] = field(default_factory=dict)
    sends: dict[ChunkKey, tuple[str, bytes]] = field(default_factory=dict)
    closed: dict[ChunkKey, str] = field(default_factory=dict)
    forgets: bool = False


@dataclass(eq=False)
class Turns:
    """Takes turns."""

    _ledger: Ledger
    _objects: SpanObjects
    _claims: Claims
    _again: Again
    _inquiries: Inquiries
    _forgetting: Forgetting
    _accounts: AccountCache
    _uploader: Uploader
    _settlement: Settlement
    _rules: Rules
    _executors: Executors
    _clock: Clock
    _telemetry: Telemetry

    def take(self, turn: Turn) -> None:
        """Handle what is selected of a span, and note in the turn what became of it; raise UnavailableError or HeldError if it has to wait."""
        admitted: set[str] = set()
        try:
            self._take(turn, admitted)
        finally:
            turn.run.admission.release(admitted)

    def _take(self, turn: Turn, admitted: set[str]) -> None:
        run = turn.run
        turn.waits_for, turn.asks, turn.closed = "", False, frozenset()
        for _ in range(_ROUNDS):
            span = self._ledger.get(turn.place)
            if span is None or run.deadline.near:
                break
            if not span.settled and self._clock.now() - span.planned_at / 1000 < UNSETTLED_SECONDS:
                break
            turn.span, turn.waits_for = span, ""
            selected = dict(shuffled(run.selection.of(span, turn.ready), self._clock.now()))
            turn.selected = turn.selected or selected
            if run.persons is None:
                raise UnavailableError("nobody knows who is to be forgotten")
            awaited = self._claims.awaited(span)
            until = run.deadline.within(run.deadline.left() / 2)
            work = _Work(turn, replace(span, copies=awaited), run.persons, admitted, until)
            self._decide_all(work, selected)
            if work.forgets:
                self._forgetting.forget_unsent(span, run.persons)
                turn.selected = {}
                continue  # with other chunks
            is_left = work.closed.keys() == selected.keys()
            turn.closed = frozenset(work.closed.values() if is_left else ())
            if awaited == span.copies and not work.changes:
                return
            won, turn.span = self._ledger.update(work.span.with_entries(work.changes, settled=True))
            if not won:
                continue  # another invocation has written the span: decide again
            self._settlement.report(work.span, work.changes)
            self._send(work)
            ready = _ready(work, turn.span)
            if not ready:
                return
            turn.ready |= ready
        turn.complete = False

    # Deciding

    def _decide_all(self, work: _Work, selected: Mapping[ChunkKey, Entry]) -> None:
        span, run = work.span, work.turn.run
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
            self._do(work, key, step, database, obstacle)

    def _do(self, work: _Work, key: ChunkKey, step: Step, database: str, obstacle: str | None) -> None:
        """Do the next step for a chunk, or note it to be done with those of the others."""
        entry, is_unaskable = work.span.entry(key), bool(obstacle) and not database
        match step.action:
            case Action.APPLY if step.event is not None:
                self._apply(work, key, entry, step.event, step.reason)
            case Action.DECIDE:
                self._decide_again(work, key)
            case Action.ASK if _is_undecided(work.turn.run, key, entry):
                self._decide_again(work, key)
            case Action.ASK | Action.SEND if is_unaskable:
                self._apply(work, key, entry, Event.NO_DATABASE, obstacle or "")
            case Action.ASK if self._may_send(work, key, database):
                self._ask(work, key, database)
            case Action.SEND if self._may_send(work, key, database):
                if step.event is None:
                    self._prepare(work, key, database)
                else:
                    self._renew(work, key, step.event)
            case Action.DROP if entry.state is State.DEAD and (is_unaskable or self._is_gone(work.span, key)):
                self._apply(work, key, replace(entry, since=None), Event.DROPPED)
            case Action.WAIT if obstacle is None:
                work.closed[key] = f"?{key.account}"
                work.turn.run.admission.close(work.closed[key], step.reason)
                work.turn.complete = False

    def _destination(
        self, span: Span, key: ChunkKey, entry: Entry, accounts: Mapping[str, Account | str]
    ) -> tuple[str, str | None]:
        """Return the database that a chunk goes to, and what prevents its delivery: empty for nothing, None if that is unknown."""
        if key.group.code:
            return "", key.group.code
        if database := _goes_to(span, key, entry):
            return database, ""
        account = accounts.get(key.account)
        if isinstance(account, Account):
            return account.database, obstacle_of(account, key.group.sender.key_id)
        return "", account

    def _is_gone(self, span: Span, key: ChunkKey) -> bool:
        try:
            self._objects.body(span, key)
        except InvalidObjectError as error:
            return isinstance(error, ObjectGoneError)
        return False

    def _may_send(self, work: _Work, key: ChunkKey, database: str) -> bool:
        """Return whether a database may get rows of this span now; note why it may not."""
        if database and not work.until.near:
            admission = work.turn.run.admission
            if admission.admit(database, work.admitted):
                return True
            if not admission.reason(database):
                work.turn.waits_for = database
                return False
            work.closed[key] = database
        work.turn.complete = False
        return False

    def _prepare(self, work: _Work, key: ChunkKey, database: str) -> None:
        """Read a chunk, and note it to be sent."""
        span, entry = work.span, work.span.entry(key)
        body = self._read(work, key, entry)
        if body is None or self._must_cut(work, key, entry, body):
            return
        is_planned = not entry.database and span.destination(key).database == database
        work.changes[key] = self._follow(entry, Event.OPENED, database="" if is_planned else database)
        work.sends[key] = database, body

    def _ask(self, work: _Work, key: ChunkKey, database: str) -> None:
        """Note the answer about a chunk in doubt, or that it is to be asked about if there is none yet."""
        span, entry = work.span, work.span.entry(key)
        answer = work.turn.run.answers.get((span.place, key, entry))
        if answer is None and self._may_ask(work, key, entry):
            answer = self._note_doubt(work, key, entry, database)
        if answer is Event.ABSENT:
            if not self._must_ask_elsewhere(work, key, entry, database):
                self._renew(work, key, answer)
        elif answer is not None:
            if answer is Event.ACCEPTED and not span.database(key):
                entry = replace(entry, database=database)  # only now the ledger learns where its rows are
            self._apply(work, key, entry, answer)

    def _note_doubt(self, work: _Work, key: ChunkKey, entry: Entry, database: str) -> Event | None:
        """Note that a chunk is to be asked about; return what counts as the answer if it has no rows to ask for."""
        body = self._read(work, key, entry)
        if body is None:
            return None
        is_part = _may_be_there_in_part(work.span, entry)
        payload = others(work.persons, work.span, key, decompress(body))
        if not payload:  # a search deletes what Treasure Data has of it, before the rows leave their object
            return Event.ACCEPTED
        rows = (spread if is_part else sample)(payload)
        work.turn.doubts[key] = Doubt(work.span, key, entry, database, rows)
        work.turn.asks = True
        work.turn.run.noted += len(rows) if is_part else 0
        return None

    def _renew(self, work: _Work, key: ChunkKey, event: Event) -> None:
        """Note that a chunk waits without a doubt now, by its absence or an operator's decision: the next round sends it like any other."""
        span, entry = work.span, work.span.entry(key)
        renewed = self._follow(entry, event)
        is_large = entry.reason == TOO_LARGE and span.rows(key) > 1 and span.can_split(key)
        if event is Event.ABSENT and is_large:
            # a proxy said so, or Treasure Data while there was a doubt
            renewed = self._follow(renewed, Event.PARTLY_REFUSED, divisible=True)
            work.changes |= dict.fromkeys(key.halves, self._rules.half(renewed))
        work.changes[key] = renewed

    def _may_ask(self, work: _Work, key: ChunkKey, entry: Entry) -> bool:
        """Return whether a chunk can be asked about now; note why it cannot."""
        if work.turn.run.is_late or self._inquiries.is_paused(work.span.place, key):
            work.turn.complete = False
            return False
        if work.turn.run.is_full and _may_be_there_in_part(work.span, entry):
            work.turn.asks = True  # once there are answers, there is room
            return False
        return True

    def _must_ask_elsewhere(self, work: _Work, key: ChunkKey, entry: Entry, asked: str) -> bool:
        """Return whether a chunk that one database lacks must be asked about in its account's current one, too; note that.

        A ledger that was restored does not know of all sends, nor to which database.
        """
        is_old = entry.state is State.DEAD or entry.reason == LEDGER_RESTORED
        if not is_old or not was_sent(key, entry):
            return False
        account = self._accounts.resolve([key.account]).get(key.account)
        if account is None:
            work.turn.complete = False  # unknown now
            return True
        if not isinstance(account, Account) or account.database == asked:
            return False
        work.changes[key] = replace(entry, database=account.database)
        work.turn.asks = True
        return True

    def _must_cut(self, work: _Work, key: ChunkKey, entry: Entry, body: bytes) -> bool:
        """Return whether a chunk without a doubt has rows of persons, so that it is not sent before it is cut."""
        try:
            if entry.since is not None or not has_person(work.persons, work.span, key, body):
                return False
            work.forgets = True
        except InvalidObjectError:  # it cannot be cut
            self._apply(work, key, entry, Event.NOT_DELIVERABLE, _WRONG_COUNT)
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

    def _apply(self, work: _Work, key: ChunkKey, entry: Entry, event: Event, reason: str = "") -> None:
        """Note an event that needs no send."""
        changed = self._follow(entry, event, reason=reason)
        if changed != entry:
            work.changes[key] = changed

    def _follow(self, entry: Entry, event: Event, **details: Any) -> Entry:
        return self._rules.follow(entry, Happening(event, milliseconds(self._clock.now()), **details))

    def _decide_again(self, work: _Work, key: ChunkKey) -> None:
        """Decide about rows that were put again, or note their envelope: for all that a run finds, copies are looked for at once."""
        run, turn, request_id = work.turn.run, work.turn, key.group.request_id
        found = run.answers.get(request_id)
        if found is None and not run.is_full:
            found = self._note_envelope(work, request_id)
        if found is None or found is Event.UNANSWERED:
            turn.complete &= request_id in turn.wanted
            return
        if key.group.is_rejected and found is not Event.COPY_COUNTS:
            # they are never sent, so they are recorded unless a copy certainly counts
            found = Event.NOT_RECORDED
        is_kept = found in {Event.NO_COPY, Event.NOT_RECORDED}
        self._apply(work, key, work.span.entry(key), found, "" if is_kept else found.name.lower())

    def _note_envelope(self, work: _Work, request_id: str) -> Event | None:
        """Note that copies of an envelope are to be looked for; return what is known of it instead if its times are gone."""
        try:
            work.turn.wanted[request_id] = self._again.times(work.span, request_id)
            work.turn.asks = True
            work.turn.run.noted += 1
        except ObjectGoneError:
            return Event.OBJECT_GONE
        except InvalidObjectError as error:
            self._telemetry.error("a span object cannot be read", error)
        return None

    # Sending

    def _send(self, work: _Work) -> None:
        """Send the chunks that the ledger says are about to be sent, and settle them."""
        turn, span = work.turn, work.turn.span
        if not work.sends:
            return
        lanes: defaultdict[str, list[Upload]] = defaultdict(list)
        for key, (to, body) in work.sends.items():
            lanes[to].append(Upload(key, to, span.unique_id(key, to), body))
        # databases take turns, so that none waits for another's hundreds of chunks
        uploads = [one for some in zip_longest(*lanes.values()) for one in some if one is not None]
        jobs = [partial(self._attempt, work, span, uploads)] * len(uploads)
        outcomes = dict(run_parallel(self._executors, jobs, _SENDS_AT_ONCE))
        opened = {key for key in work.sends if work.span.entry(key).since is None}
        turn.span = span = self._settlement.settle(span, opened, outcomes)
        turn.complete &= all(span.entry(key).state not in UNSETTLED for key in work.sends)

    def _attempt(self, work: _Work, span: Span, uploads: list[Upload]) -> tuple[ChunkKey, Outcome]:
        run = work.turn.run
        upload = run.admission.next_of(uploads, work.admitted)
        closed, began = run.admission.reason(upload.database), self._clock.now()
        since, outcome = span.entry(upload.key).since, UNSENT
        if closed:
            return upload.key, Outcome(Event.UNANSWERED, closed, surely_not=True)
        if since is not None and self._rules.may_repeat(since, self._clock.now()):
            outcome = self._uploader.attempt(upload, run.deadline)
        run.admission.note(upload.database, outcome, self._clock.now() - began)
        return upload.key, outcome


def _ready(work: _Work, span: Span) -> set[ChunkKey]:
    """Return the chunks that wait because of a round."""
    made = {leaf for key in (*work.sends, *work.changes) for leaf in span.leaves(key)}
    return {one for one in made - work.sends.keys() if span.entry(one).state is State.WAITING}


def _is_undecided(run: Run, key: ChunkKey, entry: Entry) -> bool:
    """Return whether indexes may still decide about rows that were put again and died before.

    Until then Treasure Data is not asked: that it lacks the rows would prove nothing, because a first copy of them may still wait.
    """
    found = run.answers.get(key.group.request_id)
    return not was_sent(key, entry) and found is not Event.INDEX_GONE


def _goes_to(span: Span, key: ChunkKey, entry: Entry) -> str:
    """Return the database that a chunk goes to while it is in doubt; empty if it is in none."""
    return span.database(key) if entry.since is not None else ""


def shuffled[T](things: Iterable[T], now: float) -> Iterator[T]:
    """Yield things in a different order in each run, so that a chunk that always fails is not always the first."""
    for part in batched(things, _SHUFFLED, strict=False):
        found = list(part)
        Random(now).shuffle(found)  # noqa: S311 -- the order is no secret
        yield from found


def _may_be_there_in_part(span: Span, entry: Entry) -> bool:
    """Return whether Treasure Data may have some rows of a chunk in doubt without the others.

    A restored ledger may not know that it was halved. A forced replay's rows were sent before, by several imports.
    """
    return span.is_forced or entry.state is State.DEAD or entry.reason in _UNSURE
