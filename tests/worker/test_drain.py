"""The overflow queue: from a put that the stream did not acknowledge to exactly one row."""

import base64
from collections import Counter
from time import time
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from tests.support.delivery import BUCKET
from tests.support.overflow import KEY, STREAM, Way, an_envelope, refusal, timeout
from worker import aside, drain
from worker.drain import LATEST_LANDING_SECONDS, Drain
from worker.ledger import LedgerUnavailableError
from worker.span import Kind

THROTTLED = "ProvisionedThroughputExceededException"
DAY = 86_400.0


@pytest.fixture
def way() -> Way:
    """Return the way of a test."""
    return Way()


def throttled(times: int) -> list[Exception]:
    """Return refusals of put_record."""
    return [refusal(THROTTLED, "PutRecord") for _ in range(times)]


def verdicts(way: Way) -> dict[str, int]:
    """Return what the last invocation's log line counts."""
    [*_, (message, fields)] = [note for note in way.delivery.journal.notes if note[0] == "drained"]
    assert message == "drained"
    return {
        name: count for name, count in fields.items() if name in {verdict.value for verdict in drain.Verdict}
    }


def test_a_put_that_landed_though_its_answer_was_lost_becomes_one_row(way: Way) -> None:
    """The search finds the record, so nothing is put a second time."""
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    assert way.collect("r")
    way.wait(LATEST_LANDING_SECONDS)
    assert (way.drain(), way.records(), verdicts(way)) == (1, 1, {"found": 1})
    way.deliver()
    assert way.ids() == ["r-0"]


def test_a_put_that_was_refused_becomes_one_row(way: Way) -> None:
    """What the search does not find is put."""
    way.kinesis.faults["put_record"] = [refusal("AccessDeniedException", "PutRecord")]
    assert way.collect("r")
    assert way.records() == 0
    way.wait(LATEST_LANDING_SECONDS)
    assert (way.drain(), way.waiting(), verdicts(way)) == (1, 0, {"put": 1})
    way.deliver()
    assert way.ids() == ["r-0"]


@pytest.mark.parametrize("late", [1, 60, 119])
def test_a_put_that_lands_late_becomes_one_row(late: float, way: Way) -> None:
    """A message is left alone for as long as its put may land."""
    way.kinesis.faults["put_record"] = [way.landing_late(late)]
    assert way.collect("r")
    for _ in range(50):
        way.drain()
        way.wait(10)
    way.deliver()
    assert (way.ids(), way.records(), way.waiting()) == (["r-0"], 1, 0)


def test_a_young_message_comes_back_when_it_is_old_enough(way: Way) -> None:
    """The queue shows it again as soon as its put can no longer land, long before its own time-out."""
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("r")
    way.wait(30)
    assert (way.drain(), way.kinesis.called("get_records"), verdicts(way)) == (0, [], {"young": 1})
    [message] = way.sqs.messages(way.queue_url)
    assert message.visible_at == way.clock.now() + 91


def test_a_drainer_whose_put_lands_unheard_makes_no_second_row(way: Way) -> None:
    """A doubtful put of the drainer is repeated until one is acknowledged; the claim lets one record count."""
    _busy(way)
    way.kinesis.faults["put_record"] = [way.landing_unheard, way.landing_unheard]
    for _ in range(3):
        way.drain()
        way.wait(400)
    assert (way.waiting(), way.records()) == (0, 4)
    way.deliver()
    assert way.ids() == ["other-0", "r-0"]


def test_a_drainer_killed_after_its_put_makes_no_second_row(way: Way) -> None:
    """What a killed drainer has put is found, or put again to no effect."""
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("r")
    way.wait(130)
    way.crash_draining()
    way.deliver()
    way.wait(361)
    assert (way.drain(), way.waiting()) == (1, 0)
    way.deliver()
    assert way.ids() == ["r-0"]


def test_two_drainers_at_once_make_one_row(way: Way) -> None:
    """Both find nothing and both put: the worker takes the rows of the record that claims the envelope first."""
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("r")
    way.wait(130)
    body = way.sqs.messages(way.queue_url)[0]
    second = way.drainer()

    def both(**record: Any) -> Any:
        answer = second.run(_event(body), 60_000)
        assert answer == {"batchItemFailures": []}
        return way.delivery.kinesis.put_record(**record)

    way.kinesis.faults["put_record"] = [both]
    assert (way.drain(), way.records()) == (1, 2)
    way.deliver()
    assert way.ids() == ["r-0"]


