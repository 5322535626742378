"""Treasure Data as seen from this machine, with an API key that is known."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, override

from requests import RequestException, Session
from requests.utils import DEFAULT_CA_BUNDLE_PATH, prepend_scheme_if_needed, select_proxy
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError

from ops.failure import Failure
from shared.clock import Clock, SystemClock
from worker.deadline import Deadline
from worker.secret import Secret
from worker.treasure_data.client import TreasureDataClient
from worker.treasure_data.question import DATABASES
from worker.treasure_data.statement import End

_JOB_SECONDS = 300.0


class _KnownKey(Secret):
    def __init__(self, text: str) -> None:
        self.text = text

    @override
    def get(self, max_age: float = float("inf")) -> str:
        return self.text

    @override
    def changed(self, used: str) -> bool:
        return False


class SiteClient(TreasureDataClient):
    """A client that also tells whether it has the right site and key."""

    def answers(self) -> bool:
        """Return whether Treasure Data responds at all."""
        answer = self._try("GET", "system", "server_status")
        return answer.status == 200 and isinstance(answer.document.get("status"), str)

    def knows_key(self) -> bool:
        """Return whether Treasure Data knows the API key, whatever the key allows."""
        answer = self._try("GET", *DATABASES)
        return answer.names("databases") is not None or (answer.status == 403 and answer.is_refusal)


def td_client(import_endpoint: str, api_endpoint: str, key: str) -> SiteClient:
    """Return a client with an API key; one endpoint is for imports, the other for everything else.

    Raises:
        Failure: the environment names a proxy that cannot be used.
    """
    clock = SystemClock()
    return SiteClient(_pool(api_endpoint), import_endpoint, api_endpoint, _KnownKey(key), clock)


def _pool(url: str) -> PoolManager:
    """Return connections as requests makes them: through the environment's proxy, and with its certificates."""
    session = Session()
    settings = session.merge_environment_settings(url, {}, None, None, None)
    found = settings["verify"] if isinstance(settings["verify"], str) else DEFAULT_CA_BUNDLE_PATH
    certificates: Any = {"ca_cert_dir" if Path(found).is_dir() else "ca_certs": found}
    proxy = select_proxy(url, settings["proxies"])
    if proxy is None:
        return PoolManager(**certificates)
    adapter: Any = session.get_adapter(url)
    try:
        address = prepend_scheme_if_needed(proxy, "http")  # type: ignore[no-untyped-call]  # the stub has no types for it
        pool: PoolManager = adapter.proxy_manager_for(address, **certificates)
    except (RequestException, HTTPError) as error:
        raise Failure(
            f"the proxy of HTTPS_PROXY or HTTP_PROXY cannot be used: {type(error).__name__}"
        ) from error
    return pool


class QueryForbiddenError(Failure):
    """The API key may not query."""


@dataclass(frozen=True, slots=True)
class TreasureDataQueries:
    """Queries one database."""

    client: TreasureDataClient
    clock: Clock
    database: str

    def counts(self, table: str, prefix: str, begin: int, end: int) -> Counter[str]:
        """Return the number of a table's rows between two times, UNIX seconds, by event id. A table that does not exist has none.

        The event ids begin with the prefix: letters, digits and hyphens.

        Raises:
            QueryForbiddenError: the API key may not query.
            Failure: Treasure Data does not respond as documented or in time.
        """
        query = (
            f'SELECT event_id, COUNT(1) FROM "{table}" WHERE TD_TIME_RANGE(time, {begin}, {end}) '  # noqa: S608 -- neither quotes nor wildcards
            f"AND event_id LIKE '{prefix}%' GROUP BY event_id"
        )
        deadline = Deadline(self.clock, self.clock.now() + _JOB_SECONDS)
        try:
            job = self.client.statements.run(self.database, query, deadline)
        except HTTPError as error:
            raise Failure(f"Treasure Data did not respond: {type(error).__name__}") from error
        if job.end is End.FORBIDDEN:
            raise QueryForbiddenError("the API key may not query, so nothing can be read back")
        if job.end is End.UNKNOWN:
            raise Failure(f"Treasure Data did not answer a query as documented within {_JOB_SECONDS:.0f} s")
        return Counter({str(event_id): int(count) for event_id, count in job.rows})
