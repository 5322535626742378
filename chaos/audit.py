"""Checks promise 6: the balance that operators see adds up, during a run and at its end."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgpack

from chaos.plans import Copy
from chaos.world import BUCKET, STREAM, TABLE, World
from ops.books.accounting import Accounting, Balance
from shared import policy
from shared.errors import BucketUnavailableError, InvalidObjectError
from shared.telemetry import NullTelemetry
from worker.archive import Archive
from worker.bucket import Bucket
from worker.delivery import ASIDE, Entry
from worker.ledger import Ledger
from worker.set_aside import PREFIX, REJECTED_PREFIX, SetAsideStore
from worker.shards import Shards
from worker.span import ChunkKey, Span


class Impatient:
    """A clock that does not advance, so that a balance describes a single moment."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> float:
        """Return the simulation's time."""
        return self._world.simulation.now

    def sleep(self, seconds: float) -> None:
        """Return at once."""


@dataclass(frozen=True, slots=True)
class Held:
    """A set-aside chunk: its span, key and entry, and the rows in its object; None if the object is missing."""

    span: Span
    key: ChunkKey
    entry: Entry
    values: list[Any] | None

    @property
    def place(self) -> str:
        """The chunk's name."""
        return f"{self.span.chain.name} {self.span.after} {self.key.name}"


class Audit:
    """Checks a world's books against its services directly, bypassing the injected faults.

    Attributes:
        faults: the discrepancies found so far.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.faults: list[str] = []
        bucket = Bucket(world.bucket, BUCKET)  # type: ignore[arg-type]  # a double
        self.archive = Archive(bucket)
        self.store = SetAsideStore(bucket)
        self.ledger = Ledger(
            world.table,  # type: ignore[arg-type]  # a double
            TABLE,
            clock=world.clock,
            entropy=bytes,
            telemetry=NullTelemetry(),
        )

    def held(self) -> Iterator[Held]:
        """Yield every chunk that the ledger lists as set aside."""
        for span in self.ledger.spans():
            for key, entry in span.entries.items():
                if entry.state in ASIDE:
                    yield Held(span, key, entry, self._values(span, key, entry))

    def _values(self, span: Span, key: ChunkKey, entry: Entry) -> list[Any] | None:
        try:
            chunk = self.store.get(span, key, entry.edit, entry.digest)
        except InvalidObjectError:
            return None
        values = list(_unpacked(chunk.payload))
        positions = key.within(chunk.rows)
        if len(values) != chunk.rows or len(positions) != entry.rows:
            return None
        return values[positions.start : positions.stop]

    def open_spans(self) -> list[str]:
        """Return the spans that are not settled."""
        return [f"{span.chain.name} {span.after}" for span in self.ledger.spans() if not span.done]

    def is_idle(self) -> bool:
        """Return whether no rows are parked or in doubt."""
        marks = (item.get("wk") for item in self._world.table.items(TABLE))
        return not any(mark is not None and mark["S"].startswith("aside") for mark in marks)

    def left_over(self) -> list[str]:
        """Return the objects that belong to no set-aside chunk."""
        needed = {
            self.store.name(held.span, held.key, held.entry.edit, held.entry.digest) for held in self.held()
        }
        objects = {name for name in self._world.bucket.objects(BUCKET) if name.startswith(PREFIX)}
        return sorted(objects - needed)

    def rejected(self) -> Iterator[Copy]:
        """Yield every stored copy of a rejected event, duplicates included."""
        for name in self._world.bucket.objects(BUCKET):
            if name.startswith(REJECTED_PREFIX):
                chunk = self.store.read(name)
                group = chunk.key.group
                for _, original, message in _unpacked(chunk.payload):
                    yield Copy(chunk.account, group.table, group.code, json.loads(original), message)

    def rejections(self) -> Counter[tuple[str, str, str]]:
        """Return how many rejected events the ledger counts, by account, table and code."""
        return Counter(self.balance().rejected)

    def misarchived(self) -> list[str]:
        """Return the archive's faults: settled spans without their records, and objects that were written twice."""
        faults = [
            f"{name} was written again" for name in self._world.bucket.overwritten if name != policy.KEY
        ]
        for span in self.ledger.spans():
            if span.archived is None or not span.done:
                continue
            try:
                found = self.archive.get(span)
            except BucketUnavailableError as error:
                faults.append(str(error))
                continue
            if found is None:
                faults.append(f"{span.chain.name} {span.after} is not in the archive")
        return faults

    def balance(self) -> Balance:
        """Return the balance that operators would see now."""
        world, clock = self._world, Impatient(self._world)
        return Accounting(
            ledger=self.ledger,
            shards=Shards(world.stream, STREAM, clock),  # type: ignore[arg-type]  # a double
            store=self.store,
            archive=self.archive,
            sqs=world.queue,  # type: ignore[arg-type]  # a double
            queue_url=world.queue_url,
            clock=clock,
        ).take()

    def look(self) -> None:
        """Record current faults: balances that do not add up, archive faults and set-aside chunks without an object."""
        self.faults += [f"{held.place} has no object" for held in self.held() if held.values is None]
        self.faults += self.misarchived()
        self.faults += [
            f"{place} does not add up: {rows}"
            for place, rows in self.balance().tables.items()
            if not rows.adds_up
        ]


def _unpacked(payload: bytes) -> Iterator[Any]:
    unpacker = msgpack.Unpacker(max_buffer_size=max(1, len(payload)))
    unpacker.feed(payload)
    return iter(unpacker)
