"""Builds a complete worker over in-memory doubles, to be measured."""

import requests
from requests.adapters import HTTPAdapter
from worker.sender import Sender, Upload

from benchmarks import traffic
from tests.support.delivery import Delivery
from worker.deadline import Deadline
from worker.executor import Threads
from worker.treasure_data import DELIVERED, Answer
from worker.treasure_data import TreasureData as Client


class AtOnce(Sender):
    """Compresses a chunk and reports it as delivered."""

    def attempt(self, upload: Upload, timeout: float, deadline: Deadline) -> Answer:  # noqa: ARG002 -- the signature
        """Compress the request's body."""
        upload.compressed()
        return DELIVERED


def delivery(groups: int = 1, url: str | None = None) -> Delivery:
    """Return a worker with accounts. Chunks are accepted immediately, or sent to a URL."""
    made = Delivery(executors=Threads) if url else Delivery()
    made.map(**{traffic.account(group): traffic.database(group) for group in range(groups)})
    made.start()
    uploader = made.means.uploader
    client, directory = uploader.sender.treasure_data, uploader.sender.directory
    if url is None:
        uploader.sender = AtOnce(client, directory)
    else:
        session = requests.Session()
        session.trust_env = False
        session.mount("http://", HTTPAdapter(pool_maxsize=16, max_retries=0))
        uploader.sender = Sender(Client(session, url, url, client._key, made.clock), directory)  # noqa: SLF001 -- the same key
    return made
