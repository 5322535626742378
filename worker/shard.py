"""Records read from a shard, for spans that reach beyond a batch."""

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from shared import errors
from shared.clock import Clock
from worker.deadline import Deadline
from worker.record import Number, Record, from_stream, sequence_number

_PAUSE_SECONDS = 0.25  # Kinesis answers five reads a second and shard, and the event source reads too
_THROTTLED = "ProvisionedThroughputExceededException"


class ShardUnreadableError(errors.ShardUnreadableError):
    """The shard cannot be read now, or not within the time."""


class Shards:
    """Reads shards of one stream.

    Args:
        kinesis: a boto3 client.
        stream: the stream's name.
        clock: waits.
    """

    def __init__(self, kinesis: Any, stream: str, clock: Clock) -> None:
        self._kinesis = kinesis
        self._stream = stream
        self._clock = clock
        self._created_at: int | None = None

    def chain(self, shard: str) -> str:
        """Return the name of a shard's chain: a stream made anew under the same name has other chains.

        Raises:
            ShardUnreadableError: Kinesis does not say when the stream was made.
        """
        if self._created_at is None:
            summary = self._call(self._kinesis.describe_stream_summary, StreamName=self._stream)
            created: Any = summary["StreamDescriptionSummary"]["StreamCreationTimestamp"]
            self._created_at = int(created.timestamp())
        return f"{self._stream}@{self._created_at}#{shard}"

    def read(self, shard: str, first: Number, last: Number, deadline: Deadline) -> list[Record]:
        """Return the shard's records from `first` to `last`, as far as it still has them.

        Raises:
            ShardUnreadableError: Kinesis fails, or the time is up.
        """
        iterator = self._call(
            self._kinesis.get_shard_iterator,
            StreamName=self._stream,
            ShardId=shard,
            ShardIteratorType="AT_SEQUENCE_NUMBER",
            StartingSequenceNumber=sequence_number(first),
        )["ShardIterator"]
        found: list[Record] = []
        while iterator is not None and not deadline.near:
            try:
                answer = self._call(self._kinesis.get_records, ShardIterator=iterator, Limit=10_000)
            except _ThrottledError:
                self._clock.sleep(_PAUSE_SECONDS)
                continue
            records = from_stream(answer["Records"], shard)
            found += [record for record in records if first <= record[0] <= last]
            if records and records[-1][0] >= last:
                return found
            iterator = answer.get("NextShardIterator")
            if not records:
                if answer.get("MillisBehindLatest") == 0:
                    return found
                self._clock.sleep(_PAUSE_SECONDS)
        if iterator is None:
            return found
        raise ShardUnreadableError("the time was up before all records were read")

    def _call(self, call: Any, **arguments: Any) -> Any:
        try:
            return call(**arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] == _THROTTLED:
                raise _ThrottledError(str(error)) from error
            raise ShardUnreadableError(str(error)) from error
        except BotoCoreError as error:
            raise ShardUnreadableError(str(error)) from error


class _ThrottledError(ShardUnreadableError):
    """Kinesis asks for a pause."""
