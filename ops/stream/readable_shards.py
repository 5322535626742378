"""Reads shards beside the event source mapping.

Kinesis answers five reads a second per shard, and the mapping needs one of them. Reads here are paced, and back off if Kinesis throttles.
An answer proves only that its records exist: it may be empty, end early, claim to be at the tip, or hold a record twice.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from shared.clock import Clock
from shared.errors import ShardGoneError, ShardUnreadableError, aws_errors
from shared.puts import THROTTLED
from worker.record import START, Number, Record, decode, number, sequence_number
from worker.shards import SECONDS_BETWEEN_READS, Shards

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

_EXPIRED = "ExpiredIteratorException"
_REFUSED = "InvalidArgumentException"
_GONE = "ResourceNotFoundException"
_SERVER_ERROR = 500
_TRIES = 4  # failed reads in a row after which a cursor gives up, unless Kinesis throttles
_LONGEST_PAUSE = 5.0  # Kinesis throttles a shard for this long after an answer of 10 MiB
_LATE_SECONDS = 5.0  # by how much clocks may differ, and how late Kinesis may show a record
_MOST_RECORDS = 10_000  # that one read returns


class NoSuchRecordError(ShardUnreadableError):
    """Kinesis says that the shard never had the record from which reading should start."""


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

    def read(self, limit: int = _MOST_RECORDS) -> Page | None:
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
        except aws_errors() as error:
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


class ReadableShards(Shards):
    """The shards of one stream, and what they hold."""

    def cursor(self, shard: str, position: Position) -> Cursor:
        """Return a cursor on a shard."""
        return Cursor(self._kinesis, self._stream, shard, position, self._clock)

    def pages(self, shard: str, position: Position, until: float = float("inf")) -> Iterator[Page]:
        """Yield a shard's pages from a position on up to the tip. If it is not reached at `until` (UNIX seconds), end before.

        Raises:
            ShardUnreadableError: Kinesis refuses, or fails repeatedly.
        """
        cursor = self.cursor(shard, position)
        while True:
            now = self._clock.now()
            if max(now, cursor.due) >= until:
                return
            if cursor.due > now:
                self._clock.sleep(cursor.due - now)
            page = cursor.read()
            if page is not None:
                yield page
                if page.at_tip:
                    return


def from_stream(records: Iterable[Mapping[str, Any]], shard: str) -> list[Record]:
    """Return the records of a GetRecords response."""
    return [
        decode(
            item["Data"],
            shard,
            number(item["SequenceNumber"]),
            item["ApproximateArrivalTimestamp"].timestamp(),
        )
        for item in records
    ]
