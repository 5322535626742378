"""Follows a stream's events as they arrive: accepted events, rejected events and refused requests.

Each shard is read once a second and at 400 kB/s at most: a fifth of the calls and bytes that Kinesis allows per shard, so the
worker never waits for the tail. On a busier shard the tail falls behind. It says so, and once it is a minute behind it skips to
what arrives now. It survives errors of Kinesis by continuing after the last record it has seen, and follows a split or merged
shard to its children.

Refused requests never reach the stream. They come from the ingest's log.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, get_args

import msgpack
from botocore.exceptions import BotoCoreError, ClientError

from ops import personal_data, screen
from ops.stack import Stack
from shared.clock import Clock, SystemClock
from shared.errors import NoSuchRecordError, ShardUnreadableError, error_code
from shared.rows import Code, PlanCode
from worker.executor import Executor, Executors, Threads
from worker.record import START, Number, Record, from_stream, sequence_number
from worker.shards import HASH_KEYS, Position, Shard, Shards

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient

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
_PATIENCE_SECONDS = 5.0  # before a failed read of a shard or log is retried
_LIST_SECONDS = 5.0  # between two lists of the shards, while some are missing
_LOG_SECONDS = 2.0
_LOG_READ_SECONDS = 5.0
_LOG_LATE_SECONDS = 60.0  # how late a line may show up in CloudWatch Logs
_LONGEST_SLEEP_SECONDS = 0.5  # so that `stop` is noticed
_LOG_BYTES = 1 << 20
_AT_ONCE = 32
_EVENT_CODES = frozenset((*get_args(Code), *get_args(PlanCode)))


class Kind(StrEnum):
    """The kind of what was seen: an accepted event, a rejected event of an accepted request, or a request refused as a whole."""

    EVENT = "event"
    REJECTED = "rejected"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenEvent:
    """An event, or a refused request.

    Attributes:
        kind: event, rejected event or refused request.
        at: when the ingest received it, UNIX seconds.
        arrived_at: when it arrived on the stream, UNIX seconds, approximately; 0 for a refused request.
        account: its account; empty if unknown.
        table: its table; empty without one.
        key_id: the id of its write key; empty if unknown.
        event_id: its id; empty for what never became a row.
        request_id: its envelope's request id; for a refused request, the gateway's.
        shard: its shard on the stream.
        sequence_number: its record's sequence number.
        row: its columns; for a rejected event, the original if that is a JSON object.
        code: why it was rejected or refused.
        path: the route of a refused request.
    """

    kind: Kind
    at: float
    arrived_at: float = 0.0
    account: str = ""
    table: str = ""
    key_id: str = ""
    event_id: str = ""
    request_id: str = ""
    shard: str = ""
    sequence_number: str = ""
    row: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""
    path: str = ""


class Trouble(StrEnum):
    """What a tail may report about itself."""

    LAGS = "lags"
    CAUGHT_UP = "caught_up"
    SKIPPED = "skipped"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Notice:
    """A tail's report about itself.

    Attributes:
        trouble: the kind of report.
        source: the shard, or `log`.
        seconds: how far it is behind, or how much was skipped; 0 if unknown.
        cause: why it cannot be read.
    """

    trouble: Trouble
    source: str
    seconds: float = 0.0
    cause: str = ""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """A filter for events. By default it selects all.

    Attributes:
        account: only this account's; empty for all.
        table: only this table's; empty for all.
        columns: only events with these column values, compared as text.
        rejected_only: only rejected events and refused requests.
    """

    account: str = ""
    table: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    rejected_only: bool = False

    def has(self, seen: SeenEvent) -> bool:
        """Return whether the filter selects an event or a refused request."""
        return (
            not (self.rejected_only and seen.kind is Kind.EVENT)
            and self.account in ("", seen.account)
            and self.table in ("", seen.table)
            and all(text_of(seen.row.get(name)) == value for name, value in self.columns.items())
        )


def text_of(value: Any) -> str:
    """Return a column's value as text: a string as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=repr)


class Source(Protocol):
    """What a tail reads: a shard, or the log of refused requests."""

    due: float
    """When it may be read next, UNIX seconds."""
    ended: bool
    """Whether it will never return anything again."""

    def step(self) -> Sequence[SeenEvent | Notice]:
        """Read once, and return what was found."""
        ...


