"""Sends chunks to Treasure Data, so that one database never delays the others.

The chunks of each database have a lane, which sends one at a time until the database has accepted one, then several; and none after the first
failure that may concern the others too, or when it is late. Sends that have begun may end, but if other databases wait, only within a few
seconds: nothing outlives the call, as Lambda may freeze it in the middle of a send. Whatever is left waits for the sender.
"""

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from shared.accounts import Account
from shared.clock import Clock
from shared.errors import LedgerUnavailableError
from shared.policy import AccountLimits
from shared.telemetry import Telemetry
from worker.account_cache import AccountCache
from worker.deadline import LEAST_SEND_SECONDS, Deadline
from worker.executor import Executors, run_parallel
from worker.health import DatabaseHealth
from worker.span import TOO_MANY_TABLES, ChunkKey
from worker.states import Event
from worker.tables import Tables
from worker.treasure_data.client import READ_SECONDS, UNSENT, Outcome, TreasureDataClient
from worker.treasure_data.explanation import kept

LINGER_SECONDS = 2.0
"""How long most databases of a span wait for the few that have more to send. The sender sends the rest."""
PATIENCE_SECONDS = 5.0
"""How long an attempt may take while other databases wait."""
OUTAGE_DATABASES = 8
"""If so many databases fail in one span, and none accepts anything, Treasure Data seems to be away."""
MOST_SENDS = 256
"""The most sends under way at once, and the most databases that are sent to at once. Lambda allows 1,024 threads and open files."""

_not_sent = partial(Outcome, surely_not=True)


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """A chunk to send; its body is gzip of MessagePack maps."""

    key: ChunkKey
    database: str
    unique_id: str
    body: bytes


@dataclass(eq=False)
class Uploader:
    """Sends chunks, with at most `per_database` sends under way at once to one database."""

    _treasure_data: TreasureDataClient
    _accounts: AccountCache
    health: DatabaseHealth
    _tables: Tables
    per_database: int
    executors: Executors
    clock: Clock
    _telemetry: Telemetry

    def upload(
        self, uploads: Sequence[Upload], begin_by: Deadline, deadline: Deadline
    ) -> dict[ChunkKey, Outcome]:
        """Send the chunks of one span, at least one; return their outcomes. None begins after `begin_by`, or is under way after the deadline."""
        lanes: defaultdict[str, list[Upload]] = defaultdict(list)
        for upload in uploads:
            lanes[upload.database].append(upload)
        return _Run(self, begin_by, deadline, lanes).run()

    def attempt(self, upload: Upload, deadline: Deadline) -> Outcome:
        """Send a chunk; return what came of it, with the reason of UNSENT if there was no time to.

        It is sent again at once after creating a missing table. Safe to call from several threads.
        """
        try:
            return self._attempt(upload, deadline)
        except Exception as error:  # noqa: BLE001 -- one chunk's surprise must not keep its span from being settled
            self._telemetry.unforeseen("a chunk cannot be sent", error, database=upload.database)
            return Outcome(Event.UNANSWERED, "unforeseen")

    def _attempt(self, upload: Upload, deadline: Deadline) -> Outcome:
        outcome = self._send(upload, deadline)
        surely_not = outcome.surely_not
        if outcome.key_refused:
            self._telemetry.count("KeyRefused")
        if outcome.lacks_table:
            outcome = self._create(upload, deadline) or self._send(upload, deadline)
            surely_not &= outcome.surely_not
        words = kept(outcome.words, upload.body) if outcome.words else ""
        return Outcome(outcome.event, outcome.reason, surely_not, words)

    def _send(self, upload: Upload, deadline: Deadline) -> Outcome:
        seconds = min(READ_SECONDS, deadline.left())
        if seconds < LEAST_SEND_SECONDS:
            return UNSENT
        group, td = upload.key.group, self._treasure_data
        outcome = td.send(upload.database, group.table, upload.unique_id, upload.body, seconds)
        if outcome.event is Event.ACCEPTED:
            self._tables.known[group.sender.account].add(group.table)
        return outcome

    def _create(self, upload: Upload, deadline: Deadline) -> Outcome | None:
        """Create the table, and the database if it is the account's; return None if the table exists now, else why it does not."""
        database, key, td = upload.database, upload.key, self._treasure_data
        if deadline.near:
            return UNSENT
        account = self._accounts.resolve([key.account]).get(key.account)
        limits = account.limits if isinstance(account, Account) else AccountLimits()
        try:
            if not self._tables.may_create(key.account, key.group.table, limits.tables):
                return _not_sent(Event.REFUSED, TOO_MANY_TABLES)
        except LedgerUnavailableError:
            return _not_sent(Event.UNANSWERED, "ledger_unavailable")

        created = td.create_table(database, key.group.table, deadline.left_for(READ_SECONDS))
        if created.lacks_table:
            if account is None:
                return _not_sent(Event.UNANSWERED, "account_unavailable")
            if isinstance(account, Account) and account.database == database:
                created = td.create_database(database, deadline.left_for(READ_SECONDS))
                if created.event is Event.ACCEPTED:
                    created = td.create_table(database, key.group.table, deadline.left_for(READ_SECONDS))
            elif td.missing_databases([database]):
                return _not_sent(Event.REFUSED, "no_such_database")
        return None if created.event is Event.ACCEPTED else created


