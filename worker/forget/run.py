"""Carries out requests to forget persons: those of the `sluice` command, and the searches that follow by themselves.

Rows that the ingest had received by then may still wait in the overflow queue or on the stream, be sent from a worker's memory, or be in
doubt. So after the first search others follow: once a doubt can be over, each day while something was left, and once more
after the longest time that the queue and the stream keep anything. Then nothing can come back, and the hashes go.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from requests import RequestException

from shared import policy
from shared.accounts import Account
from shared.clock import Clock
from shared.errors import InvalidPolicyError, SecretUnavailableError, UnavailableError
from shared.policy import EdgePolicy
from shared.published_policy import PublishedPolicy
from shared.telemetry import Telemetry
from worker.account_cache import AccountCache
from worker.deadline import Deadline
from worker.forget.requests import ForgetRequest, ForgetRequests, RequestDocument
from worker.forget.search import Findings, ForgetSearch
from worker.shards import Shards
from worker.span import milliseconds
from worker.span_object import SpanObjects
from worker.statement import End, Statements, by_value, counting, deleting, selecting
from worker.sweeper import INDEX_SECONDS

SECOND_SEARCH_SECONDS = 2 * 3600.0
"""When the second search begins: rows that were in doubt, or could not be found in Treasure Data yet, are settled by then."""
DAY = 86_400.0
VERSIONS_SECONDS = 9 * DAY
"""How long after rows were removed from S3 nothing of them can be left: objects that nobody names go within a day, and old versions a week
later."""
REFUSED_SECONDS = 300
"""How long after a request that refuses new events the person's events are forgotten: until then every instance of the ingest refuses them."""
_ID_BYTES = 6
_MOST_ROWS = 4_000_000  # characters of rows in one answer


