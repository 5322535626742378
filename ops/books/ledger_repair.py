"""Compares a ledger that was restored from a backup with the bucket, and takes up what the ledger does not know.

Every span with rows has an object, which was stored before the span was appended. An object behind the end of its chain belongs to a span
that was appended after the backup, or whose worker was killed before the append. Either way it becomes a span again, in its place, unless another object denies
it: each shows what its writer saw in the ledger (`_Shown`). Of what is left for one place, the best counts (`_next`). Nobody knows what
became of its rows, nor of those that waited or were dead in the backup: all get a doubt, so the sender asks Treasure Data for them.
"""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from copy import replace
from dataclasses import KW_ONLY, dataclass, field
from heapq import merge
from itertools import chain as concatenated
from itertools import islice, takewhile
from operator import attrgetter

from ops.books.chunks import chunks
from ops.books.stored_spans import has_object
from shared.clock import Clock
from shared.errors import (
    BucketUnavailableError,
    IndexLostError,
    InvalidObjectError,
    LedgerUnavailableError,
    ObjectGoneError,
)
from worker.bucket import Bucket
from worker.chain import ChainId, Owner
from worker.claims import FROM_JSON
from worker.index import Index, Member, decode, digest_of
from worker.ledger import BEHIND_ALL, MOST_CLAIMS, WRITTEN_IN, Claiming, Ledger
from worker.membership import Membership
from worker.record import START, Number, sequence_number
from worker.record import number as as_number
from worker.restored import written_in
from worker.rows import decompress
from worker.selection import Selection
from worker.span import SECONDS_KEPT, ChunkKey, ObjectRef, Place, Span, digest_of_numbers, milliseconds
from worker.span_object import SpanObjects, Stored, hour_of, name_of
from worker.states import (
    DEFAULT_MEMORY_SECONDS,
    FINAL,
    LEDGER_RESTORED,
    LONGEST_INVOCATION_SECONDS,
    Entry,
    State,
)
from worker.sweeper import span_there

_EARLIER_SECONDS = 7200.0  # clocks differ, and an object's hour is the one in which its span was planned
_SKEW_SECONDS = 300.0  # before the last plan: the ages of a backup's items differ, clocks too, and an append comes after its plan
_MOST_UNREADABLE = 20
_GZIP = b"\x1f\x8b\x08"  # a member begins with it
_DOUBTFUL = (State.WAITING, State.AGAIN, State.DEAD)


def is_restored(ledger: Ledger, objects: SpanObjects) -> bool:
    """Return whether the ledger was restored or lost, and has not been compared with the bucket since; UnavailableError if nobody says."""
    return written_in(ledger, objects) not in ("", ledger.created())


@dataclass(frozen=True, slots=True)
class _Unknown:
    """An object that the ledger does not know, with its index."""

    stored: Stored
    ref: ObjectRef
    index: Index

    @property
    def after(self) -> Number:
        """Where its writer saw its chain end."""
        return self.index.plan.after


@dataclass(frozen=True, slots=True)
class _Shown:
    """What objects show of the spans beside their own: what their writers saw in the ledger.

    Attributes:
        ends: where a chain's spans end, in order: each object follows one, and each gap is named after one.
        gaps: records in each gap, or in a gap of it: the first and last of each object.
    """

    ends: defaultdict[ChainId, list[Number]] = field(default_factory=lambda: defaultdict(list))
    gaps: defaultdict[ChainId, set[Number]] = field(default_factory=lambda: defaultdict(set))

    def add_end(self, chain: ChainId, end: Number) -> None:
        """Note where a span ends."""
        ends = self.ends[chain]
        at = bisect_left(ends, end)
        if ends[at : at + 1] != [end]:
            ends.insert(at, end)

    def add_gaps(self, one: Stored | Span) -> None:
        """Note what the name of an object, or of a span, shows of the spans around it."""
        for depth, name in enumerate(one.chain.gaps):
            around = replace(one.chain, gaps=one.chain.gaps[:depth])
            self.add_end(around, name.rstrip("!"))
            self.gaps[replace(around, gaps=one.chain.gaps[: depth + 1])].update((one.first, one.last))

    def denies(self, one: _Unknown) -> bool:
        """Return whether an object was never appended: else a span would end within it, or it would not lie around or behind its own gaps."""
        chain, first, last = one.stored.chain, one.stored.first, one.stored.last
        ends, before, within = self.ends[chain], chain.before(one.after), chain.within(one.after)
        at = bisect_right(ends, one.after)
        return not (
            all(last <= end for end in ends[at : at + 1])
            and all(number < first for number in self.gaps.get(before, ()))
            and all(
                first < number < last and number not in one.index.positions
                for number in self.gaps.get(within, ())
            )
        )


