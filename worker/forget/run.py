"""Carries out requests to forget persons: those of the `sluice` command, and the searches that follow by themselves.

Rows that the ingest had received by then may still wait in the overflow queue or on the stream, be sent from a worker's memory, or be in
doubt. So after the first search others follow: once a doubt can be over, each day while something was left, and once more
after the longest time that the queue and the stream keep anything. Then nothing can come back, and the hashes go.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from copy import replace
from dataclasses import dataclass
from functools import partial
from itertools import batched
from typing import Any

from urllib3.exceptions import HTTPError

from shared import policy
from shared.accounts import Account
from shared.clock import Clock
from shared.errors import InvalidPolicyError, SecretUnavailableError, UnavailableError, aws_errors
from shared.policy import EdgePolicy
from shared.published_policy import PublishedPolicy
from shared.telemetry import Telemetry
from worker.account_cache import UNKNOWN, AccountCache
from worker.claims import QUEUED_SECONDS
from worker.deadline import Deadline
from worker.forget.requests import DAY, ForgetRequest, ForgetRequests, RequestDocument
from worker.forget.search import ForgetSearch
from worker.forget.sql import SHARED, by_value, columns_of_tables, counting_each, deleting, selecting
from worker.rejected_events import PREFIX as REJECTED
from worker.shards import Shards
from worker.span import milliseconds
from worker.span_object import PREFIX as SPANS
from worker.treasure_data.question import Question
from worker.treasure_data.statement import End, Statements

SECOND_SEARCH_SECONDS = 2 * 3600.0
"""When the second search begins: rows that were in doubt, or could not be found in Treasure Data yet, are settled by then."""
REFUSED_SECONDS = 300
"""How long after a request that refuses new events the person's events are forgotten: until then every instance of the ingest refuses them."""
_NOTED_SECONDS = 60.0  # how often it is noted how far a search has come
_ACCOUNTS_AT_ONCE = 1000  # in one round trip
_ID_BYTES = 6
_MOST_BYTES = 5_000_000  # in one answer of 6 MB


