"""What a shard's poller does where nothing was recorded: AWS's documentation, and the choices made here."""

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from doubles.event_source import (
    EVENT_BYTES,
    Invocation,
    Outcome,
    Raised,
    Record,
    Returned,
    StreamPoller,
    Throttled,
    TimedOut,
    exponential_backoff,
    settled_count,
)
from doubles.event_source.mapping import Mapping
from doubles.event_source.record import EventForm, count_that_fits
from tests.support.event_source import STREAM_ARN, Bench

REPORTING = {"report_batch_item_failures": True}
DONE = Returned(None)


def sent(invocation: Invocation | None) -> list[str]:
    """Return the data of a batch, nothing for no batch."""
    return [record.data.decode() for record in invocation.records] if invocation else []


def send(bench: Bench, poller: StreamPoller) -> Invocation:
    """Return the invocation that there must be now."""
    invocation = poller.poll(bench.now)
    assert invocation is not None
    return invocation


def failing_from(invocation: Invocation, place: int) -> Outcome:
    """Report the record at this place as the first that failed."""
    return Returned({"batchItemFailures": [{"itemIdentifier": invocation.sequence_numbers[place]}]})


def test_the_lowest_number_is_the_checkpoint() -> None:
    """With several items everything from the lowest number on is sent again, in whatever order they are named."""
    bench = Bench()
    numbers = bench.put(*"abcdefghijkl")
    poller = bench.poller(**REPORTING)

    failures = [{"itemIdentifier": numbers[place]} for place in (10, 2, 9)]
    poller.complete(send(bench, poller), Returned({"batchItemFailures": failures}), bench.now)
    bench.now += 1

    assert sent(poller.poll(bench.now)) == list("cdefghijkl")


def test_without_the_setting_reports_are_ignored() -> None:
    """A mapping without ReportBatchItemFailures takes a returned list for success."""
    bench = Bench()
    bench.put("a", "b")
    poller = bench.poller()
    invocation = send(bench, poller)

    poller.complete(invocation, failing_from(invocation, 0), bench.now)
    bench.now += 1000

    assert poller.poll(bench.now) is None


@pytest.mark.parametrize(
    "value", ["text", 7, [1], {"failures": [{"itemIdentifier": "2"}]}, {"batchItemFailures": None}]
)
def test_an_answer_without_the_key_settles_everything(value: Any) -> None:
    """What has no `batchItemFailures` counts as success, also where the function meant another key."""
    assert settled_count(value, ["1", "2", "10"]) == 3


@pytest.mark.parametrize(
    "failures",
    [
        "10",
        {"itemIdentifier": "10"},
        [None],
        ["10"],
        [{"itemIdentifier": 10}],
        [{"itemIdentifier": "10"}, {}],
        [[]],
    ],
)
def test_a_list_that_cannot_be_read_settles_nothing(failures: Any) -> None:
    """One item that names no record of the batch fails all of it."""
    assert settled_count({"batchItemFailures": failures}, ["1", "2", "10"]) == 0


def test_a_batch_waits_for_its_window() -> None:
    """A batch that is not full goes out when the window has passed, with all that came by then."""
    bench = Bench()
    poller = bench.poller(batch_size=3, maximum_batching_window_seconds=5)
    bench.put("a")
    early = poller.poll(bench.now)
    bench.now += 4.9
    bench.put("b")
    late = poller.poll(bench.now)
    bench.now += 0.1

    assert (early, late, sent(poller.poll(bench.now))) == (None, None, ["a", "b"])


def test_a_full_batch_does_not_wait() -> None:
    """A batch that has BatchSize records goes out at once."""
    bench = Bench()
    poller = bench.poller(batch_size=2, maximum_batching_window_seconds=300)
    bench.put("a", "b", "c")

    assert sent(poller.poll(bench.now)) == ["a", "b"]


def test_the_next_window_begins_where_an_invocation_ends() -> None:
    """What comes while the function runs waits a whole window after its end."""
    bench = Bench()
    poller = bench.poller(batch_size=2, maximum_batching_window_seconds=5)
    bench.put("a", "b")
    invocation = send(bench, poller)
    bench.put("c")
    bench.now += 60
    poller.complete(invocation, DONE, bench.now)

    bench.now += 4.9
    early = poller.poll(bench.now)
    bench.now += 0.1

    assert (early, sent(poller.poll(bench.now))) == (None, ["c"])


