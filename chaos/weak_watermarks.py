"""Watermarks that lack one of their rules, so that fault injection can show why each is needed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import override

from chaos.defences import Defence
from chaos.functions import Weakness
from chaos.trouble import Kind
from worker.ledger import WORKLIST_KEYS
from worker.passing import MARGIN_SECONDS
from worker.span import Span
from worker.watermark import CLOCK_SECONDS, INGEST_SECONDS, Watermarks


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


class _NobodyBehind(Watermarks):
    """Does not ask how far each shard is."""

    @override
    def _passed_by_all(self, until: float) -> float:
        super()._passed_by_all(until)
        return float("inf")


class _ExactStamps(Watermarks):
    @override
    def _passed_by_all(self, until: float) -> float:
        return super()._passed_by_all(until) + MARGIN_SECONDS * 1000


class _ClosedIsEmpty(Watermarks):
    @override
    def _check_read_out(self, *_args: object) -> None:
        pass


class _NothingWaits(Watermarks):
    @override
    def _spans(self, began: float) -> Iterator[Span]:
        return iter(())


class _IndexAlone(Watermarks):
    """Believes the ledger's index, which may lag."""

    @override
    def _spans(self, began: float) -> Iterator[Span]:
        for number in range(WORKLIST_KEYS):
            for _, place in self._ledger.worklist("waiting", number):
                if (found := self._ledger.get(place)) is not None:
                    yield found


class _NoCopies(Watermarks):
    """Believes that a copy's owner is in a span."""

    @override
    def _spans(self, began: float) -> Iterator[Span]:
        for span in super()._spans(began):
            yield replace(span, copies={})


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
        seeds=200,
    ),
    _without(
        "a watermark leaves a margin for clocks and requests under way", _NoMargin, Kind.SKEW, seeds=200
    ),
    _without("every shard must have passed", _NobodyBehind, Kind.STANDSTILL, Kind.DYNAMODB_ERROR),
    _without(
        "stamps may run back", _ExactStamps, Kind.KINESIS_STAMPS, Kind.STANDSTILL, Kind.ABANDON, seeds=200
    ),
    _without(
        "a closed shard is read to its end",
        _ClosedIsEmpty,
        *(Kind.RESHARD, Kind.STANDSTILL, Kind.DYNAMODB_ERROR),
        seeds=200,
    ),
    _without("rows that wait are pending", _NothingWaits, Kind.TD_OUTAGE, Kind.TD_5XX),
    _without("recent spans are read from the chains", _IndexAlone, Kind.TD_OUTAGE, Kind.TD_5XX),
    _without(
        "a copy holds the watermark until its owner is in a span",
        _NoCopies,
        *(Kind.CLIENT_DEAF, Kind.STANDSTILL, Kind.DYNAMODB_ERROR, Kind.ABANDON),
        seeds=200,
    ),
)
