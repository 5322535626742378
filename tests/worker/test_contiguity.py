"""If the event source leaves records out or reads of the shard are wrong, the worker holds and loses nothing."""

from typing import Any

import pytest

from doubles.aws_errors import client_error
from tests.support.delivery import Delivery, envelope, row
from tests.support.telemetry import CollectedTelemetry
from worker.guards import Guard

ROWS = [envelope("shop", {"views": [row(f"e{number}")]}) for number in range(6)]


def delivery(**options: Any) -> Delivery:
    """Return a delivery with six records on its shard."""
    made = Delivery(**options)
    made.map(shop="shop_db")
    made.put(*ROWS)
    return made


def lane(made: Delivery, number: int) -> dict[str, Any]:
    """Return every other record, as with a ParallelizationFactor of 2."""
    return {"Records": made.event()["Records"][number::2]}


def run(made: Delivery, event: dict[str, Any]) -> bool:
    """Run the worker on an event and return whether all of it was settled."""
    return made.run(event, 60_000) == {"batchItemFailures": []}


def reason(made: Delivery) -> str:
    """Return why the last batch was held."""
    telemetry: CollectedTelemetry = made.telemetry
    told: str = telemetry.said("held")[-1]["reason"]
    return told


def blind(made: Delivery) -> None:
    """Make the shard unreadable."""

    def refuse(_: Any) -> None:
        raise client_error("AccessDeniedException", "GetShardIterator")

    made.kinesis.before["get_shard_iterator"] = refuse


@pytest.mark.parametrize("left_out", [slice(1, 2), slice(2, 5)])
def test_a_batch_with_records_left_out_is_held(left_out: slice) -> None:
    """The shard has more records between the first and the last: the source filters, or has several lanes."""
    made = delivery()
    event = made.event()
    del event["Records"][left_out]

    assert not run(made, event)
    assert "the event source skipped" in reason(made)
    assert not made.spans()
    assert run(made, made.event())


def test_each_batch_is_compared_with_the_shard() -> None:
    """If the mapping changes while the worker is warm, the very next batch that lacks records is held."""
    made = delivery()
    assert run(made, made.event())
    made.put(*(envelope("shop", {"views": [row(f"f{number}")]}) for number in range(4)))
    event = made.event()
    event["Records"] = event["Records"][len(ROWS) :: 2]

    assert not run(made, event)
    assert "the event source skipped" in reason(made)


def test_records_of_a_second_lane_are_held_behind_a_plan_without_them() -> None:
    """They lie within a span that was settled without them, so skipping them would lose them."""
    made = delivery(without=frozenset({Guard.CONTIGUOUS}))
    assert run(made, lane(made, 0))

    assert not run(made, lane(made, 1))
    assert "skipped 2 records" in reason(made)


def test_records_of_a_second_lane_are_held_while_the_first_is_open() -> None:
    """When the first lane's records come again, they are delivered, and no others."""
    made = delivery(without=frozenset({Guard.CONTIGUOUS}))
    made.dynamodb.before["update_item"] = lambda _: (_ for _ in ()).throw(
        client_error("InternalServerError", "UpdateItem", status=500)
    )
    assert not run(made, lane(made, 0))
    made.dynamodb.before.clear()

    assert not run(made, lane(made, 1))
    assert run(made, lane(made, 0))
    assert made.ids("shop_db", "views") == ["e0", "e2", "e4"]


def test_a_span_that_the_event_source_gave_up_is_settled_first() -> None:
    """With a retry limit, the source moves past a failed batch whose span is open.

    No other batch would settle it.
    """
    made = delivery()
    made.dynamodb.before["update_item"] = lambda _: (_ for _ in ()).throw(
        client_error("InternalServerError", "UpdateItem", status=500)
    )
    assert not run(made, made.event(0, 3))
    made.dynamodb.before.clear()

    assert run(made, made.event(3))
    assert made.ids("shop_db", "views") == [f"e{number}" for number in range(6)]
    assert all(span.done for span in made.spans())