def test_without_a_window_nothing_waits() -> None:
    """With a window of 0 whatever is there goes out."""
    bench = Bench()
    bench.put("a")

    assert sent(bench.poller(batch_size=100).poll(bench.now)) == ["a"]


def test_an_event_stays_below_six_megabytes() -> None:
    """A batch is cut where its event would outgrow 6 MB of JSON, and such a batch does not wait for its window."""
    bench = Bench()
    bench.put(*["x" * 700_000] * 9)
    poller = bench.poller(batch_size=100, maximum_batching_window_seconds=300)

    invocation = send(bench, poller)

    size = len(json.dumps(invocation.event, separators=(",", ":")))
    assert len(invocation.records) == 6
    assert size <= EVENT_BYTES < size + 933_334


@given(st.lists(st.tuples(st.text(min_size=1, max_size=20), st.binary(max_size=20)), min_size=1, max_size=5))
def test_the_size_of_an_event_is_known_exactly(entries: list[tuple[str, bytes]]) -> None:
    """The sizes that batches are cut by add up to the event's JSON text, whatever keys and data are."""
    bench = Bench()
    form = EventForm(Mapping(event_source_arn=STREAM_ARN, starting_position="LATEST"), "shardId-000000000000")
    for key, data in entries:
        bench.client.put_record(StreamName="s", Data=data, PartitionKey=key)
    iterator = bench.client.get_shard_iterator(
        StreamName="s", ShardId="shardId-000000000000", ShardIteratorType="TRIM_HORIZON"
    )["ShardIterator"]
    records = [form.record(read) for read in bench.client.get_records(ShardIterator=iterator)["Records"]]

    text = json.dumps(form.event(records), separators=(",", ":"), ensure_ascii=False)

    assert len(text.encode()) == len('{"Records":[]}') - len(",") + sum(
        record.event_bytes for record in records
    )


@pytest.mark.parametrize(("spare", "count"), [(0, 2), (-1, 1)])
def test_the_limit_itself_still_fits(spare: int, count: int) -> None:
    """An event of exactly 6 MB is sent, one byte more is not."""
    first = EVENT_BYTES // 2
    second = EVENT_BYTES - first - len('{"Records":[]}') + len(",") - spare
    records = [Record(1, "1", "a", b"", 0.0, size) for size in (first, second)]

    assert count_that_fits(records) == count


def test_a_record_too_large_for_any_event_blocks_its_shard() -> None:
    """It is never sent, uses no retry, and goes when it is too old, with a failure record; then its shard goes on."""
    bench = Bench()
    bench.client._max_record_bytes = 10 * 1024 * 1024
    bench.put("x" * 5_000_000, "behind")
    start = bench.now
    poller = bench.poller(maximum_retry_attempts=0, maximum_record_age_seconds=60)

    bench.run(poller, lambda _: DONE, until=start + 59)
    blocked = list(bench.sent)
    bench.now = start + 59.5
    bench.put("later")
    bench.now = start + 60
    bench.run(poller, lambda _: DONE)

    assert (blocked, bench.sent) == ([], [["later"]])
    assert [(record.condition, record.invoke_count, len(record.records)) for record in bench.failed] == [
        ("RecordAgeExceeded", 1, 2)
    ]


def test_one_invocation_at_a_time() -> None:
    """While an invocation is under way its shard gives no other."""
    bench = Bench()
    bench.put("a", "b")
    poller = bench.poller(batch_size=1)
    invocation = send(bench, poller)

    assert poller.poll(bench.now) is None
    poller.complete(invocation, DONE, bench.now)
    assert sent(poller.poll(bench.now)) == ["b"]


def test_an_invocation_that_timed_out_is_of_no_interest() -> None:
    """After a time-out the batch is sent again in a new invocation, and the old one cannot be completed."""
    bench = Bench()
    bench.put("a")
    poller = bench.poller()
    old = send(bench, poller)
    poller.complete(old, TimedOut(), bench.now)
    bench.now += 1

    new = send(bench, poller)

    assert (sent(new), new.attempt, old.attempt) == (["a"], 2, 1)
    assert new.request_id != old.request_id
    assert new.event is not old.event
    with pytest.raises(ValueError, match=old.request_id):
        poller.complete(old, DONE, bench.now)


