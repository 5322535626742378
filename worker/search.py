"""Whether envelopes are on the stream.

A partition key's records can stand in every shard whose hash key range holds the key's MD5: one shard that is open
today, and those that it came from by splits and merges. Each of them is read once for all envelopes that it may hold,
from the earliest to the latest time at which one of them can have landed.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from shared import envelope
from shared.clock import Clock

SECONDS_BETWEEN_READS = 0.25
"""Kinesis answers five GetRecords a second and shard; the worker's event source mapping needs one of them."""

_SHARDS_AT_ONCE = 8  # read in turn, so that each has its pause while others are read
_TRIES = 4  # of one read that fails otherwise than by throttling
_LONGEST_PAUSE = 5.0  # for so long Kinesis throttles a shard that has just answered 10 MiB
THROTTLED = {"ProvisionedThroughputExceededException", "LimitExceededException", "KMSThrottlingException"}
_HEADER_BYTES = 512  # as a rule more than an envelope's account, key id, time and request id take
_START = bytes((envelope.FIRST_BYTE, envelope.VERSION))


class Identity(NamedTuple):
    """What names an envelope, whichever attempt put it on the stream."""

    account: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Sought:
    """An envelope to look for.

    Attributes:
        identity: what names it.
        partition_key: with which it was put.
        since: UNIX seconds before which it cannot have landed.
        until: UNIX seconds after which it can no longer land; the search is not to begin earlier.
    """

    identity: Identity
    partition_key: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Findings:
    """What a search found out; what it was asked for and is in neither set is not known.

    Attributes:
        found: on the stream.
        absent: not on the stream.
        shards: how many shards were read.
        reads: how many calls of GetRecords were made.
        records: how many records were looked at.
    """

    found: frozenset[Identity]
    absent: frozenset[Identity]
    shards: int = 0
    reads: int = 0
    records: int = 0


class Search:
    """Looks for envelopes on a stream.

    Args:
        kinesis: boto3-shaped client.
        stream_name: the stream.
        clock: paces the reads.
    """

    def __init__(self, kinesis: Any, stream_name: str, clock: Clock) -> None:
        self._kinesis = kinesis
        self._stream_name = stream_name
        self._clock = clock

    def find(self, sought: Collection[Sought], deadline: float) -> Findings:
        """Look for envelopes until all are decided or `deadline` (UNIX seconds) has come.

        Errors of Kinesis are not raised: they leave envelopes undecided.
        """
        found: set[Identity] = set()
        try:
            shards = self._shards_of(sought)
        except (ClientError, BotoCoreError, ResponseParserError):
            return Findings(frozenset(), frozenset())
        scans = [_Scan(self._kinesis, self._stream_name, shard, share, found) for shard, share in shards]
        # Those that end first go first: a search that has to be cut short has decided something.
        waiting = sorted(scans, key=lambda scan: scan.until, reverse=True)
        active: list[_Scan] = []
        while active or waiting:
            while waiting and len(active) < _SHARDS_AT_ONCE:
                active.append(waiting.pop())
            scan = min(active, key=lambda scan: scan.due)
            now = self._clock.now()
            if max(now, scan.due) >= deadline:
                break
            if scan.due > now:
                self._clock.sleep(scan.due - now)
            scan.step(self._clock)
            if scan.ended:
                active.remove(scan)
        unread = {item.identity for scan in scans if not scan.complete for item in scan.sought}
        asked = {item.identity for scan in scans for item in scan.sought}
        return Findings(
            found=frozenset(found),
            absent=frozenset(asked - found - unread),
            shards=sum(scan.reads > 0 for scan in scans),
            reads=sum(scan.reads for scan in scans),
            records=sum(scan.records for scan in scans),
        )

    def _shards_of(self, sought: Collection[Sought]) -> Iterator[tuple[str, list[Sought]]]:
        """Return each shard that may hold one of them, with those that it may hold."""
        hashed = [(hash_key(item.partition_key), item) for item in sought]
        listed = [
            (shard["ShardId"], _hash_range(shard["HashKeyRange"]))
            for shard in list_shards(self._kinesis, self._stream_name)
        ]
        shares = ((shard, [item for key, item in hashed if key in keys]) for shard, keys in listed)
        return ((shard, share) for shard, share in shares if share)


