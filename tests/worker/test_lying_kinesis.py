"""Drainer and worker against a Kinesis that may answer any read wrongly, in documented form: every envelope becomes one row."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.kinesis import Lie, MemoryKinesis
from tests.support import delivery
from tests.support.overflow import OLD, STREAM, Way, timeout

FATES = ("taken", "gone", "unheard")


class Liar:
    """A Kinesis client with reads that lie, as hypothesis draws, while `is_lying` is set."""

    def __init__(self, memory: MemoryKinesis, data: st.DataObject) -> None:
        self.is_lying = False
        self._memory = memory
        self._draw = data.draw
        self._short: set[str] = set()

    def __getattr__(self, operation: str) -> Any:
        """Return a call that tells the truth."""
        return getattr(self._memory, operation)

    def get_records(self, *, ShardIterator: str, Limit: int = 10_000) -> dict[str, Any]:  # noqa: N803 -- boto3's names
        """Answer a read."""
        if not self.is_lying:
            return self._memory.get_records(ShardIterator=ShardIterator, Limit=Limit)
        lie = self._draw(st.sampled_from([None, None, "short", *Lie]))
        if lie == "short":
            answer = self._memory.get_records(ShardIterator=ShardIterator, Limit=Limit)
            place = ShardIterator.rpartition("/")[0]
            if place in self._short:  # a second read of the same place gets the truth
                return answer
            self._short.add(place)
            return answer | {"Records": answer["Records"][:1], "MillisBehindLatest": 0}
        if isinstance(lie, Lie):
            chance = random.Random(self._draw(st.integers(0, 99)))
            return self._memory.lie(lie, chance, ShardIterator=ShardIterator, Limit=Limit)
        return self._memory.get_records(ShardIterator=ShardIterator, Limit=Limit)


def records(memory: MemoryKinesis, shard: str) -> list[dict[str, Any]]:
    """Return the records of a shard."""
    iterator = memory.get_shard_iterator(StreamName=STREAM, ShardId=shard, ShardIteratorType="TRIM_HORIZON")
    found: list[dict[str, Any]] = memory.get_records(ShardIterator=iterator["ShardIterator"])["Records"]
    return [record for record in found if not record["PartitionKey"].startswith(OLD)]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_envelope_becomes_one_row_whatever_reads_say(data: st.DataObject) -> None:
    """Puts land, get lost or land unacknowledged; shards split or Kinesis chooses them; the worker dies."""
    way = Way()
    memory = way.delivery.kinesis.client
    liar = way.delivery.kinesis.client = Liar(memory, data)
    memory.arrival_error = lambda: data.draw(st.integers(-290, 290))
    expected = []
    for number in range(data.draw(st.integers(1, 5))):
        fate: str = data.draw(st.sampled_from(FATES))
        faults: dict[str, list[Any]] = {"gone": [timeout()], "unheard": [way.landing_unheard]}
        way.kinesis.faults["put_record"] = faults.get(fate, [])
        assert way.collect(f"r{number}", key=f"shop/{data.draw(st.integers(0, 3))}")
        expected.append(f"r{number}-0")
        match data.draw(st.sampled_from(["", "", "wait", "split", "auto", "drain", "deliver", "die"])):
            case "wait":
                way.wait(130)
            case "split" if len(memory.list_shards(StreamName=STREAM)["Shards"]) == 1:
                way.split()
            case "auto":
                memory.distribute(StreamName=STREAM)
            case "drain":
                way.wait(130)
                liar.is_lying = True
                way.drain(remaining_ms=20_000)
                liar.is_lying = False
            case "deliver" | "die" as act:
                deliver(way, memory, liar, data, dies=act == "die")
    way.kinesis.faults.clear()
    for _ in range(5):
        way.wait(1201)
        way.drain()
    for name in [shard["ShardId"] for shard in memory.list_shards(StreamName=STREAM)["Shards"]]:
        if found := records(memory, name):
            event = {"Records": [delivery.member(record, name) for record in found]}
            assert way.delivery.run(event, 60_000) == {"batchItemFailures": []}
    way.delivery.redrive()

    assert (expected, 0) == (way.ids(), way.waiting())


def deliver(way: Way, memory: MemoryKinesis, liar: Liar, data: st.DataObject, *, dies: bool) -> None:
    """Run the worker on a stretch of each shard, and kill it before it settles if `dies`."""
    made = way.delivery
    for shard in [one["ShardId"] for one in memory.list_shards(StreamName=STREAM)["Shards"]]:
        found = records(memory, shard)
        if not found:
            continue
        begin = data.draw(st.integers(0, len(found) - 1))
        event = {"Records": [delivery.member(record, shard) for record in found[begin:]]}
        made.start()
        if dies:
            made.dynamodb.before["update_item"] = lambda _: delivery.kill()
        liar.is_lying = True
        try:
            made.run(event, 10_000)
        except delivery.KilledError:
            pass
        finally:
            liar.is_lying = False
            made.dynamodb.before.clear()
