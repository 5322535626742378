"""The archive: what the worker writes, and what it reads back once the stream no longer has the records."""

import gzip
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given
from hypothesis import strategies as st

from doubles.aws_errors import client_error
from doubles.s3 import MemoryS3
from doubles.treasure_data import Action, Fault, Kind
from shared.errors import BucketUnavailableError, InvalidReplayError
from tests.support.delivery import (
    BUCKET,
    SHARD,
    STREAM,
    Delivery,
    KilledError,
    envelope,
    is_settling,
    kill,
    member,
    once,
    row,
)
from worker.archive import Archive, ArchivedSpan
from worker.bucket import Bucket
from worker.chain import ChainId
from worker.record import number
from worker.span import Archived, Span

DAY = 86_400.0
ROWS = [envelope("shop", {"views": [row(f"e{n}")]}) for n in range(4)]


def delivery(**options: Any) -> Delivery:
    """Return a delivery of four records, one second apart, on a stream with a retention of one day."""
    made = Delivery(**{"retention": DAY} | options)
    made.map(shop="shop_db")
    for data in ROWS:
        made.put(data)
        made.clock.sleep(1)
    return made


def refuse(_: dict[str, Any]) -> None:
    """Fail an S3 call."""
    raise client_error("SlowDown", "PutObject", status=503)


def archived(made: Delivery) -> list[ArchivedSpan]:
    """Return the shard's archived spans."""
    return list(made.archive.listed(made.wiring.shards.chain(SHARD)))


def open_span(made: Delivery) -> Delivery:
    """Plan and archive a span of all records, and leave it open: Treasure Data fails."""
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=503))
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.STATUS, status=503))
    assert made.deliver() is not None
    made.td.faults.clear()
    assert [False] == [span.done for span in made.spans()]
    return made.start()


def test_an_object_holds_the_records_as_the_stream_had_them() -> None:
    """It is gzipped MessagePack: a header that identifies the span, then each record's number, arrival, key and bytes."""
    made = delivery()
    made.put(b"junk")
    made.deliver()
    [name] = made.archived()
    content = gzip.decompress(made.s3.objects(BUCKET)[name].body)
    unpacker = msgpack.Unpacker()
    unpacker.feed(content)
    header, *records = unpacker
    read = made.records()
    chain = made.spans()[0].chain

    assert {
        "chain": chain.name,
        "first": read[0]["SequenceNumber"],
        "last": read[-1]["SequenceNumber"],
        "records": 5,
    } == header
    assert [
        [
            one["SequenceNumber"],
            one["ApproximateArrivalTimestamp"].timestamp(),
            one["PartitionKey"],
            one["Data"],
        ]
        for one in read
    ] == records


def test_an_object_is_named_by_chain_hour_and_borders() -> None:
    """The name can be derived from the span's ledger item."""
    made = delivery()
    made.deliver()
    read, start = made.records(), made.spans()[0].chain.start
    borders = f"{read[0]['SequenceNumber']}-{read[-1]['SequenceNumber']}-1700000000000-1700000003000"

    assert [f"archive/{STREAM}/{start}/{SHARD}/2023-11-14T22/{borders}.gz"] == made.archived()
    assert [made.archived()[0]] == [found.name for found in archived(made)]
    assert Archived(1_700_000_000_000, 1_700_000_003_000, 30) == made.spans()[0].archived


def test_a_span_is_archived_once_however_often_it_is_retried() -> None:
    """The put is conditional, and a sandbox that has written the object does not repeat it."""
    made = open_span(delivery())
    [before] = made.s3.objects(BUCKET).values()
    made.clock.sleep(60)
    assert made.deliver() is None
    assert made.deliver() is None

    assert [before] == list(made.s3.objects(BUCKET).values())
    assert 2 == made.s3.calls.count("put_object")


def test_zero_archive_days_turn_the_archive_off() -> None:
    """Nothing is written, and the span's plan says so."""
    made = delivery(archive_days=0)
    made.deliver()

    assert ([], None) == (made.archived(), made.spans()[0].archived)


