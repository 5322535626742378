"""Treasure Data over HTTP: imports, databases and tables, its status, and queries for single rows.

Requests carry the headers that the official clients send and no others. What an answer means for an import is decided
in one place, `classify`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from enum import Enum
from hashlib import md5
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError
from urllib3.util import Timeout

from shared.clock import Clock
from shared.errors import SecretUnavailableError
from worker.deadline import Deadline
from worker.secret import Secret

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
PROBE_SECONDS = 3.0
MOST_COLUMNS = 512 - 10
"""A table of about so many columns gets no more by imports (documented: 512; not whether `time` and the like count)."""
_JOB_POLL_SECONDS = 1.0
_MAX_ANSWER_BYTES = 1 << 20
_USER_AGENT = "Sluice/0.1.0"


class Meaning(Enum):
    """What the reply to an import means for the rows."""

    ACCEPTED = "accepted"
    MISMATCH = "Treasure Data has other bytes than we sent"
    NO_TABLE = "no such database or table"
    TOO_LARGE = "too large"
    REJECTED = "rejected for good"
    KEY_REFUSED = "our key is refused"
    PASSING = "may pass"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of an import.

    Attributes:
        meaning: what it means.
        reason: one word for logs, set-aside objects and the ledger.
        definitely_not_delivered: Treasure Data cannot have accepted the rows (of no meaning for ACCEPTED).
        retry_after: seconds for which Treasure Data asks to be left alone.
        key: the key that was refused.
    """

    meaning: Meaning
    reason: str = ""
    definitely_not_delivered: bool = True
    retry_after: float = 0.0
    key: str = ""


class Presence(Enum):
    """What Treasure Data says when it is asked for rows."""

    PRESENT = "it has them"
    ABSENT = "it does not have them"
    UNASKABLE = "the key may not query, or the rows cannot be asked for"
    UNDECIDED = "no answer settles it"


ACCEPTED = Reply(Meaning.ACCEPTED)
_MEANINGS = {
    401: Meaning.KEY_REFUSED,
    403: Meaning.KEY_REFUSED,
    404: Meaning.NO_TABLE,
    408: Meaning.PASSING,
    413: Meaning.TOO_LARGE,
    425: Meaning.PASSING,
    429: Meaning.PASSING,
}


def classify(status: int, headers: Mapping[str, str], body: bytes, sent_md5: str, now: float) -> Reply:
    """Return what Treasure Data's answer to an import means.

    Args:
        status: HTTP status.
        headers: of the answer.
        body: of the answer.
        sent_md5: hexadecimal MD5 of the request's body.
        now: UNIX seconds, against which Retry-After may be given.
    """
    reason = f"http_{status}"
    if status == 409:  # this unique_id was there already
        return ACCEPTED
    if 200 <= status < 300:
        answer = _json(body)
        if answer is None:  # some proxy's page: whether Treasure Data took the rows is open
            return Reply(Meaning.PASSING, "not_json", definitely_not_delivered=False)
        if answer.get("md5_hex", sent_md5) != sent_md5:
            return Reply(Meaning.MISMATCH, "md5_mismatch", definitely_not_delivered=False)
        return ACCEPTED
    if 400 <= status < 500:
        verdict = _MEANINGS.get(status, Meaning.REJECTED)
        return Reply(
            verdict,
            reason,
            definitely_not_delivered=status != 408,
            retry_after=_seconds(headers.get("Retry-After"), now),
        )
    return Reply(
        Meaning.PASSING,
        reason,
        definitely_not_delivered=False,
        retry_after=_seconds(headers.get("Retry-After"), now),
    )


