"""Sends chunks to Treasure Data, so that one database never delays the others.

Each database has a lane. A lane sends one chunk at a time until the database has accepted one within a second, then several; and none after
the first failure that may concern the others too. No send begins after the time for that is up, and those that have begun may end. Whatever is
left waits for the sender. `Uploader.upload` decides in the caller's thread what is sent next. Other threads make the attempts: they send, and
create a table that is missing, for which they look up the account and write the ledger.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from shared.accounts import Account
from shared.clock import Clock
from shared.errors import LedgerUnavailableError
from shared.policy import AccountLimits
from shared.telemetry import Telemetry
from worker.account_cache import AccountCache
from worker.deadline import LEAST_SEND_SECONDS, Deadline
from worker.executor import Executor, Executors, InlineExecutor
from worker.health import DatabaseHealth
from worker.settlement import Outcome
from worker.span import TOO_MANY_TABLES, ChunkKey
from worker.states import Event
from worker.tables import Tables
from worker.treasure_data.client import READ_SECONDS, Meaning, Reply, TreasureDataClient
from worker.treasure_data.explanation import kept

LINGER_SECONDS = 2.0
"""How long most databases of a span wait for the few that have more to send. The sender sends the rest."""
USUAL_SECONDS = 1.0
"""A database that answers within this time delays nobody."""
OUTAGE_DATABASES = 8
"""If so many databases fail in one span, and none accepts anything, Treasure Data seems to be away."""
MOST_SENDS = 256
"""The most sends under way at once, including those that take longer than usual."""

UNSENT = Reply(Meaning.TEMPORARY, "deadline", definitely_not_delivered=True)
"""The time was up before anything was sent."""

EVENTS = {
    Meaning.ACCEPTED: Event.ACCEPTED,
    Meaning.TOO_LARGE: Event.PARTLY_REFUSED,
    Meaning.REFUSED: Event.REFUSED,
    Meaning.ROWS_REFUSED: Event.PARTLY_REFUSED,
}
"""What each meaning of a reply is for the chunk; any other meaning leaves it unanswered."""


@dataclass(slots=True, eq=False)
class Upload:
    """A chunk that is being sent.

    Attributes:
        body: gzip of MessagePack maps.
        began: UNIX seconds of the attempt.
        surely_not: no attempt can have been accepted.
    """

    key: ChunkKey
    database: str
    unique_id: str
    body: bytes
    began: float = 0.0
    surely_not: bool = True

    def outcome(self, reply: Reply) -> Outcome:
        """Return what a reply means for the chunk."""
        event = EVENTS.get(reply.meaning, Event.UNANSWERED)
        return Outcome(event, reply.reason, self.surely_not, reply.words)


@dataclass(slots=True, eq=False)
class _Lane:
    database: str
    waiting: deque[Upload] = field(default_factory=deque)
    under_way: int = 0
    limit: int = 1
    failure: str = ""  # why it sends nothing more
    ended_at: float = 0.0
    slowest: float = 0.0  # seconds that its slowest answer took


@dataclass(eq=False)
class Uploader:
    """Sends chunks.

    Args:
        threads: the most sends under way at once that have not taken longer than usual.
        per_database: the most sends under way at once to one database.
    """

    _treasure_data: TreasureDataClient
    _accounts: AccountCache
    health: DatabaseHealth
    _tables: Tables
    threads: int
    per_database: int
    _executors: Executors
    clock: Clock
    _telemetry: Telemetry

    def upload(
        self, uploads: Iterable[Upload], begin_by: Deadline, deadline: Deadline
    ) -> dict[ChunkKey, Outcome]:
        """Send the chunks of one span; return their outcomes.

        Args:
            uploads: to send.
            begin_by: no send begins later.
            deadline: no send is under way later.
        """
        lanes: dict[str, _Lane] = {}
        for upload in uploads:
            lanes.setdefault(upload.database, _Lane(upload.database)).waiting.append(upload)
        for lane in lanes.values():
            if self.health.works(lane.database):
                lane.limit = self.per_database
        found = list(lanes.values())
        is_single = sum(len(lane.waiting) for lane in found) == 1
        with (InlineExecutor if is_single else self._executors)() as executor:
            return _Run(self, executor, found, begin_by, deadline).run()

    def attempt(self, upload: Upload, deadline: Deadline) -> Reply:
        """Send a chunk, and note in it what may have been accepted; return UNSENT if there was no time to.

        It is sent again at once if the API key has changed, or after creating a missing table. Safe to call from several threads, each with its own upload.
        """
        reply = self._send(upload, deadline)
        if reply.meaning is Meaning.KEY_REFUSED and self._treasure_data.key_changed(reply.key):
            reply = self._send(upload, deadline)
        if reply.meaning is Meaning.KEY_REFUSED:
            self._telemetry.count("KeyRefused")
        if reply.meaning is Meaning.NO_TABLE and reply.definitely_not_delivered:
            obstacle = self._create(upload, deadline)
            if obstacle is not None:
                return _bounded(obstacle, upload)
            reply = self._send(upload, deadline)
        if reply.meaning is Meaning.NO_TABLE:  # created, but not there yet; or a proxy says so
            return Reply(Meaning.TEMPORARY, reply.reason)
        return reply

    def _send(self, upload: Upload, deadline: Deadline) -> Reply:
        seconds = min(READ_SECONDS, deadline.left())
        if seconds < LEAST_SEND_SECONDS:
            return UNSENT
        group = upload.key.group
        reply = self._treasure_data.send(upload.database, group.table, upload.unique_id, upload.body, seconds)
        upload.surely_not &= reply.definitely_not_delivered
        if reply.meaning is Meaning.ACCEPTED:
            self._tables.known[group.sender.account].add(group.table)
        return _bounded(reply, upload)

    def _create(self, upload: Upload, deadline: Deadline) -> Reply | None:
        """Create the table, and the database if it is the account's; return None if the table exists now, else the reply that says why not."""
        database, key, td = upload.database, upload.key, self._treasure_data
        if deadline.near:
            return UNSENT
        account = self._accounts.resolve([key.account]).get(key.account)
        limits = account.limits if isinstance(account, Account) else AccountLimits()
        try:
            if not self._tables.may_create(key.account, key.group.table, limits.tables):
                return Reply(Meaning.REFUSED, TOO_MANY_TABLES)
        except LedgerUnavailableError:
            return Reply(Meaning.TEMPORARY, "ledger_unavailable")

        def seconds() -> float:
            return max(LEAST_SEND_SECONDS, min(READ_SECONDS, deadline.left()))

        created = td.create_table(database, key.group.table, seconds())
        if created.status == 404:
            if account is None:
                return Reply(Meaning.TEMPORARY, "account_unavailable")
            if isinstance(account, Account) and account.database == database:
                created = td.create_database(database, seconds())
                if created.status in (200, 409):
                    created = td.create_table(database, key.group.table, seconds())
            elif td.missing_databases([database]):
                return Reply(Meaning.REFUSED, "no_such_database")
        return _obstacle(*created)


