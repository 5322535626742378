"""The sweeper deletes what the ledger calls final, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
from worker.delivery import ASIDE, Decision, State

from doubles.treasure_data import Action, Fault, Kind
from shared.errors import BucketUnavailableError, LedgerUnavailableError
from tests.support.delivery import (
    BUCKET,
    TABLE,
    Delivery,
    KilledError,
    envelope,
    kill,
    lose_answer,
    once,
    row,
)
from worker.ledger import Place
from worker.span import ChunkKey
from worker.sweeper import YOUNGEST_SECONDS

CHUNK = ChunkKey.parse("shop/views/0")


def fail(made: Delivery, status: int, count: int | None = None) -> None:
    """Make imports fail."""
    made.td.faults.add(
        Fault(kind=Kind.STATUS, action=Action.IMPORT, status=status, count=count, retry_after=99)
    )


def set_aside(status: int = 429) -> Delivery:
    """Return a delivery with a set-aside chunk of two rows."""
    made = Delivery()
    made.map(shop="shop_db")
    made.td.create("shop_db", "views")
    made.put(envelope("shop", {"views": [row("e1"), row("e2")]}))
    fail(made, status)
    assert made.deliver() is None
    made.td.faults.clear()
    return made


def delivered() -> Delivery:
    """Return a delivery with a chunk delivered by a redrive that was killed before it deleted the object."""
    made = set_aside()
    made.s3.before["delete_object"] = once(kill)
    with pytest.raises(KilledError):
        made.redrive()
    return made


def dropped() -> Delivery:
    """Return a delivery with a chunk dropped by a person, whose object S3 did not delete."""
    made = set_aside(415)
    made.s3.before["delete_object"] = once(lose_answer)
    assert 2 == made.redrive(*ASIDE, decision=Decision.DROP).dropped
    return made


def sweep(made: Delivery, age: float = YOUNGEST_SECONDS) -> dict[str, Any]:
    """Let time pass and run the redrive function's sweep."""
    made.clock.sleep(age)
    return made.invoke_redrive({"sweep": True})


@pytest.mark.parametrize("make", [delivered, dropped])
def test_an_object_of_a_final_chunk_is_deleted(make: Callable[[], Delivery]) -> None:
    """The run that settled it was cut short."""
    made = make()

    assert {"deleted": 1, "needed": 0, "unknown": 0} == sweep(made)
    assert [] == made.objects()
    assert {"deleted": 0, "needed": 0, "unknown": 0} == sweep(made)


@pytest.mark.parametrize("status", [429, 500, 415])
def test_an_object_of_a_set_aside_chunk_is_needed(status: int) -> None:
    """This holds for chunks of any age that are parked, in doubt or dead letters."""
    made = set_aside(status)

    assert {"deleted": 0, "needed": 1, "unknown": 0} == sweep(made, 300 * 86_400)
    assert 1 == len(made.objects())


@pytest.mark.parametrize("hole", [False, True])
def test_an_open_span_whose_records_have_expired_is_settled(hole: bool) -> None:
    """The event source has moved past it, or past a replay's hole, so no batch would ever finish it."""
    made = Delivery()
    made.map(shop="shop_db")
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(3)))
    if hole:
        assert made.deliver(2) is None
    made.dynamodb.after["put_item"] = once(kill)
    with pytest.raises(KilledError):
        made.deliver(0, 2)
    made.start()
    sweep(made, made.retention)
    assert [False] == [span.done for span in made.spans() if span.records == 2]
    assert {} == made.telemetry.counts

    made.start()
    sweep(made, 1)

    [ended] = [span for span in made.spans() if span.records == 2]
    assert (True, bool(ended.chain.holes)) == (ended.final_at is not None, hole)
    assert {"RowsMissing": 2} == made.telemetry.counts
    assert 2 == sum(entry.rows for entry in ended.entries.values())
    sweep(made, 1)
    assert {"RowsMissing": 2} == made.telemetry.counts


