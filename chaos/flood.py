"""A flood of compressed bodies at one account, in simulated time: the real ingest on many instances, over a stream that throttles.

Somebody with write keys sends 500 requests a second, each a few kilobytes of gzip that become 2 MiB, and ignores what is answered.
Beside it, the same account's visitors and other accounts send small requests. The stream has the capacity of its shards, the scaler's
rule gives it more, the drainer puts what overflowed on it when there is room, and the edge policy says when that is too much.
"""

import gzip
import json
import random
from base64 import b64encode
from bisect import insort
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

from chaos.traffic import payload_of
from chaos.world import Secrets
from doubles.aws_errors import client_error
from doubles.background import at_once
from doubles.clock import ManualClock
from doubles.dynamodb import MemoryDynamoDB
from doubles.s3 import MemoryS3
from ingest.app import Ingest, IngestEffects
from local.resources import COUNTERS
from scaler.backlog import decide
from scaler.rule import RECENT_SECONDS, SHARD_BYTES, SHARD_RECORDS, Minute, target
from shared import policy, write_key
from shared.policy import EdgePolicy, PolicyEntry
from shared.settings import IngestSettings
from shared.telemetry import NullTelemetry

BEGIN = 1_764_000_000 // 3600 * 3600 + 1200
ATTACKED, OTHERS = "shop", tuple(f"acct_{number:02}" for number in range(49))
VISITORS_PER_SECOND, OTHERS_PER_SECOND = 20, 5
MAX_SHARDS = 16
WINDOW_SECONDS = 15.0
"""How long the worker waits for a batch to fill; rows that are on the stream take no longer than that and a second."""

_SECRETS = {"k1": "first secret"}
_BUCKET, _COUNTERS = "aside", "counters"
_RUNTIME_SECONDS = 0.002  # what Lambda's own runtime takes for a request
_STORED_CPU, _REFUSED_CPU, _SMALL_CPU = 0.012, 0.0003, 0.00015
"""Seconds of a core for a large body that is stored, one that is refused, and a small request, as measured."""
_CORE_SHARE = 1769 / 512
_DRAINED_PER_SECOND = 6_000_000  # two invocations of 6 MB, two seconds each


