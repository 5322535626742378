"""The sweep: what it deletes, what it keeps, and how it goes on."""

from collections.abc import Callable
from copy import replace
from typing import Any

import pytest

from shared.envelope import marker
from shared.errors import LedgerUnavailableError
from tests.support import delivery as support
from tests.support.delivery import BUCKET, INVOCATION_MS, Delivery, envelope, kill, lose_answer, once, row
from tests.support.delivery import KilledError as Killed
from tests.support.virtual_time import SideBySide, VirtualClock
from worker.forget.requests import KEY
from worker.ledger import SWEPT
from worker.span import Span
from worker.span_object import name_of
from worker.states import State
from worker.sweeper import INDEX_SECONDS, UNREFERENCED_SECONDS

DAY = 86_400.0
ROWS_SECONDS = 30 * DAY + 3600
RETENTION = DAY
INDEX = RETENTION + INDEX_SECONDS + 3600

BOTH = envelope("shop", {"views": [row("e1")]}), envelope("blog", {"views": [row("e2")]})


def delivery(status: int = 200, *data: bytes, **changes: Any) -> Delivery:
    """Return a delivery of records whose imports to shop_db had this status."""
    made = support.shops(*data or BOTH, **changes)
    if status != 200:
        made.fail(database="shop_db", status=status)
    made.deliver()
    made.td.faults.clear()
    return made.start()


def add(made: Delivery, spans: int, status: int = 200) -> None:
    """Deliver more spans, whose imports have this status."""
    if status != 200:
        made.fail(status=status)
    names = [f"x{n}" for n in range(spans)]
    made.deliver_each(*(envelope("shop", {"views": [row(name)]}, request_id=name) for name in names))


def sweep(made: Delivery, seconds: float = 0.0) -> dict[str, int]:
    """Sweep after a while; return what was done with objects, without zeros."""
    made.clock.sleep(seconds)
    answer = made.invoke_sender({"sweep": True})
    assert answer.pop("complete")
    return {name: number for name, number in answer.items() if number}


def span(made: Delivery) -> Span:
    """Return the first span."""
    return made.spans()[0]


def test_an_object_goes_once_nobody_needs_its_rows_or_its_index() -> None:
    """A young one is not even looked at: its writer may be about to append its span. Nothing is deleted that Sluice did not write."""
    made = delivery()
    hour = made.span_objects()[0].split("/")[1]
    others = ["spans/0 mine/x", f"spans/{hour}/mine"]
    for name in others:
        made.s3.put_object(Bucket=BUCKET, Key=name, Body=b"")
    made.dynamodb.calls.clear()
    assert {} == sweep(made, 3600)
    assert 2 == made.dynamodb.calls.count("get_item")  # which table it is, and where the last sweep stopped
    assert {"needed": 1} == sweep(made, ROWS_SECONDS - 3 * 3600)
    assert {"deleted": 1} == sweep(made, 3 * 3600)

    assert others == made.span_objects()
    assert span(made).object is None


@pytest.mark.parametrize(("days", "index_seconds"), [(1, INDEX), (30, INDEX + 29 * DAY)])
def test_rows_go_before_their_index(days: int, index_seconds: float) -> None:
    """A redelivered record is judged by the index for the stream's own retention, which may have been extended by hand."""
    made = delivery(archive_days=2)
    if days > 1:
        made.kinesis.increase_stream_retention_period(StreamName="events", RetentionPeriodHours=days * 24)
    before = made.objects.index(span(made))
    assert {"reduced": 1} == sweep(made, 2 * DAY + 3600)
    made.start()
    after = made.objects.index(span(made))

    assert replace(before, chunks=()) == replace(after, chunks=())
    assert {0} == {member.length for member in after.members.values()}
    assert {"needed": 1} == {name: n for name, n in sweep(made, 3600).items() if name == "needed"}
    sweep(made, index_seconds - 3 * DAY)
    assert 1 == len(made.span_objects())
    assert 0 < sweep(made, 3 * DAY)["deleted"]
    assert [] == made.span_objects()


@pytest.mark.parametrize("status", [500, 415])
def test_rows_that_somebody_needs_never_expire(status: int) -> None:
    """Where only some chunks are final, the object is written anew with the others. The old one stays for a day, for its readers."""
    made = delivery(status)
    assert {"reduced": 1} == sweep(made, ROWS_SECONDS)
    assert {"needed": 1} == sweep(made, 600)
    assert 2 == len(made.span_objects())
    assert {"deleted": 1, "needed": 1} == sweep(made, UNREFERENCED_SECONDS + 7200)
    assert {"needed": 1} == sweep(made, 400 * DAY)
    [name] = made.span_objects()
    assert name == name_of(span(made))

    made.start()
    made.send(State.WAITING, State.DEAD)
    assert ["e1"] == made.ids("shop_db", "views")
    assert {"deleted": 1} == sweep(made, 400 * DAY)


def test_no_rows_go_while_nobody_knows_who_is_to_be_forgotten() -> None:
    """They may be a person's, and what Treasure Data still has of them be known by nothing else."""
    made = delivery()
    made.s3.put_object(Bucket=BUCKET, Key=KEY, Body=b"damaged")

    assert {"needed": 1} == sweep(made, ROWS_SECONDS)