def test_a_young_object_is_left_alone() -> None:
    """Its writer may be about to update the ledger. The object is not even read."""
    made = delivered()
    reads = made.s3.calls.count("get_object")

    assert {"deleted": 0, "needed": 0, "unknown": 0} == sweep(made, YOUNGEST_SECONDS - 1)
    assert reads == made.s3.calls.count("get_object")
    assert {"deleted": 1, "needed": 0, "unknown": 0} == sweep(made, 1)


def test_an_object_of_a_pending_chunk_is_needed() -> None:
    """An invocation was killed between object and ledger, and the next one finds the object."""
    made = Delivery()
    made.put(envelope("nobody", {"views": [row("e1")]}))
    made.dynamodb.before["update_item"] = once(kill)
    with pytest.raises(KilledError):
        made.deliver()

    assert {"deleted": 0, "needed": 1, "unknown": 0} == sweep(made)
    made.start()
    assert made.deliver() is None
    assert (["nobody/views/0"], 1) == (list(made.aside()), len(made.objects()))


def test_an_object_of_a_chunk_without_an_entry_in_a_done_span_is_deleted() -> None:
    """A missing entry in a done span means delivered."""
    made = Delivery()
    made.map(shop="shop_db")
    made.td.create("shop_db", "views")
    made.put(envelope("shop", {"views": [row("e1")]}))
    fail(made, 415, count=1)
    made.s3.after["put_object"] = once(kill)
    with pytest.raises(KilledError):
        made.deliver()
    made.start()
    assert made.deliver() is None
    assert (["e1"], {}) == (made.ids("shop_db", "views"), made.spans()[0].entries)

    assert {"deleted": 1, "needed": 0, "unknown": 0} == sweep(made)


@pytest.mark.parametrize("first", [State.DELIVERED, State.DROPPED])
def test_an_object_is_needed_until_both_halves_are_final(first: State) -> None:
    """It holds the rows of both."""
    made = Delivery()
    made.map(shop="shop_db")
    made.td.create("shop_db", "views")
    made.put(envelope("shop", {"views": [row("e1"), row("e2")]}))
    fail(made, 413, count=1)
    fail(made, 415, count=2)
    assert made.deliver() is None
    (place,) = made.ledger.worklist(dead=True)
    decision = Decision.DROP if first is State.DROPPED else None
    made.redrive(*ASIDE, place=place, chunk=CHUNK.halves[0], decision=decision)
    assert first is made.spans()[0].entry(CHUNK.halves[0]).state
    assert {"deleted": 0, "needed": 1, "unknown": 0} == sweep(made)

    made.s3.before["delete_object"] = once(lose_answer)
    assert 1 == made.redrive(State.DEAD_LETTER).delivered
    assert {"deleted": 1, "needed": 0, "unknown": 0} == sweep(made)


def test_objects_of_all_edits_are_deleted_together() -> None:
    """Each edit has its own object. Once the rows are delivered, none is needed."""
    made = set_aside(415)
    (one,) = made.spans()
    edited = made.store.read(made.objects()[0]).payload
    for _ in range(2):
        made.redrive_wiring.edits.make(Place(one.chain, one.after), CHUNK, edited)
    assert {"deleted": 0, "needed": 3, "unknown": 0} == sweep(made)
    assert 2 == made.redrive(State.DEAD_LETTER).delivered

    assert {"deleted": 2, "needed": 0, "unknown": 0} == sweep(made)
    assert [] == made.objects()


@pytest.mark.parametrize("data", [b"", b"other bytes"])
def test_a_foreign_object_is_reported_and_kept(data: bytes) -> None:
    """Nothing is deleted just because it does not fit."""
    made = delivered()
    made.s3.client.put_object(Bucket=BUCKET, Key="aside/aaa/foreign", Body=data)

    assert {"deleted": 1, "needed": 0, "unknown": 1} == sweep(made)
    assert ["aside/aaa/foreign"] == made.objects()
    assert [{"object": "aside/aaa/foreign"}] == made.telemetry.said(
        "the bucket holds an object of an unknown span"
    )