@pytest.mark.parametrize(
    "failure",
    [
        lambda: client_error("SlowDown", "PutObject", status=503),
        lambda: client_error("AccessDenied", "PutObject", status=403),
        lambda: client_error("PreconditionFailed", "PutObject", status=412),
        lambda: EndpointConnectionError(endpoint_url="http://s3"),
    ],
)
def test_a_span_stays_open_until_it_is_archived(failure: Callable[[], Exception]) -> None:
    """Its rows are delivered and noted, and its records held; when S3 works again, nothing is sent twice."""
    made = delivery()
    numbers = [one["SequenceNumber"] for one in made.records()]

    def fail(_: dict[str, Any]) -> None:
        raise failure()

    made.s3.before["put_object"] = fail
    assert numbers[0] == made.deliver()
    assert ["delivered"] == [entry.state.value for entry in made.spans()[0].entries.values()]
    assert "the archive does not take the records" in made.telemetry.said("held")[0]["reason"]
    made.s3.before.clear()
    made.start()
    assert made.deliver() is None

    assert ["e0", "e1", "e2", "e3"] == made.ids("shop_db", "views")
    assert (1, 1, {}) == (len(made.td.imports()), len(made.archived()), made.spans()[0].entries)


def test_an_etag_of_other_bytes_is_not_an_acknowledgement() -> None:
    """The answer may come from a proxy, or be about another object."""
    made = delivery()
    put = made.s3.client.put_object
    made.s3.client.put_object = lambda **_: {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"'}
    assert made.deliver() is not None
    made.s3.client.put_object = put

    assert made.deliver() is None
    assert 1 == len(made.archived())


def test_after_half_the_retention_spans_are_settled_without_the_archive() -> None:
    """Held any longer, the records would expire. The log says so."""
    made = delivery()
    made.s3.before["put_object"] = refuse
    assert made.deliver() is not None
    made.clock.sleep(DAY / 2 + 10)

    assert made.deliver() is None
    assert made.telemetry.said(
        "a span is settled without being archived, because S3 does not accept its records"
    )
    assert (["e0", "e1", "e2", "e3"], True) == (made.ids("shop_db", "views"), made.spans()[0].done)


def test_an_incomplete_read_is_never_archived() -> None:
    """An object holds every record of its span, or is not written."""
    made = delivery()
    made.dynamodb.after["put_item"] = once(kill)
    with pytest.raises(KilledError):
        made.deliver()
    made.start()
    event = {"Records": [member(one) for one in made.records()[1:]]}
    made.clock.sleep(DAY + 1)

    assert {"batchItemFailures": []} == made.run(event, 120_000)
    assert ([], 1) == (made.archived(), made.telemetry.counts["RowsMissing"])


def test_the_sweep_finishes_open_spans_from_the_archive() -> None:
    """Once the records have expired, no batch brings them any more."""
    made = open_span(delivery())
    made.clock.sleep(DAY + 7200)
    made.td.settings = made.td.settings.__class__(id_memory=2 * DAY)
    made.invoke_redrive({"sweep": True})

    assert (True, 0) == (made.spans()[0].done, made.telemetry.counts["RowsMissing"])
    assert {"shop/views/0": ("in_doubt", "too_old_to_repeat", 4)} == made.aside()
    for _ in range(3):
        made.redrive()
        made.clock.sleep(600)
    assert ["e0", "e1", "e2", "e3"] == made.ids("shop_db", "views")


def test_the_sweep_counts_rows_as_missing_only_if_the_object_is_gone() -> None:
    """A failing S3 read proves nothing, so the span stays open."""
    made = open_span(delivery())
    made.clock.sleep(DAY + 7200)
    made.s3.before["get_object"] = refuse
    made.invoke_redrive({"sweep": True})
    assert ([False], 0) == ([span.done for span in made.spans()], made.telemetry.counts["RowsMissing"])
    made.s3.before.clear()
    made.s3.client.delete_object(Bucket=BUCKET, Key=made.archived()[0])
    made.invoke_redrive({"sweep": True})

    assert ([True], 4) == ([span.done for span in made.spans()], made.telemetry.counts["RowsMissing"])


def test_expired_records_of_an_open_span_come_from_the_archive() -> None:
    """The batch brings only the last records of the span."""
    made = open_span(delivery())
    event = {"Records": [member(one) for one in made.records()[2:]]}
    made.clock.sleep(DAY + 1)
    made.td.settings = made.td.settings.__class__(id_memory=2 * DAY)

    assert {"batchItemFailures": []} == made.run(event, 120_000)
    assert {"shop/views/0": ("in_doubt", "too_old_to_repeat", 4)} == made.aside()
    assert 0 == made.telemetry.counts["RowsMissing"]


def replay(made: Delivery, **event: Any) -> list[str]:
    """Pass the archived records to the worker, as `sluice replay` does.

    Return the numbers it reports as failed.
    """
    failures = []
    for found in archived(made):
        records = made.archive.read(found)
        assert records is not None
        event |= {"Records": [member(one) for one in records], "chain": found.chain.name}
        failures += made.run(event, 120_000)["batchItemFailures"]
    return [one["itemIdentifier"] for one in failures]


def test_a_replay_from_the_archive_sends_nothing_twice() -> None:
    """This holds a month later, and after the stream was deleted and recreated."""
    made = delivery()
    made.deliver(0, 2)
    made.deliver(2, 4)
    spans = archived(made)
    made.clock.sleep(29 * DAY)
    made.kinesis.delete_stream(StreamName=STREAM)
    made.kinesis.create_stream(StreamName=STREAM, ShardCount=1)
    made.start()
    chain = spans[0].chain
    assert chain != made.wiring.shards.chain(SHARD)
    for found in spans:
        records = made.archive.read(found)
        assert records is not None
        event = {"Records": [member(one) for one in records], "chain": chain.name}
        assert {"batchItemFailures": []} == made.run(event, 120_000)

    assert (2, ["e0", "e1", "e2", "e3"]) == (len(made.td.imports()), made.ids("shop_db", "views"))
    assert 2 == len(made.spans())


def test_a_forced_replay_from_the_archive_restores_rows_once() -> None:
    """Repeated under the same tag, it adds nothing; records of the span that are not replayed stay out."""
    made = delivery()
    made.deliver()
    made.clock.sleep(20 * DAY)
    made.td.lose("shop_db", "views", 0, 2_000_000_000)
    [found] = archived(made)
    records = made.archive.read(found)
    assert records is not None
    event = {
        "Records": [member(one) for one in records[1:3]],
        "chain": found.chain.name,
        "forced": {"tag": "lost"},
    }
    for _ in range(2):
        assert [] == made.run(event, 120_000)["batchItemFailures"]

    assert ["e1", "e2"] == made.ids("shop_db", "views")
    assert 1 == len(made.archived())


def test_an_interrupted_forced_replay_is_finished_from_the_archive() -> None:
    """Its span has the same records as the shard's span, so the missing ones come from there."""
    made = delivery()
    made.deliver()
    made.clock.sleep(20 * DAY)
    made.td.lose("shop_db", "views", 0, 2_000_000_000)
    made.dynamodb.after["put_item"] = once(kill)
    with pytest.raises(KilledError):
        replay(made, forced={"tag": "lost"})
    made.start()
    records = made.archive.read(archived(made)[0])
    assert records is not None
    event = {
        "Records": [member(records[3])],
        "chain": archived(made)[0].chain.name,
        "forced": {"tag": "lost"},
    }

    assert [] == made.run(event, 120_000)["batchItemFailures"]
    assert ["e0", "e1", "e2", "e3"] == made.ids("shop_db", "views")


def test_archived_records_without_a_ledger_item_are_not_sent() -> None:
    """Nothing would say which of them were delivered."""
    made = delivery()
    made.deliver()
    span = made.spans()[0]
    key = {"pk": {"S": span.chain.name}, "sk": {"S": span.after}}
    made.dynamodb.client.delete_item(TableName="ledger", Key=key)

    assert 1 == len(replay(made.start()))
    assert ([], 1) == (made.spans(), len(made.td.imports()))


@pytest.mark.parametrize("chain", ["", "events", "overflow#1", "events@1#s#0565", "events@1#s#force#a/*/*"])
def test_a_replay_names_the_chain_of_a_shard(chain: str) -> None:
    """Other chains are refused."""
    made = delivery()

    with pytest.raises(InvalidReplayError):
        made.run(made.event() | {"chain": chain}, 120_000)


@pytest.mark.parametrize("lie", ["another", "half", "page"])
def test_an_object_with_other_bytes_settles_nothing(lie: str) -> None:
    """Another span's object, half of one or a web page raises an error and never counts as the span's records."""
    made = delivery()
    made.deliver(0, 2)
    made.deliver(2, 4)
    one, other = (made.s3.objects(BUCKET)[name].body for name in made.archived())
    wrong = {"another": other, "half": one[: len(one) // 2], "page": b"<html>"}[lie]
    made.s3.client.put_object(Bucket=BUCKET, Key=made.archived()[0], Body=wrong)

    with pytest.raises(BucketUnavailableError):
        made.archive.get(made.spans()[0])


def test_records_must_match_the_span_s_digest() -> None:
    """Records other than the planned ones raise an error."""
    made = delivery()
    made.deliver()
    [span] = made.spans()
    other = span.__class__(**{name: getattr(span, name) for name in span.__slots__} | {"digest": b"other"})

    with pytest.raises(BucketUnavailableError, match="other records than were planned"):
        made.archive.get(other)


CHAIN = ChainId("events", "49", SHARD)


def listing(*spans: tuple[str, int, int, int]) -> Archive:
    """Return an archive of spans, given the hour of the plan, a number, and the first and last arrival of each."""
    s3 = MemoryS3(page_keys=2)
    s3.create_bucket(Bucket=BUCKET)
    for hour, first, since, until in spans:
        name = ArchivedSpan(CHAIN, hour, number(str(first)), number(str(first + 9)), since, until).name
        s3.put_object(Bucket=BUCKET, Key=name)
    s3.put_object(Bucket=BUCKET, Key="archive/events/49/README")
    s3.put_object(Bucket=BUCKET, Key=f"archive/events/5/{SHARD}/2023-11-14T22/1-2-3-4.gz")
    s3.put_object(Bucket=BUCKET, Key="archive/other/5/shard/2023-11-14T22/1-2-3-4.gz")
    return Archive(Bucket(s3, BUCKET))  # type: ignore[arg-type]  # a double


HOURS = listing(
    ("2023-11-14T22", 10, 1_700_000_000_000, 1_700_000_600_000),
    ("2023-11-14T22", 20, 1_700_000_601_000, 1_700_001_000_000),
    ("2023-11-14T23", 30, 1_700_002_900_000, 1_700_003_000_000),
    ("2023-11-15T09", 40, 1_700_003_100_000, 1_700_003_200_000),
)


@pytest.mark.parametrize(
    ("since", "until", "held", "expected"),
    [
        (None, None, float("inf"), [10, 20, 30, 40]),
        (1_700_000_600.0, None, float("inf"), [10, 20, 30, 40]),
        (1_700_000_600.5, 1_700_000_601.0, float("inf"), []),
        (1_700_000_601.0, 1_700_003_100.0, 3600.0, [20, 30]),
        (1_700_003_100.0, 1_700_003_200.0, DAY, [40]),
        (1_700_003_100.0, 1_700_003_200.0, 3600.0, []),
    ],
)
def test_a_time_range_selects_spans_by_arrival(
    since: float | None, until: float | None, held: float, expected: list[int]
) -> None:
    """Spans may have been planned up to `held` seconds after their records arrived."""
    found = HOURS.listed(CHAIN, since, until, held)

    assert expected == [int(one.first[3:]) for one in found]


def test_listing_finds_every_chain_of_a_stream() -> None:
    """Chains of deleted streams with the same name are included, those of other streams are not."""
    assert [CHAIN, ChainId("events", "5", SHARD)] == HOURS.chains("events")


@given(
    st.integers(1, 10**57),
    st.integers(0, 10**6),
    st.integers(0, 10**14),
    st.integers(0, 10**9),
    st.from_regex(r"[a-zA-Z0-9_.-]{1,128}", fullmatch=True),
)
def test_object_names_round_trip(first: int, more: int, since: int, later: int, stream: str) -> None:
    """This holds for every legal stream name, and no name exceeds S3's 1024 bytes."""
    chain = ChainId(stream, str(first), SHARD)
    one = ArchivedSpan(
        chain, "2026-11-24T03", number(str(first)), number(str(first + more)), since, since + later
    )

    assert one == ArchivedSpan.parse(one.name)
    assert len(one.name) < 1024


def test_a_hole_is_archived_under_its_shard() -> None:
    """A hole is what a replay ran ahead of; its records belong among their neighbours."""
    made = delivery()
    made.deliver(2, 4)
    made.deliver(0, 2)
    hole = made.spans()[1]
    assert hole.chain.holes

    found = made.archive.get(hole)
    assert found is not None
    assert [hole.first, hole.last] == [one.number for one in found]
    assert {made.spans()[0].chain} == {one.chain for one in archived(made)}


def test_a_put_that_the_client_repeated_counts_as_acknowledged() -> None:
    """The first answer was lost, and the repetition finds the object there."""
    made = delivery()
    made.s3.before["put_object"] = lambda request: made.s3.client.put_object(**request)

    assert made.deliver() is None
    assert 1 == len(made.archived())


def test_the_object_is_written_before_the_span_is_settled() -> None:
    """A kill in between leaves an object without a settled span, never the reverse."""
    made = delivery()
    seen: list[int] = []
    made.dynamodb.before["update_item"] = once(lambda: seen.append(len(made.archived())), is_settling)
    made.deliver()

    assert [1] == seen


def test_only_spans_planned_with_an_archive_are_read() -> None:
    """Other spans have no object, so S3 is not asked."""
    made = delivery(archive_days=0)
    made.deliver()
    made.s3.calls.clear()
    [span] = made.spans()
    assert isinstance(span, Span)

    assert made.archive.get(span) is None
    assert [] == made.s3.calls
