"""Finds out whether envelopes are on the stream.

A partition key's records can be in every shard whose hash key range holds the key's MD5: one shard that is open today,
and those that it came from by splits and merges. Each of them is read once for all envelopes that it may hold, from the
earliest to the latest time at which one of them can have landed.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgpack

from shared import envelope
from shared.clock import Clock
from shared.errors import ShardUnreadableError
from worker.shards import Cursor, Page, Position, Shards, hash_key

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
        until: UNIX seconds after which it can no longer land; the search is not to begin earlier.
    """

    identity: Identity
    partition_key: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Findings:
    """What a search found out; what it was asked for and is in neither set is not known.

    Attributes:
        found: on the stream.
        absent: not on the stream.
        shards: how many shards were read.
        reads: how many calls of GetRecords were made.
        records: how many records were looked at.
    """

    found: frozenset[Identity]
    absent: frozenset[Identity]
    shards: int = 0
    reads: int = 0
    records: int = 0


class Search:
    """Looks for envelopes on a stream.

    Args:
        shards: the stream.
        clock: tells when the time is up.
    """

    def __init__(self, shards: Shards, clock: Clock) -> None:
        self._shards = shards
        self._clock = clock

    def find(self, sought: Collection[Sought], deadline: float) -> Findings:
        """Look for envelopes until all are decided or `deadline` (UNIX seconds) has come.

        Errors of Kinesis are not raised: they leave envelopes undecided.
        """
        found: set[Identity] = set()
        try:
            scans = [
                _Scan(self._shards.cursor(shard, Position()), share, found)
                for shard, share in self._shards_of(sought)
            ]
        except ShardUnreadableError:
            return Findings(frozenset(), frozenset())
        # Those that end first go first: a search that has to be cut short has decided something.
        waiting = sorted(scans, key=lambda scan: scan.until, reverse=True)
        active: list[_Scan] = []
        while active or waiting:
            while waiting and len(active) < _SHARDS_AT_ONCE:
                active.append(waiting.pop())
            scan = min(active, key=lambda scan: scan.cursor.due)
            now, due = self._clock.now(), scan.cursor.due
            if max(now, due) >= deadline:
                break
            if due > now:
                self._clock.sleep(due - now)
            scan.step()
            if scan.ended:
                active.remove(scan)
        unread = {item.identity for scan in scans if not scan.complete for item in scan.sought}
        asked = {item.identity for scan in scans for item in scan.sought}
        return Findings(
            found=frozenset(found),
            absent=frozenset(asked - found - unread),
            shards=sum(scan.cursor.reads > 0 for scan in scans),
            reads=sum(scan.cursor.reads for scan in scans),
            records=sum(scan.records for scan in scans),
        )

    def _shards_of(self, sought: Collection[Sought]) -> Iterator[tuple[str, list[Sought]]]:
        """Yield each shard that may hold one of them, with those that it may hold."""
        hashed = [(hash_key(item.partition_key), item) for item in sought]
        for shard in list(self._shards.all()):
            share = [item for key, item in hashed if key in shard.keys]
            if share:
                yield shard.shard_id, share


class _Scan:
    """One shard, read through the times at which it can have taken what is sought in it."""

    def __init__(self, cursor: Cursor, sought: list[Sought], found: set[Identity]) -> None:
        self._found = found
        self._periods = _joined((item.since, item.until) for item in sought)
        self._wanted = {item.identity for item in sought}
        self.cursor = cursor
        self.sought = sought
        self.until = self._periods[0][1]
        self.records = 0
        self.complete = False
        self.ended = False
        cursor.seek(Position(moment=self._periods[0][0]))

    def step(self) -> None:
        """Make one read."""
        if self._wanted <= self._found:
            self.ended = self.complete = True
            return
        try:
            page = self.cursor.read()
        except ShardUnreadableError:
            self.ended = True
            return
        if page is not None:
            self._look_at(page)

    def _look_at(self, page: Page) -> None:
        self.records += len(page.records)
        identities = (identity_of(record["Data"]) for record in page.records)
        self._found.update(self._wanted.intersection(identities))
        if page.at_tip:
            self.ended = self.complete = True
            return
        if not page.records:
            return
        arrival = page.records[-1]["ApproximateArrivalTimestamp"].timestamp()
        if arrival <= self._periods[0][1]:
            return
        while self._periods and arrival > self._periods[0][1]:
            self._periods.pop(0)
        if not self._periods:
            self.ended = self.complete = True
        elif arrival < self._periods[0][0]:
            self.cursor.seek(Position(moment=self._periods[0][0]))


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


def _joined(periods: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the periods in order, those that overlap as one."""
    joined: list[tuple[float, float]] = []
    for since, until in sorted(periods):
        if joined and since <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(until, joined[-1][1]))
        else:
            joined.append((since, until))
    return joined
