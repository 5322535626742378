"""The redrive: what is set aside goes to Treasure Data once that can take it.

By schedule it carries on with what is parked or in doubt, and it alone closes breakers; by hand also with dead letters.
Accounts go side by side, and an account whose database still fails has its turn again at the next run.
"""

from base64 import b64decode
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from gzip import decompress
from typing import Any

from worker.accounts import Directory
from worker.aside import AsideUnavailableError, Listed, SetAside
from worker.breaker import SLOW, Breakers
from worker.deadline import Deadline
from worker.edit import EditRefusedError, Edits
from worker.execution import Means
from worker.ledger import LedgerUnavailableError
from worker.resending import Decision, Resending, ResendRules, Result, Round
from worker.sandbox import Sandbox
from worker.span import Kind

BREAKER_LEFT_SECONDS = 300.0
"""A breaker that is open for so long, and has nothing parked behind it, is closed."""
QUICK_SECONDS = 2.0
"""A database that was slow is well again when it answers within this time."""
SLOW_SECONDS = 3600.0
"""After this time the worker tries a slow database once more, whatever its answers take."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is to be sent.

    Attributes:
        kinds: of these kinds.
        account: only this account's.
        table: only this table's.
        reason: only what is set aside for this reason.
        since: only what was set aside then or later, in UNIX seconds.
        decision: what a person has decided about rows in doubt.
        object: only the object of this name.
    """

    kinds: tuple[Kind, ...] = (Kind.PARKED, Kind.IN_DOUBT)
    account: str | None = None
    table: str | None = None
    reason: str | None = None
    since: float | None = None
    decision: Decision | None = None
    object: str | None = None

    @classmethod
    def of_object(cls, name: str) -> "Selection":
        """Return what selects one object."""
        _, kind, account, table, _ = name.split("/")
        return cls((Kind(kind),), account, table, object=name)

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> "Selection":
        """Return what an invocation asks for: `kinds`, `account`, `table`, `reason`, `since` and `decision`, each optional.

        A schedule asks for nothing: the `account` of its event is AWS's.
        """
        if event.get("source") == "aws.events":
            return cls()
        decision = event.get("decision")
        return cls(
            tuple(Kind(kind) for kind in event.get("kinds", ())) or (Kind.PARKED, Kind.IN_DOUBT),
            event.get("account"),
            event.get("table"),
            event.get("reason"),
            event.get("since"),
            None if decision is None else Decision(decision),
        )

    def of(self, objects: Iterator[Listed]) -> Iterator[Listed]:
        """Return those that are selected by their names."""
        return (one for one in objects if self.object in (None, one.name))

    def has(self, chunk: SetAside) -> bool:
        """Tell whether a chunk, of one of the kinds, is selected by what its name does not say."""
        if self.reason is not None and chunk.reason != self.reason:
            return False
        return self.since is None or chunk.set_aside_at >= self.since * 1000


@dataclass(slots=True)
class Report:
    """What a run did, in rows.

    Attributes:
        delivered: sent, or found in Treasure Data.
        kept: still set aside.
        dead: dead letters now.
        complete: everything selected had its turn.
    """

    delivered: int = 0
    kept: int = 0
    dead: int = 0
    complete: bool = True


@dataclass(slots=True, eq=False)
class _Account:
    objects: Iterator[Listed]
    limit: int = 1
    under_way: int = 0
    waits: bool = True  # it stands in the queue
    ended: bool = False


