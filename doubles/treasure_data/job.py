"""Jobs: queries that were issued, and what became of them."""

from dataclasses import dataclass
from datetime import UTC, datetime

from doubles.http_server import RejectedError, Response
from doubles.treasure_data.queries import Cell
from doubles.treasure_data.response import as_json


@dataclass(frozen=True, slots=True)
class Job:
    """A query that was issued; it runs until `finished_at`, UNIX seconds, and `rows` is None if it fails."""

    id: str
    database: str
    issued_at: float
    finished_at: float
    rows: list[tuple[Cell, ...]] | None

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

    def result(self, now: float) -> Response:
        """Return the response with the result: a JSON array a line.

        Raises:
            RejectedError: there is no result, or not yet (404).
        """
        if self._state(now) != "success":
            raise RejectedError(404, f"job {self.id} has no result: it is {self._state(now)}")
        return Response(200, self._lines(), (("Content-Type", "application/json; charset=utf-8"),))

    def _state(self, now: float) -> str:
        if now < self.finished_at:
            return "running"
        return "error" if self.rows is None else "success"

    def _lines(self) -> bytes:
        return b"".join(as_json(row) + b"\n" for row in self.rows or ())


def timestamp(seconds: float) -> str:
    """Return UNIX seconds as TD writes them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
