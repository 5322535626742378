"""Replays a million records, and shows the memory used and whether the replay waits for the stream or for the worker.

    python -m benchmarks.replay --records 1000000 --answer-seconds 0.5

Records are generated as they are read and Treasure Data discards the rows, so the process holds only what a replay needs:
the records being read, the worker and an in-memory ledger. Events are serialised as JSON, as for Lambda.
"""

import argparse
import hashlib
import json
import resource
import time
from datetime import UTC, datetime
from typing import Any

import msgpack

from doubles.treasure_data import Request, Response
from ops.stream.reader import RangeEnd, StreamReader
from ops.stream.replayer import Progressing, Replay, Stretch
from shared.clock import SystemClock
from shared.envelope import Envelope, TableRows
from tests.support.delivery import SHARD, STREAM, Delivery, Meddled
from worker.shards import Shards

BEGAN = 1_700_000_000
_PER_ANSWER = 10_000
_FIRST_NUMBER = 49_590_338_271_490_256_608_559_692_538_361_571_095_921_575_989_136_588_898
_PAGES = 10


class EndlessStream:
    """A Kinesis client for a stream with one shard that generates its records when they are read.

    Args:
        records: the number of records.
    """

    def __init__(self, records: int) -> None:
        self._records = records
        row = {
            "time": BEGAN,
            "event_id": "019a9d5e-3f1c-7b2a-9c4d-5e6f7a8b9c0d",
            "received_at": BEGAN * 1000,
            "td_url": "https://shop.example/kettles/07?utm_source=letter",
            "td_title": "A kettle that whistles",
            "td_user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0",
            "td_client_id": "2f6c1f0e-6a0b-4b0e-9a55-0d3c8f6f2f11",
            "td_ip": "198.51.100.7",
            "price": 7800,
        }
        rows = TableRows("pageviews", 1, msgpack.packb(row))
        self._data = Envelope("shop", "k1", BEGAN * 1000, "0" * 32, 0, (rows,)).encode()
        self._arrived_at = datetime.fromtimestamp(BEGAN, UTC)

    def describe_stream_summary(self, **_: Any) -> dict[str, Any]:
        """Describe the stream."""
        summary = {"StreamCreationTimestamp": self._arrived_at, "RetentionPeriodHours": 8760}
        return {"StreamDescriptionSummary": summary}

    def list_shards(self, **_: Any) -> dict[str, Any]:
        """List the shard."""
        keys = {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)}
        numbers = {"StartingSequenceNumber": str(_FIRST_NUMBER)}
        return {"Shards": [{"ShardId": SHARD, "HashKeyRange": keys, "SequenceNumberRange": numbers}]}

    def get_shard_iterator(self, **_: Any) -> dict[str, Any]:
        """Return an iterator at the oldest record."""
        return {"ShardIterator": "0"}

    def get_records(self, *, ShardIterator: str, **_: Any) -> dict[str, Any]:  # noqa: N803 -- boto3's name
        """Return the next records."""
        first = int(ShardIterator)
        last = min(first + _PER_ANSWER, self._records)
        found = [
            {
                "SequenceNumber": str(_FIRST_NUMBER + number),
                "ApproximateArrivalTimestamp": self._arrived_at,
                "Data": self._data,
                "PartitionKey": "shop/7",
            }
            for number in range(first, last)
        ]
        behind = 0 if last == self._records else 1000
        return {"Records": found, "NextShardIterator": str(last), "MillisBehindLatest": behind}


class Taking:
    """A Treasure Data that accepts every import and discards it.

    Args:
        seconds: the duration of each request.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        document = {
            "md5_hex": hashlib.md5(request.body, usedforsecurity=False).hexdigest(),
            "elapsed_time": 0,
        }
        return Response(200, json.dumps(document).encode(), delay=self._seconds)


def run(records: int, name: str, replay: Replay, busy: list[float]) -> None:
    """Replay everything, and print the time and memory that it takes."""
    busy.clear()
    began, at, step = time.monotonic(), 0, max(1, records // _PAGES)
    held: list[float] = []

    def settled(progress: Progressing) -> None:
        nonlocal at
        if progress.records >= at:
            at += step
            held.append(_held_mib())

    done = replay.shard(SHARD, Stretch(RangeEnd(), RangeEnd()), settled).records
    seconds = time.monotonic() - began
    print(f"{name}: {done:,} records in {seconds:.1f} s, {done / seconds:,.0f} a second")
    print(f"  the worker was busy {sum(busy) / seconds:.0%} of the time, in {len(busy)} invocations")
    print(f"  memory in MiB after each tenth: {' '.join(f'{mib:.0f}' for mib in held)}")


def _held_mib() -> float:
    with open("/proc/self/statm") as file:  # noqa: PTH123 -- a file of the kernel
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    """Replay twice: first everything is sent, then everything is skipped."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=main.__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--answer-seconds", type=float, default=0.0, help="duration of an import in seconds")
    options = parser.parse_args()
    clock: Any = SystemClock()
    made = Delivery(clock=clock)
    made.map(shop="shop")
    made.kinesis = Meddled(EndlessStream(options.records))
    made.td = Taking(options.answer_seconds)  # type: ignore[assignment]  # only handle() is used
    made.start()
    busy: list[float] = []

    def invoke(event: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        answer = made.run(json.loads(json.dumps(event)), 300_000)
        busy.append(time.monotonic() - began)
        return answer

    replay = Replay(StreamReader(Shards(made.kinesis, STREAM, clock), clock), invoke, clock)
    run(options.records, "sent", replay, busy)
    print(f"  rows delivered: {made.telemetry.total('span', 'delivered'):,}")
    run(options.records, "skipped", replay, busy)
    print(f"  rows delivered: {made.telemetry.total('span', 'delivered'):,}")


if __name__ == "__main__":
    main()
