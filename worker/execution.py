"""Executes the plan of one span: sends its chunks, sets aside what must be, and writes what became of them.

Redeliveries, replays and the redrive execute spans the same way; they differ in where the rows come from, and in which
chunks they take up. What follows from what happens to a chunk is decided by `worker.delivery` alone.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from shared.clock import Clock
from shared.errors import SetAsideUnavailableError
from shared.telemetry import Telemetry
from worker.chunk import Chunk
from worker.deadline import Deadline
from worker.delivery import ASIDE, Entry, Event, Happening, Rules, State
from worker.executor import Executors, run_parallel
from worker.guards import Guard
from worker.ledger import Ledger
from worker.record import milliseconds
from worker.set_aside import SetAside, SetAsideStore
from worker.span import ChunkKey, Span
from worker.upload import Outcome, Upload

Describe = Callable[[Span, Chunk], SetAside]
"""Returns the object of a planned chunk."""
Send = Callable[[list[Upload], Deadline], list[Outcome]]
Report = Callable[[ChunkKey, Entry], None]
"""Told of each chunk that has changed its state, once that is written."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What spans are executed with."""

    ledger: Ledger
    store: SetAsideStore
    rules: Rules
    executors: Executors
    clock: Clock
    telemetry: Telemetry


class Execution:
    """One invocation's work on one span that it has just planned, or fenced.

    Args:
        delivery: what it is done with.
        span: as this invocation wrote it.
        sources: by chunk, the planned chunk that its rows are taken from.
        describe: returns the object of a planned chunk.
        report: told what became of each chunk.
        opened: chunks whose doubt this invocation opened; None for all.
        whole: the sources are all planned chunks that have pending rows: the span is done when none of them has.

    Attributes:
        span: as it is in the ledger now.
    """

    def __init__(
        self,
        delivery: Delivery,
        span: Span,
        sources: Mapping[ChunkKey, Chunk],
        *,
        describe: Describe,
        report: Report,
        opened: set[ChunkKey] | None = None,
        whole: bool = True,
    ) -> None:
        self._delivery = delivery
        self._rules = delivery.rules
        self._sources = sources
        self._describe = describe
        self._report = report
        self._opened = opened
        self._whole = whole
        self._won = True  # nobody else has written the span since this invocation did
        self._objects: dict[ChunkKey, SetAside | None] = {}  # by planned chunk; None where S3 did not take it
        self._outcomes: dict[ChunkKey, Outcome] = {}
        self.span = span

    def leaf(self, key: ChunkKey) -> Chunk:
        """Return a chunk's rows."""
        source = key
        while source not in self._sources:
            source = source._replace(path=source.path[:-1])
        return self._sources[source].leaf(key)

    def upload(self, chunk: Chunk, database: str, oldest: float) -> Upload:
        """Return the upload of a chunk under the id that the ledger gives it."""
        generation = self.span.entry(chunk.key).generation
        return Upload(chunk, database, self.span.unique_id(chunk.key, database, generation), oldest)

    def deliver(self, uploads: list[Upload], send: Send, deadline: Deadline) -> dict[ChunkKey, Outcome]:
        """Send chunks, and write what became of them, together with what was noted; what is split goes out in halves.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached; everything will be done again, to no effect.
        """
        while True:
            if uploads:
                for upload, outcome in zip(uploads, send(uploads, deadline), strict=True):
                    self._outcomes[upload.chunk.key] = outcome
            tried = [
                upload for upload in uploads if self._outcomes[upload.chunk.key].event is Event.TOO_LARGE
            ]
            self._settle()
            halves = [half for upload in tried for half in self._halves(upload)]
            if not halves:
                return self._outcomes
            uploads = halves

    def note(self, key: ChunkKey, event: Event, reason: str) -> None:
        """Let an event be written that needs no send."""
        self._outcomes[key] = Outcome(event, reason)

    def pending(self) -> list[str]:
        """Return why chunks are still pending, each reason once, sorted."""
        return sorted(
            {
                outcome.reason
                for key, outcome in self._outcomes.items()
                if self.span.entry(key).state is State.PENDING
            }
        )

    def rows_by_state(self) -> dict[str, int]:
        """Return the rows that were taken up, by what became of them."""
        rows: dict[str, int] = {}
        for key in self._outcomes:
            entry = self.span.entry(key)
            if (
                key.halves[0] not in self._outcomes
            ):  # of what was split the halves tell, also once they are joined
                rows[entry.state.value] = rows.get(entry.state.value, 0) + self.leaf(key).count
        return rows

    def _halves(self, upload: Upload) -> list[Upload]:
        """Return the uploads of the halves that now stand for a chunk; none where it was not split by us."""
        key = upload.chunk.key
        if not self._won or self.span.entry(key).state is not State.SPLIT:
            return []
        if self._opened is not None:
            self._opened.update(key.halves)
        return [
            self.upload(self.leaf(half), upload.database, upload.oldest)
            for half in key.halves
            if self.span.entry(half).state is State.PENDING
        ]

    def _settle(self) -> None:
        """Write what became of the chunks, merged with what others wrote meanwhile."""
        while True:
            changes = self._backed(self._changes())
            settled = self._with(changes)
            if settled == self.span:
                return
            before = self.span
            won, self.span = self._delivery.ledger.update(settled)
            if won:
                if Guard.OBJECT_FIRST in self._rules.without:
                    self._put_all()
                for key, entry in changes.items():
                    if entry.state is not before.entry(key).state:
                        self._report(key, entry)
                return
            self._won = False

    def _with(self, changes: Mapping[ChunkKey, Entry]) -> Span:
        settled = self.span.with_entries(changes)
        if settled.done or not self._whole:
            return settled
        if any(
            settled.entry(leaf).state is State.PENDING
            for planned in self._sources
            for leaf in (settled.leaves(planned) if settled.entries else (planned,))
        ):
            return settled
        return settled.with_entries({}, done=True)

    def _changes(self) -> dict[ChunkKey, Entry]:
        """Return the entries that change by what happened."""
        now, changes = milliseconds(self._delivery.clock.now()), {}
        with_splits = self.span
        for key, outcome in self._outcomes.items():
            standing = self.span.entry(key)
            is_large = outcome.event is Event.TOO_LARGE
            entry = self._rules.follow(
                standing,
                Happening(
                    outcome.event,
                    now,
                    outcome.reason,
                    certain=self._is_certain(key, outcome),
                    divisible=is_large and self.leaf(key).count > 1 and with_splits.can_split(key),
                ),
            )
            if entry is not standing:
                changes[key] = replace(entry, rows=self.leaf(key).count)
                if entry.state is State.SPLIT:
                    changes |= self._split(key, standing)
                    with_splits = self.span.with_entries(changes)
        return changes

    def _split(self, key: ChunkKey, standing: Entry) -> dict[ChunkKey, Entry]:
        """Return the entries of a chunk's halves: they take over all that is known of it."""
        state = State.PENDING if standing.state is State.PENDING else State.PARKED
        since = standing.since if state is State.PENDING else None
        half = replace(standing, state=state, since=since)
        return {one: replace(half, rows=self.leaf(one).count) for one in key.halves}

    def _is_certain(self, key: ChunkKey, outcome: Outcome) -> bool:
        opened = self._opened is None or key in self._opened
        return outcome.definitely_not_delivered and opened and self._won

    def _backed(self, changes: dict[ChunkKey, Entry]) -> dict[ChunkKey, Entry]:
        """Write the objects of chunks that are to be set aside; leave those pending that S3 does not take."""
        aside = [key for key, entry in changes.items() if entry.state in ASIDE and not entry.digest]
        if not aside:
            return changes
        missing = [key for key in dict.fromkeys(one.planned for one in aside) if key not in self._objects]
        self._objects |= {key: self._describe(self.span, self._sources[key]) for key in missing}
        if Guard.OBJECT_FIRST not in self._rules.without:
            self._put_all(missing)
        for key in aside:
            chunk = self._objects[key.planned]
            if chunk is None:
                self._outcomes[key] = replace(
                    self._outcomes[key], event=Event.UNANSWERED, reason="set_aside_unavailable"
                )
        if all(self._objects[key.planned] is not None for key in aside):
            return self._with_digests(changes)
        return self._with_digests(self._changes())

    def _with_digests(self, changes: Mapping[ChunkKey, Entry]) -> dict[ChunkKey, Entry]:
        return {
            key: replace(entry, digest=chunk.digest)
            if entry.state in ASIDE and not entry.digest and (chunk := self._objects.get(key.planned))
            else entry
            for key, entry in changes.items()
        }

    def _put_all(self, keys: Iterable[ChunkKey] | None = None) -> None:
        wanted = list(self._objects if keys is None else keys)
        run_parallel(self._delivery.executors, [partial(self._put, key) for key in wanted])

    def _put(self, planned: ChunkKey) -> None:
        chunk = self._objects[planned]
        try:
            if chunk is not None:
                self._delivery.store.put(self.span, chunk)
        except SetAsideUnavailableError:
            self._objects[planned] = None
