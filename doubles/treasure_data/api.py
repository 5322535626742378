"""Treasure Data's HTTP interface: each route, who may use it and its response, and settings for what is not documented."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import md5
from urllib.parse import parse_qs

from doubles.http_server import RejectedError, Request, Response
from doubles.treasure_data import queries
from doubles.treasure_data.fault import Action, Target
from doubles.treasure_data.imports import ImportLog, Row, checked_rows, inflated
from doubles.treasure_data.response import answer, error

_HEX = set("0123456789abcdef")
_OPEN = (Action.STATUS, Action.OTHER)  # to everyone

API_KEY = "1/5f1ce05f1ce05f1ce05f1ce05f1ce05f1ce05f1c"
"""The key that may do everything, unless others are given."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the double behaves where TD's behaviour is not documented.

    Attributes:
        id_memory: seconds for which a table remembers a unique_id, from the first import that was accepted under it.
        duplicate_status: the status of the response to a repeated unique_id: 200 or 409.
        query_delay: seconds from an import until queries see its rows.
        job_seconds: seconds that a job takes; it sees what could be queried when it was issued.
        answer_seconds: seconds that the response to an import takes.
        largest_import: bytes of an import before gzip; more is a 413. fluent-plugin-td's limit.
        schema_delay: seconds from when queries see a row until its table shows the row's columns; infinite where schema
            detection is off.
        job_age: seconds for which a query that is issued has run already: a cache answers with an old one.
        rejects: tells of a row whether an import that holds it is a 422.
    """

    id_memory: float = 3600.0
    duplicate_status: int = 200
    query_delay: float = 0.0
    job_seconds: float = 0.0
    answer_seconds: float = 0.0
    largest_import: int = 32 * 1024 * 1024
    schema_delay: float = 0.0
    job_age: float = 0.0
    rejects: Callable[[Row], bool] | None = None


class Api:
    """The routes under `/v3/`. Not for two threads at once.

    Args:
        log: what TD has accepted.
        keys: the API keys with what each may do; any of them may list.

    Attributes:
        duplicates: imports that were answered without being accepted, because their unique_id was remembered.
    """

    def __init__(self, log: ImportLog, keys: Mapping[str, frozenset[Action]]) -> None:
        self.duplicates = 0
        self._log = log
        self._keys = keys
        self._jobs: dict[str, queries.Job] = {}

    def target(self, segments: Sequence[str]) -> Target:
        """Return what a request to a path does."""
        match segments:
            case ("v3", "table", "import_with_id", database, table, *_):
                return Target(Action.IMPORT, database, table)
            case ("v3", "table", "create", database, table, *_):
                return Target(Action.CREATE, database, table)
            case ("v3", "database", "create", database):
                return Target(Action.CREATE, database)
            case ("v3", "table", "show" | "list", database, *table):
                return Target(Action.LIST, database, *table[:1])
            case ("v3", "database", "list"):
                return Target(Action.LIST)
            case ("v3", "job", "issue", _, database):
                return Target(Action.QUERY, database)
            case ("v3", "job", _, *job):
                found = self._jobs.get(job[0]) if job else None
                return Target(Action.QUERY, None if found is None else found.database)
            case ("v3", "system", *_):
                return Target(Action.STATUS)
        return Target(Action.OTHER)

    def answer(self, request: Request, settings: Settings, now: float) -> Response:
        """Carry out a request at a time, UNIX seconds."""
        try:
            return self._route(request, settings, now)
        except RejectedError as rejected:
            return error(rejected.status, rejected.message)

    def _route(self, request: Request, settings: Settings, now: float) -> Response:
        self._allow(request)
        match request.method, request.segments:
            case "PUT", ("v3", "table", "import_with_id", _, _, _, "msgpack.gz"):
                return self._import(request, settings, now)
            case "POST", ("v3", "database", "create", database):
                self._log.create(database)
                return answer({"database": database})
            case "POST", ("v3", "table", "create", database, table, "log"):
                self._log.create(database, table)
                return answer({"database": database, "table": table, "type": "log"})
            case "GET", ("v3", "database", "list"):
                return answer({"databases": [{"name": name} for name in self._log.counts()]})
            case "GET", ("v3", "table", "list", database):
                return self._list(database, settings, now)
            case "GET", ("v3", "table", "show", database, table):
                return self._show(database, table, settings, now)
            case "POST", ("v3", "job", "issue", "trino", database):
                return self._issue(request, database, settings, now)
            case "GET", ("v3", "job", document, job):
                return self._tell(document, self._job(job), request, now)
            case "GET", ("v3", "system", "server_status"):
                return answer({"status": "ok"})
        raise _no_route(request)

    def _allow(self, request: Request) -> None:
        """Raise RejectedError unless the request's key may do it: 401 for an unknown key, 403 for too few rights."""
        action = self.target(request.segments).action
        scheme, _, key = request.header("authorization").partition(" ")
        allowed = self._keys.get(key)
        if action in _OPEN:
            return
        if scheme != "TD1" or allowed is None:
            raise RejectedError(401, "Authentication failed")
        if action not in allowed | {Action.LIST}:
            raise RejectedError(403, f"this key may not {action}")

    def _import(self, request: Request, settings: Settings, now: float) -> Response:
        (database, table, unique_id), body = request.segments[3:-1], request.body
        self._log.check(database, table)
        if not unique_id or set(unique_id) - _HEX:
            raise RejectedError(422, "a unique_id is hexadecimal digits in lower case")
        imported = checked_rows(inflated(body, settings.largest_import))
        if settings.rejects is not None and any(map(settings.rejects, imported)):
            raise RejectedError(422, "a row is rejected")
        if not self._log.remembers(database, table, unique_id, now - settings.id_memory):
            self._log.append(database, table, unique_id, body, row_count=len(imported), now=now)
        else:
            self.duplicates += 1
            if settings.duplicate_status == 409:
                raise RejectedError(409, f"{unique_id} was imported already")
        document = {
            "elapsed_time": 0,
            "database": database,
            "md5_hex": md5(body, usedforsecurity=False).hexdigest(),
            "table": table,
            "unique_id": unique_id,
        }
        return replace(answer(document), delay=settings.answer_seconds)

    def _list(self, database: str, settings: Settings, now: float) -> Response:
        self._log.check(database)
        tables = [self._described(database, table, settings, now) for table in self._log.counts()[database]]
        return answer({"database": database, "tables": tables})

    def _show(self, database: str, table: str, settings: Settings, now: float) -> Response:
        self._log.check(database, table)
        return answer({"database": database} | self._described(database, table, settings, now))

    def _described(self, database: str, table: str, settings: Settings, now: float) -> dict[str, object]:
        shown = self._visible(database, table, now - settings.query_delay - settings.schema_delay)
        columns = queries.columns(shown).items()
        schema = [[name, type_, name] for name, type_ in columns if name != "time"]
        count = self._log.counts()[database][table]
        size = sum(len(one.body) for one in self._log.imports(database, table))
        described = {"name": table, "type": "log", "count": count, "estimated_storage_size": size}
        return described | {"schema": json.dumps(schema)}

    def _visible(self, database: str, table: str, moment: float) -> list[Row]:
        """Return the rows that queries saw at a moment, UNIX seconds."""
        return [
            row for taken in self._log.imports(database, table) if taken.at <= moment for row in taken.rows
        ]

    def _issue(self, request: Request, database: str, settings: Settings, now: float) -> Response:
        self._log.check(database)
        query = "".join(parse_qs(request.body.decode(errors="replace")).get("query", ()))
        now -= settings.job_age
        seen = now - settings.query_delay
        shown = seen - settings.schema_delay
        tables = {
            table: (
                self._visible(database, table, seen),
                queries.columns(self._visible(database, table, shown)),
            )
            for table in self._log.counts()[database]
            if table in query
        }
        found, end = queries.run(query, tables), now + settings.job_seconds
        job = queries.Job(str(len(self._jobs) + 1), database, now, end, found)
        self._jobs[job.id] = job
        return answer({"job": job.id, "job_id": job.id, "database": database})

    def _tell(self, document: str, job: queries.Job, request: Request, now: float) -> Response:
        if document == "status":
            return answer(job.status(now))
        if document == "result" and request.target.endswith("?format=json"):
            return job.result(now)
        raise _no_route(request)

    def _job(self, number: str) -> queries.Job:
        if number not in self._jobs:
            raise RejectedError(404, f"Couldn't find Job with id = {number}")
        return self._jobs[number]


def _no_route(request: Request) -> RejectedError:
    return RejectedError(404, f"the double has no {request.method} {request.target}")