def test_throttles_use_no_retry() -> None:
    """However often Lambda is throttled, a batch still has all its retries, and the waiting grows."""
    bench = Bench()
    bench.put("a")
    poller = bench.poller(maximum_retry_attempts=1)
    outcomes: list[Outcome] = [Throttled()] * 5 + [Raised(), Throttled(), Raised()]

    bench.run(poller, lambda _: outcomes.pop(0))

    waits = [later - earlier for earlier, later in zip(bench.times, bench.times[1:], strict=False)]
    assert len(bench.sent) == 8
    assert [record.invoke_count for record in bench.failed] == [2]
    assert waits == sorted(waits)


def test_waiting_is_bounded() -> None:
    """The waiting doubles from 0.3 s to a minute and no further."""
    waits = [exponential_backoff(failures) for failures in range(1, 2000)]

    assert waits[:3] == [0.3, 0.6, 1.2]
    assert (max(waits), waits[-1]) == (60, 60)


def test_progress_ends_the_waiting() -> None:
    """A batch that got further is sent again after the shortest wait."""
    bench = Bench()
    bench.put(*"abcd")
    poller = bench.poller(**REPORTING)
    for _ in range(6):
        poller.complete(send(bench, poller), Raised(), bench.now)
        bench.now = poller.ready_at
    invocation = send(bench, poller)

    poller.complete(invocation, failing_from(invocation, 2), bench.now)

    assert poller.ready_at == pytest.approx(bench.now + 0.3)


def test_a_batch_is_sent_again_as_it_was() -> None:
    """What came meanwhile does not join a batch that failed."""
    bench = Bench()
    bench.put("a", "b")
    poller = bench.poller()
    poller.complete(send(bench, poller), Raised(), bench.now)
    bench.put("c")
    bench.now += 1

    assert sent(poller.poll(bench.now)) == ["a", "b"]


def test_borders_cut_batches_at_will() -> None:
    """A harness's `borders` decides how many of the records on offer go out, anew after each failure."""
    bench = Bench()
    bench.put(*"abcde")
    takes = [2, 4, 1, 99, 0]
    offered: list[int] = []

    def borders(records: Sequence[Record]) -> int:
        offered.append(len(records))
        return takes.pop(0)

    poller = bench.poller(options={"borders": borders}, batch_size=4)
    outcomes = [Raised(), Raised(), DONE, DONE]
    batches = []
    for outcome in outcomes:
        invocation = send(bench, poller)
        batches.append("".join(sent(invocation)))
        poller.complete(invocation, outcome, bench.now)
        bench.now += 100
    bench.put("f")
    batches.append("".join(sent(poller.poll(bench.now))))

    assert batches == ["ab", "abcd", "a", "bcde", "f"]
    assert offered == [4, 4, 4, 4, 1]


def test_a_batch_that_failed_is_halved() -> None:
    """With bisecting a failed batch goes on in halves, down to the record that fails, and halving uses no retry."""
    bench = Bench()
    bench.put(*"abcdefgh")

    def fail_on_f(invocation: Invocation) -> Outcome:
        return Raised() if "f" in sent(invocation) else DONE

    bench.run(bench.poller(bisect_batch_on_function_error=True, maximum_retry_attempts=1), fail_on_f)

    assert ["".join(batch) for batch in bench.sent] == ["abcdefgh", "abcd", "efgh", "ef", "e", "f", "f", "gh"]
    assert [(record.invoke_count, len(record.records)) for record in bench.failed] == [(2, 1)]


def test_a_report_splits_where_it_says() -> None:
    """With bisecting and a report the batch is split at the reported record, and only the rest is sent again."""
    bench = Bench()
    bench.put(*"abcd")
    poller = bench.poller(bisect_batch_on_function_error=True, **REPORTING)
    invocation = send(bench, poller)

    poller.complete(invocation, failing_from(invocation, 1), bench.now)
    bench.now += 1

    assert sent(poller.poll(bench.now)) == ["b", "c", "d"]


def test_what_a_batch_in_doubt_loses_to_age_is_its_front() -> None:
    """Records of a failed batch that become too old are given up, and the rest is sent again."""
    bench = Bench()
    bench.put("a", "b")
    bench.now += 30
    bench.put("c", "d")
    poller = bench.poller(maximum_record_age_seconds=60)
    poller.complete(send(bench, poller), Raised(), bench.now)
    bench.now += 30

    assert sent(poller.poll(bench.now)) == ["c", "d"]
    assert [(record.condition, record.invoke_count, len(record.records)) for record in bench.failed] == [
        ("RecordAgeExceeded", 1, 2)
    ]


