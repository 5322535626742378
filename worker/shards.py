"""Reads the stream beside its event source mapping. No other module calls GetRecords.

Kinesis answers five reads a second per shard, and the mapping needs one of them. Reads here are paced, and back off if Kinesis throttles.
An answer proves only that its records exist: it may be empty, end early, claim to be at the tip, or hold a record twice.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from shared.clock import Clock
from shared.errors import NoSuchRecordError, ShardGoneError, ShardUnreadableError, UnprovenError
from shared.puts import THROTTLED
from worker.chain import ChainId
from worker.record import START, Number, number, sequence_number

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

HASH_KEYS = 1 << 128
"""Partition keys are hashed to 0 … 2^128 - 1."""
SECONDS_BETWEEN_READS = 0.25

BELIEVED_SECONDS = 5.0
"""For this long after its last use, the stream is assumed to be the same: AWS takes longer to delete a stream and create another."""

RETENTION_FRESH_SECONDS = 3600.0
"""How long the stream's retention is believed to be the same."""

_EXPIRED = "ExpiredIteratorException"
_REFUSED = "InvalidArgumentException"
_GONE = "ResourceNotFoundException"
_SERVER_ERROR = 500
_TRIES = 4  # failed reads in a row after which a cursor gives up, unless Kinesis throttles
_LONGEST_PAUSE = 5.0  # Kinesis throttles a shard for this long after an answer of 10 MiB
MOST_RECORDS = 10_000
"""The most records that one read returns."""
_LATE_SECONDS = 5.0  # by how much clocks may differ, and how late Kinesis may show a record


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard.

    Attributes:
        keys: the hash keys that Kinesis maps to it.
        is_open: it still receives records.
        start: its first possible sequence number.
        parents: the shards that it was split or merged from.
    """

    shard_id: str
    keys: range
    is_open: bool
    start: str
    parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Position:
    """Where reading begins: by default at the shard's oldest record.

    Attributes:
        after: begin behind this record.
        at: begin at this record.
        moment: begin at this time, in UNIX seconds.
        is_tip: begin behind all records.
    """

    after: Number = START
    at: Number = START
    moment: float | None = None
    is_tip: bool = False

    def request(self) -> dict[str, Any]:
        """Return the arguments of GetShardIterator."""
        if self.is_tip:
            return {"ShardIteratorType": "LATEST"}
        if self.moment is not None:
            return {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": self.moment}
        for name, place in (("AFTER_SEQUENCE_NUMBER", self.after), ("AT_SEQUENCE_NUMBER", self.at)):
            if place != START:
                return {"ShardIteratorType": name, "StartingSequenceNumber": sequence_number(place)}
        return {"ShardIteratorType": "TRIM_HORIZON"}


@dataclass(frozen=True, slots=True)
class Page:
    """The answer to one read.

    Attributes:
        at_tip: Kinesis says that no record followed when it answered.
        ended: Kinesis says that the shard is closed and no record will ever follow.
        behind_seconds: how far the answer is behind the shard's newest record, according to Kinesis.
    """

    records: Sequence[Mapping[str, Any]]
    at_tip: bool
    ended: bool
    behind_seconds: float = 0.0


class Cursor:
    """Reads one shard, one read at a time, for callers that read several shards in turn.

    Attributes:
        due: UNIX seconds before which the next read must not be made.
    """

    def __init__(
        self, kinesis: "KinesisClient", stream: str, shard: str, position: Position, clock: Clock
    ) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._shard = shard
        self._position = position
        self._clock = clock
        self._iterator: str | None = None
        self._failures = 0
        self.due = 0.0

    @property
    def position(self) -> Position:
        """Where a new cursor would continue."""
        return self._position

    def seek(self, position: Position) -> None:
        """Continue from another position."""
        self._position, self._iterator = position, None

    def read(self, limit: int = MOST_RECORDS) -> Page | None:
        """Make one read of at most `limit` records; return None if Kinesis throttles or fails for now. `due` says when to read again.

        Raises:
            ShardUnreadableError: Kinesis definitely refuses, or fails repeatedly.
            NoSuchRecordError: Kinesis says that the shard never had the record to begin at.
        """
        try:
            if self._iterator is None:
                self._iterator = self._kinesis.get_shard_iterator(
                    StreamName=self._stream, ShardId=self._shard, **self._position.request()
                )["ShardIterator"]
            answer: Any = self._kinesis.get_records(ShardIterator=self._iterator, Limit=limit)
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            self._failed(error)
            return None
        self._failures = 0
        self.due = self._clock.now() + SECONDS_BETWEEN_READS
        records: list[Mapping[str, Any]] = answer["Records"]
        if records:
            self._position = Position(after=max([number(one["SequenceNumber"]) for one in records]))
        elif self._position.is_tip:  # the next iterator must not skip records that arrive before it exists
            self._position = Position(moment=self._clock.now() - _LATE_SECONDS)
        self._iterator = answer.get("NextShardIterator")
        ended = self._iterator is None
        behind = answer.get("MillisBehindLatest")
        return Page(records, ended or behind == 0, ended, (behind or 0) / 1000)

    def _failed(self, error: Exception) -> None:
        response = error.response if isinstance(error, ClientError) else {}
        code = response.get("Error", {}).get("Code", "")
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", _SERVER_ERROR)
        self._failures += 1
        self.due = self._clock.now() + min(_LONGEST_PAUSE, SECONDS_BETWEEN_READS * 2**self._failures)
        if code in THROTTLED:  # the iterator is still good
            return
        self._iterator = None
        if code == _REFUSED:
            raise NoSuchRecordError(str(error)) from error
        if code == _GONE:
            raise ShardGoneError(str(error)) from error
        if self._failures >= _TRIES or (status < _SERVER_ERROR and code != _EXPIRED):
            raise ShardUnreadableError(str(error)) from error


class Shards:
    """The shards of one stream."""

    def __init__(self, kinesis: "KinesisClient", stream: str, clock: Clock) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._clock = clock
        self._chains: dict[str, ChainId] = {}
        self._asked_at = float("-inf")
        self._retention = (0.0, float("-inf"))

    def chain(self, shard: str) -> ChainId:
        """Return the chain of a shard from which records have just been received.

        If the last call was more than BELIEVED_SECONDS ago, this lists the shards again, because the stream may have been recreated.

        Raises:
            ShardUnreadableError: Kinesis does not list the shard.
        """
        if not 0 <= self._clock.now() - self._asked_at <= BELIEVED_SECONDS or shard not in self._chains:
            self._list()
        if shard not in self._chains:
            raise ShardUnreadableError(f"the stream {self._stream} has no shard {shard}")
        self._asked_at = self._clock.now()
        return self._chains[shard]

    def _list(self) -> None:
        # `SequenceNumberRange` is documented as the range of a shard's possible sequence numbers, so its start identifies one shard.
        # A recreated stream may have lower numbers. `StreamCreationTimestamp` is documented as approximate, and `StreamId` as not
        # implemented.
        self._chains = {one.shard_id: ChainId(self._stream, one.start, one.shard_id) for one in self.all()}

    def whole(self) -> list[Shard]:
        """Return all shards, from one listing whose open shards cover every key.

        Raises:
            UnprovenError: they do not, so the listing lacks some.
            ShardUnreadableError: Kinesis does not answer.
        """
        shards = list(self.all())
        open_keys = sorted((shard.keys.start, shard.keys.stop) for shard in shards if shard.is_open)
        behind = 0
        for start, stop in open_keys:
            if start != behind:
                break
            behind = stop
        if behind != HASH_KEYS:
            raise UnprovenError("Kinesis does not list all shards")
        return shards

    def is_gone(self, chain: ChainId) -> bool:
        """Return whether the stream has lost the shard of a chain for certain: two whole listings show neither it nor a child of it.

        Each must show a shard that was made later, because a listing may be older than the shard.

        Raises:
            ShardUnreadableError: Kinesis does not answer.
        """
        try:
            return all(self._has_lost(chain, self.whole()) for _ in range(2))
        except UnprovenError:
            return False

    def _has_lost(self, chain: ChainId, listed: Sequence[Shard]) -> bool:
        is_newer = any(number(shard.start) > chain.lowest for shard in listed)
        return is_newer and not any(self._shows(chain, shard) for shard in listed)

    def _shows(self, chain: ChainId, shard: Shard) -> bool:
        own = chain.stream == self._stream and (shard.shard_id, shard.start) == (chain.shard, chain.start)
        return own or chain.shard in shard.parents

    def descendants(self, chain: ChainId) -> Iterator[ChainId]:
        """Yield the chains of the shards that the shard of a chain was split or merged into, and of theirs. A shard that has any is closed.

        Raises:
            ShardUnreadableError: Kinesis does not answer.
        """
        family = {chain.shard}
        for shard in self.all():
            if not family.isdisjoint(shard.parents):
                family.add(shard.shard_id)
                yield self.chain_of(shard)

    def chain_of(self, shard: Shard) -> ChainId:
        """Return the chain of a listed shard."""
        return ChainId(self._stream, shard.start, shard.shard_id)

    def retention_seconds(self) -> float:
        """Return how long the stream keeps records, as Kinesis says, not as a setting says. Looked up once an hour.

        Raises:
            ShardUnreadableError: Kinesis has never answered.
        """
        known, asked_at = self._retention
        if not 0 <= self._clock.now() - asked_at < RETENTION_FRESH_SECONDS:
            try:
                known = self.summary()["RetentionPeriodHours"] * 3600
            except ShardUnreadableError:
                if not known:
                    raise
            self._retention = known, self._clock.now()
        return known

    def summary(self) -> Mapping[str, Any]:
        """Return Kinesis' summary of the stream.

        Raises:
            ShardUnreadableError: Kinesis does not answer.
        """
        try:
            answer = self._kinesis.describe_stream_summary(StreamName=self._stream)
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            raise ShardUnreadableError(str(error)) from error
        return answer["StreamDescriptionSummary"]

    def created_at(self) -> float:
        """Return when the stream was created, approximately, in UNIX seconds.

        Raises:
            ShardUnreadableError: Kinesis does not answer.
        """
        created: datetime = self.summary()["StreamCreationTimestamp"]
        return created.timestamp()

    def all(self) -> Iterator[Shard]:
        """Yield all shards, parents before their children. A closed shard is included while the stream keeps records of it.

        Raises:
            ShardUnreadableError: Kinesis does not answer.
        """
        request: dict[str, Any] = {"StreamName": self._stream}
        while True:
            try:
                answer = self._kinesis.list_shards(**request)
            except (ClientError, BotoCoreError, ResponseParserError) as error:
                raise ShardUnreadableError(str(error)) from error
            for shard in answer["Shards"]:
                keys = shard["HashKeyRange"]
                hashes = range(int(keys["StartingHashKey"]), int(keys["EndingHashKey"]) + 1)
                numbers = shard["SequenceNumberRange"]
                is_open = "EndingSequenceNumber" not in numbers
                names = (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
                parents = tuple(name for name in names if name)
                yield Shard(shard["ShardId"], hashes, is_open, numbers["StartingSequenceNumber"], parents)
            if not answer.get("NextToken"):
                return
            request = {"NextToken": answer["NextToken"]}

    def cursor(self, shard: str, position: Position) -> Cursor:
        """Return a cursor on a shard."""
        return Cursor(self._kinesis, self._stream, shard, position, self._clock)

    def pages(
        self, shard: str, position: Position, until: float = float("inf"), limit: int = MOST_RECORDS
    ) -> Iterator[Page | None]:
        """Yield a shard's pages from a position on, and wait for more at the tip. At `until` (UNIX seconds), yield None and end.

        Raises:
            ShardUnreadableError: Kinesis refuses, or fails repeatedly.
        """
        cursor = self.cursor(shard, position)
        while True:
            now = self._clock.now()
            if max(now, cursor.due) >= until:
                yield None
                return
            if cursor.due > now:
                self._clock.sleep(cursor.due - now)
            page = cursor.read(limit)
            if page is not None:
                yield page
                if page.ended:
                    return
