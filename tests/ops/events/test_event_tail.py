"""The tail of a stream: what it yields, how little of the stream's read capacity it uses, and how it survives errors."""

import itertools
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError

from doubles.aws_errors import client_error
from doubles.clock import START, ManualClock
from doubles.kinesis import HASH_KEYS, MemoryKinesis
from ops.commands.tail import described, line_of
from ops.events.event_tail import BYTES_PER_SECOND, SECONDS_PER_READ, Tail
from ops.events.seen_event import EventFilter, Kind, Notice, SeenEvent
from ops.logs.refused_requests import CloudWatchLog, LocalLog
from ops.stream.readable_shards import ReadableShards
from shared.envelope import Envelope, RejectedEvent
from shared.errors import ShardUnreadableError
from tests.support.cloudwatch_logs import FunctionLog
from tests.support.delivery import SHARD, STREAM, Meddled, envelope, row
from tests.support.inline_executor import InlineExecutor


class Stream:
    """An in-memory stream with so many shards, and tails of it."""

    def __init__(self, shards: int = 1) -> None:
        self.clock = ManualClock()
        self.memory = MemoryKinesis(self.clock.now)
        self.memory.create_stream(StreamName=STREAM, ShardCount=shards)
        self.kinesis: Any = Meddled(self.memory)
        self.reads: list[tuple[float, str]] = []
        self.kinesis.before["get_records"] = self._read

    def _read(self, request: dict[str, Any]) -> None:
        self.reads.append((self.clock.now(), request["ShardIterator"].split("/")[1]))

    def send_at(self, seconds: float, data: bytes, key: str = "k") -> None:
        """Put a record this many seconds after the start."""
        put = partial(self.memory.put_record, StreamName=STREAM, Data=data, PartitionKey=key)
        self.clock.at(START + seconds, put)

    def put_at(
        self, seconds: float, event_id: str, *, account: str = "shop", key: str = "k", **columns: Any
    ) -> None:
        """Put an envelope with one row this many seconds after the start."""
        rows = {"views": [row(event_id, **columns)]}
        self.send_at(seconds, envelope(account, rows, request_id=f"of-{event_id}"), key)

    def split(self) -> None:
        """Split the first shard."""
        middle = str(HASH_KEYS // 2)
        self.memory.split_shard(StreamName=STREAM, ShardToSplit=SHARD, NewStartingHashKey=middle)

    def tail(self, **options: Any) -> Tail:
        """Return a tail."""
        shards = ReadableShards(self.kinesis, STREAM, self.clock)
        return Tail(shards, self.clock, executors=InlineExecutor, **options)

    def seen(self, seconds: float, **options: Any) -> tuple[list[SeenEvent], list[Notice]]:
        """Return what a tail of that many seconds yields."""
        end = self.clock.now() + seconds
        found = list(self.tail(**options).events(lambda: end))
        said = [one for one in found if isinstance(one, Notice)]
        return [one for one in found if isinstance(one, SeenEvent)], said

    def ids(self, seconds: float, **options: Any) -> list[str]:
        """Return the ids of the events that a tail of that many seconds yields, or of refused requests."""
        return [one.event_id or one.request_id for one in self.seen(seconds, **options)[0]]


def test_events_are_seen_within_two_seconds() -> None:
    """Although each shard is read once a second only, however busy it is; what was there before is not shown."""
    stream = Stream(4)
    stream.put_at(-1, "before")
    stream.clock.sleep(0)
    found, delays = {}, {}
    for number in range(100):
        stream.put_at(0.1 * number + 0.05, f"{number}", key=f"{number}", page="home")
    for one in stream.tail().events(lambda: START + 15):
        found[one.event_id], delays[one.event_id] = one, stream.clock.now() - one.arrived_at
    seen = found["7"]

    assert {f"{number}" for number in range(100)} == set(found)
    assert max(delays.values()) <= 2
    assert (Kind.EVENT, "shop", "views", "of-7") == (seen.kind, seen.account, seen.table, seen.request_id)
    assert ("home", True) == (seen.row["page"], seen.sequence_number.isdecimal())
    assert 4 == len({one.shard for one in found.values()})
    assert stream.clock.now() < START + 17
    for shard in {one.shard for one in found.values()}:
        times = [at for at, read in stream.reads if read == shard]
        assert min(b - a for a, b in itertools.pairwise(times)) >= SECONDS_PER_READ - 1e-6


def test_the_tail_can_begin_in_the_past() -> None:
    """With `since`, it also reads shards that have been closed in the meantime."""
    stream = Stream()
    stream.put_at(0, "too early")
    stream.put_at(10, "a")
    stream.clock.at(START + 11, stream.split)
    stream.put_at(12, "b")
    stream.clock.sleep(13)

    assert ["a", "b"] == stream.ids(5, since=START + 5)


REJECTED = ["event_too_large views home", "invalid_table  None", "invalid_table VIEWS! away"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (EventFilter(), ["a", "b", "c", *REJECTED]),
        (EventFilter(account="blog"), ["b"]),
        (EventFilter(table="views"), ["a", "b", "c", REJECTED[0]]),
        (EventFilter(table="clicks"), []),
        (EventFilter(columns={"td_client_id": "v1"}), ["a"]),
        (EventFilter(columns={"seats": "12", "paid": "true"}), ["c"]),
        (EventFilter(account="shop", rejected_only=True), REJECTED),
    ],
)
def test_events_can_be_selected(wanted: EventFilter, expected: list[str]) -> None:
    """By account, table and columns as text, before they are scrubbed. Rejected ones have code and account, and columns if a copy was kept."""
    stream = Stream()
    stream.put_at(1, "a", td_client_id="v1")
    stream.put_at(2, "b", account="blog", td_client_id="v2")
    stream.put_at(3, "c", seats=12, paid=True)
    kept = RejectedEvent(1, "event_too_large", "views", b'{"table": "views", "page": "home"}')
    counted = RejectedEvent(2, "invalid_table", "", b"")
    of_others = {"account": "shop", "events": [{"table": "VIEWS!", "page": "away"}]}
    stream.send_at(4, Envelope("shop", "k1", 0, "r", 0, (), (kept, counted)).encode())
    stream.send_at(5, json.dumps(of_others).encode())

    found, _ = stream.seen(8, wanted=wanted)
    assert expected == [one.event_id or f"{one.code} {one.table} {one.row.get('page')}" for one in found]


