"""Watermarks that lack one of their rules, so that fault injection can show why each is needed."""

from collections.abc import Iterator
from typing import override

from worker.shard_reader import ShardReader

from chaos.defences import Defence
from chaos.functions import Weakness
from chaos.trouble import Kind
from worker.record import Record, from_stream
from worker.shards import Position, Shard
from worker.span import Span
from worker.watermark import CLOCK_SECONDS, INGEST_SECONDS, ShardProgress, Table, Watermarks


class _NoQueue(Watermarks):
    @override
    def _in_queue(self, began: float) -> float:
        return began


class _CountsAlone(Watermarks):
    @override
    def _in_queue(self, began: float) -> float:
        super()._in_queue(began)
        return began


class _NoMargin(Watermarks):
    @override
    def _in_queue(self, began: float) -> float:
        return super()._in_queue(began) + INGEST_SECONDS + 2 * CLOCK_SECONDS


class _LedgerAlone(Watermarks):
    @staticmethod
    @override
    def _read(lane: ShardProgress, until: float) -> None:
        Watermarks._read(lane, until)  # noqa: SLF001 -- its own class's; a static method has no super()
        lane.records = {}


class _PlannedIsDone(Watermarks):
    @staticmethod
    @override
    def _pending_of(span: Span) -> frozenset[Table]:
        return frozenset()


class _FromTheEnd(Watermarks):
    @override
    def _lane(self, shard: Shard, began: float) -> ShardProgress:
        lane = super()._lane(shard, began)
        lane.after = self._ledger.end(lane.chain)
        lane.reader = ShardReader(self._shards, shard, lane.after, self._clock)
        return lane


class _Credulous(ShardReader):
    @override
    def read(self, until: float) -> Iterator[Record]:
        self._cursor.seek(Position())
        while True:
            page = self._page(until)
            yield from from_stream(page.records, self.shard.shard_id)
            if page.at_tip:
                self.looked_at = self._clock.now()
                return


class _AnyAnswer(Watermarks):
    @override
    def _lane(self, shard: Shard, began: float) -> ShardProgress:
        lane = super()._lane(shard, began)
        lane.reader = _Credulous(self._shards, shard, lane.after, self._clock)
        return lane


class _EmptyIsEmpty(Watermarks):
    @override
    def _check_empty(self, lane: ShardProgress, began: float) -> None:
        pass


def _without(name: str, kind: type[Watermarks], *kinds: Kind, seeds: int = 40, events: int = 400) -> Defence:
    weakness = Weakness(replaced=lambda _world: {Watermarks: kind})
    return Defence(name, weakness, kinds, ("overlooked",), seeds=seeds, events=events)


DEFENCES: tuple[Defence, ...] = (
    _without(
        "a watermark waits for the overflow queue", _NoQueue, Kind.KINESIS_THROTTLE, Kind.KINESIS_TIMEOUT
    ),
    _without(
        "after a notice the queue's counts are not believed at once",
        _CountsAlone,
        *(Kind.SQS_COUNTS, Kind.KINESIS_THROTTLE, Kind.KINESIS_TIMEOUT, Kind.STANDSTILL),
    ),
    _without("a watermark leaves a margin for clocks and requests under way", _NoMargin, Kind.SKEW),
    _without("records without a span are pending", _LedgerAlone, Kind.STANDSTILL, Kind.REDIS_DOWN),
    _without("open spans are pending", _PlannedIsDone, Kind.TD_OUTAGE, Kind.TD_5XX),
    _without(
        "the chain's end does not mean settled", _FromTheEnd, Kind.TD_OUTAGE, Kind.PASSED_OVER, Kind.REPLAY
    ),
    _without(
        "a watermark does not believe that a shard is empty",
        _EmptyIsEmpty,
        *(Kind.KINESIS_EMPTY_AT_TIP, Kind.STANDSTILL, Kind.REDIS_DOWN, Kind.TD_OUTAGE),
    ),
    _without(
        "a watermark does not believe a read without the record that it starts at",
        _AnyAnswer,
        *(Kind.KINESIS_EMPTY_AT_TIP, Kind.STANDSTILL, Kind.REDIS_DOWN, Kind.TD_OUTAGE),
    ),
)
