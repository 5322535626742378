"""Requests with a batch id that arrive more than once become one set of rows: from HTTP to Treasure Data."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.delivery import SHARD
from tests.support.ingest import KEY, Answer, http_event
from tests.support.overflow import Way, refusal, throttled, timeout

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR
ID = "miaozh0v-6f0d1a52-1f5c-4f2b-9a57-3f2f3c0f8d11"
LARGE = [{"table": "pageviews", "event_id": f"e{number:02}", "text": "x" * 100_000} for number in range(9)]


class Sender:
    """A client, and everything between it and Treasure Data.

    Attributes:
        way: stream, queue, drainer, worker and Treasure Data.
        events: the events of each request.
    """

    def __init__(self, events: list[dict[str, Any]] | None = None) -> None:
        self.way = Way()
        self.events = events or [{"table": "pageviews", "event_id": f"e{number}"} for number in range(3)]
        self._sent = 0

    def send(self, ip: str = "192.0.2.7", **said: Any) -> Answer:
        """Send the batch."""
        body = json.dumps({"batch_id": ID, "events": self.events, **said}).encode()
        event = http_event("POST", "/v1/events", f"k={KEY}", {}, body)
        event["requestContext"]["http"]["sourceIp"] = ip
        self._sent += 1
        event["requestContext"]["requestId"] = f"request {self._sent}"
        return Answer(self.way.ingest(event, None))

    def arrived(self) -> list[str]:
        """Run the drainer and the worker until nothing is left; return the ids of the rows in Treasure Data."""
        for _ in range(3):
            self.way.wait(400)
            self.way.drain()
        assert self.way.waiting() == 0
        self.way.deliver()
        self.way.delivery.redrive()
        return self.way.ids()

    @property
    def ids(self) -> list[str]:
        """The ids of one set of rows."""
        return sorted(event["event_id"] for event in self.events)


@pytest.mark.parametrize("after", [0, 0.012, 0.07, 30, 10 * MINUTE, HOUR, DAY, 6 * DAY, 13 * DAY, 29 * DAY])
def test_a_copy_adds_no_rows(after: float) -> None:
    """It may come milliseconds later (Chromium resends unanswered requests) or weeks later, when the first has expired."""
    sender = Sender()
    first = sender.send()
    if after > DAY:
        sender.way.deliver()
    sender.way.wait(after)

    answer = sender.send()

    assert (first.json, {"accepted": 3, "rejected": []}) == (answer.json, answer.json)
    assert sender.ids == sender.arrived()


def test_a_copy_is_durable_at_once() -> None:
    """Like any other request, it is one put on the stream."""
    sender = Sender()
    sender.send()
    sender.send()

    assert ["put_record"] * 2 == [name for name, _, _ in sender.way.kinesis.calls]
    assert (2, 0) == (sender.way.records(), sender.way.waiting())


def test_the_worker_counts_copies() -> None:
    """The count exposes a sender that never changes its batch id."""
    sender = Sender()
    for _ in range(3):
        sender.send()

    assert sender.ids == sender.arrived()
    assert 2 == sender.way.delivery.telemetry.total("span", "ignored")


def test_copies_may_be_in_any_shards() -> None:
    """Copies from other addresses have other partition keys, before and after a reshard."""
    sender = Sender()
    for ip in ("192.0.2.8", "192.0.2.9", "2001:db8:85a3::8a2e:370:7334"):
        sender.send(ip)
    sender.way.split()
    for ip in ("192.0.2.10", "192.0.2.11", "2001:db8:85a3::8a2e:370:7335"):
        sender.send(ip)

    assert 6 == sender.way.records()
    assert sender.ids == sender.arrived()


def test_a_copy_may_be_delivered_days_before_the_first() -> None:
    """The first may be in a shard that lags."""
    sender = Sender()
    way = sender.way
    sender.send()
    way.split()
    sender.send("192.0.2.8")
    way.deliver("shardId-000000000001", "shardId-000000000002")
    assert sender.ids == way.ids()
    way.wait(6 * DAY)
    way.deliver(SHARD)

    assert (2, sender.ids) == (way.records(), way.ids())


def test_a_doubtful_put_and_a_copy_count_once() -> None:
    """The first request's envelope waits in the queue under the same name, whether or not its put landed."""
    for fault in ("landing_unheard", "gone"):
        sender = Sender()
        way = sender.way
        way.kinesis.faults["put_record"] = [way.landing_unheard if fault == "landing_unheard" else timeout()]
        sender.send()
        sender.send()

        assert 1 == way.waiting()
        assert sender.ids == sender.arrived()
        assert [] == way.kinesis.called("get_records")


def test_a_put_that_lands_hours_late_counts_once() -> None:
    """A claim does not limit how late a put may land."""
    sender = Sender()
    sender.way.kinesis.faults["put_record"] = [sender.way.landing_late(5 * HOUR)]
    sender.send()
    sender.way.drain()
    sender.way.deliver()
    sender.way.wait(6 * HOUR)
    sender.send()

    assert 3 == sender.way.records()
    assert sender.ids == sender.arrived()


