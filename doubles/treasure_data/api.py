"""Treasure Data's HTTP interface: each route, who may use it, and its answer."""

import json
from collections.abc import Mapping, Sequence
from hashlib import md5

import msgpack

from doubles.treasure_data.exchange import Refusal, Request, Response, answer, error
from doubles.treasure_data.fault import Action, Target
from doubles.treasure_data.import_body import count_checked, inflated
from doubles.treasure_data.import_log import Named
from doubles.treasure_data.job import Job, timestamp
from doubles.treasure_data.query_tables import QueryError, Result
from doubles.treasure_data.settings import Right, Settings
from doubles.treasure_data.warehouse import Warehouse

_HEX = set("0123456789abcdef")


class Api:
    """The routes under `/v3/`. Not for two threads at once.

    Args:
        warehouse: what TD holds.
        keys: the API keys with their rights.

    Attributes:
        duplicates: imports that were answered without being taken, as their unique_id was remembered.
        conflicts: those of them that held other rows than the import that is remembered.
    """

    def __init__(self, warehouse: Warehouse, keys: Mapping[str, frozenset[Right]]) -> None:
        self.duplicates = 0
        self.conflicts = 0
        self._warehouse = warehouse
        self._log = warehouse.log
        self._keys = keys
        self._jobs: dict[str, Job] = {}

    def target(self, segments: Sequence[str]) -> Target:
        """Return what a request to a path is about."""
        match segments:
            case ("v3", "table", "import" | "import_with_id", database, table, *_):
                return Target(Action.IMPORT, database, table)
            case ("v3", "table", "create" | "delete", database, table, *_):
                return Target(Action.CREATE, database, table)
            case ("v3", "database", "create" | "delete", database):
                return Target(Action.CREATE, database)
            case ("v3", "table", "list" | "show" | "tail", database, *rest):
                return Target(Action.LIST, database, rest[0] if rest else None)
            case ("v3", "database", "list"):
                return Target(Action.LIST)
            case ("v3", "job", "issue", _, database):
                return Target(Action.QUERY, database)
            case ("v3", "job", _, job):
                return Target(Action.QUERY, self._jobs[job].database if job in self._jobs else None)
            case ("v3", "system", *_):
                return Target(Action.STATUS)
        return Target(Action.OTHER)

    def answer(self, request: Request, settings: Settings, now: float) -> Response:
        """Carry out a request at a time, UNIX seconds."""
        try:
            return self._route(request, settings, now)
        except Refusal as refusal:
            return error(refusal.status, refusal.message)

    def _route(self, request: Request, settings: Settings, now: float) -> Response:
        match request.method, request.segments:
            case (
                "PUT",
                ("v3", "table", "import", _, _, "msgpack.gz")
                | ("v3", "table", "import_with_id", _, _, _, "msgpack.gz"),
            ):
                self._allow(request, Right.WRITE)
                return self._import(request, settings, now)
            case "POST", ("v3", "database" | "table", "create" | "delete", *_):
                self._allow(request, Right.CREATE)
                return self._change(request, now)
            case "GET", ("v3", "database" | "table", "list" | "show" | "tail", *_):
                self._allow(request)
                return self._look(request, now - settings.query_delay)
            case "POST", ("v3", "job", "issue", "trino" | "presto" | "hive", _):
                self._allow(request, Right.QUERY)
                return self._issue(request, settings, now)
            case "GET", ("v3", "job", "status" | "show" | "result", _):
                self._allow(request, Right.QUERY)
                return self._job(request, now)
            case "GET", ("v3", "system", "server_status"):
                return answer({"status": "ok"})
        raise _no_route(request)

    def _allow(self, request: Request, right: Right | None = None) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        rights = self._keys.get(key)
        if scheme != "TD1" or rights is None:
            raise Refusal(401, "Authentication failed")
        if right is not None and right not in rights:
            raise Refusal(403, f"this key may not {right}")

    def _import(self, request: Request, settings: Settings, now: float) -> Response:
        database, table, *unique_ids = request.segments[3:-1]
        unique_id = unique_ids[0] if unique_ids else None
        self._log.find_table(database, table)
        if unique_id is not None and (not unique_id or set(unique_id) - _HEX):
            raise Refusal(422, "a unique_id is hexadecimal digits in lower case")
        stream = inflated(request.body, settings.largest_import)
        row_count = count_checked(stream)
        if unique_id is not None and self._is_known(
            database, table, unique_id, stream, now - settings.id_memory
        ):
            if settings.duplicate_status == 409:
                raise Refusal(409, f"{unique_id} was imported already")
        else:
            self._log.append(database, table, unique_id, request.body, row_count=row_count, now=now)
        checksum = md5(request.body, usedforsecurity=False).hexdigest()
        document = {
            "elapsed_time": 0,
            "database": database,
            "md5_hex": checksum,
            "table": table,
            "unique_id": checksum if unique_id is None else unique_id,
        }
        return answer(document, delay=settings.answer_seconds)

    def _is_known(self, database: str, table: str, unique_id: str, stream: bytes, since: float) -> bool:
        taken = self._log.find_id(database, table, unique_id, since)
        if taken is None:
            return False
        self.duplicates += 1
        self.conflicts += taken.stream != stream
        return True

    def _change(self, request: Request, now: float) -> Response:
        match request.segments[1:]:
            case ("database", "create", database):
                self._log.create_database(database, now)
                return answer({"database": database})
            case ("database", "delete", database):
                self._warehouse.delete_database(database)
                return answer({"database": database})
            case ("table", "create", database, table, "log"):
                self._log.create_table(database, table, now)
                return answer({"database": database, "table": table, "type": "log"})
            case ("table", "delete", database, table):
                self._warehouse.delete_table(database, table)
                return answer({"database": database, "table": table, "type": "log"})
        raise _no_route(request)

    def _look(self, request: Request, moment: float) -> Response:
        match request.segments[1:]:
            case ("database", "list"):
                return answer(
                    {"databases": [_database_document(database) for database in self._log.databases()]}
                )
            case ("table", "list", database):
                self._log.find_database(database)
                return answer({"database": database, "tables": self._table_documents(database, moment)})
            case ("table", "show", database, table):
                self._log.find_table(database, table)
                tables = self._table_documents(database, moment)
                return answer({"database": database} | next(one for one in tables if one["name"] == table))
            case ("table", "tail", database, table):
                self._allow(request, Right.QUERY)
                return self._tail(request, database, table, moment)
        raise _no_route(request)

    def _table_documents(self, database: str, moment: float) -> list[dict[str, object]]:
        return [
            _named_document(table)
            | {
                "type": "log",
                "schema": json.dumps(self._schema(database, table.name, moment)),
                "estimated_storage_size": table.size,
                "counter_updated_at": None if table.last_import is None else timestamp(table.last_import),
                "last_log_timestamp": None,
                "expire_days": None,
                "delete_protected": False,
            }
            for table in self._log.tables(database)
        ]

    def _schema(self, database: str, table: str, moment: float) -> list[tuple[str, str, str]]:
        columns = self._warehouse.columns(database, table, moment)
        return [(column.name, column.type, column.alias) for column in columns if column.name != "time"]

    def _tail(self, request: Request, database: str, table: str, moment: float) -> Response:
        self._log.find_table(database, table)
        count = _number(request.query, "count", 30)
        rows = [row for taken in self._warehouse.visible(database, table, moment) for row in taken.rows]
        body = b"".join(msgpack.packb(row) for row in rows[::-1][:count])
        return Response(200, body, {"Content-Type": "application/x-msgpack"})

    def _issue(self, request: Request, settings: Settings, now: float) -> Response:
        engine, database = request.segments[3:]
        self._log.find_database(database)
        query = request.form.get("query", "")
        result: Result | None = None
        problem = ""
        try:
            result = self._warehouse.query(database, query, now - settings.query_delay)
        except QueryError as error:
            problem = str(error)
        job = Job(
            id=str(len(self._jobs) + 1),
            database=database,
            type=engine,
            query=query,
            priority=_number(request.form, "priority", 0),
            issued_at=now,
            finished_at=now + settings.job_seconds,
            result=result,
            problem=problem,
        )
        self._jobs[job.id] = job
        return answer({"job": job.id, "job_id": job.id, "database": database})

    def _job(self, request: Request, now: float) -> Response:
        what, number = request.segments[2:]
        job = self._jobs.get(number)
        if job is None:
            raise Refusal(404, f"Couldn't find Job with id = {number}")
        match what:
            case "status":
                return answer({"job_id": job.id, "status": job.status(now)})
            case "show":
                return answer(job.document(now))
            case _:
                header = request.query.get("header", "").lower() == "true"
                return job.answer(request.query.get("format", "json"), now, header=header)


def _no_route(request: Request) -> Refusal:
    return Refusal(404, f"there is no {request.method} {request.target}")


def _named_document(named: Named) -> dict[str, object]:
    return {
        "name": named.name,
        "count": named.row_count,
        "created_at": timestamp(named.created_at),
        "updated_at": timestamp(named.last_import or named.created_at),
    }


def _database_document(database: Named) -> dict[str, object]:
    return _named_document(database) | {"organization": None, "permission": "administrator"}


def _number(parameters: Mapping[str, str], name: str, otherwise: int) -> int:
    try:
        return int(parameters.get(name, otherwise))
    except ValueError:
        raise Refusal(422, f"{name} is a number") from None
