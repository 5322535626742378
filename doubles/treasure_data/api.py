"""Treasure Data's HTTP interface: its routes, permissions and responses, and settings for undocumented behaviour."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from hashlib import md5
from urllib.parse import parse_qs

from doubles.http_server import RejectedError, Request, Response
from doubles.treasure_data import queries
from doubles.treasure_data.fault import Action, Target
from doubles.treasure_data.imports import Import, ImportLog, Row, checked_rows, inflated
from doubles.treasure_data.response import answer, error

_HEX = set("0123456789abcdef")
_OPEN = (Action.STATUS, Action.OTHER)  # allowed without a key

API_KEY = "1/5f1ce05f1ce05f1ce05f1ce05f1ce05f1ce05f1c"
"""The default API key. It may do everything."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the double behaves where TD does not document its behaviour.

    Attributes:
        id_memory: seconds for which a table remembers a unique_id, from the first import accepted under it.
        duplicate_status: the status of the response to a repeated unique_id: 200 or 409.
        query_delay: seconds from an import until queries see its rows.
        job_seconds: seconds that a job takes; it sees the rows that could be queried when it was issued.
        answer_seconds: seconds until the response to an import.
        largest_import: the maximum bytes of an import before gzip, fluent-plugin-td's limit; more is a 413.
        schema_delay: seconds from when queries see a row until its table shows the row's columns; infinite if schema
            detection is off.
        job_age: seconds by which a new query's result is outdated, as if a cache answered with an old job.
        refuses_delete: jobs with a DELETE fail, as for a key whose user may not change the table.
        rejects: returns whether an import with this row is a 422.
    """

    id_memory: float = 3600.0
    duplicate_status: int = 200
    query_delay: float = 0.0
    job_seconds: float = 0.0
    answer_seconds: float = 0.0
    largest_import: int = 32 * 1024 * 1024
    schema_delay: float = 0.0
    job_age: float = 0.0
    refuses_delete: bool = False
    rejects: Callable[[Row], bool] | None = None


class Api:
    """The routes under `/v3/`. Not thread-safe.

    Args:
        log: the accepted imports.
        keys: the API keys and what each may do; every key may list.

    Attributes:
        duplicates: the number of imports that were answered but not stored, because their unique_id was remembered.
        jobs: the queries that were issued, by id.
    """

    def __init__(self, log: ImportLog, keys: Mapping[str, frozenset[Action]]) -> None:
        self.duplicates = 0
        self._deleted: dict[tuple[str, str], dict[str, str]] = {}  # columns of rows that queries deleted
        self._log = log
        self._keys = keys
        self.jobs: dict[str, queries.Job] = {}

    def route(self, request: Request) -> tuple[Target, Callable[[Settings, float], Response]]:
        """Return what a request does, and a function that executes it with the settings at a time, UNIX seconds."""
        match request.method, request.segments:
            case "PUT", ("v3", "table", "import_with_id", database, table, _, "msgpack.gz"):
                return Target(Action.IMPORT, database, table), partial(self._import, request)
            case "POST", ("v3", "database", "create", database):
                return Target(Action.CREATE, database), partial(self._create, database, None)
            case "POST", ("v3", "table", "create", database, table, "log"):
                return Target(Action.CREATE, database, table), partial(self._create, database, table)
            case "GET", ("v3", "database", "list"):
                names = [{"name": name} for name in self._log.counts()]
                return Target(Action.LIST), lambda *_: answer({"databases": names})
            case "GET", ("v3", "table", "list", database):
                return Target(Action.LIST, database), partial(self._list, database)
            case "GET", ("v3", "table", "show", database, table):
                return Target(Action.LIST, database, table), partial(self._show, database, table)
            case "POST", ("v3", "job", "issue", "trino", database):
                return Target(Action.QUERY, database), partial(self._issue, database, request.body)
            case "GET", ("v3", "job", "status" | "result" as document, number) if (
                document == "status" or request.target.endswith("?format=json")
            ):
                asked = self.jobs[number].database if number in self.jobs else None
                return Target(Action.QUERY, asked), partial(self._tell, document, number)
            case "GET", ("v3", "system", "server_status"):
                return Target(Action.STATUS), lambda *_: answer({"status": "ok"})
        missing = error(404, f"the double has no {request.method} {request.target}")
        return Target(Action.OTHER), lambda *_: missing

    def answer(self, request: Request, settings: Settings, now: float) -> Response:
        """Execute a request at a time, UNIX seconds."""
        target, carry_out = self.route(request)
        try:
            self._allow(target.action, request.header("authorization"))
            return carry_out(settings, now)
        except RejectedError as rejected:
            return error(rejected.status, rejected.message)

    def _allow(self, action: Action, authorization: str) -> None:
        """Raise RejectedError unless the key may do it: 401 for an unknown key, 403 for a missing permission."""
        scheme, _, key = authorization.partition(" ")
        allowed = self._keys.get(key)
        if action in _OPEN:
            return
        if scheme != "TD1" or allowed is None:
            raise RejectedError(401, "Authentication failed")
        if action not in allowed | {Action.LIST}:
            raise RejectedError(403, f"this key may not {action}")

    def _create(self, database: str, table: str | None, *_: object) -> Response:
        self._log.create(database, table)
        return answer({"database": database} | ({"table": table, "type": "log"} if table else {}))

    def _import(self, request: Request, settings: Settings, now: float) -> Response:
        (database, table, unique_id), body = request.segments[3:-1], request.body
        self._log.check(database, table)
        if not unique_id or set(unique_id) - _HEX:
            raise RejectedError(422, "a unique_id must be lower-case hexadecimal digits")
        imported = checked_rows(inflated(body, settings.largest_import))
        if settings.rejects is not None and any(map(settings.rejects, imported)):
            raise RejectedError(422, "a row is rejected")
        if not self._log.remembers(database, table, unique_id, now - settings.id_memory):
            self._log.append(Import(database, table, unique_id, now, body), len(imported))
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
        columns = self._columns(database, table, now - settings.query_delay - settings.schema_delay)
        schema = [[name, type_, name] for name, type_ in columns.items() if name != "time"]
        count = self._log.counts()[database][table]
        size = sum(len(one.body) for one in self._log.imports(database, table))
        described = {"name": table, "type": "log", "count": count, "estimated_storage_size": size}
        return described | {"schema": json.dumps(schema)}

    def _visible(self, database: str, table: str, moment: float) -> list[Row]:
        """Return the rows that queries saw at a moment, UNIX seconds."""
        return [
            row for taken in self._log.imports(database, table) if taken.at <= moment for row in taken.rows
        ]

    def _columns(self, database: str, table: str, moment: float) -> dict[str, str]:
        """Return the columns that a table's schema has at a moment. A DELETE leaves those of the rows that it deletes."""
        shown = self._deleted.get((database, table), {})
        return shown | queries.columns(self._visible(database, table, moment))

    def _issue(self, database: str, form: bytes, settings: Settings, now: float) -> Response:
        self._log.check(database)
        query = "".join(parse_qs(form.decode(errors="replace")).get("query", ()))
        now -= settings.job_age
        seen = now - settings.query_delay
        shown = seen - settings.schema_delay
        tables = {
            table: (self._visible(database, table, seen), self._columns(database, table, shown))
            for table in self._log.counts()[database]
            if table in query
        }
        deletion = queries.deletion(query)
        if deletion is None:
            found = queries.run(query, tables)
        else:
            table, finding = deletion
            found = None if settings.refuses_delete else queries.run(finding, tables)
            if found:
                self._deleted[database, table] = tables[table][1]
                self._log.delete(database, table, seen, {int(row[0]) for row in found if row[0] is not None})
                found = []
        end = now + settings.job_seconds
        job = queries.Job(str(len(self.jobs) + 1), database, now, end, found)
        self.jobs[job.id] = job
        return answer({"job": job.id, "job_id": job.id, "database": database})

    def _tell(self, document: str, number: str, _settings: Settings, now: float) -> Response:
        if number not in self.jobs:
            raise RejectedError(404, f"Couldn't find Job with id = {number}")
        job = self.jobs[number]
        return answer(job.status(now)) if document == "status" else job.result(now)
