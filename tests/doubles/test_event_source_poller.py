"""One shard's poller: cases recorded on AWS, AWS's documentation, and what fault injection needs."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from doubles.event_source import (
    EVENT_BYTES,
    EventForm,
    EventSourceMapping,
    Invocation,
    Outcome,
    Raised,
    Record,
    Returned,
    TimedOut,
    exponential_backoff,
    settled_count,
)
from doubles.event_source.record import count_that_fits
from tests.support.event_source import SHARD, STREAM_ARN, Bench, data_of

DONE = Returned(None)
DAY = 24 * 3600


def failing_from(invocation: Invocation, place: int) -> Outcome:
    """Report the record at this place as the first that failed."""
    return Returned({"batchItemFailures": [{"itemIdentifier": invocation.sequence_numbers[place]}]})


@pytest.mark.parametrize(
    "value",
    ["", [], None, {}, {"batchItemFailures": []}, {"batchItemFailures": None}, "text", 7, {"failures": [1]}],
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
        Returned({"batchItemFailures": {"itemIdentifier": "10"}}),
        Returned({"batchItemFailures": ["10"]}),
        Returned({"batchItemFailures": [[]]}),
        Returned({"batchItemFailures": [{"itemIdentifier": "10"}, {}]}),
    ],
)
def test_a_report_that_cannot_be_read_settles_nothing(outcome: Outcome) -> None:
    """The five recorded odd items, an exception, a time-out and malformed lists fail the whole batch."""
    assert 0 == settled_count(outcome, ["1", "2", "10"])


def test_the_lowest_number_is_the_checkpoint() -> None:
    """With several items everything from the lowest number on is sent again, in whatever order they are reported."""
    bench = Bench()
    numbers = bench.put(*"abcdefghijkl")
    poller = bench.poller()
    failures = [{"itemIdentifier": numbers[place]} for place in (10, 2, 9)]
    poller.complete(bench.invoke(poller), Returned({"batchItemFailures": failures}), bench.now)
    bench.now += 1

    assert list("cdefghijkl") == data_of(poller.poll(bench.now))


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
    """Retries wait as long as those that were recorded: eight calls within a minute."""
    bench = Bench()
    bench.put("stream-data")
    poller, end = bench.poller(batch_size=1), bench.now + 60
    while bench.now < end:
        bench.run(poller, lambda _: Raised(), calls=1)
        bench.now = poller.ready_at

    assert 8 == len(bench.sent)


def test_waiting_is_bounded() -> None:
    """The wait doubles from 0.3 s to a minute and no further."""
    waits = [exponential_backoff(failures) for failures in range(1, 2000)]

    assert ([0.3, 0.6, 1.2], 60, 60) == (waits[:3], max(waits), waits[-1])


def test_progress_ends_the_waiting() -> None:
    """A batch that made progress is sent again after the shortest wait."""
    bench = Bench()
    bench.put(*"abcd")
    poller = bench.poller()
    bench.run(poller, lambda _: Raised(), calls=6)
    bench.now = poller.ready_at
    invocation = bench.invoke(poller)
    poller.complete(invocation, failing_from(invocation, 2), bench.now)

    assert pytest.approx(bench.now + 0.3) == poller.ready_at


def test_batches_are_cut_by_their_size() -> None:
    """Thirty records, twenty of them older than the mapping, are three batches of ten (recorded)."""
    bench = Bench()
    bench.put(*[str(i) for i in range(20)])
    poller = bench.poller(batch_size=10)
    bench.put(*[str(i) for i in range(20, 30)])
    bench.run(poller, lambda _: DONE)

    assert [[str(i) for i in range(start, start + 10)] for start in (0, 10, 20)] == bench.sent


def test_an_empty_batch_is_never_sent() -> None:
    """A shard without records calls nothing, however long it is polled (recorded)."""
    bench = Bench()
    poller = bench.poller(batch_size=1, maximum_batching_window_seconds=1)
    for _ in range(10):
        bench.run(poller, lambda _: DONE)
        bench.now += 1

    assert [] == bench.sent


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
    """A batch of BatchSize records goes out at once; the next window begins when its invocation ends."""
    bench = Bench()
    poller = bench.poller(batch_size=2, maximum_batching_window_seconds=5)
    bench.put("a", "b")
    invocation = bench.invoke(poller)
    bench.put("c")
    bench.now += 60
    poller.complete(invocation, DONE, bench.now)
    bench.now += 4.9
    early = poller.poll(bench.now)
    bench.now += 0.1

    assert (["a", "b"], None, ["c"]) == (data_of(invocation), early, data_of(poller.poll(bench.now)))


def test_an_event_stays_below_six_megabytes() -> None:
    """A batch is cut where its event would exceed 6 MB of JSON, and does not wait for its window."""
    bench = Bench()
    bench.put(*["x" * 700_000] * 9)
    invocation = bench.invoke(bench.poller(batch_size=100, maximum_batching_window_seconds=300))

    size = len(json.dumps(invocation.event, separators=(",", ":")))
    assert 6 == len(invocation.records)
    assert size <= EVENT_BYTES < size + 933_334


@given(st.lists(st.tuples(st.text(min_size=1, max_size=20), st.binary(max_size=20)), min_size=1, max_size=5))
def test_the_size_of_an_event_is_known_exactly(entries: list[tuple[str, bytes]]) -> None:
    """The sizes that batches are cut by add up to the event's JSON text, whatever the keys and data."""
    bench = Bench()
    form = EventForm(EventSourceMapping(event_source_arn=STREAM_ARN), SHARD)
    for key, data in entries:
        bench.client.put_record(StreamName="s", Data=data, PartitionKey=key)
    records = bench.invoke(bench.poller()).records
    text = json.dumps(form.event(records), separators=(",", ":"), ensure_ascii=False)

    size = len('{"Records":[]}') - len(",") + sum(record.event_bytes for record in records)
    assert len(text.encode()) == size


