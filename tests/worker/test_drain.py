"""The overflow queue: from a put that the stream did not acknowledge to exactly one row."""

import base64
from collections import Counter
from time import time
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws
from worker.delivery import Decision, State
from worker.overflow_set_aside import OverflowSetAside
from worker.search import INACCURACY_SECONDS

from doubles.treasure_data import Action, Fault, Kind
from shared.errors import BucketUnavailableError, LedgerUnavailableError
from tests.support.delivery import BUCKET, kill, lose_answer, once
from tests.support.overflow import KEY, STREAM, Way, an_envelope, refusal, throttled, timeout
from worker import set_aside
from worker.drain import CLOCKS_DIFFER_SECONDS, LATEST_LANDING_SECONDS

DAY = 86_400.0
HELD = 3.5 * DAY
"""For how many seconds a message is put on the stream, with a retention of seven days."""
OLD = HELD + CLOCKS_DIFFER_SECONDS
"""The age in seconds from which it is set aside."""
ONE = {"r-0": 1}


@pytest.fixture
def way() -> Way:
    """Return a pipeline with an overflow queue."""
    return Way()


def doubt(way: Way, *names: str, **options: Any) -> None:
    """Send envelopes whose puts are in doubt and did not land."""
    way.kinesis.faults["put_record"] = [timeout() for _ in names]
    assert way.collect(*names, **options)


def refuse(way: Way, *names: str, **options: Any) -> None:
    """Send envelopes for which the stream definitely refuses every put."""
    way.kinesis.faults["put_record"] = throttled(100)
    assert way.collect(*names, **options)
    way.kinesis.faults["put_record"] = []


# Envelopes that are put at once


def test_a_put_that_was_definitely_refused_is_put_at_once(way: Way) -> None:
    """It needs neither a wait nor a search, since the stream has no copy."""
    refuse(way, "r")

    assert (1, {"put": 1}, []) == (way.drain(), way.handled(), way.kinesis.called("get_records"))
    way.deliver()
    assert ONE == Counter(way.ids())


@pytest.mark.parametrize("lands", [True, False])
def test_a_doubtful_put_of_a_claim_is_put_at_once(lands: bool, way: Way) -> None:
    """Only one copy counts, whether or not the first put landed."""
    way.kinesis.faults["put_record"] = [way.landing_unheard if lands else timeout()]
    assert way.collect("r", claim=1)

    assert (1, {"put": 1}, []) == (way.drain(), way.handled(), way.kinesis.called("get_records"))
    assert (2 if lands else 1) == way.records()
    way.deliver()
    assert ONE == Counter(way.ids())


def test_a_failing_search_delays_only_envelopes_that_need_it(way: Way) -> None:
    """Envelopes that need no search are put."""
    doubt(way, "doubtful")
    refuse(way, "refused")
    way.wait(130)
    way.kinesis.faults["list_shards"] = [timeout()]

    assert (1, {"put": 1, "undecided": 1}) == (way.drain(), way.handled())


def test_an_envelope_flagged_both_refused_and_in_doubt_is_searched_for(way: Way) -> None:
    """The queue may deliver one envelope in two messages with different flags."""
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    way.collect("r")
    [message] = way.sqs.messages(way.queue_url)
    event = _event(message)
    again = _event(message)["Records"][0] | {"messageId": "again"}
    again["messageAttributes"] = again["messageAttributes"] | {"refused": {"stringValue": "true"}}
    event["Records"].append(again)
    way.wait(130)

    assert {"batchItemFailures": []} == way.drainer().run(event, way.delivery.deadline(60_000))
    assert (1, {"found": 2}) == (way.records(), way.handled())


def test_a_put_counts_only_with_a_sequence_number(way: Way) -> None:
    """Any other answer leaves the message on the queue."""
    refuse(way, "r")
    way.kinesis.faults["put_record"] = [{}, {"SequenceNumber": ""}, {"SequenceNumber": "<html>"}]

    for _ in range(3):
        assert (0, {"doubtful": 1}) == (way.drain(), way.handled())
        way.wait(121)
    assert 1 == way.drain()


@pytest.mark.parametrize("faults", [throttled(3), [EndpointConnectionError(endpoint_url="https://k")] * 3])
def test_a_refused_put_is_retried(faults: list[Any], way: Way) -> None:
    """It is retried within the invocation if Kinesis definitely refused it or could not be reached."""
    refuse(way, "r")
    way.kinesis.faults["put_record"] = list(faults)

    assert (1, 1) == (way.drain(), way.records())