@dataclass(frozen=True, slots=True)
class LedgerRepair:
    """Compares and repairs a ledger, to which nothing else may write meanwhile.

    Treasure Data remembers an id for `memory_seconds`; `tell` is called with each hour that is looked at.

    Attributes:
        unreadable: why objects that a repair needs could not be read, by name. As long as there are any, nothing is let go.
    """

    ledger: Ledger
    objects: SpanObjects
    bucket: Bucket
    _: KW_ONLY
    memory_seconds: float
    clock: Clock
    tell: Callable[[str], None] = lambda _: None
    unreadable: dict[str, str] = field(default_factory=dict, init=False)
    _shown: _Shown = field(default_factory=_Shown, init=False)

    def unknown(self) -> int:
        """Return how many objects the ledger does not know."""
        stored = (one for hour in self._hours() for one in self.objects.listed(hour))
        return sum(self._is_unknown(one, span_there(self.ledger, one)) for one in stored)

    def repair(self) -> Counter[str]:
        """Take up every unknown object, put everything that is not final in doubt, and let the functions go on.

        Once it has met an object that is unreadable, it takes up no more. It may be repeated: each step is taken once. The counts are of
        `spans` that were taken up, `rows` in doubt, `objects` that were rewritten since the backup, and objects left `aside`, because another
        one has their records.
        """
        counts: Counter[str] = Counter()
        shards: set[ChainId] = set()
        unknown: dict[Place, list[Stored]] = {}  # by the place that lacks a span
        for hour in self._hours():
            self.tell(hour)
            for stored in self.objects.listed(hour):
                chain, there = stored.chain, span_there(self.ledger, stored)
                if chain.is_of_stream and chain.root not in shards:
                    self.ledger.note_chain(chain.root)  # the backup may lack it
                    shards.add(chain.root)
                self._shown.add_gaps(stored)
                if self._is_unknown(stored, there):
                    unknown.setdefault(Place(chain, _last(there)), []).append(stored)
                else:
                    counts["objects"] += self._follow_rewrite(stored, there)
        # a span is missing although others follow: the items of a backup differ in age
        holes = {one: some for one, some in unknown.items() if one.after < _last(self.ledger.end(one.chain))}
        self._fill_holes(holes, counts)
        self._claim_again()
        turns = [
            self._take_up(place.chain, some, counts, self.ledger.end(place.chain))
            for place, some in unknown.items()
            if place not in holes
        ]
        # what was planned first comes first: so another run finds what this one leaves
        deque(merge(*turns), maxlen=0)
        if self.unreadable:
            return counts
        self._end_gaps()
        self._doubt(counts)
        self.ledger.note(WRITTEN_IN, self.ledger.created())
        return counts

    def _hours(self) -> list[str]:
        """Return the hours in which unknown objects may be: a span that was planned well before the last known one is in the backup."""
        latest = max((end.planned_at for end in self._ends()), default=0)
        since = hour_of(max(0.0, latest / 1000 - _EARLIER_SECONDS))
        return [hour for hour in self.objects.hours() if hour >= since]

    def _ends(self) -> Iterator[Span]:
        """Yield the last spans of the shards' chains."""
        return filter(None, map(self.ledger.end, self.ledger.chains()))

    def _all_ends(self) -> list[Span]:
        """Return the last spans of the shards' chains, and of gaps."""
        return [*self._ends(), *filter(None, map(self.ledger.end, self._shown.gaps))]

    def _claim_again(self) -> None:
        """Claim for the last spans of the backup: it may lack what was written together with them."""
        ends = self._all_ends()
        since = max((end.planned_at for end in ends), default=0) - _SKEW_SECONDS * 1000
        for end in ends:
            for span in takewhile(lambda one: one.planned_at >= since, self.ledger.latest(end.chain)):
                if span.object is not None and span.records:
                    try:
                        self._claim(_owners(self.objects.index(span), span.chain))
                    except (BucketUnavailableError, InvalidObjectError) as error:
                        name = name_of(span)
                        # if it is gone, its rows are long settled, or an operator goes on without them
                        if not isinstance(error, ObjectGoneError) or any(self.bucket.names(name)):
                            self.unreadable[name] = str(error)

    def _fill_holes(self, holes: Mapping[Place, list[Stored]], counts: Counter[str]) -> None:
        """Take up what is missing between spans of the backup, then fill in what has no object."""
        for place, some in holes.items():
            for span in self.ledger.latest(place.chain):
                self._shown.add_end(place.chain, span.after)
                if span.after <= place.after:
                    break
            end = self.ledger.preceding(place.chain, some[0].first)
            deque(self._take_up(place.chain, some, counts, end), maxlen=0)
        if self.unreadable:
            return
        for last in self._all_ends():
            later: Span | None = None
            for before in concatenated(self.ledger.latest(last.chain), (None,)):
                if later is not None and later.after != _last(before):
                    self._fill(last.chain, before, later.after, later.planned_at)
                if before is None or before.planned_at < last.planned_at - _EARLIER_SECONDS * 1000:
                    break
                later = before

    def _claim(self, owners: Mapping[str, Owner]) -> set[str]:
        """Have records own the claims of their envelopes as their spans are appended; return those that others own for good.

        Whoever else has one has lost it to them: of a span that was taken up, these rows are copies, since it must have been passed over.
        """
        left, kept = dict(owners), set[str]()
        while left:
            answered = self.ledger.claim(dict(islice(left.items(), MOST_CLAIMS)), SECONDS_KEPT)
            if not answered:
                raise LedgerUnavailableError("the ledger does not answer for claims")
            others = {one: claim for one, claim in answered.items() if claim.owner != left[one]}
            kept |= {one for one, claim in others.items() if claim.is_fixed}
            lost = {one: claim.owner for one, claim in others.items() if not claim.is_fixed}
            for one, owner in lost.items():
                self._lose(one, owner)
            if lost:
                taken = {one: Claiming(left[one], owner) for one, owner in lost.items()}
                self.ledger.take_over(taken, SECONDS_KEPT)
            left = {one: owner for one, owner in left.items() if one not in answered}
        return kept

    def _lose(self, request_id: str, owner: Owner) -> None:
        """Have the rows of a record that loses its claim not count."""
        with suppress(IndexLostError, ObjectGoneError):  # they are long settled
            span = Membership(self.ledger, self.objects).locate(*owner)
            if isinstance(span, Span) and span.object is not None:
                self.ledger.update(_without(span, self.objects.index(span), {request_id}))

    @staticmethod
    def _is_unknown(stored: Stored, there: Span | None) -> bool:
        """Return whether an object lies behind the span that is there. Chains that are not of the stream have one span at most."""
        return there is None or (stored.chain.is_of_stream and stored.first > there.last)

    def _take_up(
        self, chain: ChainId, unknown: Iterable[Stored], counts: Counter[str], end: Span | None
    ) -> Iterator[int]:
        """Take up the unknown objects behind a span in their order, whatever the hours of their names; before each, yield when it was planned."""
        coming = filter(None, map(self._read, sorted(unknown, key=attrgetter("first"))))
        left: list[_Unknown] = []
        owned = set[str]()  # claims of what is taken up
        known, reached = _last(end), START
        while True:
            # all that may follow the same span, and all that show which of them does not
            while reached <= _reach(left, _last(end)) and (more := next(coming, None)) is not None:
                self._shown.add_end(chain, more.after)
                if more.after < known:
                    owned |= self._show_known(Place(chain, more.after), known)
                reached = max(reached, more.after)
                left = self._fitting([*left, more], end, owned, counts)
            if left:
                one = _next(left, _last(end))
                yield one.index.plan.planned_at
            if not left or self.unreadable:
                deque(coming, maxlen=0)  # so that all that cannot be read are named
                return
            plan = one.index.plan
            if one.after > _last(end):
                end = self._fill(chain, end, one.after, plan.planned_at)
            if plan.origin and not chain.is_forced and not self._note_replaced(plan.origin, plan.received_at):
                counts["aside"] += 1
                return
            span = self._span(one, end)
            if chain.is_of_stream:
                owners = _owners(one.index, chain)
                span = _without(span, one.index, self._claim(owners))
                owned |= owners.keys()
            self.ledger.append(span)
            end = span
            counts["spans"] += 1
            if not chain.is_of_stream:
                return
            left.remove(one)
            left = self._fitting(left, end, owned, counts)

    def _show_known(self, place: Place, known: Number) -> set[str]:
        """Note where known spans behind a place end; one that an interrupted run took up only shows where its writer saw the chain end.

        Return the claims of those that such a run took up.
        """
        owned = set[str]()
        for span in self.ledger.latest(place.chain, known):
            if LEDGER_RESTORED not in {entry.reason for entry in span.entries.values()}:
                self._shown.add_end(place.chain, span.last)
            elif span.object is not None:
                try:
                    index = self.objects.index(span)
                    self._shown.add_end(place.chain, index.plan.after)
                    owned |= _owners(index, place.chain).keys()
                except ObjectGoneError:
                    self._shown.add_end(place.chain, span.last)
                except InvalidObjectError as error:
                    self.unreadable[name_of(span)] = str(error)
            if span.after <= place.after:
                break
        return owned

    def _fitting(
        self, left: list[_Unknown], end: Span | None, owned: set[str], counts: Counter[str]
    ) -> list[_Unknown]:
        """Return the objects that may follow a span, or one behind it; count the rest."""
        at = _last(end)
        fitting = [
            one
            for one in left
            # One that was planned behind an earlier end may still follow: perhaps what is between was passed over, not appended. But if it
            # took a claim over from that, only one of the two was.
            if (
                one.after >= at
                or (one.stored.first > at and owned.isdisjoint(_owners(one.index, one.stored.chain)))
            )
            and not self._shown.denies(one)
        ]
        counts["aside"] += len(left) - len(fitting)
        return fitting

    def _fill(self, chain: ChainId, end: Span | None, last: Number, planned_at: int) -> Span | None:
        """Continue a chain up to a record, because it has no holes, but spans of one or two records without rows have no object."""
        ends = self._shown.ends[chain]
        for one in (*ends[bisect_right(ends, _last(end)) : bisect_left(ends, last)], last):
            end = self._filler(chain, one, planned_at, end)
            self.ledger.append(end)
        return end

    def _filler(self, chain: ChainId, last: Number, planned_at: int, end: Span | None) -> Span:
        """Return a span without an object: of one record, or of two if there is a gap between its borders."""
        at, gaps = _last(end), self._shown.gaps
        has_gap = chain.within(at) in gaps
        first = _successor(max((at, *gaps.get(chain.before(at), ()))), chain) if has_gap else last
        return Span(
            chain=chain,
            after=at,
            first=first,
            last=last,
            planned_at=planned_at,
            records=len({first, last}),
            latest=0 if end is None else end.latest,
            received_at=planned_at,
            settled=True,
        )

    def _end_gaps(self) -> None:
        """Have a span follow each gap whose chain ends before it: without one, the records in the gap would seem to be in no span.

        The span that did had no object, like the one that ends the chain of a closed shard.
        """
        for end in self._ends():  # an earlier run, which was interrupted, may have taken up others
            for gap in (end.chain.before(end.last), end.chain.within(end.last)):
                if (span := self.ledger.end(gap)) is not None:
                    self._shown.add_gaps(span)
        for gap in sorted(self._shown.gaps, key=lambda one: len(one.gaps), reverse=True):
            chain, last = replace(gap, gaps=gap.gaps[:-1]), self.ledger.end(gap)
            before = self.ledger.end(chain)
            if last is not None and gap.gaps[-1].rstrip("!") >= _last(before):
                self._fill(chain, before, _successor(last.last, chain), last.planned_at)

    def _follow_rewrite(self, stored: Stored, span: Span | None) -> bool:
        """Have a known span refer to the object that the sweep or forgetting has written anew since the backup."""
        if span is None or span.object is None or stored.hour < span.object.hour:
            return False
        if name_of(span) == stored.name or (
            stored.hour == span.object.hour and has_object(self.bucket, span)
        ):
            return False
        found = self._read(stored)
        if found is None or found.index.plan.planned_at != span.planned_at:
            return False
        return self.ledger.update(self._rewritten(span, found))[0]

    def _rewritten(self, span: Span, found: _Unknown) -> Span:
        """Return a known span with the chunks that its new object has: other ones, if forgetting has cut some anew."""
        members = found.index.members
        # rejected events have objects of their own
        chunks = {key: rows for key, rows in span.chunks.items() if key.group.is_rejected}
        chunks |= {key: member.rows for key, member in members.items()}
        entries = {key: entry for key, entry in span.entries.items() if key.planned in chunks}
        databases = {key.group: entry.database for key, entry in span.all_leaves() if entry.database}
        open_groups = {key.group for key, entry in span.all_leaves() if entry.state in _DOUBTFUL}
        for key in chunks.keys() - span.chunks.keys():
            state = State.WAITING if key.group in open_groups else State.DELIVERED
            if not key.group.code:
                state = State.FORGOTTEN if _only_counts(members[key]) else state
                entries[key] = Entry(state, database=databases.get(key.group, ""))
        new = replace(span, object=found.ref, chunks=chunks, entries=entries)
        return new.with_entries(dict(self._doubts(new)) | self._settled(new, found.index), settled=True)

    def _settled(self, span: Span, index: Index) -> dict[ChunkKey, Entry]:
        """Return the entries of what has left a span's object, as only what is final does. Most rows that do were delivered."""
        gone = {
            key: member
            for key, entry in span.all_leaves()
            if entry.state in _DOUBTFUL and (member := index.members.get(key.planned)) and not member.length
        }
        final = {key: State.DROPPED if key.group.code else State.DELIVERED for key in gone}
        if index.numbers:
            final |= {key: State.FORGOTTEN for key, member in gone.items() if _only_counts(member)}
        return {key: Entry(state) for key, state in final.items()}

    def _note_replaced(self, origin: str, received_at: int) -> bool:
        """Note that new rows stand in place of a chunk; return False if they do not: it is known to have ended otherwise.

        It may be a half that the ledger does not know: then it splits what is known.
        """
        chain, after, name = origin.split("/", 2)
        span, key = self.ledger.get(Place.parse(chain, after)), ChunkKey.parse(name)
        if span is not None and span.received_at != received_at:
            # that was taken up in the place of the one that is meant
            behind = takewhile(lambda one: one.after > after, self.ledger.latest(span.chain))
            span = next((one for one in behind if one.received_at == received_at), None)
        leaves = set() if span is None or key.planned not in span.chunks else set(span.leaves(key.planned))
        known = next((one for one in key.lineage() if one in leaves), None)
        if span is not None and key in span.entries and span.entries[key].state is State.SPLIT:
            return False  # it was sent again, and halved, after who edited it was killed
        if span is None or known is None:
            return True
        entry, changes = span.entry(known), dict[ChunkKey, Entry]()
        if entry.state is State.REPLACED and known != key:
            return False  # other new rows stand in place of all of it
        if entry.state in FINAL - {State.REPLACED} and self._has_rows(span, known):
            return False  # who edited it was killed before the ledger knew
        for depth in range(len(known.path), len(key.path)):
            above = key._replace(path=key.path[:depth])
            changes |= {above: Entry(State.SPLIT), **dict.fromkeys(above.halves, entry)}
        changes[key] = Entry(State.REPLACED, at=milliseconds(self.clock.now()))
        self.ledger.update(span.with_entries(changes, settled=True))
        return True

    def _has_rows(self, span: Span, key: ChunkKey) -> bool:
        """Return whether a chunk has not left its object, so that this repair cannot be what has called it final."""
        try:
            member = self.objects.index(span).members.get(key.planned)
        except InvalidObjectError:
            return False
        return member is None or member.length > 0

    def _read(self, stored: Stored) -> _Unknown | None:
        """Read an object whose parts no item names: its index is the last gzip member, with the digest in its name. Note if that fails."""
        if len(self.unreadable) >= _MOST_UNREADABLE:
            return None
        try:
            data, why = self.bucket.get(stored.name) or b"", "it does not hold what was written"
        except BucketUnavailableError as error:
            data, why = b"", str(error)
        offset = data.rfind(_GZIP)
        while offset >= 0 and digest_of(data[offset:]).hex() != stored.digest:
            offset = data.rfind(_GZIP, 0, offset)
        if offset < 0:
            self.unreadable[stored.name] = why
            return None
        last = data[offset:]
        ref = ObjectRef(stored.hour, digest_of(last), offset, len(last))
        index = decode(decompress(last))
        return _Unknown(stored, ref, index)

    def _span(self, one: _Unknown, end: Span | None) -> Span:
        """Return the span of an unknown object, as it was planned."""
        index, stored = one.index, one.stored
        span = Span(
            chain=stored.chain,
            after=_last(end),
            first=stored.first,
            last=stored.last,
            planned_at=index.plan.planned_at,
            chunks={key: member.rows for key, member in index.members.items()},
            destinations=dict(index.plan.destinations),
            records=len(index.numbers),
            digest=digest_of_numbers(index.numbers),
            earliest=min(index.arrivals, default=0),
            latest=max((*index.arrivals, 0 if end is None else end.latest)),
            received_at=min(index.receipts, default=index.plan.received_at),
            object=one.ref,
            origin=index.plan.origin,
        )
        return span.with_entries(dict(self._doubts(span)) | self._settled(span, index), settled=True)

    def _doubt(self, counts: Counter[str]) -> None:
        """Put in doubt what waited or was dead in the backup, unless new rows have replaced it since."""
        listed = chunks(self.ledger, Selection((*_DOUBTFUL, State.REJECTED)))
        for place in dict.fromkeys(one.span.place for one in listed):
            span = self.ledger.get(place)
            if span is None:
                continue
            changes = dict(self._doubts(span))
            changes |= {
                key: Entry(State.REPLACED, at=milliseconds(self.clock.now()))
                for key, entry in span.all_leaves()
                if entry.state in (State.WAITING, State.DEAD, State.REJECTED)
                and (there := self.ledger.get(place.replacement_of(key))) is not None
                and there.received_at == span.received_at
            }
            if changes:
                self.ledger.update(span.with_entries(changes, settled=True))
            counts["rows"] += sum(
                span.rows(key) for key, entry in changes.items() if entry.state is not State.REPLACED
            )

    def _doubts(self, span: Span) -> Iterator[tuple[ChunkKey, Entry]]:
        """Yield the entries of chunks that Treasure Data may have, for all that a restored ledger knows.

        The doubt is dated so that nothing is sent under the old id any more, and that the query comes when the last invocation that may have
        sent them has ended long enough ago.
        """
        memory_seconds = max(self.memory_seconds, DEFAULT_MEMORY_SECONDS)  # as `Rules.askable_from`
        oldest = self.clock.now() - memory_seconds + LONGEST_INVOCATION_SECONDS
        doubt = milliseconds(oldest) - 1
        for key, entry in span.all_leaves():
            if entry.state in _DOUBTFUL and not key.group.code:
                reason = entry.reason if entry.state is State.DEAD else LEDGER_RESTORED
                yield key, replace(entry, since=doubt, reason=reason)


