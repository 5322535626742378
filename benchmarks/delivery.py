"""Builds a complete worker over in-memory doubles, for measurements."""

from dataclasses import replace
from typing import Any

from benchmarks import traffic
from doubles.s3 import MemoryS3
from tests.support.delivery import Delivery
from tests.support.inline_executor import InlineExecutor
from worker import bounded_http
from worker.executor import Threads
from worker.treasure_data.client import ACCEPTED, Outcome, TreasureDataClient
from worker.wiring import Wiring


class AcceptsAtOnce(TreasureDataClient):
    """Accepts every chunk without sending a request. The worker has compressed it by then."""

    def send(self, *_args: object) -> Outcome:
        """Accept it."""
        return ACCEPTED


class FarS3(MemoryS3):
    """Acknowledges objects without keeping them. Like S3, it takes no CPU time and no memory of this process."""

    def put_object(self, **request: Any) -> dict[str, Any]:
        """Acknowledge an object."""
        return {"ChecksumCRC32": request["ChecksumCRC32"]}


def delivery(groups: int = 1, url: str | None = None) -> Delivery:
    """Return a worker with `groups` accounts. Chunks are accepted immediately, or sent to a URL."""
    made = Delivery(executors=Threads if url else InlineExecutor)
    made.map(**{traffic.account(group): traffic.database(group) for group in range(groups)})
    made.start()
    settings, far = made.wiring.settings, FarS3(made.clock.now)
    far.create_bucket(Bucket=settings.data_bucket)
    effects = replace(made.wiring.effects, s3=far, dynamodb=made.dynamodb.client)  # checks no permissions
    if url is None:
        made.wiring = Wiring(settings, effects, replaced={TreasureDataClient: AcceptsAtOnce})
    else:
        settings = replace(settings, td_import_endpoint=url, td_api_endpoint=url)
        bounded_http.bound_responses()
        made.wiring = Wiring(settings, replace(effects, http=bounded_http.pool(16)))
    made.worker = made.wiring.worker
    return made