def test_a_second_record_in_another_shard_makes_no_second_row(way: Way) -> None:
    """A reshard between two puts of the drainer leaves them in parent and child, and still one counts."""
    _busy(way)
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    way.drain()
    way.split()
    way.wait(400)
    assert (way.drain(), way.records()) == (1, 3)
    way.deliver()
    assert way.ids() == ["other-0", "r-0"]


def test_a_put_found_in_a_parent_shard_is_not_repeated(way: Way) -> None:
    """The search follows the partition key back through a reshard."""
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    way.collect("r")
    way.split()
    way.wait(130)
    assert (way.drain(), way.records(), verdicts(way)) == (1, 1, {"found": 1})


def test_a_message_delivered_twice_at_once_is_put_once(way: Way) -> None:
    """Deliveries of one envelope share one search and one put."""
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("r")
    way.wait(130)
    [message] = way.sqs.messages(way.queue_url)
    event = _event(message)
    event["Records"] += _event(message)["Records"]
    assert way.drainer().run(event, 60_000) == {"batchItemFailures": []}
    assert way.records() == 1


def test_one_search_serves_all_messages(way: Way) -> None:
    """Two hundred messages cost as many reads as one."""
    way.kinesis.faults["put_record"] = [timeout()] * 200
    way.collect(*(f"r{number}" for number in range(200)))
    way.wait(130)
    assert (way.drain(), len(way.kinesis.called("get_records"))) == (200, 1)


def test_puts_keep_the_order_in_which_messages_came(way: Way) -> None:
    """A visitor's envelopes stand on the stream in their order, as far as the queue has kept it."""
    way.kinesis.faults["put_record"] = [timeout()] * 5
    for number in range(5):
        way.collect(f"r{number}")
        way.wait(1)
    way.wait(130)
    event: dict[str, Any] = {"Records": []}
    for message in reversed(way.sqs.messages(way.queue_url)):
        event["Records"] += _event(message)["Records"]
    way.drainer().run(event, 60_000)
    way.deliver()
    ids = [row["event_id"] for row in way.delivery.td.rows("shop_db", "pageviews")]
    assert ids == [f"r{number}-0" for number in range(5)]


def test_a_throttled_put_is_repeated(way: Way) -> None:
    """What Kinesis surely refused is put again within the time."""
    way.kinesis.faults["put_record"] = [timeout(), *throttled(3)]
    way.collect("r")
    way.wait(130)
    assert (way.drain(), way.records()) == (1, 1)


def test_a_put_throttled_for_long_stays_on_the_queue(way: Way) -> None:
    """After a few refusals the rest of that partition key waits for the next invocation."""
    way.kinesis.faults["put_record"] = [timeout()] * 3
    way.collect("a", "b", "c")
    way.wait(130)
    way.kinesis.faults["put_record"] = throttled(5)
    assert (way.drain(), way.waiting(), verdicts(way)) == (0, 3, {"refused": 3})
    assert {message.visible_at - way.clock.now() for message in way.sqs.messages(way.queue_url)} == {120}
    way.wait(121)
    assert (way.drain(), way.records()) == (3, 3)


def test_an_invocation_short_of_time_leaves_messages_on_the_queue(way: Way) -> None:
    """A search that cannot finish decides nothing, and what is undecided is not put."""
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("r")
    way.wait(130)
    way.kinesis.faults["get_records"] = [refusal(THROTTLED, "GetRecords")] * 100
    before = way.clock.now()
    assert (way.drain(remaining_ms=20_000), way.waiting(), verdicts(way)) == (0, 1, {"undecided": 1})
    assert way.clock.now() - before < 20
    assert len(way.kinesis.called("put_record")) == 1