def _owners(index: Index, chain: ChainId) -> dict[str, Owner]:
    """Return the records of a span that own the claims of their envelopes, by request id."""
    return {
        request_id or f"{FROM_JSON}{number}": Owner(chain.root, number)
        for position, (number, request_id, claim) in enumerate(
            zip(index.numbers, index.request_ids, index.claims, strict=True)
        )
        if claim and position not in index.uncounted
    }


def _without(span: Span, index: Index, request_ids: Collection[str]) -> Span:
    """Return a span in which the rows of these envelopes do not count; chunks that have others, too, are split."""
    owners = _owners(index, span.chain) if request_ids else {}
    copies = {index.positions[owners[one].number] for one in request_ids if one in owners}
    changes = dict[ChunkKey, Entry]()
    for member in index.chunks if copies else ():
        gone = {row for position, rows, _ in member.parts() if position in copies for row in rows}
        keys = list(span.leaves(member.key))
        for key in keys:
            rows, entry = key.within(member.rows), changes.get(key, span.entry(key))
            if entry.state in FINAL or gone.isdisjoint(rows):
                continue
            if gone.issuperset(rows):
                changes[key] = Entry(State.COPY)
            else:
                changes |= {key: Entry(State.SPLIT), **dict.fromkeys(key.halves, entry)}
                keys += key.halves
    return span.with_entries(changes, settled=True)