def test_a_put_throttled_for_long_stays_on_the_queue(way: Way) -> None:
    """After a few refusals, the rest of the partition key waits for the next invocation."""
    refuse(way, "a", "b", "c")
    way.kinesis.faults["put_records"] = throttled(5)

    assert (0, 3, {"refused": 3}) == (way.drain(), way.waiting(), way.handled())
    assert {120.0} == {message.visible_at - way.clock.now() for message in way.sqs.messages(way.queue_url)}
    way.wait(121)
    assert (3, 3) == (way.drain(), way.records())


def test_each_envelope_of_a_call_has_its_own_answer(way: Way) -> None:
    """In one call some are put, some are throttled and retried, and some are in doubt and wait."""
    refuse(way, "a", "b", "c", "d")

    def answer(**request: Any) -> Any:
        put = way.delivery.kinesis.put_records(StreamName=STREAM, Records=request["Records"][:1])
        failed = [
            {"ErrorCode": "ProvisionedThroughputExceededException"},
            {"ErrorCode": "InternalFailure"},
            {},
        ]
        return {"FailedRecordCount": 2, "Records": put["Records"] + failed}

    way.kinesis.faults["put_records"] = [answer]

    assert (2, {"put": 2, "doubtful": 2}) == (way.drain(), way.handled())
    way.wait(121)
    assert (2, 4) == (way.drain(), way.records())
    way.deliver()
    assert {"a-0": 1, "b-0": 1, "c-0": 1, "d-0": 1} == Counter(way.ids())


@pytest.mark.parametrize("records", [[], [{"SequenceNumber": "1"}], [{"SequenceNumber": "1"}] * 3])
def test_an_answer_for_another_number_of_envelopes_proves_nothing(records: list[Any], way: Way) -> None:
    """All envelopes of the call wait."""
    refuse(way, "a", "b")
    way.kinesis.faults["put_records"] = [lambda **_: {"Records": records}]

    assert (0, {"doubtful": 2}) == (way.drain(), way.handled())


def test_a_drainer_s_unacknowledged_put_makes_no_second_row(way: Way) -> None:
    """The drainer repeats a doubtful put until one is acknowledged. The claim lets one record count."""
    refuse(way, "r")
    way.kinesis.faults["put_record"] = [way.landing_unheard, way.landing_unheard]
    for _ in range(3):
        way.drain()
        way.wait(400)

    assert (0, 3) == (way.waiting(), way.records())
    way.deliver()
    assert ONE == Counter(way.ids())


def test_a_second_record_in_another_shard_makes_no_second_row(way: Way) -> None:
    """After a reshard between two puts, parent and child each have a record, and one of them counts."""
    refuse(way, "r")
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    way.drain()
    way.split()
    way.wait(400)

    assert (1, 2) == (way.drain(), way.records())
    way.deliver()
    assert ONE == Counter(way.ids())


def test_concurrent_drainers_make_one_row(way: Way) -> None:
    """Both put the envelope. The worker delivers the rows of the record that claims it first."""
    refuse(way, "r")
    [message] = way.sqs.messages(way.queue_url)
    second = way.drainer()

    def both(**record: Any) -> Any:
        assert {"batchItemFailures": []} == second.run(_event(message), way.delivery.deadline(60_000))
        return way.delivery.kinesis.put_record(**record)

    way.kinesis.faults["put_record"] = [both]
    assert (1, 2) == (way.drain(), way.records())
    way.deliver()
    assert ONE == Counter(way.ids())


def test_puts_keep_the_order_of_the_messages(way: Way) -> None:
    """A visitor's envelopes keep their order on the stream as far as the queue kept it."""
    for number in range(5):
        doubt(way, f"r{number}")
        way.wait(1)
    way.wait(130)
    event: dict[str, Any] = {"Records": []}
    for message in reversed(way.sqs.messages(way.queue_url)):
        event["Records"] += _event(message)["Records"]

    way.drainer().run(event, way.delivery.deadline(60_000))
    way.deliver()

    assert [f"r{number}-0" for number in range(5)] == way.delivery.ids("shop_db", "pageviews")


# Envelopes that are searched for


