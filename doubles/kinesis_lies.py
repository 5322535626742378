"""Answers of GetRecords that are well formed and wrong: what its documentation warns of, and what a fault would give.

Each lie takes the true answer and returns another one. None of them makes up a record: what an answer shows is on the stream.
"""

# ruff: noqa: N803  # the parameters have the names of boto3's
import random
from enum import Enum
from typing import Any

from doubles.kinesis import MemoryKinesis


class Lie(Enum):
    """What is wrong with an answer."""

    EMPTY = "no records, and more are said to follow"
    EMPTY_AT_TIP = "no records, and none are said to follow"
    TWICE = "a record is there twice"
    FOREIGN = "a record of another shard is there"
    JUMP = "the next iterator leads past records"


class LyingReads:
    """GetRecords of a stream in memory, told how to lie.

    Args:
        kinesis: tells the truth.
    """

    def __init__(self, kinesis: MemoryKinesis) -> None:
        self._kinesis = kinesis

    def answer(self, lie: Lie, chance: random.Random, *, ShardIterator: str, Limit: int) -> dict[str, Any]:
        """Return a wrong answer; the true one where nothing on the stream allows this lie."""
        truth = self._kinesis.get_records(ShardIterator=ShardIterator, Limit=Limit)
        records = truth["Records"]
        match lie:
            case Lie.EMPTY | Lie.EMPTY_AT_TIP:
                behind = 0 if lie is Lie.EMPTY_AT_TIP else 5_000
                return {"Records": [], "MillisBehindLatest": behind, "NextShardIterator": ShardIterator}
            case Lie.TWICE if records:
                place = chance.randrange(len(records))
                copies = [*records[: place + 1], *records[chance.randrange(place + 1) :]]
                return truth | {"Records": copies}
            case Lie.FOREIGN:
                if stray := self._of_another_shard(ShardIterator, chance):
                    place = chance.randint(0, len(records))
                    return truth | {"Records": [*records[:place], stray, *records[place:]]}
            case Lie.JUMP if "NextShardIterator" in truth:
                return truth | {"NextShardIterator": self._further(truth["NextShardIterator"], chance)}
        return truth

    def _of_another_shard(self, iterator: str, chance: random.Random) -> dict[str, Any] | None:
        stream, shard = iterator.split("/")[:2]
        shards = [one["ShardId"] for one in self._kinesis.list_shards(StreamName=stream)["Shards"]]
        others = [other for other in shards if other != shard]
        if not others:
            return None
        start = self._kinesis.get_shard_iterator(
            StreamName=stream, ShardId=chance.choice(others), ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        records = self._kinesis.get_records(ShardIterator=start, Limit=50)["Records"]
        stray: dict[str, Any] | None = chance.choice(records) if records else None
        return stray

    def _further(self, iterator: str, chance: random.Random) -> str:
        skipped = self._kinesis.get_records(ShardIterator=iterator, Limit=chance.randint(1, 20))
        further: str = skipped.get("NextShardIterator", iterator)
        return further