def test_a_set_aside_envelope_and_a_copy_count_once() -> None:
    """A copy on the stream is ignored both before and after the redrive delivers the envelope."""
    sender = Sender()
    way = sender.way
    way.kinesis.faults["put_record"] = throttled(100)
    sender.send()
    way.wait(4 * DAY)
    way.drain()
    way.kinesis.faults["put_record"] = []
    sender.send()
    way.deliver()
    assert [] == way.ids()
    way.delivery.redrive()
    way.wait(10 * DAY)
    sender.send()

    assert sender.ids == sender.arrived()


def test_a_copy_may_come_from_another_address() -> None:
    """What the ingest adds to rows affects neither names nor borders."""
    sender = Sender(LARGE)
    for ip in ("192.0.2.8", "2001:db8:85a3:1234:5678:8a2e:370:7334"):
        assert 200 == sender.send(ip).status

    assert 4 == sender.way.records()
    assert sender.ids == sender.arrived()


@pytest.mark.parametrize("lost", [0, 1])
def test_a_copy_completes_a_partly_stored_request(lost: int) -> None:
    """The sender was told that nothing is durable. The part that is durable counts once."""
    sender = Sender(LARGE)
    way = sender.way

    def put(StreamName: str, Records: list[Any], **_: Any) -> Any:  # noqa: N803 -- boto3's names
        way.delivery.kinesis.put_record(StreamName=StreamName, **Records[1 - lost])
        answers: list[dict[str, str]] = [{"SequenceNumber": "1"}, {"SequenceNumber": "1"}]
        answers[lost] = {"ErrorCode": "InternalFailure"}
        return {"Records": answers}

    way.kinesis.faults["put_records"] = [put]
    send_message, way.sqs.send_message = way.sqs.send_message, lambda **_: {}
    assert 503 == sender.send().status
    way.sqs.send_message = send_message
    assert 200 == sender.send("2001:db8:85a3:1234:5678:8a2e:370:7334").status

    assert 3 == way.records()
    assert sender.ids == sender.arrived()


def test_other_events_under_a_reused_batch_id_are_not_lost() -> None:
    """A copy is recognised by its id together with its events."""
    sender = Sender()
    sender.send()
    sender.events = [{"table": "pageviews", "event_id": "other"}]
    sender.send()

    assert ["e0", "e1", "e2", "other"] == sender.arrived()


def test_events_without_an_id_of_their_own_count_once() -> None:
    """Equal events within a request are separate rows; those of a copy add none."""
    sender = Sender([{"table": "pageviews"}, {"table": "pageviews"}, {"table": "pageviews", "a": 1}])
    sender.send()
    sender.send()

    assert 3 == len(set(sender.arrived()))


def test_the_deepest_allowed_events_may_have_copies() -> None:
    """The text that identifies a request nests one level deeper than a value may."""
    value: Any = 10**30
    for _ in range(254):
        value = [value]
    sender = Sender([{"table": "pageviews", "event_id": "deep", "a": value}])
    assert 1 == sender.send().json["accepted"]
    sender.send()
    assert ["deep"] == sender.arrived()

    sender.events = [{"table": "pageviews", "a": [value]}]
    assert "too_deep" == sender.send().json["rejected"][0]["code"]


FATES = ["lands", "gone", "unheard", "late", "refused", "throttled"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(FATES),
            st.sampled_from([0.0, 0.05, 20 * MINUTE, HOUR, DAY, 4 * DAY]),
            st.sampled_from(["nothing", "drain", "crash", "deliver", "split", "both"]),
            st.sampled_from(["192.0.2.7", "2001:db8::7"]),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_copies_become_one_set_of_rows_whatever_happens_to_them(
    requests: list[tuple[str, float, str, str]],
) -> None:
    """The client retries for weeks; puts land, get lost or land late; drainers die."""
    sender, began, is_split = Sender(), 0.0, False
    way = sender.way
    for fate, pause, then, ip in requests:
        if began + pause > 29 * DAY:
            break
        way.kinesis.faults["put_record"] = {
            "gone": [timeout()],
            "unheard": [way.landing_unheard],
            "late": [way.landing_late(3 * HOUR)],
            "refused": [refusal("AccessDeniedException", "PutRecord")],
            "throttled": throttled(100),
        }.get(fate, [])
        assert sender.send(ip).status == 200
        way.kinesis.faults.clear()
        way.wait(pause)
        began += pause
        if then in ("drain", "both"):
            way.drain()
        elif then == "crash":
            way.crash_draining()
        elif then == "split" and not is_split:
            is_split = True
            way.split()
        if then in ("deliver", "both"):
            way.deliver()
        way.delivery.redrive()
    assert 200 == sender.send().status

    assert Counter(sender.ids) == Counter(sender.arrived())
