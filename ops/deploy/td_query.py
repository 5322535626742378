"""Reads rows through Treasure Data's query API."""

import json
from collections import Counter
from typing import Any
from urllib.parse import quote

import requests

from ops.failure import Failure
from shared.clock import Clock

_SECONDS = 30.0
_POLL_SECONDS = 1.0
_JOB_SECONDS = 300.0
_ENDED = ("success", "error", "killed")


class QueryForbiddenError(Failure):
    """The API key may not query."""


class TreasureDataQueries:
    """Queries one database.

    Args:
        session: sends the requests.
        endpoint: Treasure Data's API.
        key: the API key.
        clock: waits for jobs.
        database: the database.
    """

    def __init__(
        self, session: requests.Session, endpoint: str, key: str, clock: Clock, database: str
    ) -> None:
        self._session = session
        self._endpoint = endpoint.rstrip("/")
        self._key = key
        self._clock = clock
        self._database = database

    def counts(self, table: str, prefix: str, begin: int, end: int) -> Counter[str]:
        """Return the number of a table's rows between two times, UNIX seconds, by event id.

        Args:
            table: the table. If it does not exist, it has no rows.
            prefix: how the event ids begin: letters, digits and hyphens.
            begin: the first time.
            end: the time after the last one.

        Raises:
            Failure: see `rows`.
        """
        query = (
            f'SELECT event_id, COUNT(1) FROM "{table}" WHERE TD_TIME_RANGE(time, {begin}, {end}) '  # noqa: S608 -- neither quotes nor wildcards
            f"AND event_id LIKE '{prefix}%' GROUP BY event_id"
        )
        return Counter({str(event_id): int(count) for event_id, count in self.rows(query) or ()})

    def rows(self, query: str) -> list[list[Any]] | None:
        """Return the result of a SELECT; None if the query fails, as it does while the table does not exist.

        Raises:
            QueryForbiddenError: the API key may not query.
            Failure: Treasure Data does not respond as documented or in time.
        """
        issued = self._call(
            "POST", f"/v3/job/issue/trino/{quote(self._database)}", {"query": query, "priority": "0"}
        )
        if issued.status_code == 404:  # no such database yet
            return None
        job = str(self._document(issued)["job_id"])
        until = self._clock.now() + _JOB_SECONDS
        while (status := self._status(job)) not in _ENDED:
            if self._clock.now() > until:
                raise Failure(f"Treasure Data's job {job} did not end within {_JOB_SECONDS:.0f} s")
            self._clock.sleep(_POLL_SECONDS)
        if status != "success":
            return None
        answer = self._call("GET", f"/v3/job/result/{quote(job)}?format=json")
        if answer.status_code != 200:
            raise Failure(f"Treasure Data answered {answer.status_code} for the result of job {job}")
        return [json.loads(line) for line in answer.text.splitlines() if line]

    def _status(self, job: str) -> str:
        return str(self._document(self._call("GET", f"/v3/job/status/{quote(job)}"))["status"])

    def _document(self, answer: requests.Response) -> dict[str, Any]:
        if answer.status_code in (401, 403):
            raise QueryForbiddenError(
                f"Treasure Data answered {answer.status_code}: the API key may not query, so nothing can be read back"
            )
        if answer.status_code != 200:
            raise Failure(f"Treasure Data answered {answer.status_code} to a query")
        found: dict[str, Any] = answer.json()
        return found

    def _call(self, method: str, path: str, form: dict[str, str] | None = None) -> requests.Response:
        headers = {"Authorization": f"TD1 {self._key}"}
        try:
            return self._session.request(
                method, self._endpoint + path, data=form, headers=headers, timeout=_SECONDS
            )
        except requests.RequestException as error:
            raise Failure(f"{self._endpoint} did not respond: {type(error).__name__}") from error