class TreasureDataClient:
    """The client.

    Args:
        session: carries the requests; it must not retry.
        import_endpoint: URL that takes imports.
        api_endpoint: URL for everything else.
        key: the API key.
        clock: gives the Date header and waits for jobs.
    """

    def __init__(
        self, session: requests.Session, import_endpoint: str, api_endpoint: str, key: Secret, clock: Clock
    ) -> None:
        self._session = session
        self._import_endpoint = import_endpoint.rstrip("/")
        self._api_endpoint = api_endpoint.rstrip("/")
        self._key = key
        self._clock = clock

    def send(self, database: str, table: str, unique_id: str, body: bytes, seconds: float) -> Reply:
        """Import rows under an id.

        Args:
            database: where to.
            table: where to.
            unique_id: 32 hexadecimal digits, the same for the same rows.
            body: gzip of MessagePack maps.
            seconds: for which an answer is waited for.
        """
        path = f"/v3/table/import_with_id/{_quoted(database)}/{_quoted(table)}/{unique_id}/msgpack.gz"
        try:
            key = self._key.get()
        except SecretUnavailableError:
            return Reply(Meaning.KEY_REFUSED, "no_key")
        headers = {**self._headers(key), "Content-Type": "application/octet-stream"}
        try:
            status, fields, content = self._exchange(
                "PUT", self._import_endpoint + path, headers=headers, body=body, seconds=seconds
            )
        except requests.RequestException as error:
            return _lost(error)
        checksum = md5(body, usedforsecurity=False).hexdigest()
        answer = classify(status, fields, content, checksum, self._clock.now())
        if answer.meaning is Meaning.KEY_REFUSED:
            return Reply(answer.meaning, answer.reason, key=key)
        return answer

    def key_changed(self, refused: str) -> bool:
        """Tell whether there is another key than the refused one."""
        return self._key.changed(refused)

    def create_table(self, database: str, table: str, seconds: float) -> int:
        """Create a table; return the status (409: it exists; 404: no such database), 0 without an answer."""
        return self._post(f"/v3/table/create/{_quoted(database)}/{_quoted(table)}/log", seconds)

    def create_database(self, database: str, seconds: float) -> int:
        """Create a database; return the status (409: it exists), 0 without an answer."""
        return self._post(f"/v3/database/create/{_quoted(database)}", seconds)

    def answers(self) -> bool:
        """Tell whether Treasure Data is there at all."""
        return self._status("/v3/system/server_status", PROBE_SECONDS) == 200

    def knows_key(self) -> bool:
        """Tell whether Treasure Data knows our key, whatever it allows."""
        return self._status("/v3/database/list", PROBE_SECONDS) in (200, 403)

    def try_key(self) -> tuple[str, int, str]:
        """Return what our key gets: the API's host, the status it answered, and the type of the error if there was no answer (0)."""
        host = urlsplit(self._api_endpoint).netloc
        try:
            return host, self._api("GET", "/v3/database/list", seconds=PROBE_SECONDS)[0], ""
        except (requests.RequestException, SecretUnavailableError) as error:
            return host, 0, type(error).__name__

    def ask(self, database: str, table: str, rows: Sequence[object], deadline: Deadline) -> Presence:
        """Ask by a query whether rows are there, each by its event_id, received_at and time.

        Args:
            database: where to look.
            table: where to look.
            rows: of one import, which Treasure Data has as a whole or not at all: all of them are there, or none. Anything else is
                undecided.
            deadline: after which the answer is no longer waited for.
        """
        conditions = [_condition(row) for row in rows]
        if not conditions or None in conditions:
            return Presence.UNASKABLE
        wanted = len(set(conditions))
        # counted, so that the answer is never empty
        query = (
            f"SELECT COUNT(DISTINCT event_id || '/' || CAST(received_at AS VARCHAR) || '/' || CAST(time AS VARCHAR)) "  # noqa: S608 -- every part is quoted
            f"FROM {_name(table)} WHERE {' OR '.join(f'({one})' for one in dict.fromkeys(conditions))}"
        )
        try:
            return self._ask(database, table, query, wanted, deadline)
        except (requests.RequestException, SecretUnavailableError):
            return Presence.UNDECIDED

    def _ask(self, database: str, table: str, query: str, wanted: int, deadline: Deadline) -> Presence:
        form = {"query": query, "priority": "0"}
        status, _, content = self._api("POST", f"/v3/job/issue/trino/{_quoted(database)}", form=form)
        if status in (401, 403):
            return Presence.UNASKABLE
        if status == 404:  # the database has gone, and what was in it
            return Presence.ABSENT
        job = (_json(content) or {}).get("job_id")
        if status != 200 or job is None:
            return Presence.UNDECIDED
        state = self._finish(str(job), deadline)
        if state == "error":
            return self._ask_for_columns(database, table)
        if state != "success":
            return Presence.UNDECIDED
        status, _, content = self._api("GET", f"/v3/job/result/{_quoted(str(job))}?format=json")
        if status != 200:
            return Presence.UNDECIDED
        count = _count(content)
        return {0: Presence.ABSENT, wanted: Presence.PRESENT}.get(count, Presence.UNDECIDED)

    def _ask_for_columns(self, database: str, table: str) -> Presence:
        """Tell what it means that a query failed: the table may be missing, or never have had a row of ours.

        A table has columns for the names in its rows, but not for more than a number of them. One that is full says nothing
        about rows whose columns came later, and will never: it cannot be asked.
        """
        status, _, content = self._api("GET", f"/v3/table/show/{_quoted(database)}/{_quoted(table)}")
        if status == 404:
            return Presence.ABSENT
        schema = (_json(content) or {}).get("schema")
        try:
            columns = {column[0] for column in json.loads(schema)} if isinstance(schema, str) else None
        except (ValueError, TypeError, IndexError):
            columns = None
        if status != 200 or columns is None or columns.issuperset(("event_id", "received_at")):
            return Presence.UNDECIDED
        return Presence.ABSENT if len(columns) < MOST_COLUMNS else Presence.UNASKABLE

    def _finish(self, job: str, deadline: Deadline) -> str:
        while not deadline.near:
            status, _, content = self._api("GET", f"/v3/job/status/{_quoted(job)}")
            state = str((_json(content) or {}).get("status", "")) if status == 200 else ""
            if state in ("success", "error", "killed"):
                return state
            self._clock.sleep(min(_JOB_POLL_SECONDS, max(0.0, deadline.left())))
        return ""

    def _post(self, path: str, seconds: float) -> int:
        try:
            return self._api("POST", path, seconds=seconds)[0]
        except (requests.RequestException, SecretUnavailableError):
            return 0

    def _status(self, path: str, seconds: float) -> int:
        try:
            return self._api("GET", path, seconds=seconds)[0]
        except (requests.RequestException, SecretUnavailableError):
            return 0

    def _api(
        self, method: str, path: str, form: Mapping[str, str] | None = None, seconds: float = READ_SECONDS
    ) -> tuple[int, Mapping[str, str], bytes]:
        return self._exchange(
            method,
            self._api_endpoint + path,
            headers=self._headers(self._key.get()),
            body=form,
            seconds=seconds,
        )

    def _headers(self, key: str) -> dict[str, str | None]:
        return {
            "Accept-Encoding": "identity",
            "Accept": None,  # requests' own, which the official clients do not send
            "Connection": None,
            "Authorization": f"TD1 {key}",
            "Date": formatdate(self._clock.now()),
            "User-Agent": _USER_AGENT,
        }

    def _exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str | None],
        body: bytes | Mapping[str, str] | None,
        seconds: float,
    ) -> tuple[int, Mapping[str, str], bytes]:
        timeout = Timeout(total=seconds, connect=min(CONNECT_SECONDS, seconds), read=seconds)
        with self._session.request(
            method,
            url,
            headers=headers,
            data=body,
            timeout=timeout,  # type: ignore[arg-type]  # requests takes urllib3's own, which knows a total
            allow_redirects=False,
            stream=True,
        ) as response:
            content = b""
            for piece in response.iter_content(65_536):
                content += piece
                if len(content) > _MAX_ANSWER_BYTES:
                    break
            return response.status_code, response.headers, content


