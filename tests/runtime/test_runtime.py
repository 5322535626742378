"""The built functions in Lambda's real runtime, one sandbox each, with AWS, Redis and Treasure Data beside them."""

import json
import time
from base64 import b64decode, b64encode

import msgpack
import pytest

from doubles.tcp_proxy import TcpProxy
from doubles.treasure_data import TreasureData
from local import functions
from local.resources import Resources
from shared import envelope
from tests.support.sandboxes import Start, an_envelope, dead, on_stream, recorded, stream_event
from tests.support.sluice import until

pytestmark = pytest.mark.xdist_group("runtime")


def test_a_pixel_is_answered_and_its_event_is_on_the_stream(start: Start, aws: Resources) -> None:
    """The ingest answers a browser's recorded request with the GIF, and the single envelope has the event."""
    answer = start(functions.INGEST).invoke(recorded("http")["pixel"])

    assert (200, True) == (answer["statusCode"], answer["isBase64Encoded"])
    assert "image/gif" == answer["headers"]["content-type"]
    made = envelope.decode(*on_stream(aws))
    assert ("shop", 1, "pageviews") == (made.account, made.row_count, made.tables[0].table)
    assert "autumn tea" == msgpack.unpackb(made.tables[0].rows)["campaign"]


def test_recorded_requests_are_accounted_for(start: Start, aws: Resources) -> None:
    """No recorded request gets a 5xx, and every event that a response calls accepted is on the stream."""
    ingest = start(functions.INGEST)
    answers = {name: ingest.invoke(event) for name, event in recorded("http").items()}
    accepted = 0
    for name, answer in answers.items():
        assert answer["statusCode"] < 500, name
        assert name.startswith("mistake-") or answer["statusCode"] < 300, name
        if answer["headers"].get("content-type") == "image/gif":
            accepted += answer["statusCode"] == 200
        elif answer.get("body"):
            accepted += json.loads(answer["body"]).get("accepted", 0)

    assert accepted == sum(envelope.decode(data).row_count for data in on_stream(aws))


def test_records_become_rows(start: Start, aws: Resources, treasure_data: TreasureData) -> None:
    """The worker delivers a batch and reports no failures."""
    event = stream_event(aws, an_envelope("r-1", "/one"), an_envelope("r-2", "/two"))
    answer = start(functions.WORKER).invoke(event)

    assert {"batchItemFailures": []} == answer
    assert ["/one", "/two"] == [row["page"] for row in treasure_data.rows("shop", "pageviews")]


def _recorded_data(name: str) -> list[bytes]:
    """Return the data of a recorded event's records, to be put on the stream, because the worker verifies them there."""
    return [b64decode(record["kinesis"]["data"]) for record in recorded("kinesis")[name]["Records"]]


def test_a_recorded_batch_becomes_rows(start: Start, aws: Resources, treasure_data: TreasureData) -> None:
    """The worker delivers each recorded row once."""
    data = _recorded_data("visits")

    assert {"batchItemFailures": []} == start(functions.WORKER).invoke(stream_event(aws, *data))
    delivered = sum(rows for tables in treasure_data.counts().values() for rows in tables.values())
    assert sum(envelope.decode(item).row_count for item in data) == delivered


@pytest.mark.parametrize(
    ("name", "accounts"), [("mistakes", {"closed", "news", "nobody"}), ("other-producers", {"-", "app"})]
)
def test_a_recorded_batch_with_poison_does_not_block_its_shard(
    name: str, accounts: set[str], start: Start, aws: Resources, treasure_data: TreasureData
) -> None:
    """The worker keeps what cannot be delivered as dead, and delivers the rest."""
    event = stream_event(aws, *_recorded_data(name))

    assert {"batchItemFailures": []} == start(functions.WORKER).invoke(event)
    assert treasure_data.counts()
    assert accounts == {one.key.account for one in dead(aws)}


def test_the_next_invocation_delivers_after_a_timeout(
    start: Start, aws: Resources, treasure_data: TreasureData
) -> None:
    """Lambda kills a worker that hangs and reports it in plain text; a new process delivers the batch once."""
    event = stream_event(aws, an_envelope("r-3", "/three"))
    with TcpProxy(aws.endpoint) as proxy:
        worker = start(functions.WORKER, endpoint=proxy.url, timeout=5)
        proxy.hanging = True
        assert "Task timed out after 5.00 seconds" == worker.invoke(event)
        proxy.hanging = False
        until(
            lambda: worker.invoke(event) == {"batchItemFailures": []}
        )  # a busy machine may need several tries

    assert ["/three"] == [row["page"] for row in treasure_data.rows("shop", "pageviews")]


def test_a_scheduled_run_with_nothing_waiting_succeeds(start: Start) -> None:
    """The schedule's event is answered without an error."""
    event = {"version": "0", "source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}
    answer = start(functions.SENDER).invoke(event)

    assert not isinstance(answer, dict) or "errorType" not in answer, answer


def test_an_overflowed_envelope_is_put_on_the_stream(start: Start, aws: Resources) -> None:
    """The drainer puts an envelope that the stream rejected on the stream, as a claim, and reports no failure."""
    received_at = int(time.time() * 1000) - 600_000
    data = envelope.decode(an_envelope("r-4", "/four"))
    message = {
        "messageId": "1",
        "receiptHandle": "1",
        "body": b64encode(data.encode()).decode(),
        "attributes": {"SentTimestamp": str(received_at), "ApproximateReceiveCount": "1"},
        "messageAttributes": {
            "partition_key": {"dataType": "String", "stringValue": "shop/1"},
            "received_at": {"dataType": "Number", "stringValue": str(received_at)},
            "request_id": {"dataType": "String", "stringValue": "r-4"},
            "refused": {"dataType": "String", "stringValue": "true"},
        },
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:overflow",
        "awsRegion": "us-east-1",
    }
    answer = start(functions.DRAIN).invoke({"Records": [message]})

    assert {"batchItemFailures": []} == answer
    put = envelope.decode(on_stream(aws)[-1])
    assert ("r-4", 1, data.tables) == (put.request_id, put.claim, put.tables)
