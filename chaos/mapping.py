"""An event source mapping that somebody changed by hand: it decides which records of a batch the worker gets, and when."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

from chaos.platform import Done
from chaos.simulation import Simulation
from chaos.trouble import Kind, Trouble
from doubles.event_source import Failed, Outcome, Returned, settled_count

_LANES = 3

Event = Mapping[str, Any]


class ChangedMapping:
    """Hands batches to the worker according to the mapping's current configuration."""

    def __init__(
        self, simulation: Simulation, trouble: Trouble, invoke: Callable[[Event, Done], None]
    ) -> None:
        # by shard, the first sequence number that was filtered out and has not been read again
        self.filtered: dict[str, int] = {}
        self._simulation = simulation
        self._trouble = trouble
        self._invoke = invoke

    def deliver(self, event: Event, done: Done) -> None:
        """Invoke the worker with a batch, or with parts of it, and report a single outcome."""
        records = event["Records"]
        if len(records) > 1 and (chances := self._trouble.strike(Kind.PASSED_OVER)):
            # later records are delivered first; then the whole batch is sent again
            self._invoke(
                {"Records": records[chances.randrange(1, len(records)) :]}, lambda _outcome: done(Failed())
            )
            return
        lanes: dict[int, list[Any]] = defaultdict(list)
        for record in records:
            lanes[_lane_of(record)].append(record)
        if len(lanes) > 1 and self._trouble.strike(Kind.LANES):
            self._deliver_all([*lanes.values()], done)
        elif len(lanes) > 1 and self._trouble.strike(Kind.FILTERED):
            first = lanes.pop(min(lanes))[0]
            shard, number = first["eventID"].split(":")
            self.filtered[shard] = min(int(number), self.filtered.get(shard, int(number)))
            kept = [record for record in records if _lane_of(record) in lanes]
            self._invoke({"Records": kept}, lambda outcome: done(_whole(outcome, kept)))
        else:
            self._invoke(event, done)

    def _deliver_all(self, lanes: list[list[Any]], done: Done) -> None:
        """Invoke the worker for each lane concurrently."""
        ended: list[Outcome] = []

        def one_ended(outcome: Outcome, lane: list[Any]) -> None:
            ended.append(_whole(outcome, lane))
            if len(ended) == len(lanes):
                done(next((one for one in ended if isinstance(one, Failed)), ended[0]))

        for lane in lanes:
            self._invoke({"Records": lane}, lambda outcome, lane=lane: one_ended(outcome, lane))  # type: ignore[misc]  # a default binds it


def _lane_of(record: Mapping[str, Any]) -> int:
    return crc32(record["kinesis"]["partitionKey"].encode()) % _LANES


def _whole(outcome: Outcome, records: list[Any]) -> Outcome:
    """Return success if all of these records are settled, else failure of the whole batch."""
    numbers = [record["kinesis"]["sequenceNumber"] for record in records]
    if settled_count(outcome, numbers) == len(numbers):
        return Returned({"batchItemFailures": []})
    return Failed()
