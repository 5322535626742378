"""Forgets persons in span objects: cuts chunks anew without their rows.

An object never changes. The rows of a chunk that are to stay become a chunk of another name, and so are sent under another id, in a new
object that has the whole index of records; one more name counts the rows that were forgotten. One write, on the version that was read,
gives the item the new chunks and the new object; then the old object is deleted with its versions. What Treasure Data may have, or what was
put again and is not decided, is left as it is until that is known. docs/internals/forgetting.md has the protocol.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import replace
from dataclasses import dataclass, field
from itertools import chain, count, groupby
from typing import NamedTuple

from shared.clock import Clock
from shared.errors import (
    BucketUnavailableError,
    InvalidObjectError,
    ObjectGoneError,
    UnavailableError,
    WrongCountError,
)
from shared.telemetry import Telemetry
from worker.bucket import Bucket
from worker.forget.person import Found, Matcher, Persons, Piece
from worker.forget.requests import FRESH_SECONDS, UNREAD, ForgetRequests
from worker.index import EMPTY, Index, Member
from worker.ledger import Ledger
from worker.rows import decompress
from worker.span import ChunkKey, Group, Span, milliseconds
from worker.span_object import Chunk, SpanObjects, encode, name_of
from worker.states import Entry, Event, Happening, Rules, State

_TRIES = 5
_HAVE_ROWS = frozenset((State.WAITING, State.DEAD, State.DELIVERED))
_NEED_NO_ROWS = frozenset((State.DROPPED, State.COPY))


def has_person(persons: Persons, span: Span, key: ChunkKey, body: bytes) -> bool:
    """Return whether rows of a chunk, given its import body, are of a person to forget.

    Raises:
        InvalidObjectError: some are, but it has another number of rows than planned.
    """
    matcher = persons.of(key.account, span.received_at)
    return matcher is not None and bool(_pieces(matcher, span, key, body))


def _pieces(matcher: Matcher, span: Span, key: ChunkKey, body: bytes) -> list[Piece]:
    found = matcher.pieces(decompress(body), key.group)
    if found and sum(piece.rows for piece in found) != span.rows(key):
        raise WrongCountError(f"{key.name} has another number of rows than planned")
    return found


def others(persons: Persons, span: Span, key: ChunkKey, payload: bytes) -> bytes:
    """Return the rows of a chunk by which Treasure Data is asked whether it has it: none if all are of its own account's persons.

    A statement may have deleted persons' rows. Those of another account's persons are left out, too, because accounts may share a database;
    but not if none would be left.
    """
    left, own = payload, persons.of(key.account, span.received_at)
    with suppress(InvalidObjectError):
        if own is not None:
            left = _without(own, left, key.group)
        for matcher in persons.matchers.values():
            left = _without(matcher, left, key.group) or left
    return left


def _without(matcher: Matcher, payload: bytes, group: Group) -> bytes:
    """Return the rows that are not of a matcher's persons."""
    pieces = matcher.pieces(payload, group)
    return b"".join(piece.data for piece in pieces) if pieces else payload


class Delivered(NamedTuple):
    """A row of a person that was delivered.

    Attributes:
        database: that it went to.
        table: that it went to.
        row: the row.
        chunk: its span and its chunk.
        since: UNIX seconds at which it was delivered, or later; None if the ledger does not say.
    """

    database: str
    table: str
    row: Found
    chunk: str
    since: int | None


@dataclass(slots=True)
class PersonRows:
    """What a look into a span found of persons.

    Attributes:
        span: as it is in the ledger now.
        rows: their rows, by state.
        gone: those of them that are forgotten now, by request and state.
        left: rows that could not be forgotten now, by request; chunks with a wrong count under UNREAD.
        delivered: their rows that Treasure Data has.
    """

    span: Span
    rows: Counter[State] = field(default_factory=Counter)
    gone: Counter[tuple[str, State]] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    delivered: list[Delivered] = field(default_factory=list)


@dataclass(slots=True)
class _Plan:
    """How to cut a span anew.

    Attributes:
        removed: chunks that the item and the object lose: others have all of their rows.
        entries: of new chunks, and of halves that gave up their rows to them.
        added: new chunks with rows.
        counted: new chunks without.
        refused: names of delivered chunks that must stay as they are.
        forgotten: how many rows each group loses.
        numbers: free numbers, by group.
    """

    found: PersonRows
    removed: set[ChunkKey] = field(default_factory=set)
    entries: dict[ChunkKey, Entry] = field(default_factory=dict)
    added: list[Chunk] = field(default_factory=list)
    counted: dict[ChunkKey, int] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    forgotten: Counter[Group] = field(default_factory=Counter)
    numbers: dict[Group, Iterator[int]] = field(default_factory=dict)

    def new_key(self, group: Group) -> ChunkKey:
        """Return a name that no chunk of the span has ever had: the group's count of forgotten rows keeps the highest."""
        if group not in self.numbers:
            used = [key.part for key in self.found.span.chunks if key.group == group]
            self.numbers[group] = count(1 + max(used))
        return ChunkKey(group, next(self.numbers[group]))


