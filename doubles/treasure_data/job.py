"""Jobs: queries that were issued, and what became of them."""

import gzip
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import msgpack

from doubles.http_server import RejectedError
from doubles.treasure_data.exchange import Response, as_json
from doubles.treasure_data.queries import Cell


@dataclass(frozen=True, slots=True)
class Job:
    """A query that was issued.

    Attributes:
        issued_at: UNIX seconds.
        finished_at: UNIX seconds; the job runs until then.
        rows: what it found, or None if it failed.
        columns: names of the columns of the rows.
        type: of the query: `trino`, `presto` or `hive`.
        query: its text.
    """

    id: str
    database: str
    issued_at: float
    finished_at: float
    rows: list[tuple[Cell, ...]] | None
    columns: tuple[str, ...] = ()
    type: str = "trino"
    query: str = ""

    def status(self, now: float) -> dict[str, object]:
        """Return the document of `job/status`: exactly the members of TD's OpenAPI."""
        done = now >= self.finished_at
        return {
            "job_id": self.id,
            "status": self._state(now),
            "created_at": timestamp(self.issued_at),
            "updated_at": timestamp(self.finished_at if done else self.issued_at),
            "start_at": timestamp(self.issued_at),
            "end_at": timestamp(self.finished_at) if done else None,
            "duration": int(min(now, self.finished_at) - self.issued_at),
            "cpu_time": 0 if done else None,
            "num_records": len(self.rows or ()) if done else None,
            "result_size": len(self._lines()) if done else None,
        }

    def shown(self, now: float) -> dict[str, object]:
        """Return the document of `job/show`, and a member of `job/list`'s: what td-client and pytd read of it."""
        columns = [[name, "varchar"] for name in self.columns]
        return self.status(now) | {
            "type": self.type,
            "query": self.query,
            "database": self.database,
            "url": "",
            "user_name": "local",
            "priority": 0,
            "retry_limit": 0,
            "result": "",
            "hive_result_schema": json.dumps(columns) if self._state(now) == "success" else None,
            "debug": {"cmdout": "", "stderr": ""},
        }

    def result(self, now: float, format_: str) -> Response:
        """Return the response with the result: a JSON array a line, or MessagePack arrays.

        Raises:
            RejectedError: there is no result, or not yet (404), or not in that format (400).
        """
        if self._state(now) != "success":
            raise RejectedError(404, f"job {self.id} has no result: it is {self._state(now)}")
        rows = self.rows or []
        match format_:
            case "json":
                return Response(200, self._lines(), {"Content-Type": "application/json; charset=utf-8"})
            case "msgpack" | "msgpack.gz":
                packed = b"".join(msgpack.packb(row) for row in rows)
                body = gzip.compress(packed, mtime=0) if format_ == "msgpack.gz" else packed
                return Response(200, body, {"Content-Type": "application/octet-stream"})
        raise RejectedError(400, f"there is no format {format_}")

    def _state(self, now: float) -> str:
        if now < self.finished_at:
            return "running"
        return "error" if self.rows is None else "success"

    def _lines(self) -> bytes:
        return b"".join(as_json(row) + b"\n" for row in self.rows or ())


def timestamp(seconds: float) -> str:
    """Return UNIX seconds as TD writes them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
