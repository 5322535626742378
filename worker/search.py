"""Finds out whether envelopes are on the stream.

A partition key's records can be in every shard whose hash key range holds the key's MD5: one shard that is open today,
and those that it came from by splits and merges. In each of them the search reads the window in which the envelope can
have landed. Windows that overlap are read together. Each envelope is decided as soon as its own window is read in all
its shards, whatever else is still to be read.

Three things that Kinesis does not promise are allowed for:

- Arrival times are neither accurate nor in order. A window is read from well before its begin, and is behind the reader
  only when a record is stamped well after its end.
- An empty answer says nothing about what comes behind it, and one that claims to be at the tip can be wrong. The search
  believes it only when a second look, by another iterator, says the same.
- Time runs out. The search says how far it has read each shard, and the next one continues there.
"""

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import msgpack

from shared import envelope
from shared.clock import Clock
from shared.errors import ShardUnreadableError
from worker.record import START, Number, number
from worker.shards import Cursor, Page, Position, Shards, hash_key

INACCURACY_SECONDS = 300
"""By how much a record's arrival time may be wrong."""
READ_OUT: Number = "999"
"""Stands for the end of a shard's window, in place of the number up to which it was read; sorts after every number."""

_SHARDS_AT_ONCE = 8  # read in turn, so that each has its pause while others are read
_HEADER_BYTES = 512  # as a rule more than an envelope's account, key id, time and request id take
_START = bytes((envelope.FIRST_BYTE, envelope.VERSION))


class Identity(NamedTuple):
    """What names an envelope, whichever attempt put it on the stream."""

    account: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Sought:
    """An envelope to look for.

    Attributes:
        identity: what names it.
        partition_key: with which it was put.
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
    """Where an envelope is: on the stream, or not."""

    identity: Identity
    is_there: bool


class Search:
    """Looks for envelopes on a stream.

    Args:
        shards: the stream.
        clock: tells when the time is up.
    """

    def __init__(self, shards: Shards, clock: Clock) -> None:
        self._shards = shards
        self._clock = clock

    def find(self, sought: Collection[Sought], deadline: float) -> "SearchRun":
        """Return the search for some envelopes, which reads nothing until its findings are taken.

        Args:
            sought: the envelopes.
            deadline: UNIX seconds after which nothing more is read.
        """
        return SearchRun(self._shards, self._clock, sought, deadline)


class SearchRun:
    """One search. Iterating over it reads the stream and yields each finding as soon as it is certain.

    Errors of Kinesis are not raised: they leave envelopes undecided.

    Attributes:
        undecided: by envelope, how far its shards have been read without finding it.
        shards: how many shards are read.
        reads: how many calls of GetRecords were answered.
        records: how many records were looked at.
    """

    def __init__(self, shards: Shards, clock: Clock, sought: Collection[Sought], deadline: float) -> None:
        self._source = shards
        self._clock = clock
        self._sought = sought
        self._deadline = deadline
        self._unread: dict[Identity, set[str]] = {}  # the shards in which its window has not been read
        self.undecided = {one.identity: dict(one.read) for one in sought}
        self.shards = self.reads = self.records = 0

    def __iter__(self) -> Iterator[Finding]:
        """Yield findings until all envelopes are decided, or the time is up."""
        try:
            lanes = self._lanes()
        except ShardUnreadableError:
            return
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
            if not lane.legs:
                lanes.remove(lane)

    def _lanes(self) -> "list[_Lane]":
        """Return the shards to read; those that are done first come first."""
        lanes = []
        keys = {one.identity: hash_key(one.partition_key) for one in self._sought}
        for shard in list(self._source.all()):
            share = [one for one in self._sought if keys[one.identity] in shard.keys]
            for one in share:
                if shard.is_open:
                    self._unread.setdefault(one.identity, set())
            share = [one for one in share if one.read.get(shard.shard_id) != READ_OUT]
            if share:
                lanes.append(_Lane(shard.shard_id, share, self._source))
        for lane in lanes:
            for one in lane.sought:
                if one.identity in self._unread:  # else no open shard takes its key: the list is not complete
                    self._unread[one.identity].add(lane.shard)
        return sorted(lanes, key=attrgetter("until"))

    def _step(self, lane: "_Lane") -> Iterator[Finding]:
        """Make one read."""
        leg = lane.legs.popleft()
        leg.sought = [one for one in leg.sought if one.identity in self.undecided]
        if not leg.sought:
            return
        try:
            page = leg.cursor.read()
        except ShardUnreadableError:
            return
        lane.legs.append(leg)
        lane.due = leg.cursor.due
        if page is None:
            return
        self.reads += 1
        self.records += len(page.records)
        wanted = {one.identity for one in leg.sought}
        for identity in wanted.intersection(identity_of(record["Data"]) for record in page.records):
            yield self._decide(identity, is_there=True)
        leg.sought = [one for one in leg.sought if one.identity in self.undecided]
        for one, read in leg.advance(page):
            self.undecided[one.identity][lane.shard] = read
            if read == READ_OUT and one.identity in self._unread:
                self._unread[one.identity].discard(lane.shard)
                if not self._unread[one.identity]:
                    yield self._decide(one.identity, is_there=False)
        if not leg.sought:
            lane.legs.remove(leg)

    def _decide(self, identity: Identity, *, is_there: bool) -> Finding:
        del self.undecided[identity]
        return Finding(identity, is_there)


class _Lane:
    """One shard and what is to be read of it: its legs take turns, so that none waits for another's end."""

    def __init__(self, shard: str, sought: list[Sought], shards: Shards) -> None:
        self.shard = shard
        self.sought = sought
        self.until = min(one.until for one in sought)
        self.due = 0.0
        self.legs = deque(
            _Leg(shards.cursor(shard, start), start, share) for start, share in _legs(shard, sought)
        )