def test_part_of_a_settled_span_is_skipped_if_the_shard_confirms_it() -> None:
    """Batch borders may change. The plan is compared with the shard once."""
    made = delivery()
    assert run(made, made.event())
    made.kinesis.calls.clear()

    assert run(made, made.event(2, 4))
    assert run(made, made.event(3, 5))
    assert made.kinesis.calls.count("get_records") == 1


def test_a_batch_is_held_while_its_shard_shows_nothing() -> None:
    """If an empty answer counted, records of another lane would never be delivered."""
    made = delivery()
    event = made.event()
    truth = made.kinesis.client.get_records
    made.kinesis.client.get_records = lambda **request: truth(**request) | {"Records": []}

    assert not run(made, event)
    assert "the shard does not show all records of the batch" in reason(made)
    made.kinesis.client.get_records = truth
    assert run(made, event)


def test_recorded_events_of_another_stream_are_delivered() -> None:
    """Kinesis says that the shard never had the records, so there is nothing to compare them with."""
    made = delivery()
    made.kinesis.before["get_shard_iterator"] = lambda _: (_ for _ in ()).throw(
        client_error("InvalidArgumentException", "GetShardIterator", status=400)
    )

    assert run(made, made.event())


def test_records_that_may_have_expired_meanwhile_are_not_compared() -> None:
    """Holding them would lose them."""
    made = delivery()
    event = made.event()
    made.clock.time += made.retention - 1800
    blind(made)

    assert run(made, event)


def test_a_batch_is_held_while_the_shard_cannot_be_read() -> None:
    """The shard may have records there that the batch lacks."""
    made = delivery()
    blind(made)

    assert not run(made, made.event())
    made.kinesis.before.clear()
    assert run(made, made.event())


def test_part_of_a_settled_span_is_held_while_the_shard_cannot_be_read() -> None:
    """Whether its records were planned is unknown, and unknown is not yes."""
    made = delivery()
    assert run(made, made.event())
    blind(made)

    assert not run(made, made.event(2, 4))
    made.kinesis.before.clear()
    assert run(made, made.event(2, 4))


@pytest.mark.parametrize("lie", ["foreign", "twice"])
def test_a_wrong_read_of_an_open_span_settles_nothing(lie: str) -> None:
    """The right number of records is not enough: they must be the planned ones."""
    made = delivery(archive_days=0)
    made.dynamodb.before["update_item"] = lambda _: (_ for _ in ()).throw(
        client_error("InternalServerError", "UpdateItem", status=500)
    )
    assert not run(made, made.event())
    made.dynamodb.before.clear()
    client, event = made.kinesis.client, made.event(0, 1)
    truth = client.get_records

    def wrong(**request: Any) -> Any:
        answer = truth(**request)
        records = answer["Records"]
        spare = dict(records[1])
        if lie == "foreign":
            spare["SequenceNumber"] = str(int(records[1]["SequenceNumber"]) + 1)
        return answer | {"Records": [records[0], spare, *records[2:]][: len(records)]}

    client.get_records = wrong if lie == "foreign" else lambda **request: _twice(truth(**request))
    sent = len(made.td.imports())

    assert not run(made, event)
    assert sent == len(made.td.imports())
    client.get_records = truth
    assert run(made, event)


def _twice(answer: dict[str, Any]) -> dict[str, Any]:
    records = answer["Records"]
    return answer | {"Records": [records[0], records[0], *records[2:]]}


def test_rows_count_as_missing_only_after_the_stream_s_own_retention() -> None:
    """The setting may be too low while the stream still has the records."""
    made = delivery(archive_days=0)
    made.kinesis.increase_stream_retention_period(StreamName="events", RetentionPeriodHours=24 * 30)
    made.dynamodb.before["update_item"] = lambda _: (_ for _ in ()).throw(
        client_error("InternalServerError", "UpdateItem", status=500)
    )
    assert not run(made, made.event())
    made.dynamodb.before.clear()
    made.clock.sleep(8 * 86_400)
    empty = made.kinesis.client.get_records
    made.kinesis.client.get_records = lambda **request: empty(**request) | {"Records": []}

    assert not run(made, made.event(0, 2))
    made.kinesis.client.get_records = empty
    assert run(made, made.event(0, 2))
    assert made.telemetry.counts["RowsMissing"] == 0
