"""Uploads chunks to Treasure Data in parallel, so that one database never delays the others.

Each database has a lane. A lane sends one chunk at a time until the database has accepted one, then several. A failing lane
rests between its attempts, and comes after the others. A send that takes longer than usual no longer counts against the number
of threads, and its lane sends nothing more until the answer comes, so databases that hang delay nobody. This module decides
everything in the invocation's own thread; the other threads only send.

A lane ends in one of four ways:

- Treasure Data accepts or refuses all its chunks.
- Its breaker is open already, here or, once it fails, in the ledger. Then its chunks are parked.
- It keeps failing although another database succeeds or Treasure Data itself responds. Then its breaker opens.
- Treasure Data does not respond at all, or the time is up. Then its remaining chunks stay unanswered.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from shared.accounts import Account
from shared.clock import Clock
from shared.errors import LedgerUnavailableError
from shared.policy import AccountLimits
from shared.telemetry import Telemetry
from worker.account_cache import AccountCache
from worker.breaker import SLOW, Breakers
from worker.chunk import Chunk, compress
from worker.deadline import LEAST_SEND_SECONDS, Deadline
from worker.delivery import Event, Rules
from worker.executor import Executor, Executors, InlineExecutor
from worker.guards import Guard
from worker.span import TOO_MANY_TABLES
from worker.tables import Tables
from worker.treasure_data import READ_SECONDS, Meaning, Reply, TreasureDataClient

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0
KEY_PATIENCE_SECONDS = 3.0
"""How long a refused key is tried again, while other databases show whether it works."""
USUAL_SECONDS = 1.0
"""A database that answers within this time delays nobody."""
OTHERS_SECONDS = 600.0
"""Databases that accepted rows within this time count as waiting for a slow one."""
MOST_SENDS = 256
"""The most sends under way at once, including those that take longer than usual."""
_LEAST_TIMEOUT_SECONDS = 2.0  # of a send when the time to try a failing database is nearly up


UNSENT = Reply(Meaning.TEMPORARY, "deadline", definitely_not_delivered=True)
"""The time was up before anything was sent."""


@dataclass(slots=True, eq=False)
class Upload:
    """A chunk that is being uploaded.

    Attributes:
        oldest: UNIX seconds at which the oldest of its span's records arrived.
        began: UNIX seconds of the last attempt.
        definitely_not_delivered: no attempt can have been accepted.
        failing_since: UNIX seconds of the first attempt that failed.
        created: its table was missing, and was created.
    """

    chunk: Chunk
    database: str
    unique_id: str
    oldest: float
    body: bytes = b""
    attempts: int = 0
    began: float = 0.0
    definitely_not_delivered: bool = True
    failing_since: float | None = None
    created: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of an upload.

    Attributes:
        definitely_not_delivered: no attempt can have been accepted (meaningless for ACCEPTED).
    """

    event: Event
    reason: str = ""
    definitely_not_delivered: bool = False