class Redrive:
    """Sends what is set aside.

    Args:
        means: what it is done with.
        directory: where accounts' rows go today.
        breakers: closed when a database takes rows again.
        rules: what bounds decisions.
        threads: chunks under way at once.
        per_account: of these, of one account whose database takes rows.
    """

    def __init__(
        self,
        *,
        means: Means,
        directory: Directory,
        breakers: Breakers,
        rules: ResendRules,
        threads: int = 16,
        per_account: int = 4,
    ) -> None:
        self._means = means
        self._directory = directory
        self._breakers = breakers
        self._rules = rules
        self._threads = threads
        self._per_account = per_account

    def run(self, deadline: Deadline, selection: Selection | None = None) -> Report:
        """Give every selected object its turn, as far as the time allows.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached.
            AsideUnavailableError: S3 cannot be reached.
        """
        selection = selection or Selection()
        report, turn = Report(), Round(deadline, selection.decision)
        turn.open = {breaker.database: breaker for breaker in self._means.ledger.breakers()}
        for kind in selection.kinds:
            self._send_all(turn, kind, selection, report)
        if report.complete and selection == Selection():
            opened_before = self._means.clock.now() - BREAKER_LEFT_SECONDS
            for database, breaker in turn.open.items():
                if breaker.since / 1000 < opened_before and database not in turn.aimed:
                    turn.well[database] = 0.0
            self._close(turn)
        self._means.journal.note(
            "redrive",
            delivered=report.delivered,
            kept=report.kept,
            dead=report.dead,
            complete=report.complete,
            sick=sorted(turn.sick),
        )
        return report

    def _send_all(self, turn: Round, kind: Kind, selection: Selection, report: Report) -> None:
        aside = self._means.aside
        names = aside.accounts(kind) if selection.account is None else [selection.account]
        queue = deque(_Account(selection.of(aside.listed(kind, name, selection.table))) for name in names)
        under_way = 0
        with self._means.executors() as executor:
            while queue or under_way:
                while queue and under_way < self._threads and not turn.deadline.near:
                    account = queue.popleft()
                    account.waits = False
                    listed = None if account.ended else next(account.objects, None)
                    if listed is None:
                        account.ended = True
                        continue
                    executor.submit(partial(self._take_turn, turn, selection, account, listed))
                    under_way += 1
                    account.under_way += 1
                    _queue(queue, account)
                if not under_way:
                    break
                finished = executor.wait(1.0)
                if finished is not None:
                    account, listed, result = finished
                    under_way -= 1
                    account.under_way -= 1
                    self._note(report, listed, result)
                    self._close(turn)
                    if result is Result.SICK:
                        account.ended, report.complete = True, False
                    if result is Result.DELIVERED:
                        account.limit = self._per_account
                    _queue(queue, account)
        report.complete = report.complete and not queue and not turn.deadline.near

    def _close(self, turn: Round) -> None:
        for database in [name for name in turn.open if name in turn.well]:
            breaker, took = turn.open[database], turn.well[database]
            age = self._means.clock.now() - breaker.since / 1000
            if breaker.reason == SLOW and took > QUICK_SECONDS and age < SLOW_SECONDS:
                continue  # it takes rows, but as slowly as before
            del turn.open[database]
            self._breakers.close(database)

    def _note(self, report: Report, listed: Listed, result: Result) -> None:
        match result:
            case Result.DELIVERED:
                report.delivered += listed.rows
                self._means.journal.count("RowsRedriven", listed.rows)
            case Result.DEAD:
                report.dead += listed.rows
                self._means.journal.count("RowsDeadLettered", listed.rows)
            case Result.KEPT | Result.SICK:
                report.kept += listed.rows

    def _take_turn(
        self, turn: Round, selection: Selection, account: _Account, listed: Listed
    ) -> tuple[_Account, Listed, Result]:
        try:
            return account, listed, self._resend(turn, selection, listed)
        except (LedgerUnavailableError, AsideUnavailableError) as error:
            self._means.journal.note("redrive could not go on", object=listed.name, error=str(error))
            return account, listed, Result.SICK

    def _resend(self, turn: Round, selection: Selection, listed: Listed) -> Result:
        if turn.deadline.near:
            return Result.KEPT
        chunk = self._means.aside.get(listed.name)
        if chunk is None:  # someone else was here
            return Result.KEPT
        if not selection.has(chunk):
            return Result.PASSED
        span = self._means.ledger.get(chunk.chain, chunk.after)
        if span is None:
            self._means.journal.note("set aside, but not in the ledger", object=listed.name)
            return Result.KEPT
        resending = Resending(
            means=self._means,
            directory=self._directory,
            rules=self._rules,
            turn=turn,
            chunk=chunk,
            span=span,
        )
        return resending.carry_out()


def _queue(queue: deque[_Account], account: _Account) -> None:
    if not account.ended and not account.waits and account.under_way < account.limit:
        account.waits = True
        queue.append(account)


@cache
def _sandbox() -> Sandbox:
    return Sandbox()


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Send what is set aside: by schedule what is parked or in doubt, else what the event selects.

    With `edit` (`object`, and `rows`: gzip of MessagePack maps in Base64) a dead letter's rows are replaced first, and it
    alone is sent. An answer with `error`, one word, and `message` says why an edit cannot be.
    """
    sandbox = _sandbox()
    selection = Selection.from_event(event)
    if edit := event.get("edit"):
        edits = Edits(sandbox.means.aside, sandbox.means.ledger, sandbox.journal)
        try:
            edits.make(edit["object"], decompress(b64decode(edit["rows"])))
        except EditRefusedError as refused:
            return {"error": "edit_refused", "message": str(refused)}
        selection = Selection.of_object(edit["object"])
    redrive = Redrive(
        means=sandbox.means,
        directory=sandbox.directory,
        breakers=sandbox.breakers,
        rules=ResendRules(
            query_delay=sandbox.settings.td_query_delay_minutes * 60,
            sends_unasked=sandbox.settings.unaskable_doubt == "send",
            parked_max_seconds=sandbox.settings.parked_max_days * 86_400,
        ),
        threads=sandbox.settings.upload_threads,
        per_account=sandbox.settings.uploads_per_database,
    )
    deadline = Deadline.of(sandbox.clock, context.get_remaining_time_in_millis())
    try:
        report = redrive.run(deadline, selection)
    finally:
        sandbox.journal.flush()
    return {
        "delivered": report.delivered,
        "kept": report.kept,
        "dead": report.dead,
        "complete": report.complete,
    }
