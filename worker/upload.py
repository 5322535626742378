"""Sends chunks to Treasure Data, so that one database never delays the others.

Each database has a lane. A lane sends one chunk at a time until the database has accepted one within a second, then several; and none after
the first failure that may concern the others too. No send begins after the time for that is up, and those that have begun may end. Whatever is
left waits for the sender. `Uploader.upload` decides in the caller's thread what is sent next. Other threads make the attempts: they send, and
create a table that is missing, for which they look up the account and write the ledger.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from shared.accounts import Account
from shared.clock import Clock
from shared.errors import LedgerUnavailableError
from shared.policy import AccountLimits
from shared.telemetry import Telemetry
from worker.account_cache import AccountCache
from worker.deadline import LEAST_SEND_SECONDS, Deadline
from worker.executor import Executor, Executors
from worker.health import DatabaseHealth
from worker.settlement import UNSENT, Outcome
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

EVENTS = {
    Meaning.ACCEPTED: Event.ACCEPTED,
    Meaning.TOO_LARGE: Event.PARTLY_REFUSED,
    Meaning.REFUSED: Event.REFUSED,
    Meaning.ROWS_REFUSED: Event.PARTLY_REFUSED,
}
"""What each meaning of a reply is for the chunk; any other meaning leaves it unanswered."""

_not_sent = partial(Reply, definitely_not_delivered=True)
_NO_TIME = _not_sent(Meaning.TEMPORARY, UNSENT.reason)


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """A chunk to send; its body is gzip of MessagePack maps."""

    key: ChunkKey
    database: str
    unique_id: str
    body: bytes


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
        self, uploads: Sequence[Upload], begin_by: Deadline, deadline: Deadline
    ) -> dict[ChunkKey, Outcome]:
        """Send the chunks of one span; return their outcomes.

        Args:
            uploads: to send; at least one.
            begin_by: no send begins later.
            deadline: no send is under way later.
        """
        with self._executors() as executor:
            return _Run(self, executor, begin_by, deadline, self.clock.now()).run(uploads)

    def attempt(self, upload: Upload, deadline: Deadline) -> Outcome:
        """Send a chunk; return what came of it, with the reason of UNSENT if there was no time to.

        It is sent again at once if the API key has changed, or after creating a missing table. Safe to call from several threads.
        """
        reply = self._send(upload, deadline)
        surely_not = reply.definitely_not_delivered
        if reply.meaning is Meaning.KEY_REFUSED and self._treasure_data.key_changed(reply.key):
            reply = self._send(upload, deadline)
            surely_not &= reply.definitely_not_delivered
        if reply.meaning is Meaning.KEY_REFUSED:
            self._telemetry.count("KeyRefused")
        if reply.meaning is Meaning.NO_TABLE and reply.definitely_not_delivered:
            reply = self._create(upload, deadline) or self._send(upload, deadline)
            surely_not &= reply.definitely_not_delivered
        words = kept(reply.words, upload.body) if reply.words else ""
        return Outcome(EVENTS.get(reply.meaning, Event.UNANSWERED), reply.reason, surely_not, words)

    def _send(self, upload: Upload, deadline: Deadline) -> Reply:
        seconds = min(READ_SECONDS, deadline.left())
        if seconds < LEAST_SEND_SECONDS:
            return _NO_TIME
        group = upload.key.group
        reply = self._treasure_data.send(upload.database, group.table, upload.unique_id, upload.body, seconds)
        if reply.meaning is Meaning.ACCEPTED:
            self._tables.known[group.sender.account].add(group.table)
        return reply

    def _create(self, upload: Upload, deadline: Deadline) -> Reply | None:
        """Create the table, and the database if it is the account's; return None if the table exists now, else the reply that says why not."""
        database, key, td = upload.database, upload.key, self._treasure_data
        if deadline.near:
            return _NO_TIME
        account = self._accounts.resolve([key.account]).get(key.account)
        limits = account.limits if isinstance(account, Account) else AccountLimits()
        try:
            if not self._tables.may_create(key.account, key.group.table, limits.tables):
                return _not_sent(Meaning.REFUSED, TOO_MANY_TABLES)
        except LedgerUnavailableError:
            return _not_sent(Meaning.TEMPORARY, "ledger_unavailable")

        def seconds() -> float:
            return max(LEAST_SEND_SECONDS, min(READ_SECONDS, deadline.left()))

        created = td.create_table(database, key.group.table, seconds())
        if created.status == 404:
            if account is None:
                return _not_sent(Meaning.TEMPORARY, "account_unavailable")
            if isinstance(account, Account) and account.database == database:
                created = td.create_database(database, seconds())
                if created.status in (200, 409):
                    created = td.create_table(database, key.group.table, seconds())
            elif td.missing_databases([database]):
                return _not_sent(Meaning.REFUSED, "no_such_database")
        return _obstacle(*created)


def _obstacle(status: int, words: str) -> Reply | None:
    """Return the reply that a failed creation amounts to; None if the table exists now."""
    if status in (200, 409):
        return None
    if status == 401:
        return _not_sent(Meaning.KEY_REFUSED, "http_401", words=words)
    if status == 403:
        return _not_sent(Meaning.REFUSED, "may_not_create", words=words)
    if 400 <= status < 500 and status not in (404, 408, 429):
        return _not_sent(Meaning.REFUSED, f"create_http_{status}", words=words)
    return _not_sent(
        Meaning.TEMPORARY, f"create_http_{status}" if status else "create_unanswered", words=words
    )