class _Owned(NamedTuple):
    """A piece, and the position of its record, if it has one."""

    owner: int | None
    piece: Piece


_Placed = dict[ChunkKey, list[_Owned]]
"""The pieces of a planned chunk, by the chunks that it consists of now."""


@dataclass(eq=False)
class Forgetting:
    """Forgets persons in spans."""

    _ledger: Ledger
    _objects: SpanObjects
    _bucket: Bucket
    _requests: ForgetRequests
    _rules: Rules
    _clock: Clock
    _telemetry: Telemetry

    def persons(self, max_age: float = FRESH_SECONDS) -> Persons | None:
        """Return the persons to forget, as they were so many seconds ago at most; None if nobody knows them now."""
        try:
            return self._requests.persons(max_age)
        except UnavailableError as error:
            self._telemetry.warning("nobody knows who is to be forgotten", reason=str(error))
            return None

    def forget_unsent(self, span: Span, persons: Persons) -> None:
        """Forget persons in what was not delivered and has no doubt. A span that nobody has settled is settled.

        Raises:
            UnavailableError: that cannot be done now.
        """
        try:
            self.forget(span.with_entries({}, settled=True), persons, lambda _: False)
        except InvalidObjectError as error:
            raise UnavailableError(f"its object cannot be searched for persons: {error}") from error

    def look(self, span: Span, persons: Persons) -> PersonRows:
        """Return what a span has of persons, and change nothing.

        Raises:
            InvalidObjectError: its object holds something else than was written.
            BucketUnavailableError: S3 does not answer.
        """
        placed, left, *_ = self._find(span, persons)
        return _counted(span, placed, left)

    def forget(self, span: Span, persons: Persons, may: Callable[[Delivered], bool]) -> PersonRows:
        """Forget persons in a span.

        Args:
            span: if somebody has written it meanwhile, it is read again.
            persons: to forget.
            may: returns whether a row that was delivered may be forgotten now.

        Raises:
            InvalidObjectError: its object holds something else than was written.
            UnavailableError: S3 or the ledger does not answer, or others write the span all the time.
        """
        for _ in range(_TRIES):
            try:
                found = self._find(span, persons)
            except ObjectGoneError:
                current = self._ledger.get(span.place)
                if current is None or current.object == span.object:
                    raise
                span = current
                continue
            placed, left, index, bodies = found
            plan = _Plan(_counted(span, placed, left))
            plan.refused = {row.chunk for row in plan.found.delivered if not may(row)}
            for key, of_chunk in placed.items():
                self._cut(span, key, of_chunk, plan)
            if not plan.numbers:
                return plan.found
            self._count_forgotten(span, plan)
            won, current = self._write(span, plan, index, bodies)
            if won:
                self._erase(span, plan.found)
                plan.found.span = current
                return plan.found
            span = current
        raise UnavailableError(f"{span.place.name} is written by others all the time")

    def _find(
        self, span: Span, persons: Persons
    ) -> tuple[dict[ChunkKey, _Placed], Counter[str], Index, Mapping[ChunkKey, bytes]]:
        """Return the chunks with rows of persons, in pieces, how many others have such rows and a wrong count, and the span's index and bodies."""
        matchers = {
            key: matcher
            for key in span.chunks
            if not key.group.is_rejected
            and (matcher := persons.of(key.account, span.received_at)) is not None
        }
        placed, left = dict[ChunkKey, _Placed](), Counter[str]()
        if span.object is None or not matchers:
            return placed, left, EMPTY, {}
        index, bodies = self._objects.whole(span)
        for key in matchers.keys() & bodies.keys():
            try:
                if found := _pieces(matchers[key], span, key, bodies[key]):
                    placed[key] = _placed(span, key, found, index.members[key])
            except InvalidObjectError:
                left[UNREAD] += 1
        return placed, left, index, bodies

    def _cut(self, span: Span, planned: ChunkKey, placed: _Placed, plan: _Plan) -> None:
        """Plan new chunks for the rows of a planned chunk that stay."""
        stuck = {leaf for leaf in placed if not _may_cut(span, leaf, plan.refused)}
        if not stuck:
            plan.removed.add(planned)
            plan.new_key(planned.group)  # so that its forgotten rows are counted, even if there are none
        for leaf, taken in placed.items():
            entry, lost = span.entry(leaf), [row.request for row in _forgotten(taken)]
            if stuck:
                plan.found.left.update(lost)
            if leaf in stuck or (stuck and not lost):
                continue
            if entry.state in _HAVE_ROWS:
                self._give_up(span, leaf, entry, taken, plan, keeps_name=bool(stuck))
            elif entry.state in _NEED_NO_ROWS and not stuck:
                key = plan.new_key(planned.group)
                plan.counted[key], plan.entries[key] = span.rows(leaf), entry
            else:
                continue
            plan.found.gone.update((request, entry.state) for request in lost)

    def _give_up(
        self,
        span: Span,
        leaf: ChunkKey,
        entry: Entry,
        taken: Sequence[_Owned],
        plan: _Plan,
        *,
        keeps_name: bool,
    ) -> None:
        """Plan a new chunk for the rows of a chunk that stay."""
        group, rows = leaf.group, span.rows(leaf)
        lost = len(list(_forgotten(taken)))
        plan.forgotten[group] += lost
        key = plan.new_key(group)
        if lost < rows:
            plan.added.append(_chunk(key, taken))
            plan.entries[key] = entry
        if keeps_name:
            happening = Happening(Event.CUT_ANEW, milliseconds(self._clock.now()))
            plan.entries[leaf] = self._rules.follow(entry, happening)

    def _count_forgotten(self, span: Span, plan: _Plan) -> None:
        """Plan, for each group that is cut, the name that counts all of its forgotten rows."""
        for group in plan.numbers:
            before = [
                key for key in span.chunks if key.group == group and span.entry(key).state is State.FORGOTTEN
            ]
            plan.removed.update(before)
            key = plan.new_key(group)
            plan.counted[key] = sum(map(span.rows, before)) + plan.forgotten[group]
            plan.entries[key] = Entry(State.FORGOTTEN, at=milliseconds(self._clock.now()))

    def _write(
        self, span: Span, plan: _Plan, index: Index, bodies: Mapping[ChunkKey, bytes]
    ) -> tuple[bool, Span]:
        """Store the new object, then write the item.

        If somebody else has written the item, the new object is left to the sweep: another search may have put the same object.
        """
        added, now = plan.added, self._clock.now()
        encoded = encode(added, index, now, bodies=bodies, removed=plan.removed, counted=plan.counted)
        chunks = {key: rows for key, rows in span.chunks.items() if key not in plan.removed}
        chunks |= {chunk.key: chunk.rows for chunk in added} | plan.counted
        entries = {key: entry for key, entry in span.entries.items() if key.planned not in plan.removed}
        new = replace(span, chunks=chunks, entries=entries, object=encoded.ref).with_entries(plan.entries)
        self._objects.put(new, encoded.data)
        return self._ledger.update(new)

    def _erase(self, span: Span, found: PersonRows) -> None:
        """Delete the object that a span had; or note that a later search must delete it."""
        try:
            self._bucket.erase(name_of(span))
        except BucketUnavailableError:
            found.left[UNREAD] += 1


