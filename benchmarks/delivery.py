"""Builds a complete worker over in-memory doubles, for measurements."""

from dataclasses import replace

from benchmarks import traffic
from tests.support.delivery import Delivery
from worker import bounded_http
from worker.executor import InlineExecutor, Threads
from worker.treasure_data import ACCEPTED, Reply, TreasureDataClient
from worker.wiring import Wiring


class AcceptsAtOnce(TreasureDataClient):
    """Accepts every chunk without sending a request. The worker has compressed it by then."""

    def send(self, *_args: object) -> Reply:
        """Accept it."""
        return ACCEPTED


def delivery(groups: int = 1, url: str | None = None, archive_days: int = 30) -> Delivery:
    """Return a worker with `groups` accounts. Chunks are accepted immediately, or sent to a URL."""
    made = Delivery(executors=Threads if url else InlineExecutor, archive_days=archive_days)
    made.map(**{traffic.account(group): traffic.database(group) for group in range(groups)})
    made.start()
    wiring = made.wiring
    if url is None:
        made.wiring = Wiring(wiring.settings, wiring.effects, replaced={TreasureDataClient: AcceptsAtOnce})
    else:
        settings = replace(wiring.settings, td_import_endpoint=url, td_api_endpoint=url)
        bounded_http.bound_responses()
        made.wiring = Wiring(settings, replace(wiring.effects, session=bounded_http.session(16)))
    made.worker = made.wiring.worker
    return made