@dataclass(slots=True, eq=False)
class _Lane:
    """What is known of a database while the chunks of one span are sent.

    Attributes:
        answered_at: UNIX seconds of its last answer; of the beginning, if there is none.
        slowest: seconds that its slowest answer took.
        limit: the most sends under way at once.
        failed: nothing more is sent.
    """

    answered_at: float
    slowest: float = 0.0
    limit: int = 1
    failed: bool = False
    under_way: int = 0
    waiting: deque[Upload] = field(default_factory=deque)


@dataclass(eq=False)
class _Run:
    """The sends of one call of `Uploader.upload`."""

    _u: Uploader
    _executor: Executor
    _begin_by: Deadline
    _deadline: Deadline
    _began: float
    _lanes: dict[str, _Lane] = field(default_factory=dict, init=False)
    _ready: deque[_Lane] = field(default_factory=deque, init=False)
    # with the time at which each began
    _under_way: dict[Upload, float] = field(default_factory=dict, init=False)
    _outcomes: dict[ChunkKey, Outcome] = field(default_factory=dict, init=False)

    def run(self, uploads: Iterable[Upload]) -> dict[ChunkKey, Outcome]:
        """Send the chunks; return their outcomes."""
        for upload in uploads:
            self._lanes.setdefault(upload.database, _Lane(self._began)).waiting.append(upload)
        for database, lane in self._lanes.items():
            if reason := self._u.health.reason(database):  # since its span was planned
                self._leave(lane, reason)
            elif self._u.health.works(database):
                lane.limit = self._u.per_database
        self._ready.extend(self._lanes.values())
        self._dispatch()
        while self._under_way:
            if (finished := self._executor.wait(self._pause())) is not None:
                self._finish(*finished)
            self._dispatch()
        self._note_delays()
        self._note_outage()
        return self._outcomes

    def _dispatch(self) -> None:
        """Begin sends, as far as the limits allow."""
        now = self._u.clock.now()
        for lane in self._lanes.values() if self._begin_by.near else self._lingerers(now):
            self._leave(lane, UNSENT.reason)
        prompt = sum(began + USUAL_SECONDS > now for began in self._under_way.values())
        while self._ready and prompt < self._u.threads and len(self._under_way) < MOST_SENDS:
            lane = self._ready.popleft()
            if lane.waiting and lane.under_way < lane.limit:
                upload = lane.waiting.popleft()
                lane.under_way += 1
                prompt += 1
                self._under_way[upload] = now
                self._executor.submit(partial(self._attempt, upload))
                self._ready.append(lane)

    def _pause(self) -> float:
        """Return how many seconds to wait for an answer: until a send takes longer than usual."""
        now = self._u.clock.now()
        left = [began + USUAL_SECONDS - now for began in self._under_way.values()]
        return min((seconds for seconds in left if seconds > 0), default=READ_SECONDS)

    def _attempt(self, upload: Upload) -> tuple[Upload, Outcome]:
        return upload, self._u.attempt(upload, self._deadline)

    def _lingerers(self, now: float) -> list[_Lane]:
        """Return the few databases that the others have waited for long enough: their next batch waits for this one."""
        if now < self._began + LINGER_SECONDS:  # as most spans end before
            return []
        busy = [lane for lane in self._lanes.values() if lane.waiting or lane.under_way]
        ended = [lane.answered_at for lane in self._lanes.values() if not (lane.waiting or lane.under_way)]
        are_late = len(ended) > len(busy) and now >= max(ended) + LINGER_SECONDS
        return busy if are_late else []

    def _finish(self, upload: Upload, outcome: Outcome) -> None:
        lane, now = self._lanes[upload.database], self._u.clock.now()
        lane.under_way -= 1
        lane.answered_at = now
        lane.slowest = max(lane.slowest, now - self._under_way.pop(upload))
        self._outcomes[upload.key] = outcome
        if self._u.health.note(upload.database, outcome):
            lane.failed = True
            self._leave(lane, outcome.reason)
        elif outcome.event is Event.ACCEPTED and lane.slowest <= USUAL_SECONDS:
            lane.limit = self._u.per_database
        self._ready.append(lane)

    def _leave(self, lane: _Lane, reason: str) -> None:
        """Leave what has not been sent to the sender."""
        while lane.waiting:
            self._outcomes[lane.waiting.popleft().key] = Outcome(Event.UNANSWERED, reason, surely_not=True)

    def _note_delays(self) -> None:
        """Note which databases the others had to wait for."""
        usual = max(self._began + USUAL_SECONDS, min(lane.answered_at for lane in self._lanes.values()))
        for database, lane in self._lanes.items():
            late = min(lane.answered_at - usual, lane.slowest - USUAL_SECONDS)
            if late > 0 and not lane.failed:
                self._u.health.delayed(database, late)

    def _note_outage(self) -> None:
        """Note that Treasure Data seems to be away, if many databases have failed and none has accepted anything."""
        failed = sum(lane.failed for lane in self._lanes.values())
        accepted = any(outcome.event is Event.ACCEPTED for outcome in self._outcomes.values())
        if failed >= OUTAGE_DATABASES and not accepted:
            self._u.health.away()
