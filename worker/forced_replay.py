"""Forced replays: send rows again that Treasure Data has lost, although the ledger says that they were delivered.

For each span, the delivered rows that are wanted become a span of a chain of their own, named by the replay's tag. So the rows of one tag are
sent once, however often the replay is run, interrupted or resumed. A tag stands for what was wanted when it was first used.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import batched
from typing import Any, Self

from shared import json_codec, names
from shared.clock import Clock
from shared.errors import InvalidObjectError, InvalidReplayError
from worker.chain import ChainId
from worker.deadline import Deadline
from worker.executor import Executors, run_parallel
from worker.ledger import Ledger
from worker.rows import slice_of
from worker.span import ChunkKey, Group, Place, RowSender, Span
from worker.span_object import Chunk, SpanObjects, span_of_rows
from worker.states import FINAL, State

_TAG = re.compile(r"(?=.*[a-z0-9])[-a-z0-9_.:]{1,64}")
_AT_ONCE = 16  # spans


@dataclass(frozen=True, slots=True)
class Wanted:
    """The delivered rows to send again: those that match every attribute that is not None.

    They went to `database`, and their records arrived at `since` or later and before `until`, in UNIX milliseconds. `tag` names the replay.
    """

    tag: str
    account: str | None = None
    table: str | None = None
    database: str | None = None
    since: int | None = None
    until: int | None = None

    def __post_init__(self) -> None:
        """Refuse members that cannot be part of a chain's name."""
        if not _TAG.fullmatch(self.tag):
            raise InvalidReplayError(f"{self.tag!r} is not a tag: use 1 to 64 of a-z, 0-9, -, _, . and :")
        if self.account is not None and not names.is_account(self.account):
            raise InvalidReplayError(f"{self.account!r} is not an account")
        if self.table is not None and not names.is_table(self.table):
            raise InvalidReplayError(f"{self.table!r} is not a table")

    @classmethod
    def from_event(cls, asked: Mapping[str, Any]) -> Self:
        """Return what an event's `force` asks for; raise InvalidReplayError if a member is invalid."""
        members = ("account", "table", "database", "since", "until")
        return cls(asked["tag"], *(asked.get(name) for name in members))

    @property
    def range(self) -> str:
        """What the tag is bound to."""
        return json_codec.dump([self.account, self.table, self.database, self.since, self.until])

    def has(self, span: Span, key: ChunkKey) -> bool:
        """Return whether a chunk's rows may be wanted."""
        group = key.group
        return (
            not group.code
            and self.account in (None, key.account)
            and self.table in (None, group.table)
            and self.database in (None, span.database(key))
        )

    def has_arrival(self, arrival: int) -> bool:
        """Return whether a record that arrived then (UNIX milliseconds) is in the range."""
        return (self.since is None or arrival >= self.since) and (self.until is None or arrival < self.until)


ForcedRows = Counter[tuple[str, str]]
"""What a forced replay did with spans: numbers of rows, by an outcome and an account and table.

The outcome is `appended`: to be sent again; `repeated`: handled by an earlier run of the same tag; or `left_out`: not delivered when the tag
was first used, so not sent again, or no longer kept.
"""


