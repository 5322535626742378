"""Rejected events are counted, kept in part, and delay nothing."""

from collections import Counter
from typing import Any

import msgpack
import pytest
from worker.delivery import Decision, State
from worker.set_aside import REJECTED_PREFIX, SetAside

from doubles.aws_errors import client_error
from ops.books.accounting import by_group
from shared.envelope import Envelope, RejectedEvent, TableRows
from tests.support.delivery import BUCKET, Delivery, row
from worker.ledger import Place
from worker.plan import MAX_KEPT_BYTES, MAX_KEPT_EVENTS, MAX_REJECTED_TABLES
from worker.record import decode

ORIGINAL = b'{"table":"views","a":1}'
AT = 1_700_000_000_000


def envelope(
    *rejected: RejectedEvent, rows: int = 0, account: str = "shop", request_id: str = "r", claim: int = 0
) -> bytes:
    """Return an envelope with rows of `views` and rejected events."""
    packed = b"".join(msgpack.packb(row(f"e{number}")) for number in range(rows))
    tables = (TableRows("views", rows, packed),) if rows else ()
    return Envelope(account, "k1", AT, request_id, claim, tables, rejected).encode()


def event(
    code: str = "too_deep", table: str = "views", original: bytes = ORIGINAL, message: str = "why"
) -> RejectedEvent:
    """Return a rejected event."""
    return RejectedEvent(0, code, table, original, message)


def delivered(*data: bytes) -> Delivery:
    """Return a delivery of these records."""
    made = Delivery()
    made.map(shop="shop_db", news="news_db")
    made.put(*data)
    assert made.deliver() is None
    return made


def counted(made: Delivery) -> Counter[str]:
    """Return the number of rejected events by group."""
    return Counter(
        {
            group.name: states.total()
            for span in made.spans()
            for group, states in by_group(span).items()
            if group.is_rejected
        }
    )


def objects(made: Delivery) -> list[str]:
    """Return the names of the rejected events' objects."""
    return sorted(name for name in made.s3.objects(BUCKET) if name.startswith(REJECTED_PREFIX))


def kept(made: Delivery) -> list[SetAside]:
    """Return the rejected events that are kept."""
    return [made.store.read(name) for name in objects(made)]


def test_rejected_events_are_counted_and_kept() -> None:
    """They are counted by account, table and code, and kept with arrival, original bytes and message."""
    made = delivered(envelope(event(), event("invalid_table", "", b"7"), rows=2))

    assert {"shop/views!too_deep": 1, "shop/!invalid_table": 1} == counted(made)
    found = {one.table: (one.rows, one.payload_form, msgpack.unpackb(one.payload)) for one in kept(made)}
    assert {
        "views!too_deep": (1, "rejected", [AT, ORIGINAL, "why"]),
        "!invalid_table": (1, "rejected", [AT, b"7", "why"]),
    } == found
    assert ["e0", "e1"] == made.ids("shop_db", "views")
    assert {} == made.aside()


def test_a_record_of_rejected_events_alone_is_settled() -> None:
    """Nothing is sent for it."""
    made = delivered(envelope(event()))

    [span] = made.spans()
    assert (True, True) == (span.done, span.final_at is not None)
    assert [State.REJECTED] == [entry.state for entry in span.entries.values()]
    assert [] == made.td.imports()
    assert {} == {name: made.telemetry.counts[name] for name in made.telemetry.counts if "Row" in name}


def test_a_redelivered_record_counts_once() -> None:
    """The same holds for its rows."""
    made = delivered(envelope(event(), rows=1))
    made.start()

    assert made.deliver() is None
    assert {"shop/views!too_deep": 1} == counted(made)
    assert 1 == len(made.td.imports())


def test_copies_count_rejected_events_once() -> None:
    """The client sent the request twice."""
    one = envelope(event(), request_id="b", claim=1)
    made = delivered(one, one)

    assert {"shop/views!too_deep": 1} == counted(made)


def test_a_flood_is_counted_and_kept_in_part() -> None:
    """All events are counted, but only some kept. Each account has its own limit."""
    flood = [envelope(*[event(table=f"t_{number:03}")] * 50) for number in range(20)]
    made = delivered(*flood, envelope(event(), account="news"))

    numbers = counted(made)
    tables = {name.partition("!")[0] for name in numbers if name.startswith("shop/")}
    assert (1000, 1) == (numbers.total() - numbers["news/views!too_deep"], numbers["news/views!too_deep"])
    assert {"shop/", *(f"shop/t_{number:03}" for number in range(MAX_REJECTED_TABLES))} == tables
    assert MAX_KEPT_EVENTS == sum(
        len(list(msgpack.Unpacker(_stream(one.payload)))) for one in kept(made) if one.account == "shop"
    )
    assert 1 == sum(one.account == "news" for one in kept(made))


