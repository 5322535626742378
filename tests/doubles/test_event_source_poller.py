"""One shard's poller: cases recorded on AWS, AWS's documentation, and what fault injection needs."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from doubles.event_source import EventSourceMapping, Invocation, Outcome, Raised, Record, Returned, TimedOut
from doubles.event_source.invocation import settled_count
from doubles.event_source.mapping import exponential_backoff
from doubles.event_source.record import EVENT_BYTES
from tests.support.event_source import SHARD, STREAM_ARN, Bench, data_of

DONE = Returned(None)
DAY = 24 * 3600


def failing_from(invocation: Invocation, place: int) -> Outcome:
    """Report the record at this place as the first that failed."""
    return Returned({"batchItemFailures": [{"itemIdentifier": invocation.sequence_numbers[place]}]})


@pytest.mark.parametrize(
    "value",
    ["", [], None, {}, {"batchItemFailures": []}, {"batchItemFailures": None}, "text", {"failures": [1]}],
)
def test_an_empty_result_settles_everything(value: Any) -> None:
    """The six recorded ways to report nothing, and a result without the key, are success."""
    assert 3 == settled_count(Returned(value), ["1", "2", "10"])


@pytest.mark.parametrize(
    "outcome",
    [
        Returned({"batchItemFailures": [{"itemIdentifier": 123}]}),
        Returned({"batchItemFailures": [{"itemIdentifier": ""}]}),
        Returned({"batchItemFailures": [{"itemIdentifier": None}]}),
        Returned({"batchItemFailures": [{"foo": 123}]}),
        Returned({"batchItemFailures": [{"foo": None}]}),
        Raised("ZeroDivisionError", "division by zero"),
        TimedOut(),
        # Not recorded:
        Returned({"batchItemFailures": "10"}),
        Returned({"batchItemFailures": ["10"]}),
        Returned({"batchItemFailures": [{"itemIdentifier": "10"}, {}]}),
    ],
)
def test_a_report_that_cannot_be_read_settles_nothing(outcome: Outcome) -> None:
    """The five recorded odd items, an exception, a time-out and malformed lists fail the whole batch."""
    assert 0 == settled_count(outcome, ["1", "2", "10"])


def test_the_lowest_number_is_the_checkpoint() -> None:
    """With several items everything from the lowest number on is to be sent again, in whatever order they come."""
    numbers = [str(number) for number in range(8, 12)]
    failures = [{"itemIdentifier": number} for number in ("11", "9", "10")]

    assert 1 == settled_count(Returned({"batchItemFailures": failures}), numbers)


def test_a_partial_failure_is_sent_on_from_its_first_record() -> None:
    """Of six records in batches of three, the last one bad, only the bad one is sent again (recorded)."""
    bench = Bench()
    *_, bad = bench.put("r1", "r2", "r3", "r4", "r5", "r6")

    def report(invocation: Invocation) -> Outcome:
        failures = [{"itemIdentifier": number} for number in invocation.sequence_numbers if number == bad]
        return Returned({"batchItemFailures": failures})

    bench.run(bench.poller(batch_size=3, maximum_batching_window_seconds=1), report, calls=6)

    assert [["r1", "r2", "r3"], ["r4", "r5", "r6"], *[["r6"]] * 4] == bench.sent


def test_a_failing_batch_is_sent_eight_times_in_a_minute() -> None:
    """A batch that fails is sent again as it was, eight times in a minute (recorded), and soon after progress."""
    bench = Bench()
    bench.put("a", "b")
    poller, end = bench.poller(), bench.now + 60
    while bench.now < end:
        bench.run(poller, lambda _: Raised(), calls=1)
        bench.put("late")
        bench.now = poller.ready_at
    invocation = bench.invoke(poller)
    poller.complete(invocation, failing_from(invocation, 1), bench.now)

    assert [["a", "b"]] * 8 == bench.sent
    assert pytest.approx(bench.now + 0.3) == poller.ready_at
    assert 60 == max(exponential_backoff(failures) for failures in range(1, 2000))


def test_batches_are_cut_by_their_size() -> None:
    """Thirty records, twenty of them older than the mapping, are three batches of ten (recorded), and then nothing."""
    bench = Bench()
    bench.put(*[str(i) for i in range(20)])
    poller = bench.poller(batch_size=10)
    bench.put(*[str(i) for i in range(20, 30)])
    bench.run(poller, lambda _: DONE)

    assert [[str(i) for i in range(start, start + 10)] for start in (0, 10, 20)] == bench.sent
    assert None is poller.poll(bench.now + 60)


def test_a_batch_waits_for_its_window() -> None:
    """A batch that is not full goes out when the window has passed, with everything that arrived by then."""
    bench = Bench()
    poller = bench.poller(batch_size=3, maximum_batching_window_seconds=5)
    bench.put("a")
    early = poller.poll(bench.now)
    bench.now += 4.9
    bench.put("b")
    late = poller.poll(bench.now)
    bench.now += 0.1

    assert (None, None, ["a", "b"]) == (early, late, data_of(poller.poll(bench.now)))


def test_a_full_batch_does_not_wait() -> None:
    """A batch of BatchSize records goes out at once, the next one a whole window after its end."""
    bench = Bench()
    poller = bench.poller(batch_size=2, maximum_batching_window_seconds=5)
    bench.put("a", "b")
    invocation = bench.invoke(poller)
    bench.put("c")
    under_way = (poller.poll(bench.now), poller.ready_at)
    bench.now += 60
    poller.complete(invocation, DONE, bench.now)
    bench.now += 4.9
    early = poller.poll(bench.now)
    bench.now += 0.1

    assert (["a", "b"], None, ["c"]) == (data_of(invocation), early, data_of(poller.poll(bench.now)))
    assert (None, float("inf")) == under_way


def test_an_event_stays_below_six_megabytes() -> None:
    """A batch is cut where its event would exceed 6 MB of JSON, and does not wait for its window."""
    bench = Bench()
    bench.put(*["x" * 700_000] * 9, key="müller")
    invocation = bench.invoke(bench.poller(batch_size=100, maximum_batching_window_seconds=300))

    text = json.dumps(invocation.event, separators=(",", ":"), ensure_ascii=False)
    size = len(text.encode())
    assert len('{"Records":[]}') - len(",") + sum(record.size for record in invocation.records) == size
    assert 6 == len(invocation.records)
    assert size <= EVENT_BYTES < size + 933_334


def test_the_event_has_the_recorded_form() -> None:
    """An event is what Lambda sends, field by field and in its order."""
    bench = Bench()
    [number] = bench.put("hello", key="test_0")
    invocation = bench.invoke(bench.poller(role_arn="arn:aws:iam::123456789012:role/r"))

    expected = {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "test_0",
            "sequenceNumber": number,
            "data": "aGVsbG8=",
            "approximateArrivalTimestamp": 1764000000.0,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"{SHARD}:{number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/r",
        "awsRegion": "us-east-1",
        "eventSourceARN": STREAM_ARN,
    }
    assert json.dumps({"Records": [expected]}) == json.dumps(invocation.event)


def test_a_record_too_large_for_any_event_blocks_its_shard() -> None:
    """It is never sent, and its shard continues when it expires."""
    bench = Bench()
    bench.client._max_record_bytes = 10 * 1024 * 1024
    bench.put("x" * 5_000_000)
    poller = bench.poller()
    blocked = [data_of(poller.poll(bench.now + seconds)) for seconds in (0, 3600, DAY - 1)]
    bench.now += DAY - 1
    bench.put("later")
    bench.now += 1

    assert ([[]] * 3, ["later"]) == (blocked, data_of(poller.poll(bench.now)))
    assert ["x" * 5_000_000] == bench.expired


def test_the_retention_takes_the_front_of_a_failed_batch() -> None:
    """Records of a failed batch that expire are dropped, and the rest is sent again."""
    bench = Bench()
    bench.put("a", "b")
    bench.now += 30
    bench.put("c", "d")
    poller = bench.poller()
    poller.complete(bench.invoke(poller), Raised(), bench.now)
    bench.put("e")
    bench.now += DAY - 30

    assert (["c", "d"], ["a", "b"]) == (data_of(poller.poll(bench.now)), bench.expired)


def test_an_invocation_that_timed_out_no_longer_counts() -> None:
    """After a time-out the batch is sent again in a new invocation, and the old one cannot be completed."""
    bench = Bench()
    bench.put("a")
    poller = bench.poller()
    old = bench.invoke(poller)
    poller.complete(old, TimedOut(), bench.now)
    bench.now += 1
    new = bench.invoke(poller)

    assert (["a"], True, True) == (data_of(new), new.request_id != old.request_id, new.event is not old.event)
    with pytest.raises(ValueError, match=old.request_id):
        poller.complete(old, DONE, bench.now)


def test_borders_cut_batches_at_will() -> None:
    """Fault injection's `borders` decides how many of the records on offer go out, again after each failure."""
    bench = Bench()
    bench.put(*"abcde")
    takes = [2, 4, 1, 99]
    offered: list[int] = []

    def borders(records: Sequence[Record]) -> int:
        offered.append(len(records))
        return takes.pop(0)

    poller = bench.poller(borders=borders, batch_size=4)
    outcomes: list[Outcome] = [Raised(), Raised(), DONE, DONE]
    bench.run(poller, lambda _: outcomes.pop(0), calls=4)

    assert [list("ab"), list("abcd"), list("a"), list("bcde")] == bench.sent
    assert [4, 4, 4, 4] == offered