@dataclass(eq=False)
class Forget:
    """Forgets persons."""

    _requests: ForgetRequests
    _search: ForgetSearch
    _statements: Statements
    _accounts: AccountCache
    _shards: Shards
    _published: PublishedPolicy
    _entropy: Callable[[int], bytes]
    _clock: Clock
    _telemetry: Telemetry

    def run(self, asked: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Do what a command asks for, until the deadline.

        `do` is one of these; most name an `account`, a `column` and `values`:

        - `look` and `forget`: in the objects whose names begin with `prefix`, of spans or of rejected events, behind `after`; by `forget`,
          everybody who is to be forgotten.
        - `tables`: where Treasure Data may have rows, also in `databases`, and which of these are `shared`: other accounts may have rows there.
        - `count`, `delete` and `select`: do that there, in a `database`'s `table`. In a shared one, `delete` and `select` only return the statement
          (`end`: `shared`), unless it was `named`: then that is what somebody has decided.
        - `texts`: what the values are in rows.
        - `note`: make a request of each value; with `refuse`, have the ingest refuse new events. `lift`: accept them again, for `ids` of requests.
        - `counted`: note how many rows of the `requests` were counted before or after a deletion, in `counts` by table and request, 0 for those
          left out; which tables are `gone`; with `clear`, that none are left anywhere.
        """
        try:
            return self._do(asked, deadline)
        except (UnavailableError, HTTPError) as error:
            return {"error": "unavailable", "message": str(error)}

    def _do(self, asked: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:  # noqa: C901 -- a list
        match asked["do"]:
            case "look":
                persons = self._requests.persons_of(self._requests_of(asked))
                return self._search.look(asked["prefix"], asked["after"], persons, deadline).told()
            case "forget":
                return self._search.forget(asked["prefix"], asked["after"], deadline).told()
            case "tables":
                return self._tables(asked)
            case "count":
                return self._count(asked, deadline)
            case "delete":
                return self._delete(asked, deadline)
            case "select":
                return self._select(asked, deadline)
            case "texts":
                return {"texts": [text for one in asked["values"] for text in self._requests.texts(one)]}
            case "note":
                return {"requests": [{"id": one.id, "before": one.before} for one in self._note(asked)]}
            case "lift":
                return {"requests": [{"id": one.id} for one in self._lift(asked["ids"])]}
            case "counted":
                self._requests.change(partial(self._counted, asked))
                return {}
        return {
            "error": "unknown_request",
            "message": "This stack is older than the command. Deploy it again.",
        }

    def _requests_of(self, asked: Mapping[str, Any]) -> list[ForgetRequest]:
        """Return a request for each value, which nobody has made yet."""
        account, column = asked["account"], asked["column"]
        before = milliseconds(self._clock.now())
        hashes = self._requests.hashes(account, column, asked["values"])
        return [ForgetRequest("asked", account, column, one, before, 0, 0) for one in hashes]

    def _note(self, asked: Mapping[str, Any]) -> list[ForgetRequest]:
        """Make a request of each value, or renew the one that there is."""
        now = self._clock.now()
        refuses = asked.get("refuse", False)
        before = milliseconds(now + REFUSED_SECONDS * refuses)
        until = now + self._shards.retention_seconds() + QUEUED_SECONDS + DAY
        asked_for = self._requests_of(asked)
        ids = [self._entropy(_ID_BYTES).hex() for _ in asked_for]
        noted: list[ForgetRequest] = []

        def note(document: RequestDocument) -> None:
            noted.clear()
            known = {tuple(one.hashes): one for one in document.requests.values() if one.hashes}
            for new, id_ in zip(asked_for, ids, strict=True):
                request = known.get(tuple(new.hashes)) or replace(new, id=id_)
                request.before, request.until = max(before, request.before), until
                request.next, request.done, request.cleared = now + SECOND_SEARCH_SECONDS, 0.0, 0.0
                request.refuses |= refuses
                document.requests[request.id] = request
                noted.append(request)

        self._requests.change(note)
        if refuses and not self._publish():
            raise UnavailableError("No accounts have been applied yet, so no events can be refused.")
        return noted

    def _counted(self, asked: Mapping[str, Any], document: RequestDocument) -> None:
        document.drop_tables(asked["requests"], asked.get("gone", ()))
        document.add_counts(asked["requests"], asked["counts"])
        if asked["clear"]:
            document.clear(asked["requests"], self._clock.now())

    def _lift(self, ids: Iterable[str]) -> list[ForgetRequest]:
        """Have the ingest accept events of persons again. Those are kept that it receives from now on."""
        now = milliseconds(self._clock.now())

        def lift(document: RequestDocument) -> None:
            for request in map(document.requests.get, ids):
                if request is not None and request.refuses:
                    request.refuses, request.before = False, min(request.before, now)
                    request.drop_hashes()

        document = self._requests.change(lift)
        self._publish()
        return [document.requests[one] for one in ids if one in document.requests]

    def _publish(self) -> bool:
        """Tell the ingest whose events to refuse; return whether it has an edge policy. Raise UnavailableError if that cannot be written."""
        found: list[EdgePolicy] = []

        def change(current: EdgePolicy | None) -> bytes | None:
            if current is None:
                return None
            found.append(current)
            refused = (
                self._requests.document().refused()
            )  # only now: whoever changes it next writes the policy next
            now = milliseconds(self._clock.now())
            return policy.with_refused(current, refused, now) if current.refused != refused else None

        self._change_policy(change)
        return bool(found)

    def _change_policy(self, change: Callable[[EdgePolicy | None], bytes | None]) -> None:
        try:
            self._published.change(change)
        except aws_errors(InvalidPolicyError) as error:
            raise UnavailableError(f"the edge policy cannot be read or written: {error}") from error

    # The searches that follow

    def run_due(self, deadline: Deadline) -> None:
        """Go on with the search that is under way, or begin one that is due. If a service does not answer, the next run goes on."""
        try:
            document = self._requests.document()
            self._run_due(document, deadline)
            if document.requests:  # the edge policy may have been replaced
                self._publish()
        except UnavailableError as error:
            self._telemetry.warning("a search for persons to forget goes on later", reason=str(error))

    def _run_due(self, document: RequestDocument, deadline: Deadline) -> None:
        now, active = self._clock.now(), document.active
        if not active or not (document.began or any(one.next <= now for one in active)):
            return
        if not document.began:
            document = self._requests.change(lambda found: found.begin(now))
        began = document.began
        rejected = sorted({f"{REJECTED}{one.account}/" for one in active})
        for prefix in (*rejected, SPANS):  # in the order of names
            end = f"{prefix}~"  # behind all names
            while document.after < end:
                start, soon = max(document.after, prefix), deadline.within(_NOTED_SECONDS)
                searched = self._search.forget(prefix, start, deadline, soon)
                after, left = searched.after or end, searched.left
                document = self._requests.change(
                    partial(RequestDocument.reach, began=began, after=after, left=left)
                )
                if document.began != began or (searched.after and deadline.near):
                    return
        document = self._requests.change(lambda found: found.finish(began, self._clock.now()))
        done = sum(1 for one in document.requests.values() if one.done >= now)
        self._telemetry.info("searched for persons to forget", requests=len(active), done=done)

    # Treasure Data

    def _by_value(self, asked: Mapping[str, Any]) -> str:
        texts = [text for value in asked["values"] for text in self._requests.texts(value)]
        return by_value(asked["column"], texts, asked.get("before", milliseconds(self._clock.now())))

    def _count(self, asked: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Return the number of rows of each value that has any; null if Treasure Data does not say, perhaps because the table `is_gone`."""
        sql = counting_each(asked["table"], asked["column"], self._by_value(asked))
        job = self._statements.run(asked["database"], sql, deadline)
        found = {row[0]: row[1] for row in job.rows if len(row) == 2 and type(row[1]) is int}
        is_certain = job.end is End.SUCCESS and job.number == len(found)
        counts = {
            value: sum(found.get(text, 0) for text in self._requests.texts(value))
            for value in asked["values"]
        }
        gone = Question(self._statements, asked["database"], asked["table"], deadline, 0.0)
        return {
            "counts": {value: number for value, number in counts.items() if number} if is_certain else None,
            "is_gone": gone.is_gone(job.end),
        }

    def _delete(self, asked: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        condition, database, table = self._by_value(asked), asked["database"], asked["table"]
        statement = f"{database}: {deleting(table, condition)}"
        if self._is_shared(asked):
            return {"end": SHARED, "statement": statement}
        end, _ = self._search.delete(database, table, condition, deadline)
        return {"end": end.value, "statement": statement}

    def _select(self, asked: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        columns, database = asked["columns"], asked["database"]
        sql = selecting(asked["table"], columns, self._by_value(asked))
        if self._is_shared(asked):
            return {"rows": [], "end": SHARED, "statement": f"{database}: {sql}"}
        job = self._statements.run(database, sql, deadline)
        rows = [
            {name: value for name, value in zip(columns, row, strict=False) if value is not None}
            for row in job.rows
        ]
        is_whole = len(rows) == job.number and sum(map(_size, rows)) <= _MOST_BYTES
        end = End.FAILED if job.end is End.SUCCESS and not is_whole else job.end
        return {"rows": rows if is_whole else [], "end": end.value, "statement": f"{database}: {sql}"}

    def _tables(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tables with a column, and their columns, by database, and whether Redis says that there is no such account.

        A database that Treasure Data says nothing about has null. If Redis does not say which one the account has, this raises UnavailableError.
        """
        databases = set(asked.get("databases", ()))
        account = self._accounts.look_up([asked["account"]]).get(asked["account"])
        if account is None:
            raise UnavailableError(
                f"The account {asked['account']} cannot be looked up now: Redis does not answer, or has lost its accounts. "
                "Nothing was changed. `sluice doctor` says what to do; then repeat the command."
            )
        if isinstance(account, Account):
            databases.add(account.database)
        found: dict[str, dict[str, list[str]] | None] = {}
        for database in sorted(databases):
            try:
                tables = columns_of_tables(self._statements.api, database)
            except (HTTPError, SecretUnavailableError):
                tables = None
            found[database] = tables and {
                name: columns
                for name, columns in tables.items()
                if {asked["column"], "received_at"} <= set(columns)
            }
        shared = self._shared(asked["account"], databases)
        return {"tables": found, "shared": sorted(shared), "is_unknown": account == UNKNOWN}

    def _is_shared(self, asked: Mapping[str, Any]) -> bool:
        return not asked.get("named") and bool(self._shared(asked["account"], {asked["database"]}))

    def _shared(self, account: str, databases: set[str]) -> set[str]:
        """Return the databases in which a value does not say whose a row is: others have them too, or the account has them no more.

        No column of a row names its account. This raises UnavailableError while nobody knows which databases the accounts in the edge policy have.
        """
        names = set[str]()

        def read(current: EdgePolicy | None) -> None:
            if current is None:
                raise UnavailableError("No accounts have been applied yet, or the edge policy is damaged.")
            names.update(current.entries)

        self._change_policy(read)
        known: dict[str, Account | str] = {}
        for some in batched(sorted({account, *names}), _ACCOUNTS_AT_ONCE, strict=False):
            known |= self._accounts.look_up(some)
        of = {name: one.database for name, one in known.items() if isinstance(one, Account)}
        if unclear := (names - of.keys()) | ({account} - known.keys()):
            raise UnavailableError(
                f"Redis does not say which database the account {min(unclear)} has, so others' rows may be in any. "
                "`sluice doctor` says what to do; then repeat the command."
            )
        own = of.pop(account, None)
        return {database for database in databases if database != own or database in of.values()}


def _size(value: object) -> int:
    """Return the bytes that a value has in an answer at most: as JSON, with what is not ASCII escaped."""
    return len(json.dumps(value)) + len(", ")