def _may_cut(span: Span, leaf: ChunkKey, refused: Collection[str]) -> bool:
    entry = span.entry(leaf)
    if entry.state is State.DELIVERED:
        return _name(span, leaf) not in refused
    return span.settled and entry.state is not State.AGAIN and entry.since is None


def _name(span: Span, leaf: ChunkKey) -> str:
    return f"{span.place.name}/{leaf.name}"


def _counted(span: Span, placed: Mapping[ChunkKey, _Placed], left: Counter[str]) -> PersonRows:
    """Return what a span has of persons, given its chunks in pieces, and what must be left."""
    cut = PersonRows(span, left=left)
    for leaf, taken in chain.from_iterable(map(dict.items, placed.values())):
        state, lost = span.entry(leaf).state, list(_forgotten(taken))
        cut.rows += Counter({state: len(lost)})
        if state is State.DELIVERED:
            to, about = (span.database(leaf), leaf.group.table), (_name(span, leaf), span.final_at)
            cut.delivered += [Delivered(*to, one, *about) for one in lost]
    return cut


def _placed(span: Span, planned: ChunkKey, pieces: Iterable[Piece], member: Member) -> _Placed:
    owners = [one for one, rows in zip(member.positions, member.row_counts, strict=True) for _ in range(rows)]
    leaves = {leaf: leaf.within(span.chunks[planned]) for leaf in span.leaves(planned)}
    placed: _Placed = {leaf: [] for leaf in leaves}
    row = 0
    for piece in pieces:
        leaf = next(leaf for leaf, own in leaves.items() if row in own)
        placed[leaf].append(_Owned(owners[row] if owners else None, piece))
        row += piece.rows
    return placed


def _forgotten(taken: Iterable[_Owned]) -> Iterator[Found]:
    return chain.from_iterable(one.piece.forgotten for one in taken)


def _chunk(key: ChunkKey, taken: Sequence[_Owned]) -> Chunk:
    """Return a new chunk of pieces, without what is forgotten."""
    blocks, positions, counts = [], [], []
    for owner, of_record in groupby(taken, key=lambda one: one.owner):
        parts = [one.piece for one in of_record]
        number = sum(part.rows - len(part.forgotten) for part in parts)
        if number:
            blocks.append(b"".join(part.data for part in parts))
            counts.append(number)
            positions.append(owner)
    return Chunk(key, blocks, counts, [one for one in positions if one is not None])
