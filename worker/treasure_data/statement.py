"""Runs SQL statements in Treasure Data, each as a job, and tells one row there from any other."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Self

from shared.clock import Clock
from worker.deadline import Deadline
from worker.treasure_data.answer import NO_ANSWER, TdAnswer, moment

_POLL_SECONDS = 1.0
_STATUS_MEMBERS = {  # required by Treasure Data's OpenAPI
    "job_id",
    "cpu_time",
    "created_at",
    "duration",
    "end_at",
    "num_records",
    "result_size",
    "start_at",
    "status",
    "updated_at",
}
_ENDED = ("success", "error", "killed")
_STALE_SECONDS = 300.0
"""A job that began so long before it was issued is another one, whose result a cache remembers."""


class End(Enum):
    """How a job ended."""

    SUCCESS = "success"
    FAILED = "failed"
    FORBIDDEN = "forbidden"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Job:
    """A job that has ended, or was given up.

    Attributes:
        number: of rows that its result has.
        began: UNIX seconds at which it began.
        result: the answer with its result, on a line for each row.
    """

    end: End
    number: int | None = None
    began: float = float("-inf")
    result: TdAnswer = NO_ANSWER

    def counts(self, number: int) -> list[int] | None:
        """Return the result if it is one row of this many counts; None if it is anything else."""
        return self.result.counts(number) if self.number == 1 else None

    @property
    def count(self) -> int | None:
        """The result of a COUNT; None if there is none."""
        counts = self.counts(1)
        return counts[0] if counts else None

    @property
    def rows(self) -> list[list[Any]]:
        """The rows of its result; empty if it cannot be read, or is cut off."""
        lines = self.result.body.splitlines() if self.result.status == 200 else []
        try:
            return [json.loads(line) for line in lines if line.startswith(b"[")]
        except (ValueError, RecursionError):
            return []


@dataclass(eq=False)
class Statements:
    """Runs statements; `api` makes a request of Treasure Data's API."""

    api: Callable[..., TdAnswer]
    _clock: Clock

    def run(self, database: str, sql: str, deadline: Deadline) -> Job:
        """Run a statement to its end, unless the deadline is near.

        This raises urllib3.exceptions.HTTPError or SecretUnavailableError if Treasure Data or the API key cannot be reached.
        """
        if deadline.near:
            return Job(End.UNKNOWN)
        now = self._clock.now()
        issued = self.api("POST", "job", "issue", "trino", database, form={"query": sql, "priority": "0"})
        if issued.is_refusal and issued.status in (401, 403):
            return Job(End.FORBIDDEN)
        if issued.is_refusal and issued.status == 404:
            return Job(End.MISSING)
        job = str(issued.document.get("job_id", ""))
        if not job or not issued.confirms({"database": database, "job": job}):
            return Job(End.UNKNOWN)
        status = self._finish(job, deadline)
        if status.get("status") != "success":
            return Job(End.FAILED if status else End.UNKNOWN)
        began = moment(status["start_at"])
        if began < now - _STALE_SECONDS:
            return Job(End.UNKNOWN)
        result = self.api("GET", "job", "result", job, query="?format=json")
        return Job(End.SUCCESS, status["num_records"], began, result)

    def _finish(self, job: str, deadline: Deadline) -> dict[str, Any]:
        """Wait for a job to end and return its status; return an empty one if the deadline comes first."""
        while not deadline.near:
            answer = self.api("GET", "job", "status", job)
            document = answer.document
            is_status = answer.status == 200 and document.keys() >= _STATUS_MEMBERS
            if is_status and str(document["job_id"]) == job and document["status"] in _ENDED:
                return document
            self._clock.sleep(min(_POLL_SECONDS, max(0.0, deadline.left())))
        return {}


def quoted(text: str) -> str:
    """Return a text as an SQL literal."""
    escaped = text.replace("'", "''")
    return f"'{escaped}'"


class RowId(NamedTuple):
    """What tells a row from any other. Clients may name events, so the id alone does not."""

    time: int
    event_id: str
    received_at: int

    @classmethod
    def of(cls, row: object) -> Self | None:
        """Return the id of a row; None if the row lacks a column for that."""
        match row:
            case {"event_id": str(event_id), "time": int(time), "received_at": int(received_at)}:
                return cls(time, event_id, received_at)
        return None

    @property
    def condition(self) -> str:
        """The condition for the row. Its time limits what Treasure Data reads."""
        return f"TD_TIME_RANGE(time, {self.time}, {self.time + 1}) AND event_id = {quoted(self.event_id)} AND received_at = {self.received_at}"
