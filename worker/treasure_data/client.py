"""The client of Treasure Data's API: imports, databases and tables, its status, and queries for single rows.

Requests carry the same headers as those of the official clients, and no others. `classify` alone decides what a response to an import
means.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import formatdate
from hashlib import md5
from urllib.parse import quote, urlencode, urlsplit

from urllib3 import PoolManager
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError
from urllib3.util import Timeout

from shared.clock import Clock
from shared.errors import SecretUnavailableError
from worker.deadline import LEAST_SEND_SECONDS, Deadline
from worker.secret import Secret
from worker.states import Event, Presence
from worker.treasure_data.answer import NO_ANSWER, TdAnswer
from worker.treasure_data.explanation import explanation_of
from worker.treasure_data.question import DATABASES, Question
from worker.treasure_data.statement import Statements

CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
PROBE_SECONDS = 3.0
_MAX_ANSWER_BYTES = 16 << 20  # enough for a list of tables, which includes all their columns
_MAX_REPLY_BYTES = 1 << 16  # to an import: hundreds may be under way at once
_USER_AGENT = "Sluice/0.1.0"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an import, of leaving it, or of creating a table or a database for it: ACCEPTED if that exists now.

    Attributes:
        event: what that is for the rows.
        reason: one word for logs and the ledger.
        surely_not: Treasure Data cannot have accepted the rows (meaningless for ACCEPTED).
        words: Treasure Data's own explanation of a refusal; `explanation.kept` says what may be kept of it.
        key_refused: the API key was refused, or there is none.
        lacks_table: Treasure Data has no such table, or no such database.
    """

    event: Event
    reason: str = ""
    surely_not: bool = False
    words: str = ""
    key_refused: bool = False
    lacks_table: bool = False


ACCEPTED = Outcome(Event.ACCEPTED)
UNSENT = Outcome(Event.UNANSWERED, "deadline", surely_not=True)
"""The time was up before anything was sent."""

_TEMPORARY = (401, 403, 404, 408, 425, 429)


def classify(answer: TdAnswer, sent: Mapping[str, str]) -> Outcome:
    """Return what the answer to an import means.

    `sent` has the `md5_hex` of the request's body, and the `unique_id`, `database` and `table` that it was sent under.
    """
    status = answer.status
    if status == 200:
        told = {name: value for name, value in answer.document.items() if name in sent}
        if "md5_hex" in told and told.items() <= sent.items():
            return ACCEPTED
        if told.get("md5_hex", sent["md5_hex"]) != sent["md5_hex"]:
            return Outcome(Event.UNANSWERED, "md5_mismatch")
        return Outcome(Event.UNANSWERED, "undocumented_answer")
    if status == 409 and answer.is_refusal:  # Treasure Data already has this unique_id
        return ACCEPTED
    is_refusal = 400 <= status < 500 and answer.is_refusal
    event = Event.REFUSED if is_refusal and status not in _TEMPORARY else Event.UNANSWERED
    if status == 413 or (is_refusal and status in (400, 422)):
        event = Event.PARTLY_REFUSED
    return Outcome(
        event,
        f"http_{status}",
        surely_not=is_refusal and status != 408,
        words=explanation_of(answer) if is_refusal else "",
        key_refused=status in (401, 403),
        lacks_table=is_refusal and status == 404,
    )


def classify_creation(answer: TdAnswer, created: Mapping[str, str]) -> Outcome:
    """Return what the answer to a creation means, which names what is `created`."""
    status = answer.status
    if answer.confirms(created) or (status == 409 and answer.is_refusal):  # 409: it exists
        return ACCEPTED
    if not answer.is_refusal:
        return Outcome(Event.UNANSWERED, "create_unanswered", surely_not=True)
    is_final = 400 <= status < 500 and status not in (401, 404, 408, 429)
    return Outcome(
        Event.REFUSED if is_final else Event.UNANSWERED,
        {401: "http_401", 403: "may_not_create"}.get(status, f"create_http_{status}"),
        surely_not=True,
        words=explanation_of(answer),
        lacks_table=status == 404,
    )