@pytest.mark.parametrize("before", [(), (marker(0).encode(),)])
@pytest.mark.parametrize("is_delivered", [False, True])
def test_an_object_without_a_span_goes_after_a_day(is_delivered: bool, before: tuple[bytes, ...]) -> None:
    """Its worker was killed before the append, or another one appended first. The span before it may have no object."""
    made = support.shops(*before, BOTH[0])
    made.deliver(0, len(before))
    made.s3.after["put_object"] = once(kill)
    with pytest.raises(Killed):
        made.deliver(len(before))
    made.start()
    assert {} == sweep(made, UNREFERENCED_SECONDS)
    made.clock.sleep(7200)
    if is_delivered:
        made.deliver(len(before))

    assert 1 == sweep(made, 2 * DAY)["deleted"]
    assert [name_of(one) for one in made.spans() if one.chunks] == made.span_objects()


@pytest.mark.parametrize(("service", "call"), [("s3", "put_object"), ("dynamodb", "update_item")])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_sweep_may_be_killed_at_any_time(service: str, call: str, moment: str) -> None:
    """The rows that are needed are still there, and later sweeps go on."""
    made = delivery(415)
    made.clock.sleep(ROWS_SECONDS)
    getattr(getattr(made, service), moment)[call] = once(kill)
    with pytest.raises(Killed):
        made.invoke_sender({"sweep": True})
    for _ in range(3):
        made.start()
        sweep(made, 2 * DAY)

    assert [name_of(span(made))] == made.span_objects()
    made.send(State.DEAD)
    assert ["e1"] == made.ids("shop_db", "views")


@pytest.mark.parametrize("trouble", [lose_answer, [].pop])
def test_an_object_that_cannot_be_swept_delays_no_other(trouble: Callable[[], Any]) -> None:
    """S3 refuses it, it is damaged, or there is a surprise. The next sweep tries again."""
    made = delivery(415)
    made.put(envelope("blog", {"views": [row("e3")]}))
    made.deliver(2)
    made.start()
    made.s3.before["get_object"] = lambda request: request["Key"].startswith("spans/") and trouble()

    assert {"deleted": 1, "failed": 1} == sweep(made, ROWS_SECONDS)
    assert (trouble is not lose_answer) == made.telemetry.counts["UnforeseenErrors"]
    made.s3.before.clear()
    assert {"reduced": 1} == sweep(made)


def test_a_sweep_goes_on_where_the_last_one_stopped() -> None:
    """However many objects there are, needed ones among them, and however slow the ledger is, all have their turn."""
    made = delivery()
    add(made, 6)
    add(made, 6, 500)
    made.clock.sleep(ROWS_SECONDS)
    made.dynamodb.before["query"] = lambda one: made.clock.sleep(60 * ("pk" in one["KeyConditionExpression"]))
    seen = []
    for _ in range(20):
        answer = made.invoke_sender({"sweep": True})
        seen.append(answer["deleted"])
        if answer["complete"]:
            break

    assert 7 == sum(seen)
    assert max(seen) <= 3
    assert answer["complete"]
    assert "" == made.ledger.noted(SWEPT)


def test_objects_are_looked_at_side_by_side() -> None:
    """One after the other, a sweep would look at fewer than a few shards write, and the bucket would grow for ever."""
    clock = VirtualClock()
    made = delivery(clock=clock, executors=lambda: SideBySide(clock))
    add(made, 62)
    made.clock.sleep(ROWS_SECONDS)
    made.dynamodb.before["update_item"] = lambda _: clock.sleep(1)
    began = made.clock.now()
    assert {"deleted": 63} == sweep(made)

    assert made.clock.now() - began < 6


def test_many_old_spans_that_wait_do_not_stop_the_sweep() -> None:
    """An account whose database refuses us for weeks is in every span. What is not looked at in time keeps all indexes."""
    made = delivery(500)
    add(made, 150, 500)
    made.dynamodb.calls.clear()
    made.clock.sleep(INDEX)
    sweep(made)
    assert made.dynamodb.calls.count("get_item") + made.dynamodb.calls.count("batch_get_item") < 20

    made.dynamodb.before["batch_get_item"] = lambda _: made.clock.sleep(30)
    began = made.clock.now()
    made.invoke_sender({"sweep": True})
    assert made.clock.now() - began < INVOCATION_MS / 1000


def test_without_the_ledger_nothing_is_deleted() -> None:
    """A missing answer never means that nobody needs an object. What was swept before is not looked at again first."""
    made = delivery()
    add(made, 29)
    made.clock.sleep(ROWS_SECONDS)
    for answered, left in ((0, 30), (24, 14)):
        answers = [lambda: None] * answered
        made.dynamodb.before["query"] = lambda _, left=answers: (left.pop() if left else lose_answer)()
        with pytest.raises(LedgerUnavailableError):
            made.invoke_sender({"sweep": True})
        assert left == len(made.span_objects())
    assert made.ledger.noted(SWEPT)


def test_an_index_stays_while_an_envelope_that_was_put_again_waits_for_it() -> None:
    """Its marker was denied for months; then the first copy is found all the same."""
    first = envelope("shop", {"views": [row("q")]}, request_id="q")
    made = delivery(200, first, archive_days=2)
    made.put(envelope("shop", {"views": [row("q")]}, request_id="q", claim=1_700_000_000_000))
    made.deliver()
    for n in range(5):
        sweep(made, 20 * DAY)
        at = round(made.clock.now() * 1000)
        more = envelope("shop", {"views": [row(f"m{n}")]}, request_id=f"m{n}", claim=at, received_at=at)
        made.deliver_each(more)
    sweep(made)
    assert 7 == len(made.span_objects())
    made.start()
    for _ in range(3):
        made.send()
        made.deliver()

    assert 1 == made.ids("shop_db", "views").count("q")
    assert ("copy", "", 1) in made.chunks().values()