def test_personal_data_is_scrubbed_unless_asked_for() -> None:
    """Equal values are replaced by equal values."""
    columns = {
        "td_ip": "192.0.2.7",
        "td_client_id": "v1",
        "note": "mail me at jo@shop.example",
        "friends": [{"jo@shop.example": 1}, "jo@shop.example"],
        "page": "home",
    }
    stream = Stream()
    stream.put_at(1, "a", **columns)
    stream.put_at(2, "a", **columns)
    first, second = (one.row for one in stream.seen(5)[0])
    raw, _ = (one.row for one in stream.seen(5, since=START, scrubs=False)[0])

    assert first == second
    assert columns.items() <= raw.items()
    assert "home" == first["page"]
    assert not any(value in json.dumps(first) for value in ("192.0.2.7", '"v1"', "jo@shop"))


@pytest.mark.parametrize(
    ("deep", "shown"), [(300, [[]]), (3000, "nested too deeply to show"), (90_000, None)]
)
def test_no_rejected_event_ends_a_tail(deep: int, shown: Any) -> None:
    """Senders choose how deeply values are nested, and texts may have halves of characters, in addresses too."""
    original = b'{"note": "\\ud800jo@shop.example", "a": %b%b}' % (b"[" * deep, b"]" * deep)
    stream = Stream()
    rejected = RejectedEvent(0, "too_deep", "views", original)
    stream.send_at(1, Envelope("shop", "k1", 0, "r", 0, (), (rejected,)).encode())
    stream.put_at(2, "after")
    first, second = stream.seen(5)[0]
    value = first.row.get("a")
    while isinstance(value, list) and value and value[0]:
        value = value[0]

    assert ("after", shown) == (second.event_id, value)
    assert "jo@shop" not in line_of(first)


def flood(stream: Stream, seconds: float, per_second: int) -> None:
    """Put this many bytes per second on the stream, in records of 50 kB."""
    size = 50_000
    for number in range(int(seconds * per_second / size)):
        stream.put_at(number * size / per_second, f"{number}", text="x" * size)