class _Stream:
    """A Kinesis stream whose shards accept so many records and bytes a second."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.shards = 1
        self._seconds: defaultdict[int, defaultdict[int, list[int]]] = defaultdict(
            lambda: defaultdict(lambda: [0, 0])
        )
        self.minutes: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0, 0])

    def takes(self, key: str, size: int, at: float) -> bool:
        """Put a record if its shard has room; return whether it had."""
        used = self._seconds[int(at)][int.from_bytes(md5(key.encode()).digest()[:4]) % self.shards]
        minute = self.minutes[int(at) // 60]
        if used[0] + 1 > SHARD_RECORDS or used[1] + size > SHARD_BYTES:
            minute[2] += 1
            return False
        used[0] += 1
        used[1] += size
        minute[0] += 1
        minute[1] += size
        return True

    def put_record(self, **record: Any) -> dict[str, Any]:
        """Put one record."""
        if not self.takes(record["PartitionKey"], len(record["Data"]), self._clock.time):
            raise client_error("ProvisionedThroughputExceededException", "PutRecord")
        return {"SequenceNumber": "1", "ShardId": "shard"}

    def put_records(self, **request: Any) -> dict[str, Any]:
        """Put several records, each for itself."""
        refused = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": ""}
        answers = [
            {"SequenceNumber": "1", "ShardId": "shard"}
            if self.takes(one["PartitionKey"], len(one["Data"]), self._clock.time)
            else refused
            for one in request["Records"]
        ]
        return {"FailedRecordCount": answers.count(refused), "Records": answers}


class _Queue:
    """The overflow queue: when each message was sent, its key, and its size."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.waiting: deque[tuple[float, str, int]] = deque()
        self.sent = 0

    def send_message(self, **message: Any) -> dict[str, str]:
        """Keep a message's size."""
        size = len(message["MessageBody"])
        if "MessageAttributes" in message:
            self.sent += 1
            key = message["MessageAttributes"]["partition_key"]["StringValue"]
            self.waiting.append((self._clock.time, key, size * 3 // 4))
        return {"MessageId": "1"}


@dataclass
class Flooded:
    """What happened."""

    # responses by sender (`hostile`, `visitors`, `others`) and status
    statuses: defaultdict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    # seconds until the others' rows were on the stream, in order
    waits: list[float] = field(default_factory=list)
    shards: int = 1  # of the stream at the end

    @property
    def p99(self) -> float:
        """The 99th percentile of the seconds until the others' rows are delivered, at most."""
        wait = self.waits[min(len(self.waits) - 1, int(len(self.waits) * 0.99))] if self.waits else 0.0
        return wait + WINDOW_SECONDS


class Flood:
    """One run.

    Args:
        keys: how many keys of the attacked account the sender has.
        counters: whether DynamoDB answers.
    """

    def __init__(self, keys: int = 1, *, counters: bool = True) -> None:
        self._clock = ManualClock(BEGIN)
        self._random = random.Random(keys)
        self._stream, self._queue = _Stream(self._clock), _Queue(self._clock)
        self._table = MemoryDynamoDB(self._clock.now)
        self._table.create_table(TableName=_COUNTERS, **COUNTERS)
        self._s3 = MemoryS3(self._clock.now)
        self._s3.create_bucket(Bucket=_BUCKET)
        entries = {name: PolicyEntry() for name in (ATTACKED, *OTHERS)}
        self._policy = EdgePolicy.parse(policy.encode(entries, BEGIN * 1000))
        self._publish(policy.encode(entries, BEGIN * 1000))
        self._has_counters = counters
        self._free: list[tuple[float, int, Ingest]] = []
        self.found = Flooded()
        signed = [write_key.sign(ATTACKED, f"k1-{number}", _SECRETS["k1"]) for number in range(keys)]
        body = json.dumps([{"table": "pageviews", "text": "x" * 4100}] * 500)[: 2 * 2**20].encode()
        packed = b64encode(gzip.compress(body, mtime=0)).decode()
        self._hostile = [_post(key, packed) for key in signed]
        self._visitor = _pixel(write_key.sign(ATTACKED, "k1", _SECRETS["k1"]))
        self._others = [_pixel(write_key.sign(name, "k1", _SECRETS["k1"])) for name in OTHERS]

    def update_item(self, **request: Any) -> dict[str, Any]:
        """Make a call of DynamoDB."""
        if not self._has_counters:
            raise client_error("InternalServerError", "UpdateItem", status=500)
        return self._table.update_item(**request)

    def run(self, seconds: int, hostile: int, visitors: int = VISITORS_PER_SECOND) -> Flooded:
        """Send so many hostile requests and visitors' requests a second; return what happened."""
        for second in range(seconds):
            now = BEGIN + second
            due = [("hostile", self._hostile)] * hostile + [("visitors", [self._visitor])] * visitors
            due += [("others", self._others)] * OTHERS_PER_SECOND
            self._random.shuffle(due)
            for index, (sender, payloads) in enumerate(due):
                self._send(now + index / len(due), sender, self._random.choice(payloads))
            self._drain(now + 1)
            if second % 60 == 59:
                self._scale(now + 1)
        found = self.found
        found.shards = self._stream.shards
        found.waits.sort()
        return found

    def _send(self, at: float, sender: str, payload: dict[str, Any]) -> None:
        place = next((index for index, (free, _, _) in enumerate(self._free) if free <= at), None)
        ingest = self._new() if place is None else self._free.pop(place)[2]
        self._clock.time = at
        overflowed = self._queue.sent
        status = ingest(payload, None)["statusCode"]
        cpu = (_STORED_CPU if status == 200 else _REFUSED_CPU) if payload["isBase64Encoded"] else _SMALL_CPU
        took = _RUNTIME_SECONDS + cpu * _CORE_SHARE + self._clock.time - at
        insort(self._free, (at + took, id(ingest), ingest))
        self.found.statuses[sender][status] += 1
        if sender == "others" and status == 200 and overflowed == self._queue.sent:
            self.found.waits.append(0.0)

    def _new(self) -> Ingest:
        effects = IngestEffects(
            kinesis=self._stream,  # type: ignore[arg-type]  # doubles with the clients' methods
            sqs=lambda: self._queue,  # type: ignore[arg-type,return-value]
            dynamodb=lambda: self,  # type: ignore[arg-type,return-value]
            secrets=Secrets({"keys": json.dumps(_SECRETS)}),  # type: ignore[arg-type]
            s3=self._s3,  # type: ignore[arg-type]
            clock=self._clock,
            entropy=self._random.randbytes,
            telemetry=NullTelemetry(),
            start=at_once,
        )
        return Ingest(IngestSettings("events", "overflow", "keys", _BUCKET, "notices", _COUNTERS), effects)

    def _drain(self, now: float) -> None:
        """Put messages on the stream, in order, as far as there is room."""
        room = _DRAINED_PER_SECOND
        while self._queue.waiting and room > 0:
            sent, key, size = self._queue.waiting[0]
            if not self._stream.takes(key, size, now):
                return
            room -= size
            self._queue.waiting.popleft()
            if not key.startswith(f"{ATTACKED}/"):
                self.found.waits.append(now - sent)

    def _scale(self, now: float) -> None:
        minutes = {at * 60: Minute(*map(float, of)) for at, of in self._stream.minutes.items()}
        recent = [minute for at, minute in minutes.items() if at >= now - RECENT_SECONDS]
        wanted = target(self._stream.shards, list(minutes.values()), recent, now + 3600, MAX_SHARDS)
        self._stream.shards = min(wanted, 2 * self._stream.shards)
        limit = decide(len(self._queue.waiting), self._policy.overflow, now)
        if limit != self._policy.overflow:
            self._publish(policy.with_overflow(self._policy, limit, round(now * 1000)))

    def _publish(self, document: bytes) -> None:
        self._policy = EdgePolicy.parse(document)
        self._s3.put_object(Bucket=_BUCKET, Key=policy.KEY, Body=document)


def _post(key: str, body: str) -> dict[str, Any]:
    headers = {"x-write-key": key, "content-type": "application/json", "content-encoding": "gzip"}
    return payload_of("POST", "/v1/events", "", headers) | {"body": body, "isBase64Encoded": True}


def _pixel(key: str) -> dict[str, Any]:
    query = f"k={key}&t=pageviews&page=home&title=Home&note={'n' * 600}"
    return payload_of("GET", "/pixel.gif", query, {"user-agent": "Mozilla/5.0"})