def test_a_put_that_landed_unacknowledged_becomes_one_row(way: Way) -> None:
    """The search finds the record, so it is not put again."""
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    assert way.collect("r")
    way.wait(LATEST_LANDING_SECONDS)

    assert (1, 1, {"found": 1}) == (way.drain(), way.records(), way.handled())
    way.deliver()
    assert ONE == Counter(way.ids())


@pytest.mark.parametrize("fault", [timeout(), refusal("AccessDeniedException", "PutRecord")])
def test_a_doubtful_put_that_did_not_land_becomes_one_row(fault: Exception, way: Way) -> None:
    """The search does not find it, so it is put."""
    way.kinesis.faults["put_record"] = [fault]
    assert way.collect("r")
    assert 0 == way.records()
    way.wait(LATEST_LANDING_SECONDS)

    assert (1, 0, {"put": 1}) == (way.drain(), way.waiting(), way.handled())
    way.deliver()
    assert ONE == Counter(way.ids())


@pytest.mark.parametrize("late", [1, 60, 119])
def test_a_put_that_lands_late_becomes_one_row(late: float, way: Way) -> None:
    """A message is left alone while its put may still land."""
    way.kinesis.faults["put_record"] = [way.landing_late(late)]
    assert way.collect("r")
    for _ in range(50):
        way.drain()
        way.wait(10)
    way.deliver()

    assert (["r-0"], 1, 0) == (way.ids(), way.records(), way.waiting())


def test_a_young_message_comes_back_when_it_is_old_enough(way: Way) -> None:
    """It becomes visible when its put can no longer land, long before the queue's own time-out."""
    doubt(way, "r")
    way.wait(30)

    assert (0, [], {"young": 1}) == (way.drain(), way.kinesis.called("get_records"), way.handled())
    [message] = way.sqs.messages(way.queue_url)
    assert way.clock.now() + 91 == message.visible_at


def test_a_drainer_killed_after_its_put_makes_no_second_row(way: Way) -> None:
    """The next drainer finds the record, or its own put does not count."""
    doubt(way, "r")
    way.wait(130)
    way.crash_draining()
    way.deliver()
    way.wait(361)

    assert (1, 0) == (way.drain(), way.waiting())
    way.deliver()
    assert ONE == Counter(way.ids())


def test_a_put_found_in_a_parent_shard_is_not_repeated(way: Way) -> None:
    """The search follows the partition key back through a reshard."""
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    way.collect("r")
    way.split()
    way.wait(130)

    assert (1, 1, {"found": 1}) == (way.drain(), way.records(), way.handled())


def test_a_message_delivered_twice_at_once_is_put_once(way: Way) -> None:
    """Both deliveries of the envelope share one search and one put."""
    doubt(way, "r")
    way.wait(130)
    [message] = way.sqs.messages(way.queue_url)
    event = _event(message)
    event["Records"] += _event(message)["Records"]

    assert {"batchItemFailures": []} == way.drainer().run(event, way.delivery.deadline(60_000))
    assert 1 == way.records()


@pytest.mark.parametrize("ages", [(130, 1), (1, 130), (2, 130, 1)])
def test_an_envelope_is_as_old_as_the_earliest_of_its_messages(ages: tuple[int, ...], way: Way) -> None:
    """The put in question preceded the earliest message, so it has landed by now or never will."""
    doubt(way, "r")
    way.wait(130)
    [message] = way.sqs.messages(way.queue_url)
    event: dict[str, Any] = {"Records": []}
    for age in ages:
        (record,) = _event(message)["Records"]
        sent_at = str(round((way.clock.now() - age) * 1000))
        event["Records"].append(
            record
            | {"messageId": f"m-{age}", "attributes": record["attributes"] | {"SentTimestamp": sent_at}}
        )

    assert {"batchItemFailures": []} == way.drainer().run(event, way.delivery.deadline(60_000))
    assert 1 == way.records()


def test_one_search_serves_all_messages(way: Way) -> None:
    """Two hundred messages cost as many reads as one: some find the beginning, two look at the tip."""
    doubt(way, *(f"r{number}" for number in range(200)))
    way.wait(130)

    assert (200, 5) == (way.drain(), len(way.kinesis.called("get_records")))