def _only_counts(member: Member) -> bool:
    """Return whether a chunk of a span with records was never in an object: it counts the rows of forgotten persons."""
    return not member.length and not member.positions


def _following(left: list[_Unknown], at: Number) -> list[_Unknown]:
    """Return the objects that can follow a chain that ends at a record; or else, those that follow the next of its ends."""
    next_end = min((max(one.after, at) for one in left), default=at)
    return [one for one in left if one.after <= next_end]


def _reach(left: list[_Unknown], at: Number) -> Number:
    """Return up to where other objects may show which one to take up next."""
    return max((one.stored.last for one in _following(left, at)), default=BEHIND_ALL)


def _next(left: list[_Unknown], at: Number) -> _Unknown:
    """Return the object to take up next: of those that follow the same span, what ends before the best begins, or else the best itself."""
    found = _following(left, at)
    while True:
        best = max(found, key=_preference)
        found = [one for one in found if one.stored.last < best.stored.first]
        if not found:
            return best


def _preference(one: _Unknown) -> tuple[Number, int, int]:
    """Return what makes one of several objects better.

    The longest, then the fullest leaves no record out: if another one was appended, nobody has planned what only this one has. In a gap, the last
    to be planned: its writer looked for the end, while elsewhere an instance may remember an earlier one.
    """
    if one.stored.chain.gaps:
        return START, 0, one.index.plan.planned_at
    return one.stored.last, len(one.index.numbers), one.index.plan.planned_at


def _last(span: Span | None) -> Number:
    """Return where a chain ends that ends with a span, or has none."""
    return START if span is None else span.last


def _successor(number: Number, chain: ChainId) -> Number:
    """Return the next possible sequence number of a chain's shard."""
    return chain.lowest if number == START else as_number(str(int(sequence_number(number)) + 1))