class LiveShard:
    """Reads one shard within a fifth of its read budget.

    Args:
        shards: the stream.
        shard: the shard.
        position: where to begin.
        clock: paces the reads.

    Attributes:
        shard: the shard.
    """

    def __init__(self, shards: Shards, shard: Shard, position: Position, clock: Clock) -> None:
        self.shard = shard
        self.due = 0.0
        self.ended = False
        self._clock = clock
        self._shards = shards
        self._cursor = shards.cursor(shard.shard_id, position)
        self._begin = position
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
            return [self._seek_tip(0.0)]
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
                return [Notice(Trouble.CAUGHT_UP, self.shard.shard_id)]
        elif self._was_live and behind > SKIP_SECONDS:
            return [self._seek_tip(behind)]
        elif behind > LAG_SECONDS and now - self._said_at >= _SAY_AGAIN_SECONDS:
            self._lags, self._said_at = True, now
            return [Notice(Trouble.LAGS, self.shard.shard_id, behind)]
        return []

    def _seek_tip(self, skipped: float) -> Notice:
        self._cursor.seek(Position(is_tip=True))
        self._was_live, self._lags = True, False
        return Notice(Trouble.SKIPPED, self.shard.shard_id, skipped)

    def _wait(self, error: ShardUnreadableError) -> Notice:
        """Schedule a retry, unless Kinesis answered with a 4xx status."""
        cause = error.__cause__
        status = 500
        if isinstance(cause, ClientError):
            status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        if status < 500:
            raise error
        self._cursor = self._shards.cursor(self.shard.shard_id, self._cursor.position)
        self.due = self._clock.now() + _PATIENCE_SECONDS
        return Notice(Trouble.UNREADABLE, self.shard.shard_id, cause=type(cause or error).__name__)


class Tail:
    """Follows a stream.

    Args:
        shards: the stream.
        clock: paces the reads.
        since: where to begin, UNIX seconds; None begins with what arrives now.
        wanted: the events to show.
        scrubs: whether to replace personal data.
        log: the log of refused requests, if it can be read.
        executors: read several shards at once.
    """

    def __init__(
        self,
        shards: Shards,
        clock: Clock,
        *,
        since: float | None = None,
        wanted: EventFilter | None = None,
        scrubs: bool = True,
        log: "Source | None" = None,
        executors: Executors = Threads,
    ) -> None:
        self._shards = shards
        self._clock = clock
        self._since = since
        self._wanted = wanted or EventFilter()
        self._scrubs = scrubs
        self._executors = executors
        self._log = log
        self._lanes: dict[str, LiveShard] = {}
        self._known: set[str] = set()
        self._list_at = float("-inf")
        self._stopped = False

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
        shards = Shards(stack.client("kinesis", read_timeout=5), stack.outputs["StreamName"], clock)
        log: Source | None = None
        if stack.folder is not None:
            log = LocalLog(stack.folder / "ingest.log", clock, since)
        elif "IngestFunction" in stack.outputs:
            logs, functions = stack.client("logs", read_timeout=5), stack.client("lambda", read_timeout=5)
            log = CloudWatchLog(logs, functions, stack.outputs["IngestFunction"], clock, since)
        return cls(shards, clock, since=since, wanted=wanted, scrubs=scrubs, log=log)

    def stop(self) -> None:
        """Make `events` end soon. Any thread may call this."""
        self._stopped = True

    def events(self, until: Callable[[], float] = lambda: float("inf")) -> Iterator[SeenEvent | Notice]:
        """Yield events, refused requests and notices as they come, until `stop` is called.

        Args:
            until: returns when to end, UNIX seconds. It is asked again and again, also while nothing arrives.

        Raises:
            ShardUnreadableError: Kinesis rejects a read with a 4xx status: the stream is gone, or the caller may not read it.
        """
        self._list()
        with self._executors() as executor:
            reading: set[int] = set()
            while not self._stopped and self._clock.now() < (end := until()):
                self._list_missing()
                due = self._start(executor, reading)
                rest = min(due, end) - self._clock.now()
                if not reading:
                    self._clock.sleep(min(max(rest, 0.001), _LONGEST_SLEEP_SECONDS))
                    continue
                result = executor.wait(min(max(rest, 0.0), _LONGEST_SLEEP_SECONDS))
                if result is None:
                    continue
                source, found = result
                reading.discard(id(source))
                yield from filter(None, map(self._shown, found))
                if source.ended and isinstance(source, LiveShard):
                    del self._lanes[source.shard.shard_id]
                    self._list_at = float("-inf")

    def _start(self, executor: Executor, reading: set[int]) -> float:
        """Start the reads that are due. Return when the next one is due, UNIX seconds."""
        sources: list[Source] = [*self._lanes.values(), *([self._log] if self._log else [])]
        idle = sorted((one for one in sources if id(one) not in reading), key=lambda one: one.due)
        now = self._clock.now()
        for source in idle:
            if source.due > now or len(reading) >= _AT_ONCE:
                return max(source.due, now)
            reading.add(id(source))
            executor.submit(_step_of(source))
        return now + SECONDS_PER_READ

    def _shown(self, found: SeenEvent | Notice) -> SeenEvent | Notice | None:
        if isinstance(found, Notice):
            return found
        if not self._wanted.has(found):
            return None
        return replace(found, row=personal_data.scrub(found.row)) if self._scrubs else found

    def _list(self) -> None:
        """Begin with the current shards: at the tip of the open ones, or at `since` in all of them."""
        self._list_at = self._clock.now()
        for shard in self._shards.all():
            self._known.add(shard.shard_id)
            if self._since is not None:
                self._add(shard, Position(moment=self._since))
            elif shard.is_open:
                self._add(shard, Position(is_tip=True))

    def _list_missing(self) -> None:
        """Add the shards created by splits and merges, from their oldest record on."""
        covered = sum(len_of(lane.shard.keys) for lane in self._lanes.values())
        if covered >= HASH_KEYS or self._clock.now() - self._list_at < _LIST_SECONDS:
            return
        self._list_at = self._clock.now()
        for shard in self._shards.all():
            if shard.shard_id not in self._known:
                self._known.add(shard.shard_id)
                self._add(shard, Position())

    def _add(self, shard: Shard, position: Position) -> None:
        self._lanes[shard.shard_id] = LiveShard(self._shards, shard, position, self._clock)