def test_an_interrupted_search_resumes_where_it_stopped(way: Way) -> None:
    """However little each invocation can read, everything is decided in the end, and little is read twice."""
    way.kinesis.page = 5
    doubt(way, "gone")
    for number in range(100):
        way.collect(f"other{number}")
        way.wait(0.5)
    way.wait(100)
    while not way.drain(remaining_ms=8_000):
        way.wait(121)

    assert (0, {"put": 1}) == (way.waiting(), way.handled())
    assert 25 <= len(way.kinesis.called("get_records")) <= 50


def test_a_search_whose_progress_cannot_be_stored_starts_over(way: Way) -> None:
    """An unavailable ledger costs reads, but loses no message."""
    way.kinesis.page = 10
    doubt(way, "gone")
    way.collect(*(f"other{number}" for number in range(100)))
    way.wait(130)
    for call in ("batch_get_item", "put_item"):
        way.delivery.dynamodb.before[call] = once(lose_answer)

    assert 0 == way.drain(remaining_ms=2_000)
    way.wait(121)
    assert 1 == way.drain()
    way.deliver()
    assert 1 == Counter(way.ids())["gone-0"]


def test_one_message_s_window_does_not_delay_another(way: Way) -> None:
    """Of two messages on one shard, one has a window that can be read in time. It is put, the other waits."""
    way.kinesis.page = 5
    doubt(way, "first")
    for number in range(1000):
        way.wait(1)
        if number == 300:
            doubt(way, "last")
        way.collect(f"other{number}")
    way.wait(130)

    assert 1 == way.drain(remaining_ms=60_000)
    assert {"put": 1, "undecided": 1} == way.handled()
    assert {"first"} == {
        _name(call["Data"]) for call in way.kinesis.called("put_record") if _name(call["Data"]) == "first"
    }


def test_an_invocation_short_of_time_leaves_messages_on_the_queue(way: Way) -> None:
    """A search that cannot finish decides nothing, and undecided envelopes are not put."""
    doubt(way, "r")
    way.wait(130)
    way.kinesis.faults["get_records"] = [
        refusal("ProvisionedThroughputExceededException", "GetRecords") for _ in range(100)
    ]
    before = way.clock.now()

    assert (0, 1, {"undecided": 1}) == (way.drain(remaining_ms=20_000), way.waiting(), way.handled())
    assert way.clock.now() - before < 20
    assert 1 == len(way.kinesis.called("put_record"))


def test_an_unreadable_stream_leaves_messages_on_the_queue(way: Way) -> None:
    """Without a search there is no put."""
    doubt(way, "r")
    way.wait(130)
    way.kinesis.faults["list_shards"] = [ZeroDivisionError("unforeseen")]

    assert (0, {"undecided": 1}) == (way.drain(), way.handled())
    assert 1 == way.telemetry.counts["UnforeseenErrors"]
    way.wait(121)
    assert 1 == way.drain()


def test_a_queue_that_does_not_answer_changes_nothing(way: Way) -> None:
    """If the visibility cannot be changed, the message returns after the queue's own time-out."""
    doubt(way, "r")
    queue, way.sqs = way.sqs, SimpleNamespace(change_message_visibility=_raise)
    drainer, way.sqs = way.drainer(), queue
    [message] = way.sqs.messages(way.queue_url)

    assert {"batchItemFailures": [{"itemIdentifier": message.message_id}]} == drainer.run(
        _event(message), way.delivery.deadline(60_000)
    )


def test_reads_only_the_minutes_in_which_the_put_can_have_landed(way: Way) -> None:
    """A message that waited for a day is searched for around its arrival, not through the day."""
    way.kinesis.page = 10
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    way.collect("r")
    for number in range(1000):
        way.wait(60)
        way.collect(f"other{number}")

    assert (1, 1) == (way.drain(), len(way.kinesis.called("get_records")))


def test_a_message_that_is_stamped_too_early_is_not_searched_for_too_early(way: Way) -> None:
    """The queue's time stamp may be minutes off. The ingest's clock shows that the put may still land."""
    data = an_envelope("r", at=way.clock.now()).encode()
    _send(way, base64.b64encode(data).decode())
    [message] = way.sqs.messages(way.queue_url)
    event = _event(message)
    sent = int(event["Records"][0]["attributes"]["SentTimestamp"])
    event["Records"][0]["attributes"]["SentTimestamp"] = str(sent - 200_000)
    way.wait(10)
    way.drainer().run(event, way.delivery.deadline(60_000))

    assert {"young": 1} == way.handled()


