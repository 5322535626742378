"""The reads of a shard: where they begin, what an answer means, and how they wait."""

from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ReadTimeoutError
from botocore.parsers import ResponseParserError

from doubles.aws_errors import client_error
from doubles.clock import START as BEGAN
from doubles.clock import ManualClock
from ops.stream.readable_shards import NoSuchRecordError, Page, Position, ReadableShards
from shared.errors import ShardGoneError, ShardUnreadableError
from tests.support.delivery import SHARD, STREAM
from worker.record import number

OLDEST = Position()
LOST = ReadTimeoutError(endpoint_url="https://kinesis.invalid")
THROTTLED = [
    client_error(code, "GetRecords")
    for code in ("ProvisionedThroughputExceededException", "LimitExceededException", "KMSThrottlingException")
]
FAILING = [client_error("InternalFailure", "GetRecords", status=500), LOST, ResponseParserError("html")]
EXPIRED = client_error("ExpiredIteratorException", "GetRecords")


def page(*numbers: int, behind: int | None = 0, ended: bool = False) -> dict[str, Any]:
    """Return a GetRecords response with these records."""
    answer: dict[str, Any] = {"Records": [{"SequenceNumber": str(n)} for n in numbers]}
    if behind is not None:
        answer["MillisBehindLatest"] = behind
    return answer if ended else answer | {"NextShardIterator": f"after {numbers[-1]}" if numbers else "next"}


class Kinesis:
    """A client with reads that follow a script, and the reader of its stream; `times` has when each read was made."""

    def __init__(self, *script: dict[str, Any] | Exception) -> None:
        self.clock = ManualClock()
        self.shards = ReadableShards(self, STREAM, self.clock)  # type: ignore[arg-type]  # two calls are made
        self._answer = Mock(side_effect=script)
        self.calls: list[Any] = []
        self.times: list[float] = []

    def get_shard_iterator(self, *, StreamName: str, ShardId: str, **position: Any) -> dict[str, str]:  # noqa: N803 -- boto3's names
        """Return an iterator that names the position."""
        assert (STREAM, SHARD) == (StreamName, ShardId)
        self.calls.append(position)
        return {"ShardIterator": "first"}

    def get_records(self, *, ShardIterator: str, Limit: int) -> dict[str, Any]:  # noqa: N803 -- boto3's names
        """Return the script's next answer."""
        assert Limit == 10_000
        self.calls.append(ShardIterator)
        self.times.append(self.clock.now())
        return self._answer()


def numbers_of(read: Page | None) -> list[str] | None:
    """Return the sequence numbers in a page."""
    return read and [record["SequenceNumber"] for record in read.records]


@pytest.mark.parametrize(
    ("position", "kind", "place"),
    [
        (OLDEST, "TRIM_HORIZON", {}),
        (Position(after=number("77")), "AFTER_SEQUENCE_NUMBER", {"StartingSequenceNumber": "77"}),
        (Position(at=number("77")), "AT_SEQUENCE_NUMBER", {"StartingSequenceNumber": "77"}),
        (Position(moment=BEGAN), "AT_TIMESTAMP", {"Timestamp": BEGAN}),
    ],
)
def test_a_read_begins_at_its_position(position: Position, kind: str, place: dict[str, Any]) -> None:
    """A position is the oldest record, a record, the one after a record, or a time."""
    kinesis = Kinesis(page(78))
    kinesis.shards.cursor(SHARD, position).read()

    assert [{"ShardIteratorType": kind, **place}, "first"] == kinesis.calls


@pytest.mark.parametrize(
    ("answer", "at_tip", "ended"),
    [
        (page(1), True, False),
        (page(), True, False),
        (page(1, behind=1), False, False),
        (page(behind=1), False, False),
        (page(behind=None), False, False),
        (page(1, behind=1, ended=True), True, True),
        (page(behind=0, ended=True), True, True),
    ],
)
def test_the_tip_is_what_kinesis_says_it_is(answer: dict[str, Any], at_tip: bool, ended: bool) -> None:
    """An empty answer alone is not the tip. A missing iterator means that no record will follow."""
    read = Kinesis(answer).shards.cursor(SHARD, OLDEST).read()

    assert (at_tip, ended) == (read.at_tip, read.ended)


