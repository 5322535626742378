"""Measures `sluice find` on a simulated stack that receives 1,000 requests a second.

    python -m benchmarks.find --minutes 60

Ledger, bucket and stream are in memory. Each call takes as long as one to AWS from the same continent: 30 ms for S3, 10 ms for the
others, plus the transfer at 50 MB a second.
"""

import argparse
import random
import time
from dataclasses import dataclass
from threading import Lock
from typing import Any

import msgpack

from doubles.dynamodb import MemoryDynamoDB
from doubles.kinesis import MemoryKinesis
from doubles.s3 import MemoryS3
from doubles.sqs import MemorySQS
from local.resources import LEDGER
from ops.commands.find import default_since
from ops.events.event_query import EventQuery
from ops.events.finder import Finder, Places
from shared.clock import SystemClock
from shared.event_id import new_event_id
from shared.telemetry import NullTelemetry
from worker.bucket import Bucket
from worker.index import Index
from worker.ledger import Ledger
from worker.record import START, number
from worker.rejected_events import RejectedEvents
from worker.shards import Shards
from worker.span import ChunkKey, Database, Group, RowSender, Span
from worker.span_object import Chunk, SpanObjects, encode

_STREAM, _BUCKET, _TABLE = "events", "aside", "ledger"
_SHARDS, _RATE, _SPAN_SECONDS = 4, 1000, 5
_ACCOUNTS = [f"account_{number}" for number in range(5)]
_TABLES = [f"table_{number}" for number in range(4)]
_S3_SECONDS, _OTHER_SECONDS, _BYTES_PER_SECOND = 0.03, 0.01, 50e6
_RANDOM = random.Random(1)


class Distant:
    """A client each of whose calls takes a while. Threads may share it.

    Args:
        client: the client.
        seconds: how long a call takes.
    """

    def __init__(self, client: Any, seconds: float) -> None:
        self.client = client
        self._lock = Lock()
        self._seconds = seconds
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)

        def distant(**request: Any) -> Any:
            with self._lock:
                answer = call(**request)
            size = answer.get("ContentLength", 0) if isinstance(answer, dict) else 0
            self.calls += 1
            time.sleep(self._seconds + size / _BYTES_PER_SECOND)
            return answer

        return distant


@dataclass(frozen=True)
class _Example:
    """An event of the simulated stack."""

    event_id: str
    request_id: str
    visitor: str


def _row(at: float, event_id: str, visitor: str) -> dict[str, Any]:
    return {
        "time": int(at),
        "event_id": event_id,
        "received_at": int(at * 1000),
        "td_url": f"https://shop.example/kettles/{_RANDOM.randrange(1000)}?utm_source=letter",
        "td_title": "A kettle that whistles",
        "td_user_agent": f"Mozilla/5.0 (X11; Linux x86_64; rv:{_RANDOM.randrange(90, 150)}.0) Gecko/20100101 Firefox",
        "td_client_id": visitor,
        "td_ip": f"198.51.100.{_RANDOM.randrange(256)}",
        "price": _RANDOM.randrange(10_000),
    }


