"""Follows a stream's events as they arrive: accepted events, rejected events and refused requests.

Each shard is read once a second and at 400 kB/s at most: a fifth of the calls and bytes that Kinesis allows per shard, so the
worker never waits for the tail. On a busier shard the tail falls behind. It says so, and once it is a minute behind it skips to
what arrives now. It survives errors of Kinesis by continuing after the last record it has seen, and follows a split or merged
shard to its children.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Protocol

from botocore.exceptions import ClientError

from ops import personal_data, screen
from ops.events.seen_event import EventFilter, Notice, SeenEvent, events_of
from ops.failure import is_down
from ops.logs.refused_requests import CloudWatchLog, LocalLog
from ops.stack import Stack
from ops.stream.readable_shards import NoSuchRecordError, Position, ReadableShards, from_stream
from shared.clock import Clock, SystemClock
from shared.errors import ShardUnreadableError
from worker.executor import Executor, Executors, Threads
from worker.record import START, Number
from worker.shards import HASH_KEYS, Shard

SECONDS_PER_READ = 1.0
"""Kinesis allows five reads per second and shard."""
BYTES_PER_SECOND = 400_000
"""Kinesis allows 2 MB per second and shard."""
LAG_SECONDS = 2.0
"""How far behind a tail must be to say that it lags."""
SKIP_SECONDS = 60.0
"""How far a tail may fall behind before it skips to what arrives now."""

_FIRST_LIMIT = 20  # records of the first read, when their size is unknown; each is 700 KiB at most
_LIMIT_GROWTH = 4
_MOST_RECORDS = 10_000
_SAY_AGAIN_SECONDS = 10.0
_PATIENCE_SECONDS = 5.0  # before a failed read of a shard is retried
_LIST_SECONDS = 5.0  # between two lists of the shards, while some are missing
_LONGEST_SLEEP_SECONDS = 0.5  # so that missing shards are listed
_AT_ONCE = 32


class Source(Protocol):
    """What a tail reads: a shard, or the log of refused requests."""

    due: float
    """When it may be read next, UNIX seconds."""

    def step(self) -> Sequence[SeenEvent | Notice]:
        """Read once, and return what was found."""
        ...


class LiveShard:
    """Reads one shard, from a position on, within a fifth of its read budget."""

    def __init__(self, shards: ReadableShards, shard: Shard, position: Position, clock: Clock) -> None:
        self.shard = shard
        self.due = 0.0
        self.ended = False
        self._clock = clock
        self._shards = shards
        self._cursor = shards.cursor(shard.shard_id, position)
        self._last: Number = START
        self._limit = _FIRST_LIMIT
        self._was_live = position.is_tip
        self._said_at = float("-inf")
        self._lags = False

    def step(self) -> Sequence[SeenEvent | Notice]:
        """Make one read.

        Raises:
            ShardUnreadableError: Kinesis rejects the read with a 4xx status.
        """
        began = self._clock.now()
        self.due = began + SECONDS_PER_READ
        try:
            page = self._cursor.read(self._limit)
        except NoSuchRecordError:  # it has expired, or this clock is ahead of Kinesis's
            return [self._seek_tip(": the next record has expired")]
        except ShardUnreadableError as error:
            return [self._wait(error)]
        if page is None:
            self.due = max(self.due, self._cursor.due)
            return []
        size = sum(len(record["Data"]) + len(record["PartitionKey"]) for record in page.records)
        self.due = began + max(SECONDS_PER_READ, size / BYTES_PER_SECOND)
        if page.records:
            fitting = BYTES_PER_SECOND * len(page.records) // max(1, size)
            self._limit = max(1, min(fitting, self._limit * _LIMIT_GROWTH, _MOST_RECORDS))
        self.ended = page.ended
        found: list[SeenEvent | Notice] = []
        for record in from_stream(page.records, self.shard.shard_id):
            if record.number > self._last:
                self._last = record.number
                found += events_of(record, self.shard.shard_id)
        return [*found, *self._lag(page.behind_seconds, at_tip=page.at_tip)]

    def _lag(self, behind: float, *, at_tip: bool) -> list[Notice]:
        now = self._clock.now()
        if at_tip:
            self._was_live = True
            if self._lags:
                self._lags = False
                return [self._notice(" has caught up.", is_over=True)]
        elif self._was_live and behind > SKIP_SECONDS:
            return [self._seek_tip(f" was {screen.lasting(behind)} behind")]
        elif behind > LAG_SECONDS and now - self._said_at >= _SAY_AGAIN_SECONDS:
            self._lags, self._said_at = True, now
            said = (
                f" is {screen.lasting(behind)} behind: tail uses at most a fifth of a shard's read capacity."
            )
            return [self._notice(said)]
        return []

    def _seek_tip(self, why: str) -> Notice:
        self._cursor.seek(Position(is_tip=True))
        self._was_live, self._lags = True, False
        return self._notice(f"{why}. Skipping to the events that arrive now.")

    def _wait(self, error: ShardUnreadableError) -> Notice:
        """Schedule a retry, unless Kinesis answered with a 4xx status."""
        cause = error.__cause__
        if isinstance(cause, ClientError) and not is_down(cause):
            raise error
        self._cursor = self._shards.cursor(self.shard.shard_id, self._cursor.position)
        self.due = self._clock.now() + _PATIENCE_SECONDS
        return self._notice(f" cannot be read ({type(cause or error).__name__}). Retrying.")

    def _notice(self, said: str, *, is_over: bool = False) -> Notice:
        shard = self.shard.shard_id
        return Notice(shard, f"{shard}{said}", is_over)


@dataclass
class Tail:
    """Follows a stream.

    Attributes:
        since: where to begin, UNIX seconds; None begins with what arrives now.
        log: the log of refused requests, if it can be read.
    """

    shards: ReadableShards
    clock: Clock
    _: KW_ONLY
    since: float | None = None
    wanted: EventFilter | None = None
    scrubs: bool = True
    log: Source | None = None
    executors: Executors = Threads

    def __post_init__(self) -> None:
        self._lanes: dict[str, LiveShard] = {}
        self._known: set[str] = set()
        self._list_at = float("-inf")

    @classmethod
    def of(
        cls,
        stack: Stack,
        *,
        since: float | None = None,
        wanted: EventFilter | None = None,
        scrubs: bool = True,
    ) -> "Tail":
        """Return the tail of a stack."""
        clock = SystemClock()
        shards = ReadableShards(stack.client("kinesis", read_timeout=5), stack.outputs["StreamName"], clock)
        log: Source | None = None
        if stack.folder is not None:
            log = LocalLog(stack.folder / "ingest.log", clock, since)
        elif "IngestFunction" in stack.outputs:
            logs, functions = stack.client("logs", read_timeout=5), stack.client("lambda", read_timeout=5)
            log = CloudWatchLog(logs, functions, stack.outputs["IngestFunction"], clock, since)
        return cls(shards, clock, since=since, wanted=wanted, scrubs=scrubs, log=log)

    def events(self, until: Callable[[], float] = lambda: float("inf")) -> Iterator[SeenEvent | Notice]:
        """Yield events, refused requests and notices as they come, until the time that `until` returns.

        Raises:
            ShardUnreadableError: Kinesis rejects a read with a 4xx status: the stream is gone, or the caller may not read it.
        """
        self._list()
        with self.executors() as executor:
            reading: set[int] = set()
            while self.clock.now() < (end := until()):
                self._list_missing()
                due = self._start(executor, reading)
                rest = min(due, end) - self.clock.now()
                if not reading:
                    self.clock.sleep(min(max(rest, 0.001), _LONGEST_SLEEP_SECONDS))
                    continue
                result = executor.wait(min(max(rest, 0.0), _LONGEST_SLEEP_SECONDS))
                if result is None:
                    continue
                source, found = result
                reading.discard(id(source))
                yield from filter(None, map(self._shown, found))
                if isinstance(source, LiveShard) and source.ended:
                    del self._lanes[source.shard.shard_id]
                    self._list_at = float("-inf")

    def _start(self, executor: Executor, reading: set[int]) -> float:
        """Start the reads that are due. Return when the next one is due, UNIX seconds."""
        sources: list[Source] = [*self._lanes.values(), *([self.log] if self.log else [])]
        idle = sorted((one for one in sources if id(one) not in reading), key=lambda one: one.due)
        now = self.clock.now()
        for source in idle:
            if source.due > now or len(reading) >= _AT_ONCE:
                return max(source.due, now)
            reading.add(id(source))
            executor.submit(partial(_step, source))
        return now + SECONDS_PER_READ

    def _shown(self, found: SeenEvent | Notice) -> SeenEvent | Notice | None:
        if isinstance(found, Notice):
            return found
        if self.wanted is not None and not self.wanted.has(found):
            return None
        return replace(found, row=personal_data.scrub(found.row)) if self.scrubs else found

    def _list(self) -> None:
        """Begin with the current shards: at the tip of the open ones, or at `since` in all of them."""
        self._list_at = self.clock.now()
        for shard in self.shards.all():
            self._known.add(shard.shard_id)
            if self.since is not None:
                self._add(shard, Position(moment=self.since))
            elif shard.is_open:
                self._add(shard, Position(is_tip=True))

    def _list_missing(self) -> None:
        """Add the shards created by splits and merges, from their oldest record on."""
        covered = sum(keys.stop - keys.start for keys in (lane.shard.keys for lane in self._lanes.values()))
        if covered >= HASH_KEYS or self.clock.now() - self._list_at < _LIST_SECONDS:
            return
        self._list_at = self.clock.now()
        for shard in self.shards.all():
            if shard.shard_id not in self._known:
                self._known.add(shard.shard_id)
                self._add(shard, Position())

    def _add(self, shard: Shard, position: Position) -> None:
        self._lanes[shard.shard_id] = LiveShard(self.shards, shard, position, self.clock)


def _step(source: Source) -> tuple[Source, Sequence[SeenEvent | Notice]]:
    return source, source.step()