def _lost(error: requests.RequestException) -> Reply:
    """Return what an exchange without an answer means: surely not taken only where no connection was made."""
    if isinstance(error, requests.ConnectTimeout):
        return Reply(Meaning.PASSING, "connect_timeout")
    if isinstance(error, requests.Timeout):
        return Reply(Meaning.PASSING, "timeout", definitely_not_delivered=False)
    cause = error.args[0] if error.args else None
    if isinstance(cause, MaxRetryError) and isinstance(
        cause.reason, NewConnectionError | ConnectTimeoutError
    ):
        return Reply(Meaning.PASSING, "connection_refused")
    return Reply(Meaning.PASSING, "connection_lost", definitely_not_delivered=False)


def _json(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _count(body: bytes) -> int:
    """Return the count that a job's result holds: one line, one array, one integer; -1 where it is anything else."""
    try:
        value = json.loads(body)
    except ValueError:
        return -1
    match value:
        case [bool()]:
            return -1
        case [int(count)] if count >= 0:
            return count
    return -1


def _seconds(retry_after: str | None, now: float) -> float:
    """Return a Retry-After, in seconds or as a date, as seconds from now."""
    if not retry_after:
        return 0.0
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - now)


def _condition(row: object) -> str | None:
    """Return SQL that is true for this row alone, whose time bounds what Treasure Data must read."""
    match row:
        case {"event_id": str(event_id), "time": int(time), "received_at": int(received_at)}:
            text = event_id.replace("'", "''")
            return (
                f"TD_TIME_RANGE(time, {time}, {time + 1}) AND event_id = '{text}' "
                f"AND received_at = {received_at}"
            )
    return None


def _name(table: str) -> str:
    return f'"{table}"'


def _quoted(text: str) -> str:
    return quote(text, safe="")
