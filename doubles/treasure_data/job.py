"""Jobs: queries that were issued, and what became of them."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import msgpack

from doubles.treasure_data.exchange import JSON, Refusal, Response
from doubles.treasure_data.query_tables import Result, as_json


@dataclass(frozen=True, slots=True)
class Job:
    """A query that was issued.

    Attributes:
        id: its id.
        database: the database it was issued for.
        type: the engine: trino, presto or hive.
        query: its SQL.
        priority: -2 to 2.
        issued_at: UNIX seconds.
        finished_at: UNIX seconds; the job runs until then.
        result: what it found, or None if it failed.
        problem: why it failed.
    """

    id: str
    database: str
    type: str
    query: str
    priority: int
    issued_at: float
    finished_at: float
    result: Result | None
    problem: str = ""

    def status(self, now: float) -> str:
        """Return `running`, then `success` or `error`."""
        if now < self.finished_at:
            return "running"
        return "error" if self.result is None else "success"

    def document(self, now: float) -> dict[str, object]:
        """Return what TD shows of the job."""
        document: dict[str, object] = {
            "job_id": self.id,
            "status": self.status(now),
            "type": self.type,
            "query": self.query,
            "database": self.database,
            "priority": self.priority,
            "created_at": timestamp(self.issued_at),
            "start_at": timestamp(self.issued_at),
            "debug": {"cmdout": "", "stderr": self.problem},
        }
        if now >= self.finished_at:
            document["end_at"] = timestamp(self.finished_at)
            if self.result is not None:
                document["hive_result_schema"] = json.dumps(self.result.columns)
                document["num_records"] = len(self.result.rows)
                document["result_size"] = len(_encoded(self.result, "msgpack", header=False))
        return document

    def answer(self, form: str, now: float, *, header: bool) -> Response:
        """Return the job's result.

        Args:
            form: `json`, a JSON array a line, or `msgpack`, arrays one after another.
            now: UNIX seconds.
            header: whether the columns' names come first.

        Raises:
            Refusal: there is no result, or not yet (404), or another form is wanted (400).
        """
        if self.result is None or now < self.finished_at:
            raise Refusal(404, f"job {self.id} has no result: it is {self.status(now)}")
        if form not in ("json", "msgpack"):
            raise Refusal(400, "the stand-in answers results as json or msgpack")
        kind = JSON if form == "json" else "application/x-msgpack"
        return Response(200, _encoded(self.result, form, header=header), {"Content-Type": kind})


def timestamp(seconds: float) -> str:
    """Return UNIX seconds as TD writes them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _encoded(result: Result, form: str, *, header: bool) -> bytes:
    lines = [tuple(name for name, _ in result.columns), *result.rows] if header else result.rows
    if form == "json":
        return b"".join(as_json(line) + b"\n" for line in lines)
    return b"".join(msgpack.packb(line) for line in lines)