_ACCEPTED = Outcome(Event.ACCEPTED)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one invocation's uploads.

    Attributes:
        threads: the most sends under way at once.
        per_database: the most sends under way at once to one database.
        park_after: how many seconds to keep trying a failing database.
    """

    threads: int
    per_database: int
    park_after: float


@dataclass(slots=True, eq=False)
class _Lane:
    database: str
    waiting: deque[Upload] = field(default_factory=deque)
    under_way: int = 0
    limit: int = 1
    failures: int = 0
    failing: bool = False
    failing_since: float = 0.0
    queued: bool = False  # it is in one of the two queues
    rests_until: float | None = None
    consulted: bool = False  # the ledger was asked whether other function instances find the database failing
    key_refused: bool = False
    fate: Event | None = None  # the outcome of every upload that waits in it
    reason: str = ""
    ended_at: float | None = None
    slowest: float = 0.0  # seconds that its slowest answer took
    rested: float = 0.0  # seconds of rest between attempts


class Uploader:
    """Uploads chunks."""

    def __init__(
        self,
        *,
        treasure_data: TreasureDataClient,
        accounts: AccountCache,
        breakers: Breakers,
        tables: Tables,
        chance: Callable[[], float],
        limits: Limits,
        rules: Rules,
        executors: Executors,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.treasure_data = treasure_data
        self.breakers = breakers
        self.chance = chance
        self.limits = limits
        self._accounts = accounts
        self._tables = tables
        self._executors = executors
        self.clock = clock
        self.telemetry = telemetry
        self.rules = rules

    def upload(self, uploads: Sequence[Upload], deadline: Deadline) -> list[Outcome]:
        """Send the chunks, one or more; return their outcomes in the same order."""
        only, reply = uploads[0], None
        if len(uploads) == 1 and only.database not in self.breakers.found_open:
            only.attempts, only.began = 1, self.clock.now()
            reply = self.attempt(only, READ_SECONDS, deadline)
            if reply.meaning is Meaning.ACCEPTED:
                self.breakers.succeeded(only.database)
                return [_ACCEPTED]
        executors: Executors = self._executors if len(uploads) > 1 else InlineExecutor
        with executors() as executor:
            outcomes = _Run(self, deadline, executor).run(uploads, reply)
        return [outcomes[upload] for upload in uploads]

    def attempt(self, upload: Upload, timeout: float, deadline: Deadline) -> Reply:
        """Send a chunk, and note in it what may have been accepted; return UNSENT if there was no time to.

        It is sent again at once if the API key has changed, or after creating a missing table. Safe to call from several threads, each with its own upload.
        """
        reply = self._send(upload, timeout, deadline)
        if reply.meaning is Meaning.KEY_REFUSED and self.treasure_data.key_changed(reply.key):
            reply = self._send(upload, timeout, deadline)
        if reply.meaning is Meaning.NO_TABLE and not upload.created:
            obstacle = self._create(upload, deadline)
            if obstacle is not None:
                return obstacle
            upload.created = True
            reply = self._send(upload, timeout, deadline)
        if reply.meaning is Meaning.NO_TABLE:  # created, but not there yet
            return Reply(Meaning.TEMPORARY, reply.reason)
        return reply

    def _send(self, upload: Upload, timeout: float, deadline: Deadline) -> Reply:
        body = upload.body = upload.body or compress(upload.chunk.payload())
        seconds = min(timeout, deadline.at - self.clock.now())
        if Guard.CLOCK_BEFORE_SEND in self.rules.without:
            seconds = timeout
        if seconds < LEAST_SEND_SECONDS:
            return UNSENT
        group = upload.chunk.key.group
        reply = self.treasure_data.send(upload.database, group.table, upload.unique_id, body, seconds)
        upload.definitely_not_delivered &= reply.definitely_not_delivered
        if reply.meaning is Meaning.ACCEPTED:
            self._tables.known[group.owner.account].add(group.table)
        return reply

    def _create(self, upload: Upload, deadline: Deadline) -> Reply | None:
        """Create the table, and the database if it is the account's; return None if the table exists now, else the reply that says why not."""
        database, key = upload.database, upload.chunk.key
        if deadline.near:
            return UNSENT
        account = self._accounts.resolve([key.account]).get(key.account)
        limits = account.limits if isinstance(account, Account) else AccountLimits()
        try:
            if not self._tables.may_create(key.account, key.group.table, limits.tables):
                return Reply(Meaning.REFUSED, TOO_MANY_TABLES)
        except LedgerUnavailableError:
            return Reply(Meaning.TEMPORARY, "ledger_unavailable")
        status = self.treasure_data.create_table(database, key.group.table, READ_SECONDS)
        if status == 404:
            if account is None:
                return Reply(Meaning.TEMPORARY, "account_unavailable")
            if isinstance(account, Account) and account.database == database:
                status = self.treasure_data.create_database(database, READ_SECONDS)
                if status in (200, 409):
                    status = self.treasure_data.create_table(database, key.group.table, READ_SECONDS)
            elif self.treasure_data.lacks_database(database):
                return Reply(Meaning.REFUSED, "no_such_database")
        return _obstacle(status)


def _obstacle(status: int) -> Reply | None:
    """Return the reply that a failed creation amounts to; None if the table exists now."""
    if status in (200, 409):
        return None
    if status == 401:
        return Reply(Meaning.KEY_REFUSED, "http_401")
    if status == 403:
        return Reply(Meaning.REFUSED, "may_not_create")
    if 400 <= status < 500 and status not in (404, 408, 429):
        return Reply(Meaning.REFUSED, f"create_http_{status}")
    return Reply(Meaning.TEMPORARY, f"create_http_{status}" if status else "create_unanswered")