@dataclass(eq=False)
class Forget:
    """Forgets persons."""

    _requests: ForgetRequests
    _search: ForgetSearch
    _statements: Statements
    _objects: SpanObjects
    _accounts: AccountCache
    _shards: Shards
    _published: PublishedPolicy
    _entropy: Callable[[int], bytes]
    _clock: Clock
    _telemetry: Telemetry

    def run(self, asked: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        """Do what a command asks for.

        Args:
            asked: `do` is one of `objects` (count the span objects by hour), `look` and `forget` (in the objects of an `hour` behind
                `after`), `rejected` (look in rejected events; with `forgets`, delete), `tables` (where Treasure Data may have rows), `count`,
                `delete` and `select` (there, in a `database`'s `table`), `texts` (what the values are in rows), `note` (make a request of
                each value; with `refuse`, have the ingest refuse new events), `lift` (accept them again, for `ids` of requests), `cleared` (note that a count found none) and `list`. Most name an `account`, a `column` and `values`.
            deadline: for all of it.
        """
        try:
            match asked["do"]:
                case "objects":
                    return {"hours": [[hour, *self._sizes(hour)] for hour in self._objects.hours()]}
                case "look":
                    persons = self._requests.persons_of(self._ad_hoc(asked))
                    return _told(self._search.look(asked["hour"], asked["after"], persons, deadline))
                case "forget":
                    return _told(self._forget(asked["hour"], asked["after"], deadline))
                case "rejected":
                    return {"events": self._rejected(asked)}
                case "note" | "lift" as do:
                    changed = self._note(asked) if do == "note" else self._lift(asked["ids"])
                    return {"requests": [one.receipt() for one in changed]}
                case "cleared":
                    self._clear(asked["ids"], asked["deleted"])
                    return {}
                case "texts":
                    return {"texts": [text for one in asked["values"] for text in self._requests.texts(one)]}
                case "list":
                    return {
                        "requests": [one.receipt() for one in self._requests.document().requests.values()]
                    }
            return self._in_treasure_data(asked, deadline)
        except (UnavailableError, RequestException) as error:
            return {"error": "unavailable", "message": str(error)}

    def _sizes(self, hour: str) -> tuple[int, int]:
        sizes = [stored.size for stored in self._objects.of_hour(hour)]
        return len(sizes), sum(sizes)

    def _ad_hoc(self, asked: Mapping[str, Any]) -> list[ForgetRequest]:
        """Return requests that nobody has made, to look for persons."""
        account, column = asked["account"], asked["column"]
        before = asked.get("before", milliseconds(self._clock.now()))
        return [
            ForgetRequest(
                str(number), account, column, self._requests.hashes(account, column, value), before, 0, 0
            )
            for number, value in enumerate(asked["values"])
        ]

    def _note(self, asked: Mapping[str, Any]) -> list[ForgetRequest]:
        """Make a request of each value, or renew the one that there is."""
        now = self._clock.now()
        refuses = asked.get("refuse", False)
        before = milliseconds(now + REFUSED_SECONDS * refuses)
        until = now + self._shards.retention_seconds() + INDEX_SECONDS + DAY
        asked_for = self._ad_hoc(asked)
        ids = [self._entropy(_ID_BYTES).hex() for _ in asked_for]
        noted: list[ForgetRequest] = []

        def note(document: RequestDocument) -> None:
            noted.clear()
            known = {tuple(one.hashes): one for one in document.requests.values() if one.hashes}
            for new, id_ in zip(asked_for, ids, strict=True):
                request = known.get(tuple(new.hashes)) or replace(new, id=id_)
                request.before, request.until = max(before, request.before), until
                request.next, request.done = now + SECOND_SEARCH_SECONDS, 0.0
                request.refuses |= refuses
                document.requests[request.id] = request
                noted.append(request)

        document = self._requests.change(note)
        if refuses and not self._publish(document):
            raise UnavailableError("No accounts have been applied yet, so no events can be refused.")
        return noted

    def _lift(self, ids: Iterable[str]) -> list[ForgetRequest]:
        """Have the ingest accept events of persons again."""

        def lift(document: RequestDocument) -> None:
            for request in map(document.requests.get, ids):
                if request is not None:
                    request.refuses = False
                    request.hashes = [] if request.done else request.hashes

        document = self._requests.change(lift)
        self._publish(document)
        return [document.requests[one] for one in ids if one in document.requests]

    def _publish(self, document: RequestDocument) -> bool:
        """Tell the ingest whose events it is to refuse; return whether it has an edge policy.

        Raises:
            UnavailableError: the edge policy cannot be written.
        """
        refused, now = document.refused(), milliseconds(self._clock.now())
        found: list[EdgePolicy] = []

        def change(current: EdgePolicy | None) -> bytes | None:
            if current is None:
                return None
            found.append(current)
            return policy.with_refused(current, refused, now) if current.refused != refused else None

        try:
            self._published.change(change)
        except (ClientError, BotoCoreError, InvalidPolicyError) as error:
            raise UnavailableError(f"the edge policy cannot be written: {error}") from error
        return bool(found)

    def _clear(self, ids: Iterable[str], deleted: Mapping[str, int]) -> None:
        def note(document: RequestDocument) -> None:
            for one in ids:
                request = document.requests[one]
                request.cleared = self._clock.now()
                request.treasure_data = dict(Counter(request.treasure_data) + Counter(deleted))

        self._requests.change(note)

    # Searches

    def _forget(self, hour: str, after: str, deadline: Deadline) -> Findings:
        """Forget everybody in the objects of an hour behind a name, and note it."""
        document, now = self._requests.document(), self._clock.now()

        def tell(statements: Mapping[str, list[str]]) -> None:
            self._requests.change(lambda document: _add_statements(document, statements))

        searched = self._search.forget(hour, after, document, tell, deadline)
        if searched.forgotten or searched.deleted or searched.fresh - document.seen.keys():
            self._requests.change(lambda document: _add(document, searched, now))
        return searched

    def run_due(self, deadline: Deadline) -> None:
        """Go on with the search that is under way, or begin one that is due. If a service does not answer, the next run goes on."""
        try:
            document = self._requests.document()
            self._run_due(document, deadline)
            if document.requests:  # the edge policy may have been replaced
                self._publish(document)
        except UnavailableError as error:
            self._telemetry.warning("a search for persons to forget goes on later", reason=str(error))

    def _run_due(self, document: RequestDocument, deadline: Deadline) -> None:
        now = self._clock.now()
        active = [one for one in document.requests.values() if not one.done]
        if not active or not (document.began or any(one.next <= now for one in active)):
            return
        if not document.began:
            document = self._requests.change(_begin(now))
        for hour in list(self._objects.hours()):
            if hour < document.hour:
                continue
            after = document.after if hour == document.hour else ""
            while True:
                searched = self._forget(hour, after, deadline)
                after = searched.after
                document = self._requests.change(_reached(hour, after, searched.left))
                if not after:
                    break
                if deadline.near:
                    return
        events = Counter[str]()
        persons = self._requests.persons_of(active)
        for account in dict.fromkeys(one.account for one in active):
            events += self._search.rejected(account, persons, forgets=True)
        document = self._requests.change(lambda found: _finish(found, events, self._clock.now()))
        done = sum(1 for one in document.requests.values() if one.done >= now)
        self._telemetry.info("searched for persons to forget", requests=len(active), done=done)

    def _rejected(self, asked: Mapping[str, Any]) -> dict[str, int]:
        if not asked["forgets"]:
            persons = self._requests.persons_of(self._ad_hoc(asked))
            return dict(self._search.rejected(asked["account"], persons, forgets=False))
        persons = self._requests.persons()
        found = self._search.rejected(asked["account"], persons, forgets=True)
        if found:
            self._requests.change(lambda document: _add_events(document, found))
        return dict(found)

    # Treasure Data

    def _in_treasure_data(self, asked: Mapping[str, Any], deadline: Deadline) -> dict[str, Any]:
        if asked["do"] == "tables":
            return self._tables(asked)
        database, table, values = asked["database"], asked["table"], asked["values"]
        texts = [text for value in values for text in self._requests.texts(value)]
        before = asked.get("before", milliseconds(self._clock.now()))
        condition = by_value(asked["column"], texts, before)
        match asked["do"]:
            case "count":
                job = self._statements.run(database, counting(table, condition), deadline)
                return {"count": job.count, "end": job.end.value, "statement": counting(table, condition)}
            case "delete":
                end, _ = self._search.delete(database, table, condition, deadline)
                return {"end": end.value, "statement": f"{database}: {deleting(table, condition)}"}
            case "select":
                columns = asked["columns"]
                job = self._statements.run(database, selecting(table, columns, condition), deadline)
                is_too_long = sum(len(str(row)) for row in job.rows) > _MOST_ROWS
                rows = [] if is_too_long else [dict(zip(columns, row, strict=False)) for row in job.rows]
                end = End.FAILED if is_too_long else job.end
                return {
                    "rows": rows,
                    "end": end.value,
                    "statement": f"{database}: {selecting(table, columns, condition)}",
                }
        return {
            "error": "unknown_request",
            "message": "This stack is older than the command. Deploy it again.",
        }

    def _tables(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the tables with a column, and their columns, by database; null for one that Treasure Data says nothing about."""
        databases = set(asked.get("databases", ()))
        account = self._accounts.resolve([asked["account"]]).get(asked["account"])
        if isinstance(account, Account):
            databases.add(account.database)
        found: dict[str, dict[str, list[str]] | None] = {}
        for database in sorted(databases):
            try:
                tables = self._statements.tables(database)
            except (RequestException, SecretUnavailableError):
                tables = None
            found[database] = tables and {
                name: columns
                for name, columns in tables.items()
                if {asked["column"], "received_at"} <= set(columns)
            }
        return {"tables": found}


def _told(searched: Findings) -> dict[str, Any]:
    """Return what a search found as a JSON object."""
    nested: dict[str, dict[str, dict[str, int]]] = {"rows": {}, "forgotten": {}, "deleted": {}}
    for name, of in nested.items():
        for (request, what), number in getattr(searched, name).items():
            of.setdefault(request, {})[what] = number
    return {
        **nested,
        "after": searched.after,
        "objects": searched.objects,
        "left": dict(searched.left),
        "places": searched.places,
    }


def _add(document: RequestDocument, searched: Findings, now: float) -> None:
    """Add what a search did to the requests."""
    document.seen = dict.fromkeys(searched.fresh, now) | document.seen
    for (request, state), number in searched.forgotten.items():
        if request in document.requests:
            of = document.requests[request].forgotten
            of[state] = of.get(state, 0) + number
            document.requests[request].touched = now
    for (request, table), number in searched.deleted.items():
        if request in document.requests:
            in_td = document.requests[request].treasure_data
            in_td[table] = in_td.get(table, 0) + number


def _add_statements(document: RequestDocument, statements: Mapping[str, list[str]]) -> None:
    for request, some in statements.items():
        if request in document.requests:
            known = document.requests[request].statements
            known += [one for one in some if one not in known]


def _add_events(document: RequestDocument, found: Mapping[str, int]) -> None:
    for request, number in found.items():
        if request in document.requests:
            of = document.requests[request].forgotten
            of["rejected"] = of.get("rejected", 0) + number


def _begin(now: float) -> Callable[[RequestDocument], None]:
    def change(document: RequestDocument) -> None:
        document.began, document.hour, document.after, document.left = now, "", "", {}

    return change


def _reached(hour: str, after: str, left: Mapping[str, int]) -> Callable[[RequestDocument], None]:
    def change(document: RequestDocument) -> None:
        document.hour, document.after = hour, after
        document.left = dict(Counter(document.left) + Counter(left))

    return change


def _finish(document: RequestDocument, events: Mapping[str, int], now: float) -> None:
    """End the search that is under way."""
    _add_events(document, events)
    unread = document.left.get("", 0)
    for one in document.requests.values():
        if one.done or one.before > document.began * 1000:
            continue
        one.left, one.searched = document.left.get(one.id, 0), now
        settled = max(one.until, one.touched + VERSIONS_SECONDS)
        if document.began < settled:
            one.next = now + DAY if one.left else settled
        elif one.left or unread:
            one.next = now + DAY
        else:
            one.done = now
            one.hashes = one.hashes if one.refuses else []
    if not any(one.left for one in document.requests.values()):
        document.seen = {}
    document.began, document.hour, document.after, document.left = 0.0, "", "", {}