@pytest.mark.parametrize("wrong", [-30 * DAY, 30 * DAY])
def test_searches_by_the_clocks_of_stream_and_queue(wrong: float, way: Way) -> None:
    """A wrong clock in the ingest does not mislead the search."""
    record = an_envelope("r", at=way.clock.now() + wrong).encode()
    way.delivery.kinesis.put_record(StreamName=STREAM, Data=record, PartitionKey=KEY)
    _send(way, base64.b64encode(record).decode())
    way.wait(130 + INACCURACY_SECONDS)

    assert (1, {"found": 1}) == (way.drain(), way.handled())


# Envelopes that are held for too long


@pytest.mark.parametrize("send", [refuse, doubt])
def test_envelopes_held_for_half_the_retention_bypass_the_stream(send: Any, way: Way) -> None:
    """They are parked in S3 and the ledger, and the redrive delivers them."""
    send(way, "r", rows=3)
    way.wait(OLD)

    assert (1, 0, {"set_aside": 1}) == (way.drain(), way.waiting(), way.handled())
    assert {"shop/pageviews/0": ("parked", "stream_refused", 3)} == way.delivery.aside()
    way.delivery.redrive()
    assert (["r-0", "r-1", "r-2"], {}) == (way.ids(), way.delivery.aside())


def test_clocks_may_differ_between_the_last_put_and_setting_aside(way: Way) -> None:
    """A message is left alone for 15 minutes, so that no drainer puts what another has set aside."""
    refuse(way, "r")
    way.wait(HELD)

    assert (0, {"undecided": 1}, 0) == (way.drain(), way.handled(), way.records())


def test_a_put_that_lands_after_its_envelope_was_set_aside_makes_no_second_row(way: Way) -> None:
    """Setting aside claims the envelope, so no record that the drainer put counts."""
    refuse(way, "r")
    way.wait(HELD - 1)
    way.kinesis.faults["put_record"] = [way.landing_late(CLOCKS_DIFFER_SECONDS + 10)]
    way.drain()
    way.wait(CLOCKS_DIFFER_SECONDS + 2)
    assert (1, {"set_aside": 1}) == (way.drain(), way.handled())
    way.wait(60)
    way.deliver()

    assert (1, []) == (way.records(), way.ids())
    way.delivery.redrive()
    way.deliver()
    assert ONE == Counter(way.ids())


def test_an_envelope_that_the_worker_has_claimed_is_not_set_aside(way: Way) -> None:
    """An earlier put of the drainer landed and counts, so the message is done."""
    refuse(way, "r")
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    way.drain()
    way.deliver()
    way.wait(OLD)

    assert (1, {}, {"found": 1}) == (way.drain(), way.delivery.aside(), way.handled())
    assert ONE == Counter(way.ids())


@pytest.mark.parametrize("lands", [True, False])
def test_an_old_envelope_with_a_claim_is_parked_and_never_in_doubt(lands: bool, way: Way) -> None:
    """The claim decides about every copy, so it does not matter what landed."""
    way.kinesis.faults["put_record"] = [way.landing_unheard if lands else timeout()]
    way.collect("r", claim=1)
    way.wait(OLD)

    way.drain()

    assert {"shop/pageviews/0": ("parked", "stream_refused", 1)} == way.delivery.aside()
    way.deliver()
    way.delivery.redrive()
    assert ONE == Counter(way.ids())


@pytest.mark.parametrize("lands", [True, False])
def test_an_envelope_that_can_no_longer_be_searched_for_is_in_doubt(lands: bool, way: Way) -> None:
    """The stream no longer has the minutes in question.

    Rows found in Treasure Data, or a person, settle it.
    """
    way.kinesis.faults["put_record"] = [way.landing_unheard if lands else timeout()]
    way.collect("r")
    way.deliver()
    way.wait(7 * DAY)

    assert (1, {"set_aside": 1}) == (way.drain(), way.handled())
    assert (1, []) == (len(way.kinesis.called("put_record")), way.kinesis.called("get_records"))
    doubted = {"shop/pageviews/0": ("in_doubt", "stream_unsearched", 1)}
    assert doubted == way.delivery.aside()
    way.delivery.redrive()
    assert (["r-0"], {}) == (way.ids(), way.delivery.aside()) if lands else ([], doubted)
    way.delivery.redrive(State.IN_DOUBT, decision=Decision.SEND)
    assert (ONE, {}) == (Counter(way.ids()), way.delivery.aside())