def test_an_unreadable_stream_leaves_messages_on_the_queue(way: Way) -> None:
    """Without a search there is no put."""
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("r")
    way.wait(130)
    way.kinesis.faults["list_shards"] = [ZeroDivisionError("unforeseen")]
    assert (way.drain(), verdicts(way)) == (0, {"undecided": 1})
    assert way.delivery.journal.counts["UnforeseenErrors"] == 1
    way.wait(121)
    assert way.drain() == 1


def test_a_queue_that_does_not_answer_changes_nothing(way: Way) -> None:
    """When the visibility cannot be changed, the message comes back by the queue's own time-out."""
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("r")
    queue, way.sqs = way.sqs, SimpleNamespace(change_message_visibility=_raise)
    drainer, way.sqs = way.drainer(), queue
    [message] = way.sqs.messages(way.queue_url)
    assert drainer.run(_event(message), 60_000) == {
        "batchItemFailures": [{"itemIdentifier": message.message_id}]
    }


def test_reads_only_the_minutes_in_which_the_put_can_have_landed(way: Way) -> None:
    """A message that waited for a day is searched for where it came from, not through the day."""
    way.kinesis.page = 10
    way.kinesis.faults["put_record"] = [way.landing_unheard]
    way.collect("r")
    for number in range(1000):
        way.wait(60)
        way.collect(f"other{number}")
    assert (way.drain(), len(way.kinesis.called("get_records"))) == (1, 1)


@pytest.mark.parametrize("wrong", [-30 * DAY, 30 * DAY])
def test_searches_by_the_clocks_of_stream_and_queue(wrong: float, way: Way) -> None:
    """An ingest whose clock is far off does not mislead the search."""
    record = an_envelope("r", at=way.clock.now() + wrong).encode()
    way.delivery.kinesis.put_record(StreamName=STREAM, Data=record, PartitionKey=KEY)
    _send(way, base64.b64encode(record).decode())
    way.wait(130)
    assert (way.drain(), verdicts(way)) == (1, {"found": 1})


# What is held for too long


def test_what_the_stream_refuses_for_half_its_retention_reaches_treasure_data_past_it(way: Way) -> None:
    """It is parked in S3 and the ledger, and the redrive delivers it."""
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("r", rows=3)
    way.wait(3.5 * DAY)
    way.kinesis.faults["put_record"] = throttled(5)
    assert (way.drain(), way.waiting(), verdicts(way)) == (1, 0, {"set_aside": 1})
    [chunk] = _objects(way)
    assert (chunk.kind, chunk.reason, chunk.account, chunk.table, chunk.rows) == (
        Kind.PARKED,
        "stream_refused",
        "shop",
        "pageviews",
        3,
    )
    _redrive(way)
    assert (way.ids(), _objects(way)) == (["r-0", "r-1", "r-2"], [])


def test_a_put_that_lands_after_its_envelope_was_set_aside_makes_no_second_row(way: Way) -> None:
    """Setting aside claims the envelope."""
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("r")
    way.wait(3.5 * DAY)
    way.kinesis.faults["put_record"] = [way.landing_late(60)]
    way.drain()
    way.wait(60)
    way.deliver()
    assert (way.records(), way.ids()) == (1, [])
    _redrive(way)
    assert way.ids() == ["r-0"]


def test_an_envelope_that_the_worker_has_claimed_is_not_set_aside(way: Way) -> None:
    """An earlier put of the drainer has landed and counts: the message is done."""
    way.kinesis.faults["put_record"] = [timeout(), way.landing_unheard]
    way.collect("r")
    way.wait(200)
    way.drain()
    way.deliver()
    way.wait(3.5 * DAY)
    way.kinesis.faults["put_record"] = [timeout()]
    assert (way.drain(), _objects(way), verdicts(way)) == (1, [], {"found": 1})
    assert way.ids() == ["r-0"]


@pytest.mark.parametrize(("landed", "sent"), [("taken", 0), ("gone", 1)])
def test_what_nobody_can_search_for_any_more_is_in_doubt_and_treasure_data_is_asked(
    landed: str, sent: int, way: Way
) -> None:
    """Once the stream no longer keeps the minutes in question, Treasure Data decides what has to be sent."""
    way.kinesis.faults["put_record"] = [way.landing_unheard if landed == "taken" else timeout()]
    way.collect("r")
    way.deliver()
    way.wait(7 * DAY)
    assert (way.drain(), len(way.kinesis.called("put_record")), verdicts(way)) == (1, 1, {"set_aside": 1})
    [chunk] = _objects(way)
    assert (chunk.kind, chunk.reason) == (Kind.IN_DOUBT, "stream_unsearched")
    imports = len(way.delivery.td.imports())
    _redrive(way)
    assert (way.ids(), len(way.delivery.td.imports()) - imports, _objects(way)) == (["r-0"], sent, [])