def test_the_tail_uses_a_fifth_of_the_bytes_and_says_when_it_lags() -> None:
    """It lags behind a shard with more traffic than that. Once it is a minute behind, it skips to the newest records."""
    stream = Stream()
    flood(stream, 240, 800_000)
    found, said = stream.seen(240)
    skipped = [one.said for one in said if "Skipping" in one.said]

    assert sum(len(str(one.row)) for one in found) <= 240 * BYTES_PER_SECOND * 1.02
    assert re.match(r"\S+ is [2-9] s behind: tail uses at most a fifth", said[0].said)
    assert skipped
    assert all(re.match(r"\S+ was 1 min( \d s)? behind\.", one) for one in skipped)
    burst = Stream()
    flood(burst, 10, 1_000_000)
    found, said = burst.seen(60)
    assert 200 == len(found)
    assert {"is", "has"} == {one.said.split()[1] for one in said}
    assert said[-1].is_over


def test_large_records_after_small_ones_do_not_exceed_the_budget() -> None:
    """A read may return more than expected. The next read then waits accordingly."""
    stream = Stream()
    for number in range(2000):
        stream.put_at(number / 200, f"{number}")
    for number in range(60):
        stream.put_at(11.5, f"large {number}", text="x" * 100_000)
    stream.seen(40)
    after = [at for at, _ in stream.reads if at >= START + 12]

    assert after[1] - after[0] >= 60 * 100_000 / BYTES_PER_SECOND


def test_the_tail_follows_splits_and_merges_of_shards() -> None:
    """It shows each event of parent and child shards once, although Kinesis returns records twice, in one response or in two."""
    stream = Stream()
    answer = stream.memory.get_records
    shown: dict[str, list[dict[str, Any]]] = {}

    def twice(**request: Any) -> dict[str, Any]:
        found = answer(**request)
        before = shown.setdefault(request["ShardIterator"].split("/")[1], [])
        before.extend(found["Records"])
        return found | {"Records": [*before, *found["Records"]]}

    def merge() -> None:
        one, other = (f"shardId-00000000000{number}" for number in (1, 2))
        stream.memory.merge_shards(StreamName=STREAM, ShardToMerge=one, AdjacentShardToMerge=other)

    stream.memory.get_records = twice  # type: ignore[method-assign]
    stream.clock.at(START + 5.01, stream.split)
    stream.clock.at(START + 12.01, merge)
    for number in range(40):
        stream.put_at(number / 2, f"{number}", key=f"{number}")

    assert sorted(f"{number}" for number in range(40)) == sorted(stream.ids(30))


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (client_error("ProvisionedThroughputExceededException", "GetRecords", "slow down"), 6),
        (client_error("ExpiredIteratorException", "GetRecords", "expired"), 2),
        (ConnectionClosedError(endpoint_url="https://kinesis"), 9),
    ],
    ids=["throttled", "expired", "away"],
)
def test_the_tail_survives_errors_of_kinesis(error: Exception, times: int) -> None:
    """It neither misses events that arrive while a read fails, even if they are the first, nor shows any twice."""
    stream = Stream()
    errors = [error] * times

    def hook(_: dict[str, Any]) -> None:
        if stream.clock.now() > START + 3 and errors:
            stream.clock.sleep(2)
            raise errors.pop()

    stream.kinesis.before["get_records"] = hook
    for number in range(20):
        stream.put_at(4 + number, f"{number}")

    assert [f"{number}" for number in range(20)] == stream.ids(90)


def test_a_deleted_stream_ends_the_tail() -> None:
    """Permanent errors of Kinesis are raised."""
    stream = Stream()
    stream.clock.at(START + 3, lambda: stream.memory.delete_stream(StreamName=STREAM))

    with pytest.raises(ShardUnreadableError, match="not found"):
        stream.seen(20)


REFUSED = {
    "level": "INFO",
    "message": "refused",
    "timestamp": "2023-11-14T22:13:21.500Z",
    "code": "invalid_key",
    "path": "/v1/events",
    "request": "r1",
}


