"""Knows the shards of the stream, and reads nothing of them but which records a closed one still has."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from shared import envelope
from shared.clock import Clock
from shared.errors import ShardGoneError, ShardUnreadableError, UnprovenError, aws_errors, error_code
from worker.chain import ChainId
from worker.record import START, Number, number, sequence_number
from worker.span import milliseconds

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient

HASH_KEYS = 1 << 128
"""Partition keys are hashed to 0 … 2^128 - 1."""
SECONDS_BETWEEN_READS = 0.25
"""Kinesis answers five reads a second per shard, and the event source mapping needs one of them."""

BELIEVED_SECONDS = 5.0
"""For this long after its last use, the stream is assumed to be the same: AWS takes longer to delete a stream and create another."""

RETENTION_FRESH_SECONDS = 3600.0
"""How long the stream's retention is believed to be the same."""

_GONE = "ResourceNotFoundException"
_PAUSES = (0.5, 1.0, 2.0)  # seconds before a read that failed is made again


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard.

    Attributes:
        keys: the hash keys that Kinesis maps to it; none if Kinesis only names it as the parent of a listed one.
        is_open: it still receives records.
        parents: the shards that it was split or merged from.
    """

    chain: ChainId
    keys: range = range(0)
    is_open: bool = False
    parents: tuple[str, ...] = ()

    @property
    def shard_id(self) -> str:
        """Its name within the stream."""
        return self.chain.shard


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
        self._chains = {one.shard_id: one.chain for one in self.all()}

    def whole(self) -> list[Shard]:
        """Return all shards, from one listing whose open shards cover every key; raise UnprovenError if they do not, so that it lacks some."""
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
        """
        try:
            return all(self._has_lost(chain, self.whole()) for _ in range(2))
        except UnprovenError:
            return False

    def _has_lost(self, chain: ChainId, listed: Sequence[Shard]) -> bool:
        is_newer = any(shard.chain.lowest > chain.lowest for shard in listed)
        is_shown = any(chain == shard.chain or chain.shard in shard.parents for shard in listed)
        return is_newer and not is_shown

    def descendants(self, chain: ChainId) -> Iterator[ChainId]:
        """Yield the chains of the shards that the shard of a chain was split or merged into, and of theirs. A shard that has any is closed."""
        family = {chain.shard}
        for shard in self.all():
            if not family.isdisjoint(shard.parents):
                family.add(shard.shard_id)
                yield shard.chain

    def retention_seconds(self) -> float:
        """Return how long the stream keeps records, as Kinesis says, not as a setting says. Looked up once an hour."""
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
        """Return Kinesis' summary of the stream."""
        answer = _ask(self._kinesis.describe_stream_summary, StreamName=self._stream)
        summary: Mapping[str, Any] = answer["StreamDescriptionSummary"]
        return summary

    def created_at(self) -> float:
        """Return when the stream was created, approximately, in UNIX seconds."""
        created: datetime = self.summary()["StreamCreationTimestamp"]
        return created.timestamp()

    def all(self) -> Iterator[Shard]:
        """Yield all shards, parents before their children. A closed shard is included while the stream keeps records of it."""
        request: dict[str, Any] = {"StreamName": self._stream}
        while True:
            answer = _ask(self._kinesis.list_shards, **request)
            for shard in answer["Shards"]:
                keys = shard["HashKeyRange"]
                hashes = range(int(keys["StartingHashKey"]), int(keys["EndingHashKey"]) + 1)
                numbers = shard["SequenceNumberRange"]
                chain = ChainId(self._stream, numbers["StartingSequenceNumber"], shard["ShardId"])
                is_open = "EndingSequenceNumber" not in numbers
                names = (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
                parents = tuple(name for name in names if name)
                yield Shard(chain, hashes, is_open, parents)
            if not answer.get("NextToken"):
                return
            request = {"NextToken": answer["NextToken"]}

    def mark(self, shard: Shard) -> None:
        """Put a marker on an open shard: an envelope without rows, which the worker plans like any other.

        Where Kinesis distributes records itself, it may land on another shard; then it takes several.
        """
        _ask(
            self._kinesis.put_record,
            StreamName=self._stream,
            Data=envelope.marker(milliseconds(self._clock.now())).encode(),
            PartitionKey=envelope.NOBODY,
            ExplicitHashKey=str(shard.keys.start),
        )

    def behind(self, shard: str, last: Number) -> Iterator[list[Number]]:
        """Yield the numbers of a closed shard's records behind the number `last`, or of all behind START: some at a time, and some twice.

        If Kinesis no longer has the shard, this raises ShardGoneError.
        """
        place = {"ShardIteratorType": "TRIM_HORIZON"}
        if last != START:
            after = sequence_number(last)
            place = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": after}
        answer = self._read(self._kinesis.get_shard_iterator, StreamName=self._stream, ShardId=shard, **place)
        iterator = answer["ShardIterator"]
        while iterator is not None:
            answer = self._read(self._kinesis.get_records, ShardIterator=iterator)
            yield [number(record["SequenceNumber"]) for record in answer["Records"]]
            iterator = answer.get("NextShardIterator")
            self._clock.sleep(0.0 if iterator is None else SECONDS_BETWEEN_READS)

    def _read(self, call: Callable[..., Any], **request: Any) -> Any:
        for pause in _PAUSES:
            try:
                return _ask(call, **request)
            except ShardGoneError:
                raise
            except ShardUnreadableError:
                self._clock.sleep(pause)
        return _ask(call, **request)


def _ask(call: Callable[..., Any], **request: Any) -> Any:
    try:
        return call(**request)
    except aws_errors() as error:
        kind = ShardGoneError if error_code(error) == _GONE else ShardUnreadableError
        raise kind(str(error)) from error
