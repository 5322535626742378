"""The overflow queue: from a put that the stream did not acknowledge to exactly one row."""

import base64
from collections import Counter
from typing import Any

import msgpack
import pytest
from botocore.parsers import ResponseParserError

from doubles.sqs import Message, record_of
from shared import envelope
from tests.support.delivery import lose_answer
from tests.support.overflow import KEY, Way, an_envelope, throttled, timeout
from worker.states import State

ONE = {"r-0": 1}
ENVELOPE = base64.b64encode(an_envelope("r").encode()).decode()


@pytest.fixture
def way() -> Way:
    """Return a pipeline with an overflow queue."""
    return Way()


def refuse(way: Way, *names: str) -> None:
    """Send envelopes for which the stream definitely refuses every put."""
    way.kinesis.faults["put_record"] = throttled(100)
    assert way.collect(*names)
    way.kinesis.faults["put_record"] = []


def claims(way: Way) -> list[int]:
    """Return the claims of the records on the stream."""
    return [envelope.decode(data).claim for data in way.delivery.kinesis.client.data()]


@pytest.mark.parametrize("lands", [False, True])
def test_with_a_claim_or_after_a_definite_refusal_the_claim_is_plain(way: Way, lands: bool) -> None:
    """No record carries the latter without one, and of the former one copy counts: nothing is to be decided."""
    if lands:
        way.kinesis.faults["put_record"] = [way.landing_unheard]
        assert way.collect("r", claim=1)
    else:
        refuse(way, "r")

    assert (1, [1] * (1 + lands)) == (way.drain(), claims(way))
    way.deliver()
    assert ONE == Counter(way.ids())


def test_a_put_in_doubt_is_marked_with_the_time_of_its_first_put(way: Way) -> None:
    """At once, without a look at the stream. How long the message waits decides nothing."""
    sent_at = round(way.clock.now() * 1000)
    way.kinesis.faults["put_record"] = [timeout()]
    assert way.collect("r")
    way.wait(5)

    assert 1 == way.drain()
    [claim] = claims(way)
    assert 0 <= claim - sent_at < 3000
    assert {"put_record"} == {name for name, *_ in way.kinesis.calls}


@pytest.mark.parametrize("fault", ["unheard", "gone", "late"])
@pytest.mark.parametrize("seconds", [0, 200, 3 * 86_400])
def test_a_put_in_doubt_becomes_one_row(fault: str, seconds: float, way: Way) -> None:
    """Whether it landed, did not, or lands late."""
    fates = {"unheard": way.landing_unheard, "gone": timeout(), "late": way.landing_late(400)}
    way.kinesis.faults["put_record"] = [fates[fault]]
    assert way.collect("r")
    way.wait(seconds)
    assert (1, 0) == (way.drain(), way.waiting())
    way.deliver()
    way.settle()

    assert ONE == Counter(way.ids())


def test_puts_keep_the_order_of_the_messages(way: Way) -> None:
    """A visitor's envelopes keep their order on the stream as far as the queue kept it."""
    for number in range(5):
        refuse(way, f"r{number}")
        way.wait(1)
    way.drainer().run(_event(*way.sqs.messages(way.queue_url)), way.delivery.deadline(60_000))
    way.deliver()

    assert [f"r{number}-0" for number in range(5)] == way.delivery.ids("shop_db", "pageviews")


def test_a_throttled_put_stays_on_the_queue(way: Way) -> None:
    """The queue delivers it again after half a minute."""
    refuse(way, "a", "b", "c")
    way.kinesis.faults["put_records"] = throttled(1)

    assert (0, 3) == (way.drain(), way.waiting())
    assert {30.0} == {message.visible_at - way.clock.now() for message in way.sqs.messages(way.queue_url)}
    way.wait(31)
    way.kinesis.faults["put_records"] = throttled(1)
    way.sqs.change_message_visibility = lambda **_: (way.clock.sleep(12), lose_answer())
    began = way.clock.now()
    assert (0, 12) == (way.drain(), way.clock.now() - began)  # not for each of them
    assert [3] == [line["left"] for line in way.telemetry.said("drained")]
    way.wait(721)
    assert (3, 3) == (way.drain(), way.records())