class _Stack:
    """A stack with spans of 1,000 requests a second.

    Args:
        minutes: how long it has received them, up to now.
    """

    def __init__(self, minutes: int) -> None:
        clock: Any = SystemClock()
        self.now = clock.now()
        kinesis: Any = MemoryKinesis(clock.now)
        kinesis.create_stream(StreamName=_STREAM, ShardCount=_SHARDS)
        dynamodb, s3 = MemoryDynamoDB(), MemoryS3(clock.now)
        dynamodb.create_table(TableName=_TABLE, **LEDGER)
        s3.create_bucket(Bucket=_BUCKET)
        sqs: Any = MemorySQS(clock.now, visibility_seconds=1800)
        url = sqs.create_queue(QueueName="overflow")["QueueUrl"]
        self.clients = [
            Distant(s3, _S3_SECONDS),
            *(Distant(one, _OTHER_SECONDS) for one in (dynamodb, kinesis, sqs)),
        ]
        entropy = _RANDOM.randbytes
        self._ledger = Ledger(dynamodb, _TABLE, clock, entropy, NullTelemetry())
        self._objects = SpanObjects(Bucket(s3, _BUCKET))
        self.shards = Shards(kinesis, _STREAM, clock)
        self.examples: list[_Example] = []
        for shard in self.shards.all():
            self._fill(self.shards.chain_of(shard), minutes * 60)
        far: list[Any] = list(self.clients)
        far_s3, far_dynamodb, far_kinesis, far_sqs = far
        self.places = Places(
            Shards(far_kinesis, _STREAM, clock),
            Ledger(far_dynamodb, _TABLE, clock, entropy, NullTelemetry()),
            SpanObjects(Bucket(far_s3, _BUCKET)),
            RejectedEvents(Bucket(far_s3, _BUCKET)),
            far_sqs,
            url,
        )

    def _fill(self, chain: Any, seconds: int) -> None:
        after, first = START, int(chain.start) + 1
        count = _RATE // _SHARDS * _SPAN_SECONDS
        for begin in range(0, seconds, _SPAN_SECONDS):
            at = self.now - seconds + begin
            numbers = [number(str(first + one)) for one in range(count)]
            times = [round((at + one * _SPAN_SECONDS / count) * 1000) for one in range(count)]
            requests = [new_event_id(one, _RANDOM.randbytes) for one in times]
            blocks: dict[ChunkKey, list[tuple[int, bytes]]] = {}
            for position, moment in enumerate(times):
                event_id, visitor = new_event_id(moment, _RANDOM.randbytes), _RANDOM.randbytes(8).hex()
                key = ChunkKey(Group(RowSender(_RANDOM.choice(_ACCOUNTS)), _RANDOM.choice(_TABLES)), 0)
                blocks.setdefault(key, []).append(
                    (position, msgpack.packb(_row(moment / 1000, event_id, visitor)))
                )
                if position == 0:
                    self.examples.append(_Example(event_id, requests[position], visitor))
            chunks = [
                Chunk(key, [row for _, row in rows], len(rows), [at for at, _ in rows], [1] * len(rows))
                for key, rows in blocks.items()
            ]
            nothing: Any = [0] * count
            index = Index(numbers, times, times, requests, nothing, frozenset(), {})
            encoded = encode(chunks, index, at + _SPAN_SECONDS)
            span = Span(
                chain,
                after,
                numbers[0],
                numbers[-1],
                times[-1] + 500,
                {chunk.key: chunk.rows for chunk in chunks},
                {RowSender(account): Database(account) for account in _ACCOUNTS},
                records=count,
                earliest=times[0],
                latest=times[-1],
                received_at=times[0],
                object=encoded.ref,
                settled=True,
            )
            self._objects.put(span, encoded.data)
            self._ledger.append(span)
            after, first = numbers[-1], first + count

    def search(self, name: str, query: EventQuery, since: float | None = None) -> None:
        """Search, and print how long it took."""
        before = [one.calls for one in self.clients]
        began = time.monotonic()
        finder = Finder(
            self.places,
            query,
            since=default_since(query, time.time()) if since is None else since,
            seconds=600,
            clock=SystemClock(),
        )
        first = 0.0
        count = 0
        for _ in finder:
            count += 1
            first = first or time.monotonic() - began
        seconds = time.monotonic() - began
        calls = " ".join(
            f"{label} {one.calls - old}"
            for label, one, old in zip(
                ("S3", "DynamoDB", "Kinesis", "SQS"), self.clients, before, strict=True
            )
        )
        print(f"{name}: {count} found, the first after {first:.1f} s, all after {seconds:.1f} s")
        print(f"  {finder.searched.spans:,} spans; calls: {calls}")


def main() -> None:
    """Build the stack and search it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.find", description=main.__doc__)
    parser.add_argument("--minutes", type=int, default=60)
    options = parser.parse_args()
    began = time.monotonic()
    stack = _Stack(options.minutes)
    print(f"{options.minutes * 60 * _RATE:,} events, made in {time.monotonic() - began:.0f} s")
    one = stack.examples[len(stack.examples) // 3]
    absent = new_event_id(int((time.time() - options.minutes * 30) * 1000), _RANDOM.randbytes)
    stack.search("an event id", EventQuery(ids=frozenset({one.event_id})))
    stack.search("a request id", EventQuery(ids=frozenset({one.request_id})))
    recent = stack.examples[-3]
    ten_minutes = time.time() - 600
    stack.search(
        "a visitor in the last 10 minutes", EventQuery(columns={"td_client_id": recent.visitor}), ten_minutes
    )
    stack.search("an event id that is not there", EventQuery(ids=frozenset({absent})))


if __name__ == "__main__":
    main()