def _stream(payload: bytes) -> Any:
    from io import BytesIO

    return BytesIO(payload)


def test_large_rejected_events_are_kept_within_the_limit() -> None:
    """The rest is only counted."""
    made = delivered(*[envelope(event(original=b"x" * 100_000))] * 4, envelope(event(original=b"")))

    assert {"shop/views!too_deep": 5} == counted(made)
    assert sum(len(one.payload) for one in kept(made)) <= MAX_KEPT_BYTES + 100


def test_tables_of_a_plan_are_all_counted_by_name() -> None:
    """Senders cannot choose these names, unlike those of unplanned tables."""
    drift = [event("wrong_type", f"t_{number:03}") for number in range(30)]
    strange = [event("unplanned_table", f"u_{number:03}") for number in range(30)]
    made = delivered(envelope(*drift, *strange))

    numbers = counted(made)
    assert {1} == {numbers[f"shop/t_{number:03}!wrong_type"] for number in range(30)}
    assert 30 - MAX_REJECTED_TABLES == numbers["shop/!unplanned_table"]


def test_messages_count_toward_the_limit() -> None:
    """A flood of long messages is bounded like one of long events."""
    made = delivered(*[envelope(event(original=b"x" * 2000, message="w" * 256))] * 150)

    assert sum(len(one.payload) for one in kept(made)) <= MAX_KEPT_BYTES + 150 * 20


def test_an_event_without_its_original_has_no_object() -> None:
    """The ledger counts it."""
    made = delivered(envelope(event(original=b"")))

    assert ([], {"shop/views!too_deep": 1}) == (objects(made), counted(made))


def test_a_failing_bucket_delays_nothing() -> None:
    """If S3 does not accept rejected events, they are only counted."""
    made = Delivery()
    made.map(shop="shop_db")

    def fail(request: dict[str, Any]) -> None:
        if request["Key"].startswith(REJECTED_PREFIX):
            raise client_error("SlowDown", "PutObject", status=503)

    made.s3.before["put_object"] = fail
    made.put(envelope(event(), rows=1))

    assert made.deliver() is None
    assert ([], {"shop/views!too_deep": 1}) == (objects(made), counted(made))
    assert ["e0"] == made.ids("shop_db", "views")


def test_only_a_person_drops_rejected_events() -> None:
    """The schedule ignores them. Dropped ones stay counted, and their objects go."""
    made = delivered(envelope(event(), rows=1))
    assert (0, 0) == (made.redrive().kept, made.redrive(State.PARKED, State.DEAD_LETTER).kept)
    assert 1 == len(kept(made))

    report = made.redrive(State.REJECTED, decision=Decision.DROP)

    assert (1, 0) == (report.dropped, report.kept)
    assert ([], {"shop/views!too_deep": 1}) == (objects(made), counted(made))


def test_rejected_events_are_found_by_day() -> None:
    """Those in a span with a dead letter are found on the worklist of dead letters."""
    made = delivered(envelope(event()), envelope(event(), rows=1, account="nobody"))
    now = made.clock.now()
    places = [Place(span.chain, span.after) for span in made.spans()]
    assert places == list(made.ledger.worklist(dead=True))
    made.put(envelope(event()))
    assert made.deliver(2) is None

    [first, second] = [Place(span.chain, span.after) for span in made.spans()]
    assert [second] == list(made.ledger.rejected(now, now))
    assert [] == list(made.ledger.rejected(now - 3 * 86_400, now - 2 * 86_400))
    assert [first] == list(made.ledger.worklist(dead=True))


def test_a_forced_replay_skips_rejected_events() -> None:
    """They have no rows, and do not keep others from being sent."""
    made = delivered(envelope(event(), rows=1))
    forced = made.event() | {"forced": {"tag": "again"}}

    answer = made.run(forced, 120_000)

    assert {"batchItemFailures": [], "passed_over": {}} == answer
    assert 2 == len(made.td.imports())
    assert {"shop/views!too_deep": 1} == counted(made)


@pytest.mark.parametrize(
    "member",
    [None, 7, [7], [[0, "x/y", "views", b""]], [[0, "too_deep", "V", b""]], [[0, "too_deep", "views"]]],
)
def test_a_damaged_member_makes_the_record_a_dead_letter(member: object) -> None:
    """As with any other damage, nothing in the record is believed."""
    members = msgpack.unpackb(envelope(event(), rows=1))

    record = decode(msgpack.packb([*members[:-1], member]), "shard", "0011", 1.0)

    assert ("-", "undecodable") == (record.account, record.refused[0][0])


def test_a_missing_object_does_not_prevent_a_drop() -> None:
    """Objects expire, so a dropped event's object may be gone."""
    made = delivered(envelope(event()))
    [name] = objects(made)
    made.s3.delete_object(Bucket=BUCKET, Key=name)

    assert 1 == made.redrive(State.REJECTED, decision=Decision.DROP).dropped
