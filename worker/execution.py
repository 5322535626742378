"""Executes the plan of one span: sends its chunks, sets aside those that cannot be delivered, and writes the results to the ledger.

Redeliveries, replays and the redrive execute spans the same way. They differ in where the rows come from and which chunks
they send. `worker.delivery` alone decides what each event means for a chunk.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from shared.clock import Clock
from shared.errors import BucketUnavailableError
from shared.telemetry import Telemetry
from worker.chunk import Chunk, pending_leaves
from worker.deadline import Deadline
from worker.delivery import ASIDE, ROW_TOO_LARGE, TOO_LARGE, Entry, Event, Happening, Rules, State
from worker.executor import Executors, run_parallel
from worker.guards import Guard
from worker.ledger import Ledger
from worker.set_aside import SetAside, SetAsideStore
from worker.span import ChunkKey, Database, Span, milliseconds
from worker.upload import Outcome, Upload

MOST_HALVINGS = 64
"""How often an invocation halves one planned chunk to find the rows that Treasure Data refuses."""
MOST_VAIN_HALVINGS = 15
"""The limit while Treasure Data accepts no part of the chunk: then a few bad rows are not the cause."""

_DIVISIBLE = (Event.TOO_LARGE, Event.ROWS_REFUSED)

Describe = Callable[[Span, Chunk], SetAside]
"""Returns the set-aside object of a planned chunk."""
Send = Callable[[list[Upload], Deadline], list[Outcome]]
Report = Callable[[ChunkKey, Entry], None]
"""Called for each chunk that was set aside, after the ledger says so."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The dependencies that every execution of a span needs."""

    ledger: Ledger
    store: SetAsideStore
    rules: Rules
    executors: Executors
    clock: Clock
    telemetry: Telemetry

    def follow(self, entry: Entry, event: Event, **more: Any) -> Entry:
        """Return a chunk's entry after an event that happens now; the same object if no transition applies."""
        return self.rules.follow(entry, Happening(event, milliseconds(self.clock.now()), **more))

    def report_set_aside(self, key: ChunkKey, entry: Entry) -> None:
        """Log that a chunk was set aside."""
        self.telemetry.warning(
            "rows set aside",
            kind=entry.state.value,
            reason=entry.reason,
            account=key.account,
            table=key.group.label,
            rows=entry.rows,
        )


