"""Searches the stream for envelopes.

A partition key's records can be in every shard with a hash key range that holds the key's MD5: one shard that is open today, and the
shards that it came from by splits and merges. If Kinesis distributes records itself (`AUTO`), they can be in any shard.
In each of these shards the search reads the window in which the envelope can have landed. Windows that overlap are read together. An
envelope is decided as soon as its own window has been read in all its shards.

The record itself proves that an envelope is there. An empty answer never proves that it is not:

- Each read begins at a record that was read before, the *anchor*, and counts only if its answer holds that record. An answer that is
  empty, or that starts later, is thus not mistaken for a shard on which nothing follows.
- A shard has been read to its tip only when two such answers, some time apart, show nothing behind the anchor.
- Arrival times are neither accurate nor in order. The search starts from a record that was stamped well before the window begins. It
  has passed the window only when two answers in a row hold only records that were stamped well after the window ends.
- A shard that shows no record at all has no anchor. It counts as empty only when the window has been over for an hour.

If the time is up, the search reports how far it has read each shard, and the next one continues there.
"""

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import msgpack

from shared import envelope
from shared.clock import Clock
from shared.errors import NoSuchRecordError, ShardUnreadableError
from worker.record import START, Number, number
from worker.shards import HASH_KEYS, Cursor, Page, Position, Shard, Shards, hash_key

INACCURACY_SECONDS = 300
"""By how much a record's arrival time may be wrong."""
READ_OUT: Number = "999"
"""Replaces the number up to which a shard was read, once its window has been read in full; sorts after every number."""
EMPTY_SHARD_SECONDS = 3600
"""How long after a window's end a shard that shows no record at all counts as empty."""
LOOKS = 2
"""How many answers must agree before the search concludes that nothing more is there."""
SECOND_LOOK_SECONDS = 1.0
"""How long after one look at a shard's tip another one counts."""
MOST_DOUBTED = 4
"""After this many answers in a row without the anchor, reading starts over."""

# How far before a window to look for a record to start from, step by step; then the shard's oldest record.
_LOOK_BACK_SECONDS = (30, 3600, 48 * 3600)
_LONG_AGO = float("-inf")

_SHARDS_AT_ONCE = 8  # read in turn, so that each pauses while the others are read
_HEADER_BYTES = 512  # usually enough for an envelope's account, key id, time and request id
_START = bytes((envelope.FIRST_BYTE, envelope.VERSION))


class Identity(NamedTuple):
    """Identifies an envelope, whichever attempt put it on the stream."""

    account: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Sought:
    """An envelope to look for.

    Attributes:
        partition_key: the key it was put with.
        since: UNIX seconds before which it cannot have landed.
        until: UNIX seconds after which it can no longer land; the search must not begin earlier.
        read: by shard, the sequence number up to which an earlier search has read its window without finding it.
    """

    identity: Identity
    partition_key: str
    since: float
    until: float
    read: Mapping[str, Number] = field(default_factory=dict)


class Finding(NamedTuple):
    """Whether an envelope is on the stream."""

    identity: Identity
    is_there: bool