def len_of(keys: range) -> int:
    """Return how many hash keys a shard covers; `len` overflows at 2^63."""
    return keys.stop - keys.start


def _step_of(source: Source) -> Callable[[], tuple[Source, Sequence[SeenEvent | Notice]]]:
    return lambda: (source, source.step())


def common_of(record: Record, shard: str | None) -> SeenEvent:
    """Return what all events of a record have in common. `shard` is None for a record that is not on the stream."""
    return SeenEvent(
        kind=Kind.EVENT,
        at=record.received_at / 1000,
        arrived_at=record.arrived_at,
        account=record.account,
        key_id=record.key_id,
        request_id=record.request_id,
        shard=shard or "",
        sequence_number="" if shard is None else sequence_number(record.number),
    )


def events_of(record: Record, shard: str) -> Iterator[SeenEvent]:
    """Yield the events of a record, including those that could not become rows."""
    common = common_of(record, shard)
    for table, _, rows in record.blocks:
        for row in unpacked(rows):
            values = row if isinstance(row, dict) else {}
            yield replace(common, table=table, event_id=str(values.get("event_id", "")), row=values)
    for code, _, originals in record.refused:
        for original in unpacked(originals):
            yield rejected(common, code, "", original)
    for event in record.rejected:
        yield rejected(common, event.code, event.table, event.original)


def rejected(common: SeenEvent, code: str, table: str, original: Any) -> SeenEvent:
    """Return a rejected event.

    Args:
        common: the members that it shares with its record's other events.
        code: why it was rejected.
        table: its table; if empty, the event's own member `table` counts.
        original: what its sender wrote; empty if that was not kept.
    """
    values = json_object(original)
    named = values.get("table")
    table = table or (named if isinstance(named, str) else "")
    event_id = values.get("event_id")
    return replace(
        common,
        kind=Kind.REJECTED,
        table=table,
        event_id=event_id if isinstance(event_id, str) else "",
        code=code,
        row=values,
    )


def unpacked(data: bytes) -> Iterator[Any]:
    """Yield concatenated MessagePack values, up to the first that cannot be read."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=0)
    unpacker.feed(data)
    try:
        yield from unpacker
    except (ValueError, msgpack.UnpackException):
        return


def json_object(original: Any) -> dict[str, Any]:
    """Return a sender's original if it is a JSON object, else an empty one: personal data cannot be told apart in other text."""
    try:
        value = json.loads(original)
    except (ValueError, TypeError):
        return {}
    return value if isinstance(value, dict) else {}


class LocalLog:
    """Reads refused requests from the log of the local stack's ingest.

    Args:
        path: the log.
        clock: paces the reads.
        since: where to begin, UNIX seconds; None begins with what is written now.
    """

    def __init__(self, path: Path, clock: Clock, since: float | None) -> None:
        self.due = 0.0
        self.ended = False
        self._path = path
        self._clock = clock
        self._since = since
        self._offset = 0
        if since is None and path.exists():
            self._offset = path.stat().st_size

    def step(self) -> Sequence[SeenEvent | Notice]:
        """Return the refused requests in the complete lines."""
        self.due = self._clock.now() + SECONDS_PER_READ / 2
        try:
            with self._path.open("rb") as log:
                if self._offset > log.seek(0, os.SEEK_END):
                    self._offset = 0  # it was replaced
                log.seek(self._offset)
                data = log.read(_LOG_BYTES)
        except OSError:
            return []
        complete = data[: data.rfind(b"\n") + 1] or (data if len(data) == _LOG_BYTES else b"")
        self._offset += len(complete)
        found = [refused_request(line) for line in complete.decode(errors="replace").splitlines()]
        return [one for one in found if one and (self._since is None or one.at >= self._since)]