class Execution:
    """One invocation's execution of a span that it has just appended or fenced.

    Args:
        sources: the planned chunks that rows are taken from, each under its own key or the key of a part of it.
        opened: chunks whose doubt this invocation opened; None for all.
        oldest: UNIX seconds at which the oldest of the span's records arrived; 0 if its rows must not be held any longer.
        whole: the sources include every planned chunk with pending rows, so the span is done once none of them is pending.
        may_close: called before the span is marked done, and may wait. If it returns False, the span stays open, and the ledger
            records which chunks are delivered.

    Attributes:
        span: as it is in the ledger now.
        rows: by state, how many rows this execution has moved to it.
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
        oldest: float = 0.0,
        whole: bool = True,
        may_close: Callable[[], bool] = lambda: True,
    ) -> None:
        self._delivery = delivery
        self._rules = delivery.rules
        self._sources = sources
        self._describe = describe
        self._report = report
        self._opened = opened
        self._oldest = oldest
        self._whole = whole
        self._may_close = may_close
        self._won = True  # no other invocation has written the span since this one did
        self._objects: dict[ChunkKey, SetAside | None] = {}  # by planned chunk; None if S3 did not accept it
        self._outcomes: dict[ChunkKey, Outcome] = {}
        self._halved: set[ChunkKey] = set()  # because rows were refused
        self.span = span
        self.rows: Counter[State] = Counter()

    def upload(self, key: ChunkKey, database: str) -> Upload:
        """Return the upload of a chunk under the id that the ledger gives it."""
        return Upload(self._leaf(key), database, self.span.unique_id(key, database), self._oldest)

    def deliver(self, send: Send, deadline: Deadline, uploads: list[Upload] | None = None) -> None:
        """Send chunks (by default all that are pending) and write the results; after a split, send the halves.

        Raises:
            LedgerUnavailableError: the ledger cannot be reached. A later invocation repeats the work, which duplicates nothing.
        """
        uploads = self._pending_uploads() if uploads is None else uploads
        while True:
            for upload, outcome in zip(uploads, send(uploads, deadline) if uploads else (), strict=True):
                self._outcomes[upload.chunk.key] = outcome
            self._settle()
            split = [one for one in uploads if self._outcomes[one.chunk.key].event in _DIVISIBLE]
            uploads = [half for upload in split for half in self._halves(upload)]
            if not uploads:
                return

    def pending(self) -> list[str]:
        """Return the reasons why chunks are still pending, sorted, without duplicates."""
        return sorted(
            {
                outcome.reason
                for key, outcome in self._outcomes.items()
                if self.span.entry(key).state is State.PENDING
            }
        )

    def _leaf(self, key: ChunkKey) -> Chunk:
        """Return a chunk's rows."""
        source = next(self._sources[one] for one in key.lineage() if one in self._sources)
        return source.leaf(key)

    def _pending_uploads(self) -> list[Upload]:
        """Return uploads for the pending chunks; for those that must not be sent, note the outcome instead."""
        uploads, span, now = [], self.span, self._delivery.clock.now()
        for chunk in self._sources.values():
            for leaf in pending_leaves(chunk, span) if span.entries else (chunk,):
                entry, destination = span.entry(leaf.key), span.destination(leaf.key)
                upload, obstacle = None, ""
                if isinstance(destination, Database):
                    unique_id = span.unique_id(leaf.key, destination.name)
                    upload = Upload(leaf, destination.name, unique_id, self._oldest)
                else:
                    obstacle = destination.reason
                is_rejected = leaf.key.group.is_rejected
                step = self._rules.first_step(entry, obstacle, now, is_rejected=is_rejected)
                if step.event is not None:
                    self._outcomes[leaf.key] = Outcome(step.event, step.reason, definitely_not_delivered=True)
                elif upload is not None:
                    uploads.append(upload)
        return uploads

    def _halves(self, upload: Upload) -> list[Upload]:
        """Return uploads for the pending halves of a chunk; none unless this invocation has just split it."""
        key = upload.chunk.key
        if not self._won or self.span.entry(key).state is not State.SPLIT:
            return []
        if self._opened is not None:
            self._opened.update(key.halves)
        return [
            self.upload(half, upload.database)
            for half in key.halves
            if self.span.entry(half).state is State.PENDING
        ]

    def _settle(self) -> None:
        """Write the outcomes; if another invocation has written meanwhile, apply them to what it wrote, and try again."""
        while True:
            before = self.span
            if self._all_accepted(before) and self._may_close():
                # shortcut for the usual case: TRANSITIONS would lead to the same span, done and without entries
                changes: dict[ChunkKey, Entry] = {}
                rows = Counter({State.DELIVERED: sum([chunk.count for chunk in self._sources.values()])})
                settled = replace(before, done=True)
            else:
                changes = self._with_objects(self._changes())
                rows = Counter()
                for key, entry in changes.items():
                    rows[entry.state] += entry.rows * (entry.state is not before.entry(key).state)
                settled = self._closed(before.with_entries(changes))
                if settled == before:
                    return
            won, self.span = self._delivery.ledger.update(settled)
            if won:
                if Guard.OBJECT_FIRST in self._rules.without:
                    self._put_all()
                self.rows += rows
                for key, entry in changes.items():
                    if entry.state in ASIDE and entry.state is not before.entry(key).state:
                        self._report(key, entry)
                return
            self._won = False

    def _closed(self, span: Span) -> Span:
        """Return the span, marked done if no chunk of it is pending and it may be closed."""
        if span.done or not self._whole:
            return span
        leaves = (leaf for planned in self._sources for leaf in span.leaves(planned))
        if any(span.entry(leaf).state is State.PENDING for leaf in leaves) or not self._may_close():
            return span
        return span.with_entries({}, done=True)

    def _all_accepted(self, span: Span) -> bool:
        """Return whether Treasure Data accepted every chunk of a span, and no chunk has an entry."""
        if not self._whole or span.entries or span.done or len(self._outcomes) != len(self._sources):
            return False
        return {outcome.event for outcome in self._outcomes.values()} == {Event.ACCEPTED}

    def _changes(self) -> dict[ChunkKey, Entry]:
        """Return the entries that the outcomes change."""
        now = milliseconds(self._delivery.clock.now())
        changes: dict[ChunkKey, Entry] = {}
        outcomes = self._outcomes.items()
        # chunks to halve come last: whether halving is in vain depends on what else was accepted
        for key, outcome in sorted(outcomes, key=lambda one: one[1].event in _DIVISIBLE):
            if key.path and key not in self.span.entries:
                continue  # since joined with its other half
            current = self.span.entry(key)
            happening = Happening(outcome.event, now, outcome.reason, self._is_certain(key, outcome))
            if outcome.event in _DIVISIBLE:
                happening = self._divided(happening, key, self.span.with_entries(changes))
            entry = self._rules.follow(current, happening)
            if entry is not current:
                changes[key] = replace(entry, rows=self._leaf(key).count)
                if entry.state is State.SPLIT:
                    changes |= self._split(key, current)
        return changes

    def _divided(self, happening: Happening, key: ChunkKey, span: Span) -> Happening:
        """Return an event that halving may resolve, with the answer to whether the chunk can be halved."""
        is_row = self._leaf(key).count < 2
        divisible = not is_row and span.can_split(key)
        if happening.event is Event.TOO_LARGE:
            return replace(happening, reason=ROW_TOO_LARGE if is_row else TOO_LARGE, divisible=divisible)
        is_vain = all(span.entry(leaf).state is not State.DELIVERED for leaf in span.leaves(key.planned))
        halvings = sum(one.planned == key.planned for one in self._halved - {key})
        if divisible and halvings < (MOST_VAIN_HALVINGS if is_vain else MOST_HALVINGS):
            self._halved.add(key)
            return replace(happening, divisible=True)
        return happening

    def _split(self, key: ChunkKey, current: Entry) -> dict[ChunkKey, Entry]:
        """Return the entries of a chunk's halves."""
        half = self._rules.half(current)
        return {one: replace(half, rows=self._leaf(one).count) for one in key.halves}

    def _is_certain(self, key: ChunkKey, outcome: Outcome) -> bool:
        opened = self._opened is None or key in self._opened
        return outcome.definitely_not_delivered and opened and self._won

    def _with_objects(self, changes: dict[ChunkKey, Entry]) -> dict[ChunkKey, Entry]:
        """Write the objects of chunks that are about to be set aside; return the changes, in which chunks without an object stay pending.

        Rejected events are counted even without an object: S3 may not accept it, or none of the events was kept.
        """
        aside = [key for key, entry in changes.items() if entry.state in ASIDE and not entry.digest]
        rejected = [key for key, entry in changes.items() if entry.state is State.REJECTED]
        stored = aside + [key for key in rejected if self._sources[key].payload()]
        if not stored:
            return changes
        missing = [key for key in dict.fromkeys(one.planned for one in stored) if key not in self._objects]
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
            if (entry.state in ASIDE or entry.state is State.REJECTED)
            and not entry.digest
            and (chunk := self._objects.get(key.planned))
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
        except BucketUnavailableError:
            self._objects[planned] = None