class Search:
    """A search for envelopes until a deadline (UNIX seconds). Iterating over it reads the stream, and yields each finding once it is certain.

    It raises no errors of Kinesis; they leave envelopes undecided.

    Attributes:
        undecided: by envelope, how far its shards have been read without finding it.
    """

    def __init__(self, shards: Shards, clock: Clock, sought: Collection[Sought], deadline: float) -> None:
        self._source = shards
        self._clock = clock
        self._sought = sought
        self._deadline = deadline
        self._everywhere = False  # a record may be on any shard, whatever its key
        self._oldest = float("inf")  # records put before then have expired
        self._unread: dict[Identity, set[str]] = {}  # shards with an unread window, by envelope
        self.undecided = {one.identity: dict(one.read) for one in sought}
        self.shards = self.reads = self.records = 0

    def __iter__(self) -> Iterator[Finding]:
        """Yield findings until all envelopes are decided, or the time is up."""
        try:
            if self._sought:
                summary = self._source.summary()
                self._everywhere = summary.get("RecordDistributionStrategy") == "AUTO"
                self._oldest = self._clock.now() - summary["RetentionPeriodHours"] * 3600
                yield from self._search()
        except ShardUnreadableError:
            return

    def _search(self) -> Iterator[Finding]:
        everywhere = self._everywhere
        lanes = self._lanes()
        self.shards = len(lanes)
        for identity in [identity for identity, unread in self._unread.items() if not unread]:
            yield self._decide(identity, is_there=False)
        while lanes:
            lane = min(lanes[:_SHARDS_AT_ONCE], key=attrgetter("due"))
            now = self._clock.now()
            if max(now, lane.due) >= self._deadline:
                return
            if lane.due > now:
                self._clock.sleep(lane.due - now)
            yield from self._step(lane)
            if self._everywhere is not everywhere:
                yield from self._search()
                return
            if not lane.legs:
                lanes.remove(lane)

    def _lanes(self) -> "list[_Lane]":
        """Return the shards to read; those with the earliest end of a window come first."""
        shards = list(self._source.all())
        sought = [
            replace(one, read=self.undecided[one.identity])
            for one in self._sought
            if one.identity in self.undecided and one.since - INACCURACY_SECONDS > self._oldest
        ]
        self._unread = {}
        lanes = []
        keys = {one.identity: hash_key(one.partition_key) for one in sought}
        is_whole = sum(shard.keys.stop - shard.keys.start for shard in shards if shard.is_open) == HASH_KEYS
        for shard in shards:
            share = [one for one in sought if self._everywhere or keys[one.identity] in shard.keys]
            for one in share:
                if shard.is_open and (is_whole or not self._everywhere):
                    self._unread.setdefault(one.identity, set())
            share = [one for one in share if one.read.get(shard.shard_id) != READ_OUT]
            if share:
                lanes.append(_Lane(shard, share, self._source))
        for lane in lanes:
            for one in lane.sought:
                # without an open shard for its key, the list of shards is incomplete
                if one.identity in self._unread:
                    self._unread[one.identity].add(lane.shard.shard_id)
        return sorted(lanes, key=attrgetter("until"))

    def _step(self, lane: "_Lane") -> Iterator[Finding]:
        """Make one read."""
        leg = lane.legs.popleft()
        leg.sought = [one for one in leg.sought if one.identity in self.undecided]
        if not leg.sought:
            return
        try:
            page = leg.read()
        except ShardUnreadableError:
            return
        if page is None:
            lane.legs.append(leg)
            lane.due = leg.due
            return
        self.reads += 1
        self.records += len(page.records)
        wanted = {one.identity for one in leg.sought}
        for identity in wanted.intersection(identity_of(record["Data"]) for record in page.records):
            yield self._decide(identity, is_there=True)
        leg.sought = [one for one in leg.sought if one.identity in self.undecided]
        if not self._everywhere and leg.is_misplaced(page):
            self._everywhere = True
            return
        for one, read in leg.advance(page, self._clock.now()):
            yield from self._note(one.identity, lane.shard.shard_id, read)
        lane.due = leg.due
        if leg.sought and not leg.is_empty:
            lane.legs.append(leg)

    def _note(self, identity: Identity, shard: str, read: Number) -> Iterator[Finding]:
        """Note how far a shard has been read for an envelope."""
        self.undecided[identity][shard] = read
        if read == READ_OUT and identity in self._unread:
            self._unread[identity].discard(shard)
            if not self._unread[identity]:
                yield self._decide(identity, is_there=False)

    def _decide(self, identity: Identity, *, is_there: bool) -> Finding:
        del self.undecided[identity]
        return Finding(identity, is_there)


class _Lane:
    """One shard and the legs to read of it, which take turns, so that none waits until another has ended."""

    def __init__(self, shard: Shard, sought: list[Sought], shards: Shards) -> None:
        self.shard = shard
        self.sought = sought
        self.until = min(one.until for one in sought)
        self.due = 0.0
        self.legs = deque(
            _Leg(shard, shards.cursor(shard.shard_id, Position()), read, share)
            for read, share in _legs(shard.shard_id, sought)
        )