class CloudWatchLog:
    """Reads refused requests from the log of a deployed stack's ingest.

    CloudWatch shows lines some seconds late and out of order, so each read looks back.

    Args:
        logs: a boto3 client of CloudWatch Logs.
        functions: a boto3 client of Lambda, to look up the log group.
        function: the ingest's name.
        clock: paces the reads.
        since: where to begin, UNIX seconds; None begins with what is written now.
    """

    def __init__(
        self,
        logs: "CloudWatchLogsClient",
        functions: "LambdaClient",
        function: str,
        clock: Clock,
        since: float | None,
    ) -> None:
        self.due = 0.0
        self.ended = False
        self._logs = logs
        self._lambda = functions
        self._function = function
        self._clock = clock
        self._since = clock.now() if since is None else since
        self._group = ""
        self._next = ""  # continues a query that one read did not finish
        self._is_live = False
        self._seen: dict[str, float] = {}

    def step(self) -> Sequence[SeenEvent | Notice]:
        """Query the log once. If that is not permitted, report it and never query again."""
        now = self._clock.now()
        self.due = now + _LOG_SECONDS
        try:
            return self._read(now)
        except ClientError as error:
            code = error_code(error)
            throttled = "Throttling" in code or code == "LimitExceededException"
            self.due = now + _PATIENCE_SECONDS if throttled else float("inf")
            return [] if throttled else [Notice(Trouble.UNREADABLE, "log", cause=code)]
        except BotoCoreError as error:
            self.due = now + _PATIENCE_SECONDS
            return [Notice(Trouble.UNREADABLE, "log", cause=type(error).__name__)]

    def _read(self, now: float) -> list[SeenEvent]:
        if not self._group:
            settings = self._lambda.get_function_configuration(FunctionName=self._function)
            self._group = settings["LoggingConfig"]["LogGroup"]
        if self._is_live and not self._next:
            self._since = max(self._since, now - _LOG_LATE_SECONDS)
        request: dict[str, Any] = {
            "logGroupName": self._group,
            "startTime": int(self._since * 1000),
            "filterPattern": '{ $.message = "refused" }',
        }
        if self._next:
            request["nextToken"] = self._next
        found = []
        until = now + _LOG_READ_SECONDS
        while True:
            answer = self._logs.filter_log_events(**request)
            for event in answer["events"]:
                one = refused_request(event["message"])
                if one and event["eventId"] not in self._seen:
                    found.append(one)
                self._seen[event["eventId"]] = event["timestamp"] / 1000
            self._next = answer.get("nextToken", "")
            if not self._next:
                self._is_live = True
                break
            request["nextToken"] = self._next
            if self._clock.now() > until:
                break
        self._seen = {one: at for one, at in self._seen.items() if at >= self._since}
        return found


def refused_request(line: str) -> SeenEvent | None:
    """Return the refused request that a line of the ingest's log reports; None if it reports something else.

    Lines with an event's code are skipped: they report a request with one rejected event, which is on the stream.
    """
    try:
        said = json.loads(line)
    except ValueError:
        return None
    if not isinstance(said, dict) or said.get("message") != "refused" or said.get("code") in _EVENT_CODES:
        return None
    return SeenEvent(
        kind=Kind.REFUSED,
        at=_moment(str(said.get("timestamp", ""))),
        request_id=str(said.get("request", "")),
        code=str(said.get("code", "")),
        path=str(said.get("path", "")),
    )


def _moment(text: str) -> float:
    """Return a log line's time in UNIX seconds; 0 if it has none."""
    try:
        found = datetime.fromisoformat(text.replace(",", "."))
    except ValueError:
        return 0.0
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def sentence(notice: Notice) -> str:
    """Return a notice as a sentence."""
    lasting = screen.lasting(notice.seconds)
    match notice.trouble:
        case Trouble.LAGS:
            return (
                f"{notice.source} is {lasting} behind: tail uses at most a fifth of a shard's read capacity."
            )
        case Trouble.CAUGHT_UP:
            return f"{notice.source} has caught up."
        case Trouble.SKIPPED if notice.seconds:
            return f"{notice.source} was {lasting} behind. Skipping to the events that arrive now."
        case Trouble.SKIPPED:
            return f"{notice.source}: the next record has expired. Skipping to the events that arrive now."
        case Trouble.UNREADABLE if notice.source == "log":
            return f"refused requests are not shown: the ingest's log cannot be read ({notice.cause})."
    return f"{notice.source} cannot be read ({notice.cause}). Retrying."
