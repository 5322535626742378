"""Reads a shard from a record to its tip, in a way that also proves which records are not there.

The rules are those of `worker.search`: reading begins at a record that was read before, the *anchor*, and an answer counts only
if it holds the anchor, or is confirmed by another one. A shard that shows no record at all has no anchor. That proves nothing
except that it shows none now.
"""

from collections.abc import Iterator

from shared.clock import Clock
from shared.errors import NoSuchRecordError, UnprovenError
from worker.record import START, Number, Record, from_stream
from worker.search import LOOKS, MOST_DOUBTED, SECOND_LOOK_SECONDS
from worker.shards import Page, Position, Shard, Shards


class ShardReader:
    """Reads the records of a shard behind `after`; START for all of them.

    Attributes:
        anchor: the last record that was read; `after` while none was.
        is_empty: the shard shows no record at all.
        looked_at: UNIX seconds at which its tip was last seen.
    """

    def __init__(self, shards: Shards, shard: Shard, after: Number, clock: Clock) -> None:
        self._cursor = shards.cursor(shard.shard_id, Position())
        self._clock = clock
        self._after = after
        self.shard = shard
        self.anchor = after
        self.is_empty = False
        self.looked_at = 0.0

    def read(self, until: float) -> Iterator[Record]:
        """Yield the records from where the last call ended up to the tip. A record may come twice.

        Args:
            until: UNIX seconds by which the tip must be reached.

        Raises:
            UnprovenError: the time is up, or the answers do not prove what the shard holds.
            ShardUnreadableError: Kinesis refuses, or fails repeatedly.
        """
        if self.anchor != START:
            try:
                yield from self._go_on(until)
            except NoSuchRecordError:
                self._lose()
        if self.anchor == START:
            if (first := self._find_first(until)) is None:
                return
            yield first
            self.anchor = first.number
            yield from self._go_on(until)

    def _find_first(self, until: float) -> Record | None:
        """Return the shard's oldest record once two answers begin with it; None if two show none."""
        self.is_empty, looks, first = False, 0, START
        self._cursor.seek(Position())
        while True:
            page = self._page(until)
            records = self._records(page)
            if records and records[0].number == first:
                return records[0]
            if records:
                first = records[0].number
            elif self._is_tip(page):
                looks += 1
                if looks >= LOOKS:
                    self.is_empty, self.looked_at = True, self._clock.now()
                    return None
                self._clock.sleep(SECOND_LOOK_SECONDS)
            else:
                continue  # the next page may have some
            self._cursor.seek(Position())

    def _go_on(self, until: float) -> Iterator[Record]:
        """Yield the records behind the anchor."""
        doubted, met, first = 0, False, START
        self._cursor.seek(Position(at=self.anchor))
        while True:
            page = self._page(until)
            records = self._records(page)
            behind = [one for one in records if one.number > self.anchor]
            is_met = any(one.number == self.anchor for one in records)
            if is_met or (met and behind and behind[0].number == first):
                doubted, met, first = 0, True, START
            elif not records and not self._is_tip(page):
                continue  # the next page may hold the anchor, or what is behind it
            elif records or not met:
                first = behind[0].number if met and behind else START
                doubted += 1
                if doubted >= MOST_DOUBTED:
                    self._lose()
                    return
                met = met and bool(behind)
                self._cursor.seek(Position(at=self.anchor))
                continue
            if behind:
                yield from behind
                self.anchor, met = behind[-1].number, False
                self._cursor.seek(Position(at=self.anchor))
            if self._is_tip(page):  # on a busy shard, more comes with each answer
                self.looked_at = self._clock.now()
                return

    def _lose(self) -> None:
        """Start over with the oldest record, because the one to begin at may have expired."""
        if self.anchor != self._after:
            raise UnprovenError(f"the shard {self.shard.shard_id} shows different records each time")
        self.anchor = START

    def _page(self, until: float) -> Page:
        while True:
            now = self._clock.now()
            if max(now, self._cursor.due) >= until:
                raise UnprovenError("the time was up before the stream was read")
            if self._cursor.due > now:
                self._clock.sleep(self._cursor.due - now)
            page = self._cursor.read()
            if page is not None:
                return page

    def _records(self, page: Page) -> list[Record]:
        return sorted(from_stream(page.records, self.shard.shard_id))

    def _is_tip(self, page: Page) -> bool:
        return page.at_tip and page.ended is not self.shard.is_open