def test_rows_absent_from_treasure_data_may_still_come_from_the_stream(way: Way) -> None:
    """The first put is parked with its span while the message is in doubt. Only one of them is sent."""
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    way.collect("r")
    way.delivery.td.create("shop_db", "pageviews")
    way.delivery.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=429))
    way.deliver()
    way.wait(7 * DAY)
    way.drain()
    way.delivery.redrive()
    way.delivery.td.faults.clear()
    for _ in range(2):
        way.delivery.redrive()
        way.wait(3600)

    assert (ONE, {}) == (Counter(way.ids()), way.delivery.aside())


def test_an_envelope_whose_search_fails_stays_on_the_queue(way: Way) -> None:
    """The first put may be on the stream unread, so half the retention is no reason to set it aside."""
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    way.collect("r")
    way.wait(OLD)
    way.kinesis.faults["list_shards"] = [timeout()]

    assert (0, {"undecided": 1}, {}) == (way.drain(), way.handled(), way.delivery.aside())
    way.wait(361)
    assert (1, {"found": 1}) == (way.drain(), way.handled())
    way.deliver()
    assert ONE == Counter(way.ids())


@pytest.mark.parametrize("lands", [True, False])
def test_an_envelope_of_an_earlier_stream_is_not_searched_for_on_a_new_one(lands: bool, way: Way) -> None:
    """The first put may have gone to the stream before it was recreated, and been delivered from there."""
    way.kinesis.faults["put_record"] = [way.landing_unheard if lands else timeout()]
    way.collect("r")
    way.deliver()
    way.wait(200)
    way.delivery.kinesis.delete_stream(StreamName=STREAM)
    way.delivery.kinesis.create_stream(StreamName=STREAM, ShardCount=1)

    assert (0, {"undecided": 1}) == (way.drain(), way.handled())
    way.wait(OLD)
    assert (1, {"set_aside": 1}) == (way.drain(), way.handled())
    way.delivery.redrive()
    assert (
        ({}, ["r-0"]) == (way.delivery.aside(), way.ids())
        if lands
        else (1, [])
        == (
            len(way.delivery.aside()),
            way.ids(),
        )
    )


def test_nothing_is_decided_while_the_stream_s_creation_time_is_unknown(way: Way) -> None:
    """This holds for messages of any age."""
    doubt(way, "r")
    way.wait(OLD)
    way.kinesis.faults["describe_stream_summary"] = [timeout()]

    assert (0, {"undecided": 1}, []) == (way.drain(), way.handled(), way.kinesis.called("get_records"))


def test_a_message_is_set_aside_before_the_queue_drops_it() -> None:
    """The queue keeps messages for 14 days, even if the stream keeps records for a year."""
    way = Way(retention=365 * DAY)
    doubt(way, "r")
    way.kinesis.faults["list_shards"] = [timeout(), timeout()]
    way.wait(13 * DAY - 1)
    assert (0, {"undecided": 1}) == (way.drain(), way.handled())
    way.wait(361)

    assert (1, {"set_aside": 1}) == (way.drain(), way.handled())
    assert {"shop/pageviews/0": ("in_doubt", "stream_unsearched", 1)} == way.delivery.aside()


BREAKS = {
    "claimed": ("after", "batch_execute_statement", kill),
    "before the object": ("before", "put_object", kill),
    "object written": ("after", "put_object", kill),
    "before the span": ("before", "put_item", kill),
    "span written": ("after", "put_item", kill),
    "claim's answer lost": ("after", "batch_execute_statement", lose_answer),
    "object's answer lost": ("after", "put_object", lose_answer),
    "span's answer lost": ("after", "put_item", lose_answer),
}


@pytest.mark.parametrize("point", BREAKS)
@pytest.mark.parametrize("claim", [0, 1])
def test_an_interrupted_set_aside_is_completed_by_the_next_run(claim: int, point: str, way: Way) -> None:
    """Wherever it stops, with the stream working again and a copy landing meanwhile, there is one row."""
    refuse(way, "r", claim=claim)
    way.wait(HELD - 1)
    way.kinesis.faults["put_record"] = [way.landing_late(OLD - HELD + 600)]
    way.drain()
    way.wait(OLD - HELD + 121)
    when, call, act = BREAKS[point]
    parts = way.delivery
    client = parts.s3 if call == "put_object" else parts.dynamodb
    getattr(client, when)[call] = once(act)
    if act is kill:
        way.kill_draining()
    else:
        way.drain()
    way.wait(700)
    way.deliver()
    way.drain()

    assert (0, 1) == (way.waiting(), way.records())
    assert {"shop/pageviews/0": ("parked", "stream_refused", 1)} == parts.aside()
    way.deliver()
    parts.redrive()
    assert (ONE, []) == (Counter(way.ids()), parts.objects())