def _bounded(reply: Reply, upload: Upload) -> Reply:
    """Return a reply with what may be kept of its words."""
    return replace(reply, words=kept(reply.words, upload.body)) if reply.words else reply


def _obstacle(status: int, words: str) -> Reply | None:
    """Return the reply that a failed creation amounts to; None if the table exists now."""
    if status in (200, 409):
        return None
    if status == 401:
        return Reply(Meaning.KEY_REFUSED, "http_401", words=words)
    if status == 403:
        return Reply(Meaning.REFUSED, "may_not_create", words=words)
    if 400 <= status < 500 and status not in (404, 408, 429):
        return Reply(Meaning.REFUSED, f"create_http_{status}", words=words)
    return Reply(Meaning.TEMPORARY, f"create_http_{status}" if status else "create_unanswered", words=words)


@dataclass(eq=False)
class _Run:
    """The sends of one call of `Uploader.upload`."""

    _u: Uploader
    _executor: Executor
    _lanes: list[_Lane]
    _begin_by: Deadline
    _deadline: Deadline
    _began: float = field(init=False)
    _ready: deque[_Lane] = field(init=False)
    _under_way: int = field(default=0, init=False)
    # sends that are not slow yet, oldest first
    _prompt: dict[Upload, None] = field(default_factory=dict, init=False)
    _outcomes: dict[ChunkKey, Outcome] = field(default_factory=dict, init=False)

    def run(self) -> dict[ChunkKey, Outcome]:
        """Send the chunks; return their outcomes."""
        self._began, self._ready = self._u.clock.now(), deque(self._lanes)
        for lane in self._lanes:
            if reason := self._u.health.reason(lane.database):  # since its span was planned
                self._leave(lane, reason)
        while True:
            self._dispatch()
            if not self._under_way:
                self._note_delays()
                self._note_outage()
                return self._outcomes
            if (finished := self._executor.wait(self._pause())) is not None:
                self._finish(*finished)

    def _dispatch(self) -> None:
        now = self._u.clock.now()
        while self._prompt and next(iter(self._prompt)).began + USUAL_SECONDS <= now:
            self._prompt.pop(next(iter(self._prompt)))
        if self._begin_by.near:
            for lane in self._lanes:
                self._leave(lane, UNSENT.reason)
            self._ready.clear()
        self._leave_lingerers(now)
        while self._ready and len(self._prompt) < self._u.threads and self._under_way < MOST_SENDS:
            lane = self._ready.popleft()
            if lane.waiting and lane.under_way < lane.limit:
                self._send(lane)
                self._ready.append(lane)

    def _leave_lingerers(self, now: float) -> None:
        """Leave what is left of a few databases that the others have waited for long enough: their next batch waits for this one."""
        busy = [lane for lane in self._lanes if lane.waiting or lane.under_way]
        ended = [lane.ended_at for lane in self._lanes if not (lane.waiting or lane.under_way)]
        if len(ended) > len(busy) and now >= max(*ended, self._began) + LINGER_SECONDS:
            for lane in busy:
                self._leave(lane, UNSENT.reason)

    def _send(self, lane: _Lane) -> None:
        upload = lane.waiting.popleft()
        lane.under_way += 1
        self._under_way += 1
        upload.began = self._u.clock.now()
        self._prompt[upload] = None
        self._executor.submit(lambda: (lane, upload, self._u.attempt(upload, self._deadline)))

    def _pause(self) -> float:
        """Return how many seconds to wait for an answer: until a send takes longer than usual, or no more may begin."""
        now = self._u.clock.now()
        if not any(lane.waiting for lane in self._lanes):
            return READ_SECONDS
        until = self._begin_by.at - LEAST_SEND_SECONDS
        if self._prompt:
            until = min(until, next(iter(self._prompt)).began + USUAL_SECONDS)
        return max(0.001, until - now)

    def _finish(self, lane: _Lane, upload: Upload, reply: Reply) -> None:
        lane.under_way -= 1
        self._under_way -= 1
        self._prompt.pop(upload, None)
        now = self._u.clock.now()
        lane.slowest = max(lane.slowest, now - upload.began)
        outcome = self._outcomes[upload.key] = upload.outcome(reply)
        if outcome.event is Event.ACCEPTED:
            self._u.health.succeeded(lane.database)
            if lane.slowest <= USUAL_SECONDS:
                lane.limit = self._u.per_database
        elif outcome.event is Event.UNANSWERED and reply is not UNSENT:
            self._u.health.failed(lane.database, reply.reason)
            lane.failure = reply.reason
            self._leave(lane, reply.reason)
        if not lane.waiting and not lane.under_way:
            lane.ended_at = now
        self._ready.append(lane)

    def _leave(self, lane: _Lane, reason: str) -> None:
        """Leave what has not been sent to the sender."""
        while lane.waiting:
            self._outcomes[lane.waiting.popleft().key] = Outcome(Event.UNANSWERED, reason, surely_not=True)

    def _note_delays(self) -> None:
        """Note which databases the others had to wait for."""
        first = min((lane.ended_at or self._began for lane in self._lanes), default=self._began)
        usual = max(self._began + USUAL_SECONDS, first)
        for lane in self._lanes:
            late = min((lane.ended_at or self._began) - usual, lane.slowest - USUAL_SECONDS)
            if late > 0 and not lane.failure and len(self._lanes) > 1:
                self._u.health.delayed(lane.database, late)

    def _note_outage(self) -> None:
        """Note that Treasure Data seems to be away, if many databases have failed and none has accepted anything."""
        if sum(bool(lane.failure) for lane in self._lanes) >= OUTAGE_DATABASES and not any(
            outcome.event is Event.ACCEPTED for outcome in self._outcomes.values()
        ):
            self._u.health.away()