class Flaky:
    """A client whose next reads fail."""

    def __init__(self, client: Any, *errors: Exception) -> None:
        self._client = client
        self._errors = list(errors)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def get_records(self, **arguments: Any) -> Any:
        """Read or fail."""
        if self._errors:
            raise self._errors.pop(0)
        return self._client.get_records(**arguments)


def test_reads_that_fail_are_repeated() -> None:
    """A read that fails costs a poll and no record; an expired iterator is renewed, an empty read goes on."""
    bench = Bench()
    empty = [True, True, False, False]
    bench.client.reads_empty = lambda: empty.pop(0)
    throttled = ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "GetRecords")
    bench.client = Flaky(bench.client, throttled, EndpointConnectionError(endpoint_url="http://127.0.0.1"))
    bench.put("a", "b")
    poller = bench.poller()
    polls = [data_of(poller.poll(bench.now)) for _ in range(2)]
    poller.complete(bench.invoke(poller), DONE, bench.now)
    bench.put("c")
    bench.now += 7200

    assert ([[], []], ["c"]) == (polls, data_of(poller.poll(bench.now)))


def test_a_rewind_waits_for_the_invocation_under_way() -> None:
    """A poller cannot lose its checkpoint while an invocation is under way."""
    bench = Bench()
    [number] = bench.put("a")
    poller = bench.poller()
    bench.invoke(poller)

    with pytest.raises(ValueError, match="under way"):
        poller.pollers[SHARD].rewind(number)


@pytest.mark.parametrize(
    "settings", [{"batch_size": 0}, {"batch_size": 10_001}, {"maximum_batching_window_seconds": 301}]
)
def test_settings_outside_lambdas_ranges_are_rejected(settings: dict[str, Any]) -> None:
    """A mapping keeps Lambda's ranges."""
    with pytest.raises(ValueError, match="not within"):
        EventSourceMapping(event_source_arn=STREAM_ARN, **settings)