@pytest.mark.parametrize(("spare", "count"), [(0, 2), (-1, 1)])
def test_the_limit_itself_still_fits(spare: int, count: int) -> None:
    """An event of exactly 6 MB is sent, one byte more is not."""
    first = EVENT_BYTES // 2
    second = EVENT_BYTES - first - len('{"Records":[]}') + len(",") - spare
    records = [Record(1, "1", "a", b"", 0.0, size) for size in (first, second)]

    assert count == count_that_fits(records)


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


def test_one_invocation_at_a_time() -> None:
    """While an invocation is under way its shard has no other."""
    bench = Bench()
    bench.put("a", "b")
    poller = bench.poller(batch_size=1)
    invocation = bench.invoke(poller)
    meanwhile = poller.poll(bench.now)
    poller.complete(invocation, DONE, bench.now)

    assert (None, ["b"]) == (meanwhile, data_of(poller.poll(bench.now)))


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


def test_a_batch_is_sent_again_as_it_was() -> None:
    """Records that arrive meanwhile do not join a batch that failed."""
    bench = Bench()
    bench.put("a", "b")
    poller = bench.poller()
    poller.complete(bench.invoke(poller), Raised(), bench.now)
    bench.put("c")
    bench.now += 1

    assert ["a", "b"] == data_of(poller.poll(bench.now))


def test_borders_cut_batches_at_will() -> None:
    """Fault injection's `borders` decides how many of the records on offer go out, again after each failure."""
    bench = Bench()
    bench.put(*"abcde")
    takes = [2, 4, 1, 99]
    offered: list[int] = []

    def borders(records: Sequence[Record]) -> int:
        offered.append(len(records))
        return takes.pop(0)

    poller = bench.poller(options={"borders": borders}, batch_size=4)
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
    """A read that fails costs a poll and no record; an iterator that has expired is renewed."""
    bench = Bench()
    throttled = ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "GetRecords")
    bench.client = Flaky(bench.client, throttled, EndpointConnectionError(endpoint_url="http://127.0.0.1"))
    bench.put("a", "b")
    poller = bench.poller()
    polls = [data_of(poller.poll(bench.now)) for _ in range(2)]
    poller.complete(bench.invoke(poller), DONE, bench.now)
    bench.put("c")
    bench.now += 7200

    assert ([[], []], ["c"]) == (polls, data_of(poller.poll(bench.now)))


def test_a_poller_that_lost_its_checkpoint_sends_again() -> None:
    """After a rewind everything from a record on is sent again, in order; but not while an invocation is under way."""
    bench = Bench()
    numbers = bench.put("a", "b", "c")
    poller = bench.poller()
    invocation = bench.invoke(poller)
    with pytest.raises(ValueError, match="under way"):
        poller.pollers[SHARD].rewind(numbers[1])
    poller.complete(invocation, DONE, bench.now)
    bench.put("d")
    poller.pollers[SHARD].rewind(numbers[1])

    assert ["b", "c", "d"] == data_of(poller.poll(bench.now))


def test_all_waits_are_known_beforehand() -> None:
    """`ready_at` tells when a wait or a window ends, and is infinite if time alone changes nothing."""
    bench = Bench()
    start = bench.now
    poller = bench.poller(batch_size=2, maximum_batching_window_seconds=5)
    poller.poll(start)
    idle = poller.ready_at
    bench.put("a")
    poller.poll(start)
    window = poller.ready_at
    bench.now += 5
    invocation = bench.invoke(poller)
    under_way = poller.ready_at
    poller.complete(invocation, Raised(), bench.now)

    assert (float("inf"), start + 5, float("inf"), start + 5.3) == (idle, window, under_way, poller.ready_at)


@pytest.mark.parametrize(
    "settings", [{"batch_size": 0}, {"batch_size": 10_001}, {"maximum_batching_window_seconds": 301}]
)
def test_settings_outside_lambdas_ranges_are_rejected(settings: dict[str, Any]) -> None:
    """A mapping keeps Lambda's ranges."""
    with pytest.raises(ValueError, match="not within"):
        EventSourceMapping(event_source_arn=STREAM_ARN, **settings)