class _Leg:
    """A stretch of a shard, read from a record before the first of the windows sought in it.

    It first looks for such a record, further and further back, and then continues from anchor to anchor.

    Attributes:
        due: UNIX seconds before which the next read proves nothing.
        is_empty: no record was found on the shard.
    """

    def __init__(self, shard: Shard, cursor: Cursor, read: Number, sought: list[Sought]) -> None:
        self._cursor = cursor
        self.sought = sorted(sought, key=attrgetter("until"))
        self.due = 0.0
        self.is_empty = False
        self._shard = shard
        self._since = min(one.since for one in sought) - INACCURACY_SECONDS
        self._read = read  # everything up to this record has been read, and two answers held it
        self._begin()

    def _begin(self) -> None:
        """Begin at the record up to which the shard was read, or look for one before the window."""
        self._anchor = self._read
        self._back = list(_LOOK_BACK_SECONDS)
        self._earliest = _LONG_AGO, _LONG_AGO  # the earliest arrival times in the last two answers
        self._first: Number = START  # the first record of an answer that a second one must confirm
        self._looks = 0  # answers in a row that showed nothing more
        self._doubted = 0
        self._seek()

    def _seek(self) -> None:
        self._is_met = False  # an answer since the last seek held the anchor
        if self._anchor != START:
            self._cursor.seek(Position(at=self._anchor))
        elif self._back:
            self._cursor.seek(Position(moment=self._since - self._back[0]))
        else:
            self._cursor.seek(Position())

    def read(self) -> Page | None:
        """Make one read; return None if there is no answer yet.

        Raises:
            ShardUnreadableError: Kinesis refuses, or fails repeatedly.
        """
        try:
            page = self._cursor.read()
        except NoSuchRecordError:
            self._lose()
            page = None
        self.due = self._cursor.due
        return page

    def _lose(self) -> None:
        """Start over: the shard does not show the record that reading began at."""
        self._read = START if self._anchor == self._read else self._read
        self._begin()

    def is_misplaced(self, page: Page) -> bool:
        """Return whether the page has a record with a partition key that does not belong to this shard."""
        return any(
            hash_key(record["PartitionKey"]) not in self._shard.keys
            for record in page.records
            if "PartitionKey" in record
        )

    def advance(self, page: Page, now: float) -> list[tuple[Sought, Number]]:
        """Process a page; return how far the shard has been read now for each envelope."""
        numbers = sorted({number(record["SequenceNumber"]) for record in page.records})
        at_end = page.at_tip and (not page.ended or not self._shard.is_open)
        is_read_out = False
        if self._anchor == START:
            self._look_back(page, numbers, at_end=at_end)
        else:
            is_read_out = self._go_on(page, numbers, at_end=at_end)
        if self._looks and (self._anchor != START or not self._back):
            self.due = max(self.due, now + SECOND_LOOK_SECONDS)
        answer, rest = [], []
        for one in self.sought:
            is_over = now >= one.until + EMPTY_SHARD_SECONDS or page.ended
            if (
                is_read_out
                or (self.is_empty and is_over)
                or min(self._earliest) > one.until + INACCURACY_SECONDS
            ):
                answer.append((one, READ_OUT))
            else:
                rest.append(one)
        self.sought = rest
        return answer + [(one, self._read) for one in rest if self._read != START]

    def _look_back(self, page: Page, numbers: list[Number], *, at_end: bool) -> None:
        """Look for a record to start from, further and further back."""
        if numbers:
            earliest = min(
                record["ApproximateArrivalTimestamp"].timestamp()
                for record in page.records
                if number(record["SequenceNumber"]) == numbers[0]
            )
            if earliest <= self._since or (not self._back and self._first == numbers[0]):
                self._anchor, self._looks = numbers[0], 0
            elif self._back:
                self._back.pop(0)
                self._looks = 0
            else:
                self._first = numbers[0]
        elif at_end:
            self._looks += 1
            if self._looks >= LOOKS:
                self.is_empty = not self._back
                self._back[:1] = []
                self._looks = 0
        else:
            return  # the next page may have more
        self._seek()

    def _go_on(self, page: Page, numbers: list[Number], *, at_end: bool) -> bool:
        """Process the answer to a read that began at the anchor; return whether nothing more is behind it."""
        behind = [one for one in numbers if one > self._anchor]
        if self._anchor in numbers:
            self._is_met, self._doubted = True, 0
            self._read = self._anchor
        elif not numbers and not at_end:
            return False  # the next page may hold the anchor, or what is behind it
        elif not self._is_met or (behind and self._first != behind[0]):
            self._first = behind[0] if self._is_met else START
            self._doubt()
            return False
        if behind:
            stamps = [
                record["ApproximateArrivalTimestamp"].timestamp()
                for record in page.records
                if number(record["SequenceNumber"]) > self._anchor
            ]
            self._earliest = self._earliest[1], min(stamps)
            self._anchor, self._first, self._looks = behind[-1], START, 0
            self._seek()
        elif at_end:
            self._looks += 1
            self._seek()
        return self._looks >= LOOKS

    def _doubt(self) -> None:
        """Read from the anchor once more; start over if it can no longer be found."""
        self._doubted += 1
        if self._doubted < MOST_DOUBTED:
            self._seek()
        else:
            self._lose()


def _legs(shard: str, sought: list[Sought]) -> Iterator[tuple[Number, list[Sought]]]:
    """Yield the stretches of a shard to read: up to where each has been read, and the envelopes sought in it."""
    known = [one for one in sought if shard in one.read]
    for read, share in groupby(sorted(known, key=lambda one: one.read[shard]), lambda one: one.read[shard]):
        yield read, list(share)
    together: list[Sought] = []
    end = float("-inf")
    for one in sorted((one for one in sought if shard not in one.read), key=attrgetter("since")):
        if together and one.since - INACCURACY_SECONDS > end + INACCURACY_SECONDS:
            yield START, together
            together, end = [], float("-inf")
        together.append(one)
        end = max(end, one.until)
    if together:
        yield START, together


def identity_of(data: bytes) -> Identity | None:
    """Return the identity of the envelope in a record, decoding only its first bytes; None for other records."""
    if data[:2] != _START:
        return None
    for end in (_HEADER_BYTES, len(data)):
        unpacker = msgpack.Unpacker(max_buffer_size=0)
        unpacker.feed(data[:end])
        try:
            unpacker.read_array_header()
            unpacker.skip()
            account = unpacker.unpack()
            unpacker.skip()
            unpacker.skip()
            request_id = unpacker.unpack()
        except (ValueError, msgpack.UnpackException):
            continue
        if isinstance(account, str) and isinstance(request_id, str):
            return Identity(account, request_id)
    return None