def test_what_cannot_be_searched_for_half_the_retention_is_in_doubt(way: Way) -> None:
    """A stream that cannot be read for days does not hold messages until the queue forgets them."""
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("r")
    way.wait(3.5 * DAY)
    way.kinesis.faults["list_shards"] = [timeout()]
    assert (way.drain(), [chunk.kind for chunk in _objects(way)]) == (1, [Kind.IN_DOUBT])


def test_a_message_without_an_envelope_becomes_a_dead_letter(way: Way) -> None:
    """Its body stands in S3 as it was, and its neighbours are drained."""
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("r")
    _send(way, "this is no envelope")
    way.wait(130)
    assert (way.drain(), way.records(), way.waiting()) == (2, 1, 0)
    [chunk] = _objects(way)
    assert (chunk.kind, chunk.reason, chunk.payload) == (
        Kind.DEAD_LETTER,
        "undecodable",
        b"\xc4\x13this is no envelope",
    )


@pytest.mark.parametrize("key", ["", "k" * 257])
def test_an_envelope_without_a_usable_partition_key_becomes_a_dead_letter(key: str, way: Way) -> None:
    """Nobody can tell where to search for it."""
    _send(way, base64.b64encode(an_envelope("r").encode()).decode(), key)
    way.wait(130)
    assert (way.drain(), [chunk.reason for chunk in _objects(way)]) == (1, ["no_partition_key"])


def test_setting_aside_twice_leaves_one_object_and_one_span(way: Way) -> None:
    """A message that the queue delivers again after it was set aside changes nothing."""
    _send(way, "this is no envelope")
    way.wait(130)
    for _ in range(2):
        way.crash_draining()
        way.wait(361)
    spans = [item for item in way.delivery.dynamodb.items("ledger") if "g" in item]
    assert (len(_objects(way)), len(spans)) == (1, 1)


@pytest.mark.parametrize(
    "error", [aside.AsideUnavailableError("S3"), LedgerUnavailableError("DynamoDB"), KeyError("?")]
)
def test_what_cannot_be_set_aside_stays_on_the_queue(
    error: Exception, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With S3 or the ledger away, the message waits."""
    _send(way, "this is no envelope")
    way.wait(130)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(drain.Unplaced, "bury", fail)
    assert (way.drain(), way.waiting(), verdicts(way)) == (0, 1, {"failed": 1})


# What it tells


def test_tells_what_it_did_in_one_line(way: Way) -> None:
    """One log line per invocation counts verdicts and reads; metrics count what became of messages."""
    way.kinesis.faults["put_record"] = [way.landing_unheard, timeout()]
    way.collect("a", "b")
    way.wait(130)
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("c")
    way.wait(1)
    way.drain()
    assert [note for note in way.delivery.journal.notes if note[0] == "drained"] == [
        (
            "drained",
            {
                "messages": 3,
                "left": 1,
                "oldest_seconds": 131,
                "shards": 1,
                "reads": 1,
                "records": 1,
                "found": 1,
                "put": 1,
                "young": 1,
            },
        )
    ]
    assert way.delivery.journal.counts == Counter(OverflowFound=1, OverflowPut=1, OverflowLeft=1)


def test_the_handler_runs_what_the_sandbox_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The door hands over event and remaining time, and writes metrics even when the drainer raises."""
    flushed = []
    journal = SimpleNamespace(flush=lambda: flushed.append(True))

    class Raising:
        def run(self, event: Any, remaining_ms: float) -> Any:
            raise RuntimeError(event, remaining_ms)

    monkeypatch.setattr(drain, "_drain", lambda: (Raising(), journal))
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 5)
    with pytest.raises(RuntimeError, match=r"\{\}, 5"):
        drain.handler({}, context)
    assert flushed == [True]