@dataclass(eq=False)
class TreasureDataClient:
    """Sends requests to Treasure Data."""

    _pool: PoolManager
    _import_endpoint: str
    _api_endpoint: str
    _key: Secret
    _clock: Clock

    def send(self, database: str, table: str, unique_id: str, body: bytes, seconds: float) -> Outcome:
        """Import rows (gzip of MessagePack maps) under a unique_id, and wait up to `seconds` for the answer.

        If the API key is refused, but there is another one by now, they are sent again at once.
        """
        url = self._import_endpoint.rstrip("/")
        url += _path("table", "import_with_id", database, table, unique_id, "msgpack.gz")
        checksum = md5(body, usedforsecurity=False).hexdigest()
        sent = {"md5_hex": checksum, "unique_id": unique_id, "database": database, "table": table}
        until = self._clock.now() + seconds
        try:
            key = self._key.get()
            outcome = self._import(key, url, body, sent, seconds)
            has_new_key = outcome.key_refused and self._key.changed(key)
            if not has_new_key or (left := until - self._clock.now()) < LEAST_SEND_SECONDS:
                return outcome
            again = self._import(self._key.get(), url, body, sent, left)
        except SecretUnavailableError:
            return Outcome(Event.UNANSWERED, "no_key", surely_not=True, key_refused=True)
        return replace(again, surely_not=outcome.surely_not and again.surely_not)

    def _import(self, key: str, url: str, body: bytes, sent: Mapping[str, str], seconds: float) -> Outcome:
        headers = {**self._headers(key), "Content-Type": "application/octet-stream"}
        try:
            answer = self._exchange("PUT", url, headers, body, seconds, most_bytes=_MAX_REPLY_BYTES)
        except HTTPError as error:
            return _lost(error)
        return classify(answer, sent)

    def create_table(self, database: str, table: str, seconds: float) -> Outcome:
        """Create a table, unless it exists."""
        answer = self._try("POST", "table", "create", database, table, "log", seconds=seconds)
        return classify_creation(answer, {"database": database, "table": table})

    def create_database(self, database: str, seconds: float) -> Outcome:
        """Create a database, unless it exists."""
        answer = self._try("POST", "database", "create", database, seconds=seconds)
        return classify_creation(answer, {"database": database})

    def try_key(self) -> tuple[str, int, str]:
        """Try our API key; return the API's host, the response's status (0 if there was none), and the type of the error or an empty string."""
        host = urlsplit(self._api_endpoint).netloc
        try:
            return host, self._api("GET", *DATABASES, seconds=PROBE_SECONDS).status, ""
        except (HTTPError, SecretUnavailableError) as error:
            return host, 0, type(error).__name__

    def missing_databases(self, databases: Iterable[str]) -> list[str] | None:
        """Return which of these databases Treasure Data does not list; None if no answer settles it."""
        names = self._try("GET", *DATABASES).names("databases")
        return None if names is None else [one for one in databases if one not in names]

    def shows_columns(self, database: str, table: str) -> bool | None:
        """Return whether a table has the columns by which rows are queried; None if no answer settles it."""
        return self._try("GET", "table", "show", database, table).shows_columns(table)

    def ask(
        self,
        database: str,
        table: str,
        chunks: Sequence[Sequence[object]],
        deadline: Deadline,
        not_before: float = 0.0,
    ) -> list[Presence]:
        """Query for rows of imports, each row by its event_id, received_at and time; return the presence of each import.

        A query that began before `not_before` (UNIX seconds) does not prove that rows are absent.
        """
        question = Question(self.statements, database, table, deadline, not_before)
        try:
            return question.ask(chunks)
        except (HTTPError, SecretUnavailableError):
            return [Presence.UNDECIDED for _ in chunks]

    @property
    def statements(self) -> Statements:
        """What runs SQL statements."""
        return Statements(self._api, self._clock)

    def _try(self, method: str, *path: str, seconds: float = PROBE_SECONDS) -> TdAnswer:
        """Return the answer to a request, or NO_ANSWER."""
        try:
            return self._api(method, *path, seconds=seconds)
        except (HTTPError, SecretUnavailableError):
            return NO_ANSWER

    def _api(
        self,
        method: str,
        *path: str,
        query: str = "",
        form: Mapping[str, str] | None = None,
        seconds: float = READ_SECONDS,
    ) -> TdAnswer:
        headers, body = self._headers(self._key.get()), None
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(form).encode()
        url = self._api_endpoint.rstrip("/") + _path(*path) + query
        return self._exchange(method, url, headers, body, seconds)

    def _headers(self, key: str) -> dict[str, str]:
        return {
            "Accept-Encoding": "identity",
            "Authorization": f"TD1 {key}",
            "Date": formatdate(self._clock.now()),
            "User-Agent": _USER_AGENT,
        }

    def _exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float,
        *,
        most_bytes: int = _MAX_ANSWER_BYTES,
    ) -> TdAnswer:
        response = self._pool.urlopen(
            method,
            url,
            body=body,
            headers=headers,
            timeout=Timeout(total=seconds, connect=min(CONNECT_SECONDS, seconds), read=seconds),
            retries=False,
            redirect=False,
            preload_content=False,
        )
        with response:
            return TdAnswer(response.status, response.read(most_bytes + 1))


def _path(*parts: str) -> str:
    return "/v3/" + "/".join([quote(part, safe="") for part in parts])


def _lost(error: HTTPError) -> Outcome:
    """Return the outcome of an exchange without an answer: rows were definitely not delivered only if no connection was made."""
    if isinstance(error, NewConnectionError):
        return Outcome(Event.UNANSWERED, "connection_refused", surely_not=True)
    if isinstance(error, ConnectTimeoutError):
        return Outcome(Event.UNANSWERED, "connect_timeout", surely_not=True)
    return Outcome(Event.UNANSWERED, "timeout" if isinstance(error, ReadTimeoutError) else "connection_lost")
