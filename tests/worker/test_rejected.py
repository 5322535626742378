"""Rejected events are counted, kept in part, and delay nothing."""

from collections import Counter
from contextlib import suppress
from threading import Barrier
from typing import Any

import msgpack
import pytest

from ops.books.stored_spans import kept_events
from shared.envelope import Envelope, RejectedEvent, TableRows
from shared.errors import ObjectGoneError
from tests.support.delivery import BUCKET, Delivery, lose_answer, row, shops
from tests.support.spans import span as a_span
from worker.bucket import Bucket
from worker.claims import LATE_SECONDS
from worker.executor import Threads
from worker.passing import MARGIN_SECONDS
from worker.plan import MAX_KEPT_BYTES, MAX_KEPT_EVENTS, MAX_REJECTED_TABLES
from worker.rejected_events import PREFIX, name_of
from worker.rejected_events import KeptEvent as Kept
from worker.span import Group, RowSender
from worker.states import Decision, State

ORIGINAL = b'{"table":"views","a":1}'
AT = 1_700_000_000_000


def rejecting(
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
    made = shops(*data)
    assert made.deliver() is None
    return made


def counted(made: Delivery) -> Counter[str]:
    """Return the number of rejected events by group."""
    counts: Counter[str] = Counter()
    for span in made.spans():
        for key, rows in span.chunks.items():
            if key.group.is_rejected:
                counts[key.group.name] += rows
    return counts


def kept(made: Delivery) -> dict[str, list[Kept]]:
    """Return the rejected events that are kept, by chunk."""
    found = {}
    for span in made.spans():
        for key in span.chunks:
            if key.group.is_rejected:
                with suppress(ObjectGoneError):
                    found[key.name] = kept_events(Bucket(made.s3, BUCKET), span, key)
    return found


def test_rejected_events_are_counted_and_kept() -> None:
    """They are counted by account, table and code, and kept with arrival, original bytes and message, apart from rows."""
    made = delivered(rejecting(event(), event("invalid_table", "", b"7"), rows=2))

    assert {"shop/views!too_deep": 1, "shop/!invalid_table": 1} == counted(made)
    originals = {"shop/views!too_deep/0": ORIGINAL, "shop/!invalid_table/0": b"7"}
    assert {name: [(AT, original, "why")] for name, original in originals.items()} == kept(made)
    assert ["e0", "e1"] == made.ids("shop_db", "views")
    assert {"rejected"} == {one[0] for one in made.chunks().values()}
    [name] = made.span_objects()
    assert {"shop/views/0"} == {key.name for key in made.objects.index(made.spans()[0]).members}
    assert name not in made.rejected_objects()


def test_events_of_each_group_and_each_plan_of_a_span_have_an_object_of_their_own() -> None:
    """Whoever loses the append of a span has planned other records, perhaps, and must not overwrite what the winner keeps."""
    group = Group(RowSender("shop"), "views", "too_deep", is_rejected=True)
    spans = [a_span(), a_span(planned_at=1), a_span(after="1")]
    named = [(spans[0], group._replace(request_id="r")), *((one, group) for one in spans)]

    assert 4 == len({name_of(*one) for one in named})


def test_copies_count_rejected_events_once() -> None:
    """The client sent the request twice."""
    one = rejecting(event(), request_id="b", claim=1)

    assert {"shop/views!too_deep": 1} == counted(delivered(one, one))


@pytest.mark.parametrize(("firsts", "states"), [(0, ["rejected"]), (1, ["copy", "rejected"])])
def test_rejected_events_put_again_count_unless_a_first_copy_does(firsts: int, states: list[str]) -> None:
    """Until every shard has passed nobody knows, so they are not counted yet."""
    copy = rejecting(event(), request_id="q", claim=AT)
    made = delivered(*[rejecting(event(), request_id="q")] * firsts, copy)
    assert ["again", *["rejected"] * firsts] == sorted(one[0] for one in made.chunks().values())
    made.clock.sleep(LATE_SECONDS + MARGIN_SECONDS + 1)
    made.send()
    made.deliver_all()
    made.send()

    assert states == sorted(one[0] for one in made.chunks().values())


def test_a_flood_is_counted_and_kept_in_part() -> None:
    """All events are counted, but only some kept. Each account has its own limit."""
    flood = [rejecting(*[event(table=f"t_{number:03}")] * 50) for number in range(20)]
    made = delivered(*flood, rejecting(event(), account="blog"))

    numbers = counted(made)
    tables = {name.partition("!")[0] for name in numbers if name.startswith("shop/")}
    assert (1000, 1) == (numbers.total() - numbers["blog/views!too_deep"], numbers["blog/views!too_deep"])
    assert {"shop/", *(f"shop/t_{number:03}" for number in range(MAX_REJECTED_TABLES))} == tables
    found = kept(made)
    assert MAX_KEPT_EVENTS == sum(len(events) for name, events in found.items() if name.startswith("shop"))
    assert 1 == len(found["blog/views!too_deep/0"])


@pytest.mark.parametrize(
    ("times", "original", "message"), [(4, b"x" * 100_000, "why"), (150, b"x" * 2000, "w" * 256)]
)
def test_large_rejected_events_are_kept_within_the_limit(times: int, original: bytes, message: str) -> None:
    """Their messages count too. The rest is only counted, and one without its original has no object."""
    large = rejecting(event(original=original, message=message))
    made = delivered(*[large] * times, rejecting(event("too_long", original=b"")))

    assert {"shop/views!too_deep": times, "shop/views!too_long": 1} == counted(made)
    size = sum(len(one.original) + len(one.message) for events in kept(made).values() for one in events)
    assert size <= MAX_KEPT_BYTES + 150 * 20
    assert 1 == len(made.rejected_objects())


def test_tables_of_a_plan_are_all_counted_by_name() -> None:
    """Senders cannot choose these names, unlike those of unplanned tables."""
    drift = [event("wrong_type", f"t_{number:03}") for number in range(30)]
    strange = [event("unplanned_table", f"u_{number:03}") for number in range(30)]
    made = delivered(rejecting(*drift, *strange))

    numbers = counted(made)
    assert {1} == {numbers[f"shop/t_{number:03}!wrong_type"] for number in range(30)}
    assert 30 - MAX_REJECTED_TABLES == numbers["shop/!unplanned_table"]


def test_a_failing_bucket_delays_nothing() -> None:
    """If S3 does not accept rejected events, they are only counted. No more are tried if it takes long."""
    made = shops(rejecting(event(), event("missing_table", ""), rows=1))
    began = made.clock.now()

    def fail(request: dict[str, Any]) -> None:
        if request["Key"].startswith(PREFIX):
            made.clock.sleep(3.0)
            lose_answer()

    made.s3.before["put_object"] = fail

    assert made.deliver() is None
    assert made.clock.now() - began < 4
    assert {"shop/views!too_deep": 1, "shop/!missing_table": 1} == counted(made)
    assert [] == made.rejected_objects()
    assert ["e0"] == made.ids("shop_db", "views")


def test_many_groups_are_stored_side_by_side() -> None:
    """A flood of codes and accounts delays nobody by one S3 call after the other."""
    made = Delivery(executors=Threads)
    both = Barrier(2, timeout=60)

    def wait(request: dict[str, Any]) -> None:
        if request["Key"].startswith(PREFIX):
            both.wait()

    made.s3.before["put_object"] = wait
    made.put(rejecting(event()), rejecting(event("missing_table", "")))

    assert made.deliver() is None
    assert 2 == len(made.rejected_objects())


@pytest.mark.parametrize(("account", "dead"), [("shop", 0), ("nobody", 1)])
def test_only_an_operator_drops_rejected_events(account: str, dead: int) -> None:
    """The schedule ignores them, also beside dead rows. Dropped ones stay counted, even if their object has expired."""
    made = delivered(rejecting(event(), rows=1, account=account))
    [name] = made.rejected_objects()
    made.s3.delete_object(Bucket=BUCKET, Key=name)
    assert (0, dead) == (made.send().kept, made.send(State.DEAD).kept)

    report = made.send(State.REJECTED, decision=Decision.DROP)

    assert (1, 0) == (report.dropped, report.kept)
    assert {f"{account}/views!too_deep": 1} == counted(made)
