"""Requests that were sent again because no answer came: from the HTTP request to exactly one set of rows."""

import json
import os
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.app import Ingest
from ingest.keyring import Keyring
from ingest.overflow import Overflow
from ingest.stream import Stream
from shared.settings import IngestSettings
from tests.support.ingest import KEY, Answer, Reports, Secrets, http_event
from tests.support.overflow import STREAM, Way, refusal
from worker.drain import LATEST_LANDING_SECONDS

MINUTE = 60.0
HOUR = 60 * MINUTE
ID = "miaozh0v-6f0d1a52-1f5c-4f2b-9a57-3f2f3c0f8d11"


class Sender:
    """A client, and all that stands between it and Treasure Data.

    Attributes:
        way: stream, queue, drainer, worker and Treasure Data.
        events: what each request holds.
    """

    def __init__(self, events: list[dict[str, Any]] | None = None) -> None:
        self.way = Way()
        self.events = events or [{"table": "pageviews", "event_id": f"e{number}"} for number in range(3)]
        journal = Reports()
        clock = self.way.clock
        overflow = Overflow(lambda: self.way.sqs, self.way.queue_url, journal)
        stream = Stream(self.way.kinesis, STREAM, overflow, clock=clock, entropy=os.urandom, journal=journal)
        self._ingest = Ingest(
            IngestSettings(STREAM, self.way.queue_url, "keys"),
            Keyring(Secrets(), "keys", clock, journal),
            stream,
            clock=clock,
            entropy=os.urandom,
            journal=journal,
        )

    def send(self, *, repeat: bool = False, ip: str = "192.0.2.7", **said: Any) -> Answer:
        """Send the batch."""
        body = {"batch_id": ID, "events": self.events, **({"repeat": True} if repeat else {}), **said}
        event = http_event("POST", "/v1/events", f"k={KEY}", {}, json.dumps(body).encode())
        event["requestContext"]["http"]["sourceIp"] = ip
        return Answer(self._ingest(event, None))

    def arrived(self) -> list[str]:
        """Let the drainer and the worker do what there is to do; return the ids of the rows in Treasure Data."""
        for _ in range(3):
            self.way.wait(LATEST_LANDING_SECONDS + 400)
            self.way.drain()
        assert self.way.waiting() == 0
        self.way.deliver()
        return self.way.ids()

    @property
    def ids(self) -> list[str]:
        """The ids of one set of rows."""
        return sorted(event["event_id"] for event in self.events)


@pytest.mark.parametrize("after", [1.0, 10 * MINUTE, HOUR - 1])
def test_a_request_whose_answer_was_lost_becomes_one_set_of_rows(after: float) -> None:
    """Its repetition is answered as it would have been, is durable at once, and is found on the stream."""
    sender = Sender()
    assert sender.send().json["accepted"] == 3  # nobody hears it
    sender.way.wait(after)

    answer = sender.send(repeat=True)

    assert (answer.status, answer.json) == (200, {"accepted": 3, "rejected": []})
    assert (sender.way.records(), sender.way.waiting()) == (1, 1)
    assert sender.arrived() == sender.ids


def test_a_first_request_pays_nothing() -> None:
    """One put, like that of any other request; its envelope is no doubtful one."""
    sender = Sender()

    sender.send()

    assert [name for name, _, _ in sender.way.kinesis.calls] == ["put_record"]
    assert sender.way.waiting() == 0


def test_a_request_that_never_arrived_is_made_good_by_its_repetition() -> None:
    """The search finds nothing, so its rows are put."""
    sender = Sender()

    sender.send(repeat=True)

    assert sender.way.records() == 0
    assert sender.arrived() == sender.ids


def test_repetitions_of_what_never_arrived_count_once() -> None:
    """However many drainers put them: only the first that the worker meets has rows."""
    sender = Sender()
    for _ in range(3):
        sender.send(repeat=True)
        sender.way.wait(LATEST_LANDING_SECONDS + 1)
        sender.way.crash_draining()  # it has put the envelope, and the message comes back

    assert sender.arrived() == sender.ids


def test_a_doubtful_first_put_and_a_repetition_count_once() -> None:
    """The first request's envelope waits in the queue itself, under the same name."""
    for lands in (True, False):
        sender = Sender()
        fault: Any = sender.way.landing_unheard if lands else refusal("AccessDeniedException", "PutRecord")
        sender.way.kinesis.faults["put_record"] = [fault]
        sender.send()
        sender.send(repeat=True)

        assert sender.way.waiting() == 2
        assert sender.arrived() == sender.ids


def test_a_visitor_may_have_another_address_by_then() -> None:
    """The envelope is looked for where the first one went, and found by what was sent, not by what was added."""
    for ip in ("192.0.2.8", "192.0.2.9", "192.0.2.10", "192.0.2.11", "2001:db8:85a3::8a2e:370:7334"):
        sender = Sender()
        sender.way.split()
        sender.send()

        sender.send(repeat=True, ip=ip)

        assert sender.arrived() == sender.ids


