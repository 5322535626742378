"""Checks promise 6: the books add up, during a run and at its end. It reads the services directly, past the injected faults."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgpack

from chaos.world import BUCKET, STREAM, TABLE, World
from ops.books.accounting import Accounting, Balance
from ops.books.stored_spans import kept_events
from ops.stream.readable_shards import ReadableShards
from shared.errors import InvalidObjectError
from shared.telemetry import NullTelemetry
from worker.bucket import Bucket
from worker.ledger import Ledger
from worker.rejected_events import name_of as rejected_name
from worker.span import ChunkKey, Span
from worker.span_object import PREFIX, SpanObjects, name_of
from worker.states import UNSETTLED, Entry, State

HELD = UNSETTLED | {State.DEAD}
"""States of chunks whose rows somebody still needs."""
_UNREFERENCED_SECONDS = 2 * 86_400.0


@dataclass(frozen=True, slots=True)
class Held:
    """A chunk whose rows somebody still needs: its span, key and entry, and its rows; None if its object lacks them."""

    span: Span
    key: ChunkKey
    entry: Entry
    values: list[Any] | None


class Audit:
    """Checks a world's books."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.bucket = Bucket(world.bucket, BUCKET)  # type: ignore[arg-type]  # a double
        self.ledger = Ledger(world.table, TABLE, world.clock, bytes, NullTelemetry())  # type: ignore[arg-type]  # a double

    @property
    def objects(self) -> SpanObjects:
        """The span objects, with nothing remembered."""
        return SpanObjects(self.bucket)

    def held(self) -> Iterator[Held]:
        """Yield every chunk whose rows somebody still needs."""
        objects = self.objects
        for span in self.ledger.spans():
            for key, entry in span.all_leaves():
                if entry.state in HELD and not key.group.is_rejected:
                    yield Held(span, key, entry, _values(objects, span, key))

    def numbers(self, span: Span, planned: ChunkKey) -> list[int]:
        """Return the numbers of the events in a planned chunk."""
        return [int(row["n"]) for row in unpacked(self.objects.payload(span, planned))]

    def is_idle(self) -> bool:
        """Return whether the ledger lists nothing that waits."""
        waiting = self._world.table.items(
            TABLE, lambda item: "wk" in item and item["wk"]["S"].startswith("waiting")
        )
        return next(waiting, None) is None

    def left_over(self) -> list[str]:
        """Return the old objects that no span refers to."""
        needed = {name_of(span) for span in self.ledger.spans() if span.object is not None}
        stored = self._world.bucket.objects(BUCKET)
        old = self._world.simulation.now - _UNREFERENCED_SECONDS
        found = {name for name, one in stored.items() if name.startswith(PREFIX) and one.modified < old}
        return sorted(found - needed)

    def rejected(self) -> Iterator[int]:
        """Yield the number of every rejected event that is kept; without a table, its request's first one."""
        stored = self._world.bucket.objects(BUCKET)
        for span in self.ledger.spans():
            for key in span.chunks:
                is_counted = key.group.is_rejected and span.entry(key).state not in {State.AGAIN, State.COPY}
                if is_counted and rejected_name(span, key.group) in stored:
                    originals = (json.loads(one.original) for one in kept_events(self.bucket, span, key))
                    yield from (int(one.get("n", one.get("rejected", -1))) for one in originals)

    def balance(self) -> Balance:
        """Return what operators see."""
        return Accounting(
            ledger=self.ledger,
            shards=ReadableShards(self._world.stream, STREAM, self._world.clock),  # type: ignore[arg-type]  # a double
            bucket=self.bucket,
            sqs=self._world.queue,  # type: ignore[arg-type]  # a double
            queue_url=self._world.queue_url,
            clock=self._world.clock,
        ).take()


def _values(objects: SpanObjects, span: Span, key: ChunkKey) -> list[Any] | None:
    try:
        values = list(unpacked(objects.payload(span, key)))
    except InvalidObjectError:
        return None
    return values if len(values) == span.rows(key) else None


def unpacked(payload: bytes) -> Iterator[Any]:
    """Yield the values of concatenated MessagePack."""
    unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(payload)), strict_map_key=False)
    unpacker.feed(payload)
    return iter(unpacker)
