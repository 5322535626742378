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


def answer(
    kinesis: MemoryKinesis, lie: Lie, chance: random.Random, *, ShardIterator: str, Limit: int
) -> dict[str, Any]:
    """Return a wrong answer of GetRecords; the true one where nothing on the stream allows this lie."""
    truth = kinesis.get_records(ShardIterator=ShardIterator, Limit=Limit)
    records = truth["Records"]
    match lie:
        case Lie.EMPTY | Lie.EMPTY_AT_TIP:
            behind = 0 if lie is Lie.EMPTY_AT_TIP else 5_000
            return {"Records": [], "MillisBehindLatest": behind, "NextShardIterator": ShardIterator}
        case Lie.TWICE if records:
            place = chance.randrange(len(records))
            return truth | {"Records": [*records[: place + 1], *records[chance.randrange(place + 1) :]]}
        case Lie.FOREIGN:
            if strays := _of_another_shard(kinesis, ShardIterator, chance):
                stray, place = chance.choice(strays), chance.randint(0, len(records))
                return truth | {"Records": [*records[:place], stray, *records[place:]]}
        case Lie.JUMP if "NextShardIterator" in truth:
            following = truth["NextShardIterator"]
            skipped = kinesis.get_records(ShardIterator=following, Limit=chance.randint(1, 20))
            return truth | {"NextShardIterator": skipped.get("NextShardIterator", following)}
    return truth


def _of_another_shard(kinesis: MemoryKinesis, iterator: str, chance: random.Random) -> Any:
    """Return records of another shard, if there are any."""
    stream, shard = iterator.split("/")[:2]
    shards = [one["ShardId"] for one in kinesis.list_shards(StreamName=stream)["Shards"]]
    others = [other for other in shards if other != shard]
    if not others:
        return []
    start = kinesis.get_shard_iterator(
        StreamName=stream, ShardId=chance.choice(others), ShardIteratorType="TRIM_HORIZON"
    )
    return kinesis.get_records(ShardIterator=start["ShardIterator"], Limit=50)["Records"]