class _Leg:
    """A stretch of a shard, read from where the first of the envelopes sought in it can be."""

    def __init__(self, cursor: Cursor, start: Position, sought: list[Sought]) -> None:
        self.cursor = cursor
        self.sought = sorted(sought, key=attrgetter("until"))
        self._start = start
        self._read = start.after
        self._latest = float("-inf")
        self._was_at_tip = False

    def advance(self, page: Page) -> list[tuple[Sought, Number]]:
        """Go past a page; return how far the shard has now been read for each envelope."""
        if page.records:
            self._read = number(page.records[-1]["SequenceNumber"])
            self._latest = max(
                self._latest, *(record["ApproximateArrivalTimestamp"].timestamp() for record in page.records)
            )
        is_read_out = page.at_tip and self._was_at_tip
        self._was_at_tip = page.at_tip
        if page.at_tip:
            self.cursor.seek(self._start if self._read == START else Position(after=self._read))
        answer, rest = [], []
        for one in self.sought:
            if is_read_out or self._latest > one.until + INACCURACY_SECONDS:
                answer.append((one, READ_OUT))
            else:
                rest.append(one)
        self.sought = rest
        return answer + [(one, self._read) for one in rest if self._read != START]


def _legs(shard: str, sought: list[Sought]) -> Iterator[tuple[Position, list[Sought]]]:
    """Yield where to begin reading a shard, and for which envelopes."""
    known = [one for one in sought if shard in one.read]
    for read, share in groupby(sorted(known, key=lambda one: one.read[shard]), lambda one: one.read[shard]):
        yield Position(after=read), list(share)
    together: list[Sought] = []
    end = float("-inf")
    for one in sorted((one for one in sought if shard not in one.read), key=attrgetter("since")):
        if together and one.since - INACCURACY_SECONDS > end + INACCURACY_SECONDS:
            yield Position(moment=together[0].since - INACCURACY_SECONDS), together
            together, end = [], float("-inf")
        together.append(one)
        end = max(end, one.until)
    if together:
        yield Position(moment=together[0].since - INACCURACY_SECONDS), together


def identity_of(data: bytes) -> Identity | None:
    """Return what names the envelope that a record holds, from its first bytes alone; None for other records."""
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