@dataclass(eq=False)
class ForcedReplays:
    """Carries out forced replays."""

    _ledger: Ledger
    _objects: SpanObjects
    _executors: Executors
    _clock: Clock

    def run(self, wanted: Wanted, places: Iterable[Place], deadline: Deadline) -> tuple[ForcedRows, int]:
        """Append the wanted rows of spans once more; return the outcome, and how many of the spans had their turn.

        This raises InvalidReplayError if the tag stands for something else.
        """
        bound = self._ledger.bind_tag(wanted.tag, wanted.range)
        if bound != wanted.range:
            raise InvalidReplayError(
                f"the tag {wanted.tag} was used for another range: {bound}. Choose another tag."
            )
        outcome, done = ForcedRows(), 0
        for group in batched(places, _AT_ONCE, strict=False):
            if deadline.near:
                break
            jobs = [partial(self._append_of, wanted, place) for place in group]
            for one in run_parallel(self._executors, jobs):
                outcome += one
            done += len(group)
        return outcome, done

    def _append_of(self, wanted: Wanted, place: Place) -> ForcedRows:
        """Append the wanted rows of a span, as they are in the object that it has by then."""
        outcome, span = ForcedRows(), self._ledger.get(place)
        while span is not None and not span.is_forced:
            chunks, outcome, is_whole = self._chunks(wanted, span)
            current = span if is_whole else self._ledger.get(place)
            if current is None or current.object in (span.object, None):
                return self._append(wanted, span, chunks, outcome) if chunks else outcome
            span = current
        return outcome

    def _append(self, wanted: Wanted, span: Span, chunks: list[Chunk], outcome: ForcedRows) -> ForcedRows:
        """Append the wanted rows of a span, unless an earlier run did; return the outcome with them."""
        chain, now = ChainId.forced(wanted.tag, span.chain, span.after), self._clock.now()
        again, data = span_of_rows(chain, chunks, span.received_at, now, span.place.name)
        there = self._ledger.get(again.place)
        if there is None:
            self._objects.put(again, data)
            won, there = self._ledger.append(again)
            if won:
                return outcome + ForcedRows({("appended", _label(chunk.key)): chunk.rows for chunk in chunks})
        before = _rows_of(there)
        for chunk in chunks:
            # an earlier run appended what was delivered then; the tag sends nothing that was delivered since
            rows = min(chunk.rows, before[chunk.key.group])
            outcome["repeated", _label(chunk.key)] += rows
            outcome["left_out", _label(chunk.key)] += chunk.rows - rows
        return outcome

    def _chunks(self, wanted: Wanted, span: Span) -> tuple[list[Chunk], ForcedRows, bool]:
        """Return the wanted rows that were delivered, those of a table in one chunk; what is left out; and whether all chunks could be read."""
        chunks, outcome, is_whole = dict[ChunkKey, Chunk](), ForcedRows(), True
        for key, entry in span.all_leaves():
            is_delivered = entry.state is State.DELIVERED
            if not wanted.has(span, key) or (entry.state in FINAL and not is_delivered):
                continue
            try:
                payload, number = self._wanted_of(wanted, span, key) if is_delivered else (b"", 0)
            except InvalidObjectError:
                is_delivered, is_whole = False, False
            if not is_delivered:
                outcome["left_out", _label(key)] += span.rows(key)
            elif number:
                plain = ChunkKey(key.group._replace(sender=RowSender(key.account), request_id=""), 0)
                chunks.setdefault(plain, Chunk(plain)).add(payload, number)
        return list(chunks.values()), outcome, is_whole

    def _wanted_of(self, wanted: Wanted, span: Span, key: ChunkKey) -> tuple[bytes, int]:
        """Return the rows of a chunk whose records arrived in the range, and their number."""
        index = self._objects.index(span)
        member = index.members[key.planned]
        if not member.positions and not wanted.has_arrival(span.received_at):
            return b"", 0
        if all(map(wanted.has_arrival, map(index.arrivals.__getitem__, member.positions))):
            return self._objects.payload(span, key), span.rows(key)
        found, number = [], 0
        own = key.within(member.rows)
        whole = self._objects.payload(span, key.planned)
        for position, rows, part in member.parts():
            begin, end = max(own.start, rows.start), min(own.stop, rows.stop)
            if wanted.has_arrival(index.arrivals[position]) and begin < end:
                # a half may end within a record
                within = range(begin - rows.start, end - rows.start)
                found.append(slice_of(whole[part], within, len(rows)))
                number += end - begin
        return b"".join(found), number


def _rows_of(span: Span) -> Counter[Group]:
    """Return the rows of each table of a forced replay's span, in whatever chunks they are by now, without those of forgotten persons."""
    rows = Counter[Group]()
    for key, entry in span.all_leaves():
        rows[key.group] += span.rows(key) if entry.state is not State.FORGOTTEN else 0
    return rows


def _label(key: ChunkKey) -> str:
    return f"{key.account}/{key.group.label}"