def test_an_object_of_an_unknown_span_is_reported_and_kept() -> None:
    """Its rows may be nowhere else."""
    made = set_aside()
    (item,) = [one for one in made.dynamodb.client.items(TABLE) if "first" in one]
    made.dynamodb.client.delete_item(TableName=TABLE, Key={"pk": item["pk"], "sk": item["sk"]})

    assert {"deleted": 0, "needed": 0, "unknown": 1} == sweep(made)
    assert 1 == len(made.objects())


def test_another_chunk_in_an_object_s_place_is_left_alone() -> None:
    """S3 may have answered with another object. Content decides only about the object it belongs to."""
    made = delivered()
    made.put(envelope("nobody", {"views": [row("e3")]}))
    assert made.deliver(1) is None
    needed, final = sorted(made.objects())
    kept = dict(made.s3.objects(BUCKET))
    made.s3.client.put_object(Bucket=BUCKET, Key=needed, Body=kept[final].body)

    assert {"deleted": 1, "needed": 0, "unknown": 1} == sweep(made)
    assert [needed] == made.objects()


def test_an_object_that_s3_does_not_delete_is_swept_again() -> None:
    """Until then it counts as needed."""
    made = delivered()
    made.s3.before["delete_object"] = once(lose_answer)

    assert {"deleted": 0, "needed": 1, "unknown": 0} == sweep(made)
    assert {"deleted": 1, "needed": 0, "unknown": 0} == sweep(made)


def test_nothing_is_deleted_without_ledger_and_bucket() -> None:
    """The sweep fails with an error instead."""
    made = delivered()
    made.clock.sleep(YOUNGEST_SECONDS)
    for client, call, error in (
        (made.dynamodb, "get_item", LedgerUnavailableError),
        (made.s3, "list_objects_v2", BucketUnavailableError),
        (made.s3, "get_object", BucketUnavailableError),
    ):
        client.before[call] = once(lose_answer)
        with pytest.raises(error):
            made.invoke_redrive({"sweep": True})

    assert 1 == len(made.objects())


def test_a_sweep_stops_when_its_time_is_up() -> None:
    """It reports that it is not complete, and the next sweep continues."""
    made = delivered()
    made.clock.sleep(YOUNGEST_SECONDS)
    made.s3.after["list_objects_v2"] = once(lambda: made.clock.sleep(60))
    swept = made.redrive_wiring.sweeper.run(made.deadline(60_000))

    assert (False, 0) == (swept.complete, swept.deleted)
    assert {"deleted": 1, "needed": 0, "unknown": 0} == sweep(made)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("client", "call"),
    [("s3", "put_object"), ("dynamodb", "update_item"), ("s3", "get_object"), ("s3", "delete_object")],
)
def test_a_sweep_during_any_step_of_worker_and_redrive_loses_nothing(
    client: str, call: str, when: str
) -> None:
    """This holds even for objects that have aged meanwhile: a chunk about to be set aside is not final."""
    made = Delivery()
    made.map(shop="shop_db")
    made.td.create("shop_db", "views")
    made.put(envelope("shop", {"views": [row("e1"), row("e2")]}))
    other = Delivery.__new__(Delivery)
    vars(other).update(vars(made))
    other.dynamodb, other.s3 = made.dynamodb.client, made.s3.client
    other.start()
    getattr(getattr(made, client), when)[call] = once(lambda: sweep(other))
    fail(made, 415, count=1)
    made.deliver()
    assert made.deliver() is None
    for _ in range(3):
        made.redrive(*ASIDE)
        made.clock.sleep(3600)

    assert ["e1", "e2"] == made.ids("shop_db", "views")