@dataclass(eq=False)
class _Run:
    """The sends of one call of `Uploader.upload`, by database."""

    _u: Uploader
    _begin_by: Deadline
    _deadline: Deadline
    _lanes: Mapping[str, list[Upload]]
    _ended: list[float] = field(default_factory=list, init=False)  # UNIX seconds at which lanes did
    _late: set[str] = field(default_factory=set, init=False)  # databases that the others waited for

    def run(self) -> dict[ChunkKey, Outcome]:
        health = self._u.health
        tried = [database for database in self._lanes if not health.reason(database)]
        jobs = [partial(self._send_all, lane) for lane in self._lanes.values()]
        outcomes = dict(chain.from_iterable(run_parallel(self._u.executors, jobs, MOST_SENDS)))
        for database in self._late:
            health.late(database)
        failed = sum(bool(health.reason(database)) for database in tried)
        if failed >= OUTAGE_DATABASES and not any(one.event is Event.ACCEPTED for one in outcomes.values()):
            health.away()
        return outcomes

    def _send_all(self, lane: list[Upload]) -> list[tuple[ChunkKey, Outcome]]:
        jobs = deque(partial(self._send, upload) for upload in lane)
        found: list[tuple[ChunkKey, Outcome]] = []
        while jobs and not self._u.health.works(lane[0].database):
            found.append(jobs.popleft()())
        at_once = max(1, min(self._u.per_database, MOST_SENDS // len(self._lanes)))
        found += run_parallel(self._u.executors, jobs, at_once)
        self._ended.append(self._u.clock.now())
        return found

    def _send(self, upload: Upload) -> tuple[ChunkKey, Outcome]:
        """Send a chunk, unless its database fails, or it is too late."""
        if reason := self._u.health.reason(upload.database) or (self._is_late() and UNSENT.reason):
            return upload.key, Outcome(Event.UNANSWERED, reason, surely_not=True)
        is_alone = len(self._lanes) == 1
        until = self._deadline if is_alone else self._deadline.within(PATIENCE_SECONDS)
        outcome = self._u.attempt(upload, until)
        self._u.health.note(upload.database, outcome)
        if until.near and not self._deadline.near and self._others_wait():
            self._late.add(upload.database)
        return upload.key, outcome

    def _others_wait(self) -> bool:
        """Return whether half of the lanes have ended long enough ago: not if all are slow together."""
        half = (len(self._lanes) - 1) // 2
        return len(self._ended) > half and self._u.clock.now() >= self._ended[half] + LINGER_SECONDS

    def _is_late(self) -> bool:
        """Return whether the time to begin is up, or most lanes have waited for the others for long enough: their next batch waits for this one."""
        most_ended = len(self._ended) > len(self._lanes) / 2
        lingers = most_ended and self._u.clock.now() >= self._ended[-1] + LINGER_SECONDS
        return lingers or self._begin_by.near