def test_refused_requests_are_read_from_the_log(tmp_path: Path) -> None:
    """Each once its line is complete, and to the end of a big log without a pause. Other lines are skipped."""
    stream, log = Stream(), tmp_path / "ingest.log"
    log.write_text(json.dumps(REFUSED | {"request": "old"}) + "\n")
    lines = json.dumps(REFUSED) + '\nnot json\n["refused"]\n{"message": "other"}\n'

    def write(text: str) -> None:
        with log.open("a") as file:
            file.write(text)

    stream.clock.at(START + 2, partial(write, lines[:40]))
    stream.clock.at(START + 4, partial(write, lines[40:]))
    ([seen], _) = stream.seen(8, log=LocalLog(log, stream.clock, None))
    write(f"{'x' * 999_999}\n" * 12 + json.dumps(REFUSED | {"request": "new"}) + "\n")

    told = {"code": "invalid_key", "path": "/v1/events", "request_id": "r1"}
    assert SeenEvent(kind=Kind.REFUSED, at=START + 1.5, **told) == seen
    assert ["old", "r1", "new"] == stream.ids(2, log=LocalLog(log, stream.clock, START - 10_800))


def logged(at: float, late: float, request: str, code: str = "invalid_key") -> tuple[float, float, str]:
    """Return a line about a request that becomes visible `late` seconds later."""
    return at, at + late, json.dumps(REFUSED | {"request": request, "code": code})


def test_refused_requests_of_a_deployed_stack_are_read_from_cloudwatch() -> None:
    """Each once, even if its line is late, but not those about rejected events; an unreadable log is reported once."""
    stream = Stream()
    logs: Any = FunctionLog("ingest", stream.clock, lines_per_page=2)
    logs.lines = [logged(START - 5, 0, "old"), logged(START + 1, 0, "of an event", "invalid_table")]
    logs.lines += [logged(START + 20 * number, number, f"r{number}") for number in range(7)]
    logs.errors.append(client_error("ThrottlingException", "FilterLogEvents", "slow down"))
    denied = client_error("AccessDeniedException", "FilterLogEvents", "no")
    stream.clock.at(START + 300, partial(logs.errors.append, denied))
    stream.put_at(310, "a")
    found, said = stream.seen(400, log=CloudWatchLog(logs, logs, "ingest", stream.clock, None))

    assert [*(f"r{number}" for number in range(7)), "of-a"] == [one.request_id for one in found]
    [refused] = said
    assert ("log", True) == (refused.source, "cannot be read (AccessDeniedException)." in refused.said)
    assert all(start >= START for start in logs.starts)
    assert 200 < logs.starts[-1] - START < 300  # no read goes back more than a minute, and none follows


def test_a_log_that_one_read_cannot_finish_is_read_on() -> None:
    """A long log takes several reads. Each continues where the last one stopped, until the present is reached."""
    stream = Stream()
    logs: Any = FunctionLog("ingest", stream.clock, lines_per_page=2, seconds_per_page=3.0)
    logs.lines = [logged(START - 3600 + number, 0, f"r{number}") for number in range(30)]
    logs.lines.append(logged(START + 200, 0, "new"))
    log = CloudWatchLog(logs, logs, "ingest", stream.clock, START - 3600)

    assert [*(f"r{number}" for number in range(30)), "new"] == stream.ids(300, log=log)
    assert 1 == logs.starts.count(START - 3600)


def test_a_line_has_no_control_characters_and_no_empty_fields() -> None:
    """A sender cannot move the operator's cursor. A refused request has no table and no row."""
    given = {"td_url": "https://x", "page": "a b", "bad": "\x1b[2J\u202e\n", "n": 1, "time": 1, "none": None}
    seen = SeenEvent(kind=Kind.EVENT, at=START, account="shop", table="views", event_id="a", row=given)

    columns = r'page="a b" bad=\x1b[2J\u202e\n n=1 none=null td_url=https://x event_id=a'
    assert f"22:13:20 shop.views {columns}" == line_of(seen)
    refused = {"code": "invalid_key", "path": "/v1/events"}
    told = {"kind": "refused", "at": "2023-11-14T22:13:20Z"} | refused
    assert told == described(SeenEvent(kind=Kind.REFUSED, at=START, **refused))