class _Scan:
    """One shard, read through the times at which it can have taken what is sought in it."""

    def __init__(
        self, kinesis: Any, stream_name: str, shard_id: str, sought: list[Sought], found: set[Identity]
    ) -> None:
        self._kinesis = kinesis
        self._shard = {"StreamName": stream_name, "ShardId": shard_id}
        self._found = found
        self._periods = _joined((item.since, item.until) for item in sought)
        self._position: dict[str, Any] = {}
        self._iterator: str | None = None
        self._failures = 0
        self._wanted = {item.identity for item in sought}
        self.sought = sought
        self.until = self._periods[0][1]
        self.due = 0.0
        self.reads = 0
        self.records = 0
        self.complete = False
        self.ended = False

    def step(self, clock: Clock) -> None:
        """Make one read."""
        if self._wanted <= self._found:
            self.ended = self.complete = True
            return
        try:
            if self._iterator is None:
                self._iterator = self._new_iterator()
            answer = self._kinesis.get_records(ShardIterator=self._iterator)
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            self._iterator = None
            self._failed(error, clock.now())
            return
        self.due = clock.now() + SECONDS_BETWEEN_READS
        self._failures = 0
        self.reads += 1
        self._look_at(answer)

    def _look_at(self, answer: dict[str, Any]) -> None:
        records = answer["Records"]
        self.records += len(records)
        self._found.update(self._wanted.intersection(identity_of(record["Data"]) for record in records))
        self._iterator = answer.get("NextShardIterator")
        if self._iterator is None or answer["MillisBehindLatest"] == 0:
            self.ended = self.complete = True
            return
        if not records:
            return
        self._position = {
            "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
            "StartingSequenceNumber": records[-1]["SequenceNumber"],
        }
        arrival = records[-1]["ApproximateArrivalTimestamp"].timestamp()
        if arrival <= self._periods[0][1]:
            return
        while self._periods and arrival > self._periods[0][1]:
            self._periods.pop(0)
        if not self._periods:
            self.ended = self.complete = True
        elif arrival < self._periods[0][0]:
            self._position, self._iterator = {}, None

    def _new_iterator(self) -> str:
        start = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": self._periods[0][0]}
        answer = self._kinesis.get_shard_iterator(**self._shard, **(self._position or start))
        iterator: str = answer["ShardIterator"]
        return iterator

    def _failed(self, error: Exception, now: float) -> None:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        self._failures += 1
        self.due = now + min(_LONGEST_PAUSE, SECONDS_BETWEEN_READS * 2**self._failures)
        if code not in THROTTLED and self._failures >= _TRIES:
            self.ended = True


def list_shards(kinesis: Any, stream_name: str) -> Iterator[dict[str, Any]]:
    """Yield all shards of a stream, the closed ones too whose records are still kept."""
    answer = kinesis.list_shards(StreamName=stream_name)
    yield from answer["Shards"]
    while answer.get("NextToken"):
        answer = kinesis.list_shards(NextToken=answer["NextToken"])
        yield from answer["Shards"]


def hash_key(partition_key: str) -> int:
    """Return where in 0 … 2^128 - 1 Kinesis places a partition key."""
    return int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest())


def identity_of(data: bytes) -> Identity | None:
    """Return what names the envelope that a record holds, from its first bytes alone; None for other records."""
    if data[:2] != _START:
        return None
    for end in (_HEADER_BYTES, len(data)):
        unpacker = msgpack.Unpacker(max_buffer_size=0)
        unpacker.feed(data[:end])
        try:
            unpacker.read_array_header()
            unpacker.skip()
            account = unpacker.unpack()
            unpacker.skip()
            unpacker.skip()
            request_id = unpacker.unpack()
        except (ValueError, msgpack.UnpackException):
            continue
        if isinstance(account, str) and isinstance(request_id, str):
            return Identity(account, request_id)
    return None


def _hash_range(keys: dict[str, str]) -> range:
    return range(int(keys["StartingHashKey"]), int(keys["EndingHashKey"]) + 1)


def _joined(periods: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the periods in order, those that overlap as one."""
    joined: list[tuple[float, float]] = []
    for since, until in sorted(periods):
        if joined and since <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(until, joined[-1][1]))
        else:
            joined.append((since, until))
    return joined
