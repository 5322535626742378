"""Builds a complete worker over in-memory doubles, to be measured."""

import requests
from requests.adapters import HTTPAdapter

from benchmarks import traffic
from tests.support.delivery import Delivery
from worker.executor import Threads
from worker.secret import Secret
from worker.treasure_data import ACCEPTED, Reply, TreasureDataClient


class AtOnce(TreasureDataClient):
    """Reports each chunk as accepted; the uploader has compressed it by then."""

    def send(self, database: str, table: str, unique_id: str, body: bytes, seconds: float) -> Reply:  # noqa: ARG002 -- the signature
        """Accept the rows."""
        return ACCEPTED


def delivery(groups: int = 1, url: str | None = None) -> Delivery:
    """Return a worker with accounts. Chunks are accepted immediately, or sent to a URL."""
    made = Delivery(executors=Threads) if url else Delivery()
    made.map(**{traffic.account(group): traffic.database(group) for group in range(groups)})
    made.start()
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", HTTPAdapter(pool_maxsize=16, max_retries=0))
    key = Secret(made.secrets, "td", made.clock)
    client = TreasureDataClient if url else AtOnce
    made.wiring.uploader.treasure_data = client(session, url or "", url or "", key, made.clock)
    return made