def test_the_handler_is_built_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings and boto3 clients suffice; no put is repeated by botocore."""
    for name in ("STREAM_NAME", "OVERFLOW_QUEUE_URL", "LEDGER_TABLE", "ASIDE_BUCKET"):
        monkeypatch.setenv(name, "x")
    for name in ("REDIS_URL_SECRET", "TD_API_KEY_SECRET"):
        monkeypatch.setenv(name, "x")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "drain")
    drain._drain.cache_clear()
    made, _ = drain._drain()
    drain._drain.cache_clear()
    assert isinstance(made, Drain)
    assert made._kinesis.meta.config.retries["total_max_attempts"] == 1


@mock_aws
def test_drains_the_services_own_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With boto3's clients before an emulator of AWS, one envelope is found, one is put, one is buried."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    way = Way(kinesis=boto3.client("kinesis"), sqs=boto3.client("sqs"))
    way.clock.time = time()
    way.kinesis.faults["put_record"] = [way.landing_unheard, timeout()]
    way.collect("landed", "gone")
    _send(way, "this is no envelope")
    way.wait(130)
    assert (way.drain(), verdicts(way)) == (3, {"found": 1, "put": 1, "set_aside": 1})
    way.deliver()
    assert way.ids() == ["gone-0", "landed-0"]


class _Adversary:
    """Decides what becomes of puts and what happens next.

    Args:
        data: draws.
        way: what it happens to.
    """

    def __init__(self, data: st.DataObject, way: Way) -> None:
        self.draw = data.draw
        self.way = way

    def decide_puts(self) -> None:
        """Set what becomes of the next puts."""
        self.way.kinesis.faults["put_record"] = [self._fate() for _ in range(4)]

    def act(self) -> None:
        """Do one thing."""
        self.decide_puts()
        match self.draw(st.sampled_from(["wait", "drain", "crash", "deliver", "split"])):
            case "wait":
                self.way.wait(self.draw(st.sampled_from([5, 60, 200, 4000])))
            case "drain":
                self.way.drain()
            case "crash":
                self.way.crash_draining()
            case "deliver":
                self.way.deliver()
            case "split" if len(self.way.delivery.kinesis.list_shards(StreamName=STREAM)["Shards"]) == 1:
                self.way.split()
        self.way.wait()

    def _fate(self) -> Any:
        match self.draw(st.sampled_from(["taken", "gone", "unheard", "late", "refused"])):
            case "gone":
                return timeout()
            case "unheard":
                return self.way.landing_unheard
            case "late":
                return self.way.landing_late(self.draw(st.sampled_from([0.5, 30, 119])))
            case "refused":
                return refusal("InternalFailure", "PutRecord")
        return None


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_every_envelope_becomes_one_row(data: st.DataObject) -> None:
    """Whatever becomes of puts, whenever drainers and workers run or die, reshards included: one row each."""
    way = Way()
    way.kinesis.page = data.draw(st.sampled_from([1, 1000]))
    adversary, expected = _Adversary(data, way), []
    for number in range(data.draw(st.integers(1, 6))):
        adversary.decide_puts()
        assert way.collect(f"r{number}", key=f"shop/{data.draw(st.integers(0, 3))}")
        expected.append(f"r{number}-0")
        for _ in range(data.draw(st.integers(0, 3))):
            adversary.act()
    way.kinesis.faults.clear()
    for _ in range(4):
        way.wait(361)
        way.drain()
    way.deliver()
    assert (way.ids(), way.waiting()) == (expected, 0)


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


def _objects(way: Way) -> list[aside.SetAside]:
    return [aside.decode(stored.body) for stored in way.delivery.s3.objects(BUCKET).values()]


def _redrive(way: Way) -> None:
    from worker.deadline import Deadline

    way.delivery.redrive.run(Deadline(way.clock, way.clock.now() + 100))


def _busy(way: Way) -> None:
    """Let a put of envelope r be gone, and so much follow on the stream that no search gets to its end."""
    way.kinesis.page = 1
    way.kinesis.faults["put_record"] = [timeout()]
    way.collect("r")
    way.wait(200)
    way.collect("other")


def _raise(**_: Any) -> None:
    raise timeout()