def test_copies_of_different_requests_are_set_aside_once(way: Way) -> None:
    """Copies from a client differ in what the ingest adds. The first one's content becomes the envelope's."""
    refuse(way, "r", claim=1)
    way.wait(1)
    refuse(way, "r", claim=1)
    first, second = way.sqs.messages(way.queue_url)
    way.wait(OLD)

    for message in (first, second):
        assert {"batchItemFailures": []} == way.drainer().run(_event(message), way.delivery.deadline(60_000))
    way.delivery.redrive()

    assert (ONE, 1) == (Counter(way.ids()), len(way.delivery.spans()))


def test_a_message_without_an_envelope_becomes_a_dead_letter(way: Way) -> None:
    """S3 keeps its body unchanged, and the other messages are drained."""
    refuse(way, "r")
    _send(way, "this is no envelope")

    assert (2, 1, 0) == (way.drain(), way.records(), way.waiting())
    assert {"-/-undecodable/0": ("dead_letter", "undecodable", 1)} == way.delivery.aside()
    assert [b"\xc4\x13this is no envelope"] == _payloads(way)


@pytest.mark.parametrize("key", ["", "k" * 257])
def test_an_envelope_without_a_usable_partition_key_becomes_a_dead_letter(key: str, way: Way) -> None:
    """There is no telling which shard it belongs to."""
    _send(way, base64.b64encode(an_envelope("r").encode()).decode(), key)

    assert 1 == way.drain()
    assert [("dead_letter", "no_partition_key", 1)] == list(way.delivery.aside().values())


def test_setting_aside_twice_leaves_one_object_and_one_span(way: Way) -> None:
    """A message that the queue delivers again after it was set aside changes nothing."""
    _send(way, "this is no envelope")
    for _ in range(2):
        way.crash_draining()
        way.wait(361)

    assert (1, 1) == (len(way.delivery.objects()), len(way.delivery.spans()))