def test_an_expired_iterator_is_renewed_after_the_last_record() -> None:
    """No record is read twice or left out. A cursor that is moved goes on at its new position."""
    kinesis = Kinesis(page(1, 2, behind=9), EXPIRED, page(3), page(5))
    one = kinesis.shards.cursor(SHARD, OLDEST)

    assert [["1", "2"], None, ["3"]] == [numbers_of(one.read()) for _ in range(3)]
    one.seek(Position(moment=BEGAN))
    one.read()
    after = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "2"}
    moved = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": BEGAN}
    first = {"ShardIteratorType": "TRIM_HORIZON"}
    assert [first, "first", "after 2", after, "first", moved, "first"] == kinesis.calls


@pytest.mark.parametrize("error", THROTTLED)
def test_throttled_reads_back_off(error: Exception) -> None:
    """Throttling is never an error, however often it happens. Pauses grow to five seconds."""
    kinesis, pauses = Kinesis(*[error] * 12, page(1)), []
    one = kinesis.shards.cursor(SHARD, OLDEST)
    for _ in range(12):
        assert one.read() is None
        pauses.append(one.due - kinesis.clock.now())
        kinesis.clock.time = one.due

    assert [0.5, 1.0, 2.0, 4.0, *[5.0] * 8] == pauses
    assert ["1"] == numbers_of(one.read())


@pytest.mark.parametrize("error", FAILING)
def test_a_read_that_keeps_failing_is_an_error(error: Exception) -> None:
    """The fourth consecutive failure raises. A successful read restarts the count."""
    kinesis = Kinesis(error, error, error, page(1, behind=9), error, error, error, error)
    one = kinesis.shards.cursor(SHARD, OLDEST)
    for _ in range(7):
        one.read()

    with pytest.raises(ShardUnreadableError):
        one.read()


@pytest.mark.parametrize(
    ("code", "call", "error"),
    [
        ("ResourceNotFoundException", "GetRecords", ShardGoneError),
        ("AccessDeniedException", "GetRecords", ShardUnreadableError),
        ("KMSDisabledException", "GetRecords", ShardUnreadableError),
        ("ValidationException", "GetRecords", ShardUnreadableError),
        ("InvalidArgumentException", "GetShardIterator", NoSuchRecordError),
    ],
)
def test_a_definite_refusal_is_an_error_at_once(code: str, call: str, error: type[Exception]) -> None:
    """A retry would get the same answer, seconds later. If the shard never had a record, the caller can begin elsewhere."""
    kinesis = Kinesis(client_error(code, call))

    with pytest.raises(error):
        kinesis.shards.cursor(SHARD, OLDEST).read()
    assert BEGAN == kinesis.clock.now()


@pytest.mark.parametrize("last", [page(3), page(3, behind=9, ended=True)])
def test_pages_yields_until_nothing_follows(last: dict[str, Any]) -> None:
    """It waits between reads and skips throttled ones."""
    kinesis = Kinesis(page(1, behind=9), THROTTLED[0], page(2, behind=9), last)

    assert [["1"], ["2"], ["3"]] == list(map(numbers_of, kinesis.shards.pages(SHARD, OLDEST)))
    assert [0.0, 0.25, 0.75, 1.0] == [time - BEGAN for time in kinesis.times]
    assert BEGAN + 1.0 == kinesis.clock.now()


def test_no_page_is_read_when_the_time_is_up() -> None:
    """The pause before a read counts too, so the caller is told at once and not after the pause."""
    kinesis = Kinesis(page(1, behind=9), page(2, behind=9), page(3))

    assert [["1"], ["2"]] == list(map(numbers_of, kinesis.shards.pages(SHARD, OLDEST, BEGAN + 0.5)))
    assert BEGAN + 0.25 == kinesis.clock.now()
    assert 2 == len(kinesis.times)