def test_an_answer_that_cannot_be_read_proves_nothing(way: Way) -> None:
    """All envelopes of the call wait; the invocation ends as usual."""
    refuse(way, "a", "b")
    way.kinesis.faults["put_records"] = [ResponseParserError("html")]

    assert (0, 2) == (way.drain(), way.waiting())
    assert [2] == [line["left"] for line in way.telemetry.said("drained")]


@pytest.mark.parametrize(
    ("body", "key", "fault"),
    [
        ("this is no envelope", KEY, "undecodable"),
        *((ENVELOPE, key, "no_partition_key") for key in ("k" * 257, "")),
    ],
)
def test_what_is_no_envelope_becomes_a_dead_span(body: str, key: str, fault: str, way: Way) -> None:
    """A person can look at what came, and an alarm tells it. Handled twice, there is one."""
    _send(way, body, key)
    [message] = way.sqs.messages(way.queue_url)
    assert (1, 0, {"RowsDead": 1}) == (way.drain(), way.waiting(), way.telemetry.counts)
    assert {"batchItemFailures": []} == way.drainer().run(_event(message), way.delivery.deadline(60_000))
    assert {} == way.telemetry.counts
    [span] = way.delivery.spans()
    [key_] = span.chunks

    assert {f"-/-{fault}/0": ("dead", fault, 1)} == way.delivery.chunks()
    assert body.encode() == msgpack.unpackb(way.delivery.objects.payload(span, key_))
    assert f"overflow#{message.message_id}" == span.chain.name
    assert way.delivery.send(State.DEAD).kept == 1


@pytest.mark.parametrize(("service", "call"), [("s3", "put_object"), ("dynamodb", "put_item")])
def test_a_message_that_cannot_be_stored_stays_on_the_queue(service: str, call: str, way: Way) -> None:
    """Its neighbours are put."""
    _send(way, "this is no envelope")
    refuse(way, "r")
    getattr(way.delivery, service).before[call] = lambda _: lose_answer()

    assert (1, 1) == (way.drain(), way.waiting())
    getattr(way.delivery, service).before.clear()
    way.wait(31)
    assert (1, 0) == (way.drain(), way.waiting())


def test_what_cannot_be_stored_in_time_is_stored_by_a_later_invocation(way: Way) -> None:
    """Lambda would end this one before it reports what it has done, and each that follows."""
    for _ in range(3):
        _send(way, "this is no envelope")
    way.delivery.s3.before["put_object"] = lambda _: way.clock.sleep(4.0)

    assert (2, 1) == (way.drain(remaining_ms=10_000), way.waiting())


def test_an_invocation_logs_one_line(way: Way) -> None:
    """It counts messages. One that is short of time leaves them on the queue: it puts nothing that it could not wait for."""
    refuse(way, "a", "b")
    assert (0, 2, 0) == (way.drain(remaining_ms=100), way.waiting(), way.records())
    way.wait(361)
    way.kinesis.faults["put_records"] = [timeout()]
    way.drain()

    [line] = way.telemetry.said("drained")
    assert (2, 2) == (line["messages"], line["left"])
    assert line["oldest_seconds"] >= 120
    assert {} == way.telemetry.counts


def test_envelopes_that_are_not_put_for_half_an_hour_raise_an_alarm(way: Way) -> None:
    """SQS's own age of the oldest message leaves out messages that were received three times."""
    refuse(way, "a", "b")
    found = []
    for seconds in (1700, 121):
        way.wait(seconds)
        way.kinesis.faults["put_records"] = [timeout()]
        way.drain()
        found.append(way.telemetry.counts)

    assert [{}, {"EnvelopesOverdue": 2}] == found


def _event(*messages: Message) -> dict[str, Any]:
    """Return Lambda's event with messages as the queue holds them."""
    arn = "arn:aws:sqs:us-east-1:123456789012:overflow"
    return {"Records": [record_of(one.received(), arn) for one in messages]}


def _send(way: Way, body: str, key: str = KEY) -> None:
    attributes = {"partition_key": {"DataType": "String", "StringValue": key}}
    way.sqs.send_message(QueueUrl=way.queue_url, MessageBody=body, MessageAttributes=attributes)