def test_what_the_retention_removes_is_given_up() -> None:
    """Records that were read and not settled go when the stream's retention has passed."""
    bench = Bench()
    bench.put("a")
    poller = bench.poller()
    poller.complete(send(bench, poller), Raised(), bench.now)
    bench.now += 24 * 3600
    bench.put("b")

    assert sent(poller.poll(bench.now)) == ["b"]
    assert [record.condition for record in bench.failed] == ["RecordAgeExceeded"]


def test_at_timestamp() -> None:
    """A mapping that begins at a time sends what arrived then or later."""
    bench = Bench()
    bench.put("before")
    bench.now += 10
    bench.put("after")

    poller = bench.poller(starting_position="AT_TIMESTAMP", starting_position_timestamp=bench.now)

    assert sent(poller.poll(bench.now)) == ["after"]


def test_latest_skips_nothing_after_its_first_poll() -> None:
    """A mapping that begins with the latest record sends what came after its first poll, however rarely it polls."""
    bench = Bench()
    bench.put("before")
    bench.now += 0.0014
    poller = bench.poller(starting_position="LATEST")
    poller.poll(bench.now)
    bench.put("after")
    bench.now += 400

    assert sent(poller.poll(bench.now)) == ["after"]


def test_an_expired_iterator_is_renewed() -> None:
    """A poller that was not asked for longer than an iterator lives goes on where it was."""
    bench = Bench()
    bench.put("a")
    poller = bench.poller()
    poller.complete(send(bench, poller), DONE, bench.now)
    bench.put("b")
    bench.now += timedelta(hours=2).total_seconds()

    assert sent(poller.poll(bench.now)) == ["b"]


class Flaky:
    """A client that fails now and then."""

    def __init__(self, client: Any, *errors: Exception | None) -> None:
        """Take the errors of the reads to come."""
        self._client = client
        self._errors = list(errors)

    def __getattr__(self, name: str) -> Any:
        """Pass on what does not fail."""
        return getattr(self._client, name)

    def get_records(self, **arguments: Any) -> Any:
        """Read or fail."""
        error = self._errors.pop(0) if self._errors else None
        if error:
            raise error
        return self._client.get_records(**arguments)


def test_reads_that_fail_are_made_again() -> None:
    """Kinesis that throttles or is out of reach costs a poll and no record."""
    bench = Bench()
    throttled = ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "GetRecords")
    bench.client = Flaky(bench.client, throttled, EndpointConnectionError(endpoint_url="http://127.0.0.1"))
    bench.put("a", "b")
    poller = bench.poller()

    polls = [sent(poller.poll(bench.now)) for _ in range(3)]

    assert polls == [[], [], ["a", "b"]]


def test_a_poller_that_lost_its_checkpoint_sends_again() -> None:
    """After a rewind what was settled from there on comes again, in order."""
    bench = Bench()
    numbers = bench.put("a", "b", "c")
    poller = bench.poller()
    poller.complete(send(bench, poller), DONE, bench.now)
    bench.put("d")

    poller.pollers["shardId-000000000000"].rewind(numbers[1])

    assert sent(poller.poll(bench.now)) == ["b", "c", "d"]


def test_a_rewind_waits_for_the_invocation_under_way() -> None:
    """A poller cannot be rewound while an invocation is under way."""
    bench = Bench()
    [number] = bench.put("a")
    poller = bench.poller()
    send(bench, poller)

    with pytest.raises(ValueError, match="under way"):
        poller.pollers["shardId-000000000000"].rewind(number)


def test_all_waits_are_known_beforehand() -> None:
    """`ready_at` tells when a wait or a window ends, and inf where time alone brings nothing."""
    bench = Bench()
    start = bench.now
    poller = bench.poller(batch_size=2, maximum_batching_window_seconds=5)
    poller.poll(start)
    idle = poller.ready_at
    bench.put("a")
    poller.poll(start)
    window = poller.ready_at
    bench.now += 5
    invocation = send(bench, poller)
    under_way = poller.ready_at
    poller.complete(invocation, Raised(), bench.now)

    assert (idle, window, under_way, poller.ready_at) == (float("inf"), start + 5, float("inf"), start + 5.3)