def test_what_says_how_long_ago_it_was_is_searched_for_less() -> None:
    """The two stamps are of one clock, however wrong it is."""
    for made_at, minutes in ((1_000_000, 2), (None, 60), (2_000_000, 60), (-10_000_000, 60)):
        sender = Sender()
        sender.send(repeat=True, sent_at=1_000_060, made_at=made_at)
        sender.way.wait(LATEST_LANDING_SECONDS + 1)
        sent_at = sender.way.clock.now() - LATEST_LANDING_SECONDS - 1
        sender.way.drain()

        [search, *_] = sender.way.kinesis.called("get_shard_iterator")

        assert 0 <= sent_at - minutes * MINUTE - search["Timestamp"] <= MINUTE


def test_events_without_an_id_have_the_same_one_each_time() -> None:
    """So that Treasure Data can be asked for them, and a person can tell them from others."""
    sender = Sender([{"table": "pageviews"}, {"table": "pageviews"}, {"table": "pageviews", "a": 1}])
    sender.send()
    sender.send()  # and does not say so

    sender.way.deliver()

    assert [2, 2, 2] == list(Counter(sender.way.ids()).values())


def test_events_as_deep_as_they_may_be_can_be_repeated() -> None:
    """Their text is a level deeper than what a value may have."""
    value: Any = 10**30
    for _ in range(254):
        value = [value]
    sender = Sender([{"table": "pageviews", "event_id": "deep", "a": value}])
    assert sender.send().json["accepted"] == 1
    sender.send(repeat=True)
    assert sender.arrived() == ["deep"]

    sender.events = [{"table": "pageviews", "a": [value]}]
    assert sender.send().json["rejected"][0]["code"] == "too_deep"


def test_other_events_under_an_old_id_are_not_lost() -> None:
    """What is known again is the id together with the events."""
    sender = Sender()
    sender.send()
    sender.events = [{"table": "pageviews", "event_id": "other"}]
    sender.send(repeat=True)

    assert sender.arrived() == ["e0", "e1", "e2", "other"]


LARGE = [{"table": "pageviews", "event_id": f"e{number:02}", "text": "x" * 100_000} for number in range(9)]


def test_a_large_request_is_divided_in_the_same_way_each_time() -> None:
    """Whatever the ingest adds to its rows: so what was missing of the first one is added, and nothing else."""
    for lost in (0, 1):
        sender = Sender(LARGE)
        answer = {"Records": [{"SequenceNumber": "1"}, {"SequenceNumber": "1"}], "FailedRecordCount": 0}

        def put(StreamName: str, Records: list[Any], lost: int = lost, way: Way = sender.way) -> Any:  # noqa: N803 -- boto3's names
            way.delivery.kinesis.put_record(StreamName=StreamName, **Records[1 - lost])
            return answer  # noqa: B023 -- called within this round

        sender.way.kinesis.faults["put_records"] = [put]
        sender.send()
        sender.send(repeat=True, ip="2001:db8:85a3:1234:5678:8a2e:370:7334")

        assert sender.way.waiting() == 2
        assert sender.arrived() == sender.ids


def test_a_repetition_that_the_queue_does_not_take_is_not_accepted() -> None:
    """503: the sender tries again."""
    sender = Sender()
    sender.send()
    sender.way.sqs.send_message = lambda **_: {}

    answer = sender.send(repeat=True)

    assert (answer.status, answer.code) == (503, "stream_unavailable")


FATES = ["lands", "lost", "unheard", "late", "refused", "throttled"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(FATES), st.floats(0, 20 * MINUTE), st.booleans()), min_size=1, max_size=5
    )
)
def test_whatever_became_of_earlier_requests_there_is_one_set_of_rows(
    requests: list[tuple[str, float, bool]],
) -> None:
    """A client repeats until it hears an answer, within the hour; puts land, get lost, or land late."""
    sender, began, sent = Sender(), 0.0, False
    way = sender.way
    for fate, pause, drains in requests:
        if began + pause > HOUR - 5 * MINUTE:
            break
        if fate != "lost":
            way.kinesis.faults["put_record"] = {
                "unheard": [way.landing_unheard],
                "late": [way.landing_late(90)],
                "refused": [refusal("AccessDeniedException", "PutRecord")],
                "throttled": [refusal("ProvisionedThroughputExceededException", "PutRecord")],
            }.get(fate, [])
            assert sender.send(repeat=sent).status == 200
            way.kinesis.faults.clear()
        sent = True
        way.wait(pause)
        began += pause
        if drains:
            way.drain()
    assert sender.send(repeat=True).status == 200

    assert Counter(sender.arrived()) == Counter(sender.ids)