@pytest.mark.parametrize(
    "error", [BucketUnavailableError("S3"), LedgerUnavailableError("DynamoDB"), KeyError("?")]
)
def test_a_message_that_cannot_be_set_aside_stays_on_the_queue(
    error: Exception, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits until S3 and the ledger are available."""
    _send(way, "this is no envelope")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(OverflowSetAside, "bury", fail)

    assert (0, 1, {"failed": 1}) == (way.drain(), way.waiting(), way.handled())


# Telemetry


def test_an_invocation_logs_one_line(way: Way) -> None:
    """The line counts messages by outcome, shards, reads and records."""
    way.kinesis.faults["put_record"] = [way.landing_unheard, timeout()]
    way.collect("a", "b")
    way.wait(130)
    doubt(way, "c")
    way.wait(1)

    way.drain()

    assert [
        {
            "messages": 3,
            "left": 1,
            "oldest_seconds": 132.75,
            "shards": 1,
            "reads": 5,
            "records": 7,
            "found": 1,
            "put": 1,
            "young": 1,
        }
    ] == way.telemetry.said("drained")
    assert {} == way.telemetry.counts


@mock_aws
def test_drains_with_the_services_own_response_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With boto3's clients against an AWS emulator, one envelope is found, two are put, one is buried."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    way = Way(kinesis=boto3.client("kinesis"), sqs=boto3.client("sqs"))
    way.clock.time = time()
    way.kinesis.faults["put_record"] = [way.landing_unheard, timeout(), *throttled(30)]
    way.collect("landed", "gone", "refused")
    way.kinesis.faults["put_record"] = []
    _send(way, "this is no envelope")
    way.wait(130)

    assert (4, {"found": 1, "put": 2, "set_aside": 1}) == (way.drain(), way.handled())
    way.deliver()
    assert ["gone-0", "landed-0", "refused-0"] == way.ids()


class _Adversary:
    """Decides the fate of puts and what happens next.

    Args:
        data: draws.
        way: the pipeline under test.
    """

    def __init__(self, data: st.DataObject, way: Way) -> None:
        self.draw = data.draw
        self.way = way

    def decide_puts(self) -> None:
        """Set the fate of the next puts."""
        self.way.kinesis.faults["put_record"] = [self._fate() for _ in range(4)]

    def act(self) -> None:
        """Do one thing."""
        self.decide_puts()
        match self.draw(st.sampled_from(["wait", "drain", "crash", "deliver", "split", "break"])):
            case "wait":
                self.way.wait(self.draw(st.sampled_from([5, 60, 200, 4000])))
            case "drain":
                self.way.drain(self.draw(st.sampled_from([1_000, 60_000])))
            case "crash":
                self.way.crash_draining()
            case "deliver":
                self.heal()
                self.way.deliver()
            case "split" if len(self.way.delivery.kinesis.list_shards(StreamName=STREAM)["Shards"]) == 1:
                self.way.split()
            case "break":
                call = self.draw(st.sampled_from(["batch_execute_statement", "put_item", "batch_get_item"]))
                when = self.draw(st.sampled_from(["before", "after"]))
                getattr(self.way.delivery.dynamodb, when)[call] = once(lose_answer)
        self.way.wait()

    def heal(self) -> None:
        """Make the ledger answer from now on."""
        self.way.delivery.dynamodb.before.clear()
        self.way.delivery.dynamodb.after.clear()

    def _fate(self) -> Any:
        match self.draw(st.sampled_from(["taken", "gone", "unheard", "late", "doubted", "refused"])):
            case "gone":
                return timeout()
            case "unheard":
                return self.way.landing_unheard
            case "late":
                return self.way.landing_late(self.draw(st.sampled_from([0.5, 30, 119])))
            case "doubted":
                return refusal("InternalFailure", "PutRecord")
            case "refused":
                return throttled(1)[0]
        return None


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_envelope_becomes_one_row(data: st.DataObject) -> None:
    """Puts meet any fate, drainers and workers run or die at any time, shards split, and messages grow old."""
    way = Way()
    way.kinesis.page = data.draw(st.sampled_from([1, 1000]))
    adversary, expected = _Adversary(data, way), []
    for number in range(data.draw(st.integers(1, 6))):
        adversary.decide_puts()
        key, claim = f"shop/{data.draw(st.integers(0, 3))}", data.draw(st.integers(0, 1))
        assert way.collect(f"r{number}", key=key, claim=claim)
        expected.append(f"r{number}-0")
        for _ in range(data.draw(st.integers(0, 3))):
            adversary.act()
            if claim and data.draw(st.booleans()):
                assert way.collect(f"r{number}", key=f"shop/{data.draw(st.integers(0, 3))}", claim=1)
    way.kinesis.faults.clear()
    adversary.heal()
    way.wait(data.draw(st.sampled_from([0, OLD])))
    for _ in range(4):  # more than an hour: a split may have left a shard without any record
        way.wait(1201)
        way.drain()
    way.deliver()
    way.delivery.redrive()

    assert (expected, 0) == (way.ids(), way.waiting())


def _event(message: Any) -> dict[str, Any]:
    """Return Lambda's event with a message as the queue holds it."""
    return {
        "Records": [
            {
                "messageId": message.message_id,
                "receiptHandle": f"{message.message_id}/1",
                "body": message.body,
                "attributes": {"SentTimestamp": str(int(message.sent_at * 1000))},
                "messageAttributes": {
                    name: {"stringValue": value["StringValue"], "dataType": value["DataType"]}
                    for name, value in message.attributes.items()
                },
            }
        ]
    }


def _send(way: Way, body: str, key: str = KEY) -> None:
    attributes = {"partition_key": {"DataType": "String", "StringValue": key}}
    way.sqs.send_message(QueueUrl=way.queue_url, MessageBody=body, MessageAttributes=attributes)


def _payloads(way: Way) -> list[bytes]:
    return [set_aside.decode(stored.body).payload for stored in way.delivery.s3.objects(BUCKET).values()]


def _name(data: bytes) -> str:
    from shared import envelope

    return envelope.decode(data).request_id


def _raise(**_: Any) -> None:
    raise ReadTimeoutError(endpoint_url="https://sqs.invalid")
