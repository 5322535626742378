"""One set-aside chunk's way to Treasure Data: decide, touch, send, settle, delete.

A chunk that Treasure Data can never have taken goes where its account's rows go today. One that it may have taken goes
where it went before, under the id it had, for as long as Treasure Data remembers ids. Later than that Treasure Data is
asked first, and only what it does not have is sent again, under a new id.

With the answer the old doubt is over, and what is sent under the new id begins a doubt of its own. The same is so where
nobody can be asked, and rules or a person have decided that the rows are sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from shared.accounts import Account
from worker.accounts import DISABLED, REVOKED, Directory
from worker.aside import SetAside
from worker.chunk import Chunk, compress, first_row
from worker.deadline import Deadline
from worker.execution import Means
from worker.ledger import OpenBreaker
from worker.record import is_reason
from worker.sender import UNSENT, Upload
from worker.span import Entry, Kind, Span, State
from worker.treasure_data import READ_SECONDS, Asked, Verdict

PARKED_TOO_LONG = "parked_too_long"
LONGEST_QUERY_SECONDS = 60.0
"""For how long the answer to a query is waited for; else it is asked again in the next run."""


class Result(Enum):
    """What came of one object."""

    DELIVERED = "delivered"
    GONE = "delivered before"
    PASSED = "not selected"
    KEPT = "kept"
    DEAD = "dead letter"
    SICK = "its database fails"


class Decision(Enum):
    """What a person decides about rows that Treasure Data may have, and cannot be asked about."""

    SEND = "send"  # under a new id, where the old one may be forgotten
    DROP = "drop"  # they count as delivered; what Treasure Data can never have taken stays


@dataclass(frozen=True, slots=True)
class ResendRules:
    """What bounds decisions about set-aside chunks.

    Attributes:
        query_delay: seconds after an import at which a query surely finds its rows.
        sends_unasked: whether what is in doubt is sent when the key may not query, or kept.
        parked_max_seconds: after which what is parked becomes a dead letter.
    """

    query_delay: float
    sends_unasked: bool
    parked_max_seconds: float


@dataclass(slots=True)
class Round:
    """One run of the redrive.

    Attributes:
        deadline: after which nothing is sent.
        decision: what becomes of rows in doubt, where a person has decided.
        sick: databases that failed in it; they are left alone.
        aimed: databases of which chunks were met.
        well: databases that took rows, with the seconds that the fastest answer took.
        open: open breakers by database.
        written: chain, `after` and version of the spans that it wrote.
    """

    deadline: Deadline
    decision: Decision | None = None
    sick: set[str] = field(default_factory=set)
    aimed: set[str] = field(default_factory=set)
    well: dict[str, float] = field(default_factory=dict)
    open: dict[str, OpenBreaker] = field(default_factory=dict)
    written: set[tuple[str, str, int]] = field(default_factory=set)


class Resending:
    """One object's turn.

    Args:
        means: what it is done with.
        directory: where accounts' rows go today.
        rules: what bounds decisions.
        turn: the run that it is part of.
        chunk: as it stands in S3.
        span: as it stands in the ledger.
    """

    def __init__(
        self,
        *,
        means: Means,
        directory: Directory,
        rules: ResendRules,
        turn: Round,
        chunk: SetAside,
        span: Span,
    ) -> None:
        self._means = means
        self._directory = directory
        self._rules = rules
        self._turn = turn
        self._chunk = chunk
        self._met_as = chunk.kind
        self._key = chunk.chunk
        self._span = span
        self._unasked = False

    def carry_out(self) -> Result:
        """Do what can be done; whoever else writes meanwhile makes it be decided anew.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
            AsideUnavailableError: S3 cannot be reached.
        """
        while True:
            entry = self._span.chunk(self._key)
            if entry.split or entry.state is State.DELIVERED:
                return self._gone(Result.GONE)
            if entry.state is State.PENDING:
                return Result.KEPT  # its span is not settled: the worker will carry it out again
            if entry.kind != self._chunk.kind:
                return self._moved(entry)
            self._unasked = False
            decision = self._decide(entry)
            if isinstance(decision, Result):
                return decision
            if not self._write(decision):
                continue
            if decision.state is State.DELIVERED:
                return self._gone(Result.DELIVERED)
            if self._unasked:
                self._report_ambiguous(entry, decision)
            is_decided = decision.generation > entry.generation
            return self._send(decision, fresh=entry.since is None or is_decided)

    def _write(self, decision: Entry) -> bool:
        """Write a decision unless someone has written since; tell whether it was written.

        A dead letter that is to be sent is parked again, its object before the ledger. However the send ends, the schedule
        then sees it through; nobody would ever ask about a dead letter that Treasure Data may have taken.
        """
        chunk = self._chunk
        if decision.state is State.ASIDE and decision.kind == Kind.DEAD_LETTER:
            decision = replace(decision, kind=Kind.PARKED)
            chunk = replace(chunk.with_kind(Kind.PARKED, chunk.reason), set_aside_at=self._now())
            self._means.aside.put(chunk)
        is_written = self._update({self._key: decision})
        if is_written and chunk is not self._chunk:
            self._means.aside.delete(self._chunk.name)
            self._chunk = chunk
        return is_written

    def _update(self, changes: Mapping[str, Entry]) -> bool:
        """Write entries unless someone else has written since the span was read; tell whether they were written.

        Other chunks of the span may have their turns in the same run. What they write is nobody else's.
        """
        while True:
            before = self._span
            ours, self._span = self._means.ledger.update(before.with_chunks(changes))
            chain, after, version = self._span.chain, self._span.after, self._span.version
            if ours:
                self._turn.written.add((chain, after, version))
                return True
            missed = range(before.version + 1, version + 1)
            if not all((chain, after, one) in self._turn.written for one in missed):
                return False

    def _now(self) -> int:
        return round(self._means.clock.now() * 1000)

    def _decide(self, entry: Entry) -> Entry | Result:
        """Return what to write before a send, or what came of the chunk without one."""
        if is_reason(self._chunk.table):
            return Result.KEPT  # these are no rows
        age = self._now() - self._chunk.set_aside_at
        if entry.kind == Kind.PARKED and age > self._rules.parked_max_seconds * 1000:
            return self._refused(PARKED_TOO_LONG, free=entry.since is None)
        since = entry.since
        if self._turn.decision is Decision.DROP:
            return Result.KEPT if since is None else replace(entry, state=State.DELIVERED)
        if since is None:
            return self._decide_anew(entry)
        database = self._span.destination(self._key)
        if database.startswith("!"):  # it was in doubt before a database was planned for it
            account = self._directory.resolve([self._chunk.account]).get(self._chunk.account)
            if not isinstance(account, Account):
                return Result.KEPT
            database = account.database
            entry = replace(entry, database=database)
        self._turn.aimed.add(database)
        if database in self._turn.sick:
            return Result.SICK
        if not self._means.rules.is_doubt_old(since, self._means.clock.now()):
            return entry
        if self._turn.decision is Decision.SEND:
            return replace(entry, generation=entry.generation + 1, since=self._now())
        return self._decide_doubt(entry, database)

    def _decide_anew(self, entry: Entry) -> Entry | Result:
        account = self._directory.resolve([self._chunk.account]).get(self._chunk.account)
        if account is None:
            return Result.KEPT
        obstacle = self._obstacle(account)
        if isinstance(obstacle, str):
            if entry.kind == Kind.DEAD_LETTER:
                return Result.KEPT
            return self._rename(Kind.DEAD_LETTER, obstacle)
        self._turn.aimed.add(obstacle.database)
        if obstacle.database in self._turn.sick:
            return Result.SICK
        return replace(entry, database=obstacle.database, since=self._now())

    def _obstacle(self, account: Account | str) -> Account | str:
        """Return why the account's rows go nowhere; the account itself when they do."""
        if isinstance(account, str):
            return account
        if account.status == "disabled":
            return DISABLED
        key_id = self._key.partition("/")[0].partition(":")[2]
        return REVOKED if key_id in account.revoked_key_ids else account

    def _decide_doubt(self, entry: Entry, database: str) -> Entry | Result:
        """Ask Treasure Data, once the last send can have landed and shows."""
        since = entry.since or 0
        memory = self._means.rules.memory_seconds
        if self._now() - since <= (memory + self._rules.query_delay) * 1000:
            return Result.KEPT
        asked = self._ask(database)
        if asked is Asked.FORBIDDEN:
            if not self._rules.sends_unasked:
                return Result.KEPT
            if not self._may_write(database):
                self._turn.sick.add(database)  # it is closed to us altogether: that may pass
                return Result.SICK
            asked = self._ask(database)  # it may have been closed when we asked, and open when we looked
        match asked:
            case Asked.THERE:
                return replace(entry, state=State.DELIVERED)
            case Asked.UNDECIDED:
                return Result.KEPT
        self._unasked = asked is Asked.FORBIDDEN
        return replace(entry, generation=entry.generation + 1, since=self._now())

    def _ask(self, database: str) -> Asked:
        row = first_row(self._chunk.payload)
        if row is None:
            return Asked.FORBIDDEN
        clock, deadline = self._means.clock, self._turn.deadline
        patience = Deadline(clock, min(deadline.at, clock.now() + LONGEST_QUERY_SECONDS))
        return self._means.uploader.sender.treasure_data.ask(database, self._chunk.table, row, patience)

    def _may_write(self, database: str) -> bool:
        """Tell whether the database takes imports, by an import of nothing."""
        deadline = self._turn.deadline
        if deadline.near:
            return False
        answer = self._means.uploader.sender.treasure_data.send(
            database,
            self._chunk.table,
            self._span.unique_id(self._key, "probe", 0),
            compress(b""),
            min(READ_SECONDS, deadline.left()),
        )
        return answer.verdict in (Verdict.DELIVERED, Verdict.MISSING)

    def _report_ambiguous(self, entry: Entry, renewed: Entry) -> None:
        database = self._span.destination(self._key)
        self._means.journal.count("RowsAmbiguous", self._chunk.rows)
        self._means.journal.note(
            "ambiguous: sent again although Treasure Data may have it",
            account=self._chunk.account,
            table=self._chunk.table,
            database=database,
            rows=self._chunk.rows,
            unique_id=self._span.unique_id(self._key, database, entry.generation),
            new_unique_id=self._span.unique_id(self._key, database, renewed.generation),
        )

    def _send(self, entry: Entry, *, fresh: bool) -> Result:
        """Send the chunk and write what came of it; `fresh` where its doubt began with this send."""
        database = self._span.destination(self._key)
        if entry.since is None or self._means.rules.is_doubt_old(entry.since, self._means.clock.now()):
            return Result.KEPT
        chunk = Chunk.of_payload(self._key, self._chunk.rows, self._chunk.payload)
        unique_id = self._span.unique_id(self._key, database, entry.generation)
        upload = Upload(chunk, database, unique_id, oldest=self._chunk.first_seen / 1000)
        began = self._means.clock.now()
        answer = self._means.uploader.sender.attempt(upload, READ_SECONDS, self._turn.deadline)
        took = self._means.clock.now() - began
        free = fresh and upload.sure
        match answer.verdict:
            case Verdict.DELIVERED:
                self._turn.well[database] = min(took, self._turn.well.get(database, took))
                self._settle(delivered=True)
                return self._gone(Result.DELIVERED)
            case Verdict.MISMATCH:
                return self._rename(Kind.IN_DOUBT, answer.reason)
            case Verdict.REFUSED | Verdict.MISSING:
                return self._refused(answer.reason, free=free)
            case Verdict.TOO_LARGE:
                return self._halve(chunk, free=free)
        if free:
            self._settle(delivered=False)
        if answer is UNSENT:
            return Result.KEPT
        self._turn.sick.add(database)
        return Result.SICK

    def _settle(self, *, delivered: bool) -> None:
        """Write that the chunk is delivered, or, unless someone has written since, that it is free of doubt."""
        while True:
            entry = self._span.chunk(self._key)
            if entry.state is State.DELIVERED:
                return
            changed = replace(entry, state=State.DELIVERED) if delivered else replace(entry, since=None)
            if self._update({self._key: changed}) or not delivered:
                return

    def _refused(self, reason: str, *, free: bool) -> Result:
        """Let it be a dead letter; a doubt where an earlier attempt may have been taken: Treasure Data is asked first."""
        return self._rename(Kind.DEAD_LETTER if free else Kind.IN_DOUBT, reason, free=free)

    def _halve(self, chunk: Chunk, *, free: bool) -> Result:
        """Let the chunk's halves stand for it; only where none of it can have been taken."""
        halves = chunk.halves()
        if halves is None:
            return self._refused("row_too_large", free=free)
        if not free:
            return Result.KEPT
        entry = self._span.chunk(self._key)
        changes = {self._key: replace(entry, split=True)}
        for half in halves:
            payload = half.payload()
            part = replace(
                self._chunk,
                chunk=half.key,
                rows=half.count,
                payload=payload,
                object_id=self._span.object_id(half.key),
                unique_id=self._span.unique_id(half.key, self._chunk.database, 0),
            )
            self._means.aside.put(part)
            changes[half.key] = Entry(
                State.ASIDE, half.count, kind=entry.kind, reason=entry.reason, database=entry.database
            )
        return self._gone(Result.KEPT) if self._update(changes) else Result.KEPT

    def _rename(self, kind: Kind, reason: str, *, free: bool = False) -> Result:
        """Set the chunk aside for another reason: the new object, then the ledger, then away with the old one."""
        moved = replace(self._chunk.with_kind(kind, reason), set_aside_at=self._now())
        result = Result.DEAD if kind is Kind.DEAD_LETTER else Result.KEPT
        if (kind, reason) == (self._chunk.kind, self._chunk.reason) and not free:
            return Result.KEPT
        self._means.aside.put(moved)
        entry = self._span.chunk(self._key)
        changed = replace(entry, kind=kind, reason=reason, since=None if free else entry.since)
        if not self._update({self._key: changed}):
            return Result.KEPT  # whoever wrote has decided otherwise; the next turn sees
        if moved.name != self._chunk.name:
            self._means.aside.delete(self._chunk.name)
        return result if kind is not self._met_as else Result.KEPT

    def _moved(self, entry: Entry) -> Result:
        """See to it that the object stands under the kind that the ledger says, and only there."""
        kind = Kind(entry.kind)
        moved = self._chunk.with_kind(kind, entry.reason)
        if self._means.aside.get(moved.name) is None:
            self._means.aside.put(moved)
        self._means.aside.delete(self._chunk.name)
        return Result.KEPT

    def _gone(self, result: Result) -> Result:
        """Delete the chunk's objects, whatever kinds it was set aside for: nothing of it is aside any more.

        The one that was met comes last, so that it is met again where this is not done to its end.
        """
        others = [kind for kind in Kind if kind is not self._chunk.kind]
        for kind in (*others, self._chunk.kind):
            self._means.aside.delete(self._chunk.with_kind(kind, "").name)
        return result
