"""Replays records without and with force, and shows the time, the memory used and whether a replay waits for the stream or for the worker.

    python -m benchmarks.replay --records 1000000 --answer-seconds 0.5

Records are generated as they are read and Treasure Data discards the rows, so the process holds only what a replay needs:
the records being read, the worker and an in-memory ledger. Events are serialised as JSON, as for Lambda.
"""

import argparse
import hashlib
import json
import resource
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import msgpack

from benchmarks.find import Distant
from doubles.treasure_data import Request, Response
from ops import screen
from ops.books.replayed import Planned
from ops.commands.replay import command as replay_command
from ops.events.seen_event import unpacked
from ops.stack import Stack
from ops.stream.reader import RangeEnd, StreamReader, member
from ops.stream.replayer import Progressing, Replay, Stretch
from shared.clock import SystemClock
from shared.envelope import Envelope, TableRows
from tests.support.delivery import SHARD, STREAM, Delivery, Meddled
from worker.app import send_with
from worker.deadline import Deadline
from worker.executor import Threads
from worker.ledger import Ledger
from worker.rows import decompress
from worker.shards import Shards
from worker.span_object import SpanObjects

_BEGAN = int(time.time()) - 3600
_SENDER_MS = 240_000
_REQUEST_ID = b"request" * 4 + b"0000"
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
            "time": _BEGAN,
            "event_id": "019a9d5e-3f1c-7b2a-9c4d-5e6f7a8b9c0d",
            "received_at": _BEGAN * 1000,
            "td_url": "https://shop.example/kettles/07?utm_source=letter",
            "td_title": "A kettle that whistles",
            "td_user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0",
            "td_client_id": "2f6c1f0e-6a0b-4b0e-9a55-0d3c8f6f2f11",
            "td_ip": "198.51.100.7",
            "price": 7800,
        }
        rows = TableRows("pageviews", 1, msgpack.packb(row))
        self._data = Envelope("shop", "k1", _BEGAN * 1000, _REQUEST_ID.decode(), 0, (rows,)).encode()
        self._arrived_at = datetime.fromtimestamp(_BEGAN, UTC)

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
                "Data": self._data.replace(_REQUEST_ID, b"%032d" % number),
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
        self._lock = Lock()
        self.rows_taken = 0

    def handle(self, request: Request) -> Response:
        """Answer one request."""
        rows = sum(1 for _ in unpacked(decompress(request.body)))
        with self._lock:
            self.rows_taken += rows
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


@dataclass(frozen=True)
class _MemoryStack(Stack):
    """A stack in memory, whose functions get as much time as deployed ones."""

    made: Any = None

    def shards(self) -> Shards:
        return Shards(self.made.kinesis, STREAM, self.made.clock)

    def ledger(self) -> Ledger:
        ledger: Ledger = self.made.ledger
        return ledger

    def objects(self) -> SpanObjects:
        objects: SpanObjects = self.made.objects
        return objects

    def invoke(self, _output: str, event: Mapping[str, Any]) -> dict[str, Any]:
        deadline = Deadline.of(self.made.clock, _SENDER_MS)
        answer: dict[str, Any] = send_with(self.made.sender_wiring, json.loads(json.dumps(event)), deadline)
        return answer


def _deliver(made: Delivery, records: int, span_records: int) -> None:
    """Have the worker take up records in spans as small as those of live traffic."""
    reader, batch = StreamReader(Shards(made.kinesis, STREAM, made.clock), made.clock), []
    for page in reader.read(SHARD, RangeEnd(), RangeEnd(at=_BEGAN + 1)):
        batch += page
        while len(batch) >= span_records or (batch and len(page) < _PER_ANSWER):
            made.run({"Records": [member(one, SHARD) for one in batch[:span_records]]}, 300_000)
            batch = batch[span_records:]
    print(f"prepared: {records:,} records in {len(made.spans()):,} spans")


def _force(made: Delivery) -> None:
    session: Any = None
    began = time.monotonic()
    line = ["--force", "--from", screen.utc(_BEGAN), "--to", screen.utc(_BEGAN + 1), "--yes", "--json"]
    answer = replay_command.main(
        line, standalone_mode=False, obj=_MemoryStack("memory", {}, session, made=made)
    )
    seconds = time.monotonic() - began
    rows = made.td.rows_taken  # type: ignore[attr-defined]  # of our own double
    print(f"forced: exit code {answer}, {rows:,} rows in {seconds:.1f} s, {rows / seconds:,.0f} a second")


def main() -> None:
    """Replay without and with force. Calls of AWS take as long as from within its region."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=main.__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument(
        "--span-records", type=int, default=1250, help="records of a span, for the forced replay"
    )
    parser.add_argument("--answer-seconds", type=float, default=0.3, help="duration of an import in seconds")
    options = parser.parse_args()
    busy: list[float] = []
    made = _made(options)

    def invoke(event: dict[str, Any]) -> dict[str, Any]:
        began = time.monotonic()
        answer = made.run(json.loads(json.dumps(event)), 300_000)
        busy.append(time.monotonic() - began)
        return answer

    for name in ("sent", "skipped"):
        stream = StreamReader(Shards(made.kinesis, STREAM, made.clock), made.clock)
        run(options.records, name, Replay(stream, invoke, made.clock, Planned(made.wiring.membership)), busy)
    made = _made(options)
    _deliver(made, options.records, options.span_records)
    made.td.rows_taken = 0  # type: ignore[attr-defined]
    _force(made)


def _made(options: argparse.Namespace) -> Delivery:
    clock: Any = SystemClock()
    made = Delivery(clock=clock, executors=Threads)
    made.map(shop="shop")
    made.kinesis = Meddled(EndlessStream(options.records))
    made.dynamodb, made.s3 = Distant(made.dynamodb.client, 0.005), Distant(made.s3.client, 0.03)
    made.td = Taking(options.answer_seconds)  # type: ignore[assignment]  # only handle() is used
    return made.start()


if __name__ == "__main__":
    main()