EVENTS = {
    Meaning.ACCEPTED: Event.ACCEPTED,
    Meaning.MISMATCH: Event.MISMATCHED,
    Meaning.TOO_LARGE: Event.TOO_LARGE,
    Meaning.REFUSED: Event.REFUSED,
    Meaning.ROWS_REFUSED: Event.ROWS_REFUSED,
}
"""What each meaning of a reply is for the chunk; any other meaning leaves it unanswered."""


class _Run:
    """The uploads of one call of `Uploader.upload`."""

    def __init__(self, uploader: Uploader, deadline: Deadline, executor: Executor) -> None:
        self._u = uploader
        self._deadline = deadline
        self._executor = executor
        self._lanes: dict[str, _Lane] = {}
        self._ready: deque[_Lane] = deque()
        self._ready_failing: deque[_Lane] = deque()
        self._resting: list[tuple[float, int, _Lane]] = []
        self._rests = 0
        self._under_way = 0
        self._prompt: dict[Upload, _Lane] = {}  # sends that are not slow yet, oldest first
        self._outcomes: dict[Upload, Outcome] = {}
        self._probe: bool | None = None
        self._key_probe: bool | None = None
        self._began = uploader.clock.now()

    def run(self, uploads: Iterable[Upload], reply: Reply | None) -> dict[Upload, Outcome]:
        """Send the chunks; `reply` is the reply to the first attempt if a single chunk has been sent already."""
        self._begin(uploads, reply)
        while True:
            self._dispatch()
            pause = self._pause()
            if self._under_way:
                finished = self._executor.wait(pause)
                if finished is not None:
                    self._finish(*finished)
            elif self._resting or self._ready or self._ready_failing:
                self._u.clock.sleep(pause)
            else:
                self._note_delays()
                return self._outcomes

    def _begin(self, uploads: Iterable[Upload], reply: Reply | None) -> None:
        for upload in uploads:
            lane = self._lanes.get(upload.database)
            if lane is None:
                lane = self._lanes[upload.database] = _Lane(upload.database)
                if self._u.breakers.is_healthy(upload.database):
                    lane.limit = self._u.limits.per_database
            lane.waiting.append(upload)
        for lane in self._lanes.values():
            if reply is not None:
                upload = lane.waiting.popleft()
                lane.under_way = self._under_way = 1
                self._finish(lane, upload, reply)
            elif self._u.breakers.is_open(lane.database):
                self._decide(lane, Event.DATABASE_FAILS, "breaker")
            else:
                self._queue(lane)

    def _queue(self, lane: _Lane) -> None:
        if not lane.queued and self._may_send(lane):
            lane.queued = True
            (self._ready_failing if lane.failing else self._ready).append(lane)

    def _may_send(self, lane: _Lane) -> bool:
        return (
            bool(lane.waiting)
            and lane.fate is None
            and lane.rests_until is None
            and lane.under_way < lane.limit
        )

    def _dispatch(self) -> None:
        if self._deadline.near:
            for lane in self._lanes.values():
                if lane.waiting:
                    self._decide(lane, Event.UNANSWERED, "deadline")
            self._ready.clear()
            self._ready_failing.clear()
            self._resting.clear()
            return
        self._wake()
        while len(self._prompt) < self._u.limits.threads and self._under_way < MOST_SENDS:
            if self._ready:
                lane = self._ready.popleft()
            elif self._ready_failing:
                lane = self._ready_failing.popleft()
            elif not self._send_idle():
                return
            else:
                continue
            lane.queued = False
            if self._may_send(lane):
                self._send(lane, lane.waiting.popleft())
                self._queue(lane)

    def _send_idle(self) -> bool:
        """Send a chunk of a working database beyond its limit, when no other database needs the thread; return whether there was one.

        This shortens how long an account with very many tables, and so very many chunks, holds up its shard.
        """
        for lane in self._lanes.values():
            works = not lane.failing and 1 < lane.limit <= lane.under_way
            if works and lane.waiting and lane.fate is None and lane.rests_until is None:
                self._send(lane, lane.waiting.popleft())
                return True
        return False

    def _wake(self) -> None:
        """Queue lanes that have rested, and stop counting sends that take longer than usual against the threads."""
        now = self._u.clock.now()
        while self._resting and self._resting[0][0] <= now:
            moment, _, lane = heapq.heappop(self._resting)
            if moment == lane.rests_until:
                lane.rests_until = None
                self._queue(lane)
        while self._prompt and next(iter(self._prompt)).began + USUAL_SECONDS <= now:
            self._prompt.pop(next(iter(self._prompt))).limit = 1

    def _pause(self) -> float:
        """Return how many seconds to wait: until a lane has rested, a send takes longer than usual, or the time is up."""
        if self._deadline.near:
            return 1.0  # sends that are under way end by their own timeouts
        until = self._deadline.at - LEAST_SEND_SECONDS
        if self._resting:
            until = min(until, self._resting[0][0])
        if self._prompt and (self._ready or self._ready_failing):
            until = min(until, next(iter(self._prompt)).began + USUAL_SECONDS)
        return max(0.001, until - self._u.clock.now())

    def _send(self, lane: _Lane, upload: Upload) -> None:
        timeout = READ_SECONDS
        if lane.failing:
            ends = lane.failing_since + self._u.limits.park_after
            timeout = min(timeout, max(_LEAST_TIMEOUT_SECONDS, ends - self._u.clock.now()))
        lane.under_way += 1
        self._under_way += 1
        upload.attempts += 1
        upload.began = self._u.clock.now()
        self._prompt[upload] = lane
        self._executor.submit(lambda: (lane, upload, self._u.attempt(upload, timeout, self._deadline)))

    def _finish(self, lane: _Lane, upload: Upload, reply: Reply) -> None:
        lane.under_way -= 1
        self._under_way -= 1
        self._prompt.pop(upload, None)
        lane.slowest = max(lane.slowest, self._u.clock.now() - upload.began)
        event = EVENTS.get(reply.meaning)
        if event is None:
            self._failed(lane, upload, reply)
        elif event is Event.ACCEPTED:
            self._succeeded(lane)
            self._outcomes[upload] = _ACCEPTED
        else:
            self._end(upload, event, reply.reason)
        if lane.fate is None and lane.waiting and not lane.failing and self._keeps_others_waiting(lane):
            self._u.breakers.open(lane.database, SLOW)
            self._decide(lane, Event.DATABASE_FAILS, SLOW)
        if lane.fate is not None:
            self._apply(lane)
        self._note_end(lane)
        self._queue(lane)

    def _note_end(self, lane: _Lane) -> None:
        if not lane.waiting and not lane.under_way:
            lane.ended_at = self._u.clock.now()

    def _keeps_others_waiting(self, lane: _Lane) -> bool:
        """Return whether a lane with slow answers has used up the time that a failing one gets, while another lane has ended."""
        if lane.slowest <= USUAL_SECONDS or self._u.clock.now() - self._began < self._u.limits.park_after:
            return False
        return any(one.ended_at is not None for one in self._lanes.values())

    def _note_delays(self) -> None:
        """Note which databases the others had to wait for. One that delays them again and again counts as failing, although it answers."""
        first = min(lane.ended_at or self._began for lane in self._lanes.values())
        usual = max(self._began + USUAL_SECONDS, first)
        resting = sum(lane.rested > 0 for lane in self._lanes.values())
        is_common = 2 * resting > len(self._lanes)  # most lanes rested, so the cause is Treasure Data itself
        for lane in self._lanes.values():
            own = max(0.0, lane.slowest - USUAL_SECONDS) + (0.0 if is_common else lane.rested)
            late = min((lane.ended_at or 0.0) - usual, own)
            if late <= 0 or lane.fate is not None:
                continue
            waited = self._u.breakers.delayed(lane.database, late)
            since = self._u.clock.now() - OTHERS_SECONDS
            if waited >= self._u.limits.park_after and self._u.breakers.others_succeeded(
                lane.database, since
            ):
                self._u.breakers.open(lane.database, SLOW)

    def _succeeded(self, lane: _Lane) -> None:
        self._u.breakers.succeeded(lane.database)
        lane.failing, lane.failures = False, 0
        lane.rests_until, lane.reason = None, ""
        if lane.slowest <= USUAL_SECONDS:
            lane.limit = self._u.limits.per_database

    def _end(self, upload: Upload, event: Event, reason: str) -> None:
        self._outcomes[upload] = Outcome(event, reason, upload.definitely_not_delivered)

    def _failed(self, lane: _Lane, upload: Upload, reply: Reply) -> None:
        if reply is UNSENT:
            lane.waiting.append(upload)
            return  # the next dispatch ends every lane
        now = self._u.clock.now()
        since = lane.failing_since = self._u.breakers.failed(lane.database, upload.began)
        if upload.failing_since is None:
            upload.failing_since = upload.began
        # Retry the same chunk once, so that the others stay free of doubt; then another, in case the fault is in the chunk.
        (lane.waiting.appendleft if upload.attempts % 2 else lane.waiting.append)(upload)
        if not lane.failing:
            self._u.telemetry.warning("an upload failed", database=lane.database, reason=reply.reason)
        lane.failing, lane.limit = True, 1
        lane.failures += 1
        lane.reason = reply.reason
        lane.key_refused = reply.meaning is Meaning.KEY_REFUSED
        if lane.key_refused:
            self._u.telemetry.count("KeyRefused")
        if not lane.consulted:
            lane.consulted = True
            if self._u.breakers.consult(lane.database):
                self._decide(lane, Event.DATABASE_FAILS, reply.reason)
                return
        rest = self._rest(lane, reply)
        patience = KEY_PATIENCE_SECONDS if lane.key_refused else self._u.limits.park_after
        if now + rest - since < patience:
            self._rest_until(lane, now + rest)
            if now + rest - upload.failing_since >= patience:
                lane.waiting.remove(upload)  # only this chunk keeps failing: its database accepts others
                self._end(upload, Event.DATABASE_FAILS, lane.reason)
        elif self._is_alone(lane, since):
            self._u.breakers.open(lane.database, reply.reason)
            self._decide(lane, Event.DATABASE_FAILS, reply.reason)
        else:
            self._decide(lane, Event.UNANSWERED, reply.reason)

    def _rest(self, lane: _Lane, reply: Reply) -> float:
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(lane.failures - 1, 10))
        return max(reply.retry_after, self._u.chance() * longest)

    def _rest_until(self, lane: _Lane, moment: float) -> None:
        if lane.rests_until is None or lane.rests_until < moment:
            self._rests += 1
            lane.rested += moment - max(lane.rests_until or 0.0, self._u.clock.now())
            lane.rests_until = moment
            heapq.heappush(self._resting, (moment, self._rests, lane))

    def _is_alone(self, lane: _Lane, since: float) -> bool:
        """Return whether only this database is at fault: another one succeeds, or Treasure Data itself responds (and knows a refused key)."""
        if not lane.key_refused:
            if self._u.breakers.others_succeeded(lane.database, since):
                return True
            if self._probe is None:
                self._probe = self._u.treasure_data.answers()
            return self._probe
        if self._u.breakers.others_succeeded(lane.database, since - KEY_PATIENCE_SECONDS):
            return True
        if any(other.key_refused for other in self._lanes.values() if other is not lane):
            return False
        if self._key_probe is None:
            self._key_probe = self._u.treasure_data.knows_key()
        return self._key_probe

    def _decide(self, lane: _Lane, fate: Event, reason: str) -> None:
        lane.fate = lane.fate or fate
        lane.reason = lane.reason or reason
        self._apply(lane)

    def _apply(self, lane: _Lane) -> None:
        """End every upload that waits in the lane with the lane's fate."""
        fate, now = lane.fate or Event.UNANSWERED, self._u.clock.now()
        while lane.waiting:
            upload = lane.waiting.popleft()
            if fate is Event.UNANSWERED and self._u.rules.is_held_too_long(upload.oldest, now):
                self._end(upload, Event.HELD_TOO_LONG, "held_too_long")
            else:
                self._end(upload, fate, lane.reason)
        self._note_end(lane)
