"""The cases that were recorded on AWS, in their own numbers."""

import json
from typing import Any

import pytest

from doubles.event_source import Invocation, Outcome, Raised, Returned
from tests.support.event_source import STREAM_ARN, Bench

REPORTING = {"report_batch_item_failures": True}


def succeed(_: Invocation) -> Outcome:
    """Answer nothing."""
    return Returned(None)


def fail(_: Invocation) -> Outcome:
    """Raise."""
    return Raised("ZeroDivisionError", "division by zero")


@pytest.mark.parametrize("value", ["", [], None, {}, {"batchItemFailures": []}, {"batchItemFailures": None}])
def test_an_empty_answer_is_success(value: Any) -> None:
    """Each of the six recorded ways to report nothing settles the batch with one call."""
    bench = Bench()
    bench.put("hello")

    bench.run(bench.poller(batch_size=1, maximum_retry_attempts=2, **REPORTING), lambda _: Returned(value))

    assert bench.sent == [["hello"]]
    assert bench.failed == []


@pytest.mark.parametrize(
    "outcome",
    [
        Returned({"batchItemFailures": [{"itemIdentifier": 123}]}),
        Returned({"batchItemFailures": [{"itemIdentifier": ""}]}),
        Returned({"batchItemFailures": [{"itemIdentifier": None}]}),
        Returned({"batchItemFailures": [{"foo": 123}]}),
        Returned({"batchItemFailures": [{"foo": None}]}),
        Raised("ZeroDivisionError", "division by zero"),
    ],
)
def test_an_answer_that_names_no_record_fails_the_batch(outcome: Outcome) -> None:
    """Each of the five recorded odd items, and an exception, sends the batch three times with two retries."""
    bench = Bench()
    bench.put("hello")

    bench.run(bench.poller(batch_size=1, maximum_retry_attempts=2, **REPORTING), lambda _: outcome)

    message = bench.failed[0].message()
    assert bench.sent == [["hello"]] * 3
    assert message["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert message["requestContext"]["approximateInvokeCount"] == 3
    assert message["responseContext"]["functionError"] == (
        "Unhandled" if isinstance(outcome, Raised) else None
    )


def test_a_partial_failure_is_sent_on_from_its_first_record() -> None:
    """Six records, batches of three, the last one bad, three retries.

    The good ones are sent once, the bad one with its batch and then four times alone, and the failure record counts
    those four.
    """
    bench = Bench()
    *_, bad = bench.put("r1", "r2", "r3", "r4", "r5", "r6")

    def report(invocation: Invocation) -> Outcome:
        failures = [{"itemIdentifier": number} for number in invocation.sequence_numbers if number == bad]
        return Returned({"batchItemFailures": failures})

    bench.run(
        bench.poller(batch_size=3, maximum_batching_window_seconds=1, maximum_retry_attempts=3, **REPORTING),
        report,
    )

    assert bench.sent == [["r1", "r2", "r3"], ["r4", "r5", "r6"], ["r6"], ["r6"], ["r6"], ["r6"]]
    [message] = [record.message() for record in bench.failed]
    assert message["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert message["requestContext"]["approximateInvokeCount"] == 4
    assert message["responseContext"] == {
        "statusCode": 200,
        "executedVersion": "$LATEST",
        "functionError": None,
    }
    batch = message["KinesisBatchInfo"]
    assert (batch["startSequenceNumber"], batch["endSequenceNumber"], batch["batchSize"]) == (bad, bad, 1)


def test_one_retry_is_two_calls() -> None:
    """With one retry a function that raises is called twice, and the failure record tells metadata alone."""
    bench = Bench()
    [number] = bench.put("hello")

    bench.run(bench.poller(batch_size=1, maximum_batching_window_seconds=1, maximum_retry_attempts=1), fail)

    assert bench.sent == [["hello"]] * 2
    assert [record.message() for record in bench.failed] == [
        {
            "requestContext": {
                "requestId": "id-2",
                "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:WorkerFunction",
                "condition": "RetryAttemptsExhausted",
                "approximateInvokeCount": 2,
            },
            "responseContext": {
                "statusCode": 200,
                "executedVersion": "$LATEST",
                "functionError": "Unhandled",
            },
            "version": "1.0",
            "timestamp": "2025-11-24T16:00:00.300Z",
            "KinesisBatchInfo": {
                "shardId": "shardId-000000000000",
                "startSequenceNumber": number,
                "endSequenceNumber": number,
                "approximateArrivalOfFirstRecord": "2025-11-24T16:00:00.000Z",
                "approximateArrivalOfLastRecord": "2025-11-24T16:00:00.000Z",
                "batchSize": 1,
                "streamArn": STREAM_ARN,
            },
        }
    ]


def test_s3_gets_the_event_too() -> None:
    """The object in S3 holds the metadata and, as text, the event; its key tells mapping, shard and time."""
    bench = Bench()
    bench.put("hello")
    events: list[dict[str, Any]] = []

    def fail_with(invocation: Invocation) -> Outcome:
        events.append(invocation.event)
        return Raised()

    bench.run(bench.poller(batch_size=1, maximum_retry_attempts=1, uuid="mapping-1"), fail_with)

    key, body = bench.failed[0].s3_object(lambda: "random-1")
    assert key == "aws/lambda/mapping-1/shardId-000000000000/2025/11/24/2025-11-24T16.00.00-random-1"
    assert json.loads(body.pop("payload")) == events[-1]
    assert body == bench.failed[0].message()


def test_eight_calls_within_a_minute() -> None:
    """With a record age of 60 s and endless retries the function is called eight times, and then the record goes."""
    bench = Bench()
    bench.put("stream-data")
    start = bench.now
    poller = bench.poller(
        batch_size=1,
        maximum_batching_window_seconds=1,
        maximum_retry_attempts=-1,
        maximum_record_age_seconds=60,
    )

    bench.run(poller, fail, until=start + 60)
    bench.now = start + 60
    bench.run(poller, fail)

    assert len(bench.sent) == 8
    [message] = [record.message() for record in bench.failed]
    assert message["requestContext"]["condition"] == "RecordAgeExceeded"
    assert message["requestContext"]["approximateInvokeCount"] == 8
    assert "responseContext" not in message


def test_a_record_that_is_too_old_already_is_never_sent() -> None:
    """A record that was too old before the mapping saw it makes a failure record that counts one call."""
    bench = Bench()
    bench.put("stream-data")
    bench.now += 60

    bench.run(
        bench.poller(
            batch_size=1,
            maximum_batching_window_seconds=1,
            maximum_retry_attempts=0,
            maximum_record_age_seconds=60,
        ),
        fail,
    )

    assert bench.sent == []
    [message] = [record.message() for record in bench.failed]
    assert message["requestContext"]["condition"] == "RecordAgeExceeded"
    assert message["requestContext"]["approximateInvokeCount"] == 1
    assert "responseContext" not in message


def test_younger_records_behind_a_stale_one_are_sent() -> None:
    """Of one record that is 80 s old and five fresh ones, the first is given up and the five are one batch."""
    bench = Bench()
    bench.put("stream-data")
    bench.now += 80
    fresh = [f"stream-data-{i}" for i in range(1, 6)]
    bench.put(*fresh)

    bench.run(
        bench.poller(
            batch_size=10,
            maximum_batching_window_seconds=1,
            maximum_retry_attempts=0,
            maximum_record_age_seconds=60,
        ),
        succeed,
    )

    assert bench.sent == [fresh]
    assert [len(record.records) for record in bench.failed] == [1]


def test_twenty_records_are_two_batches_of_ten() -> None:
    """What comes after the mapping, from LATEST on, is cut by BatchSize."""
    bench = Bench()
    bench.put("before")
    poller = bench.poller(starting_position="LATEST", batch_size=10)
    bench.run(poller, succeed)
    for batch in range(2):
        bench.put(*[f"{batch}-{i}" for i in range(10)])

    bench.run(poller, succeed)

    assert bench.sent == [[f"{batch}-{i}" for i in range(10)] for batch in range(2)]


def test_trim_horizon_reads_what_is_there() -> None:
    """Thirty records, twenty of them older than the mapping, are three batches of ten."""
    bench = Bench()
    bench.put(*[str(i) for i in range(20)])
    poller = bench.poller(batch_size=10)
    bench.put(*[str(i) for i in range(20, 30)])

    bench.run(poller, succeed)

    assert bench.sent == [[str(i) for i in range(start, start + 10)] for start in (0, 10, 20)]


def test_an_empty_batch_is_never_sent() -> None:
    """A shard without records calls nothing, however long it is polled."""
    bench = Bench()
    poller = bench.poller(batch_size=1, maximum_batching_window_seconds=1, maximum_retry_attempts=2)

    for _ in range(10):
        bench.run(poller, succeed)
        bench.now += 1

    assert bench.sent == []


def test_the_event_has_the_recorded_form() -> None:
    """An event is what Lambda sends, field by field and in its order."""
    bench = Bench()
    [number] = bench.put("hello", key="test_0")

    invocation = bench.poller(role_arn="arn:aws:iam::123456789012:role/r").poll(bench.now)

    assert invocation is not None
    assert json.dumps(invocation.event) == json.dumps(
        {
            "Records": [
                {
                    "kinesis": {
                        "kinesisSchemaVersion": "1.0",
                        "partitionKey": "test_0",
                        "sequenceNumber": number,
                        "data": "aGVsbG8=",
                        "approximateArrivalTimestamp": 1764000000.0,
                    },
                    "eventSource": "aws:kinesis",
                    "eventVersion": "1.0",
                    "eventID": f"shardId-000000000000:{number}",
                    "eventName": "aws:kinesis:record",
                    "invokeIdentityArn": "arn:aws:iam::123456789012:role/r",
                    "awsRegion": "us-east-1",
                    "eventSourceARN": STREAM_ARN,
                }
            ]
        }
    )
