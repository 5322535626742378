"""Envelopes that cannot be put from the overflow queue on the stream, and reach Treasure Data without it."""

from typing import Any

import msgpack
import pytest

from doubles.clock import START
from shared import envelope as envelopes
from shared.envelope import Envelope
from shared.errors import BucketUnavailableError, LedgerUnavailableError
from tests.support.delivery import TABLE, Delivery, KilledError, envelope, kill, lose_answer, once, row
from worker.chain import ChainId, ClaimOwner
from worker.delivery import ASIDE, Decision, State
from worker.ledger import Claim
from worker.message import Message
from worker.overflow_set_aside import OverflowSetAside
from worker.record import START as FIRST
from worker.span import ChunkKey

SENT_AT = START - 3 * 86_400
VIEWS, CLICKS = ChunkKey.parse("shop/views/0"), ChunkKey.parse("shop/clicks/0")
CHAIN = ChainId.overflow("r")


def waiting(request_id: str = "r") -> Envelope:
    """Return an envelope of two tables that waited on the queue."""
    data = envelope("shop", {"views": [row("e1"), row("e2")], "clicks": [row("e3")]}, request_id=request_id)
    return envelopes.decode(data)


def delivery() -> Delivery:
    """Return a delivery with one account."""
    made = Delivery()
    made.map(shop="shop_db")
    made.td.create("shop_db", "views", "clicks")
    return made


def overflow(made: Delivery) -> OverflowSetAside:
    """Return the object under test, over a delivery."""
    return OverflowSetAside(
        made.wiring.delivery,
        seconds_kept=made.wiring.claims.seconds_kept,
        archive=made.archive,
        archive_days=30,
    )


def set_aside(made: Delivery, *, absent: bool = True, request_id: str = "r") -> bool:
    """Set an envelope aside."""
    return overflow(made).set_aside(waiting(request_id), SENT_AT, absent=absent)


def ids(made: Delivery) -> list[str]:
    """Return the ids of the rows in Treasure Data."""
    return sorted(made.ids("shop_db", "views") + made.ids("shop_db", "clicks"))


def test_an_envelope_absent_from_the_stream_is_parked_and_delivered() -> None:
    """It has a span, and an object for each table, like everything that is set aside."""
    made = delivery()

    assert set_aside(made)
    assert {
        "shop/views/0": ("parked", "stream_refused", 2),
        "shop/clicks/0": ("parked", "stream_refused", 1),
    } == made.aside()
    (span,) = made.spans()
    assert (CHAIN, True, {"shop/views": 2, "shop/clicks": 1}) == (
        span.chain,
        span.done,
        {group.name: count for group, count in span.counts.items()},
    )
    assert 3 == made.redrive().delivered
    assert (["e1", "e2", "e3"], []) == (ids(made), made.objects())


def test_set_aside_objects_are_complete() -> None:
    """They hold the rows, their owner and their time of arrival."""
    made = delivery()
    set_aside(made)
    (span,) = made.spans()
    stored = made.store.get(span, VIEWS, 0, span.entries[VIEWS].digest)

    assert ("shop", "views", 2, "rows", "", ()) == (
        stored.account,
        stored.table,
        stored.rows,
        stored.payload_form,
        stored.shard,
        stored.sequence_numbers,
    )
    assert (1_700_000_000_000, 1_700_000_000_000) == (stored.first_seen, stored.last_seen)
    assert (CHAIN.name, FIRST, "shop/views/0", span.object_id(VIEWS)) == (
        stored.chain,
        stored.after,
        stored.chunk,
        stored.object_id,
    )
    assert msgpack.packb(row("e1")) + msgpack.packb(row("e2")) == stored.payload


@pytest.mark.parametrize("there", [False, True])
def test_an_envelope_that_the_stream_may_have_is_in_doubt(there: bool) -> None:
    """If Treasure Data has the rows, that settles it.

    If not, they may still come from the stream, so they wait.
    """
    made = delivery()
    if there:
        made.put(waiting().encode())
        assert made.deliver() is None

    assert set_aside(made, absent=False)
    assert {("in_doubt", "stream_unsearched")} == {one[:2] for one in made.aside().values()}
    assert {round(SENT_AT * 1000)} == {one.since for one in made.spans()[-1].entries.values()}
    made.clock.sleep(made.query_delay + 1)
    imports = len(made.td.imports())
    report = made.redrive()
    assert ((3, 0) if there else (0, 3)) == (report.delivered, report.kept)
    assert imports == len(made.td.imports())
    assert (0 if there else 2) == len(made.objects())


def test_an_envelope_claimed_by_a_record_is_not_set_aside() -> None:
    """A put of the drainer landed after all, and the worker claimed it."""
    made = delivery()
    made.ledger.claim({"r": Claim(ClaimOwner.parse("events@1700000000#shardId-000000000000#00217"), 0)}, 60)

    assert not set_aside(made)
    assert ({}, [], []) == (made.aside(), made.objects(), made.spans())


def test_a_record_that_lands_later_does_not_count() -> None:
    """Setting aside claims the envelope, even one of several parts of a request."""
    for request_id in ("r", "r#1"):
        made = delivery()
        set_aside(made, request_id=request_id)
        copy = envelope("shop", {"views": [row("e1")]}, request_id=request_id, claim=1)
        made.put(copy)
        made.clock.sleep(20 * 86_400)
        made.put(copy)
        assert made.deliver() is None
        made.redrive()
        made.redrive(State.DEAD_LETTER)

        assert ["e1", "e2", "e3"] == ids(made)


def spans_and_objects(made: Delivery) -> tuple[int, int]:
    """Return how many spans the ledger has, and how many objects the bucket."""
    return len(made.spans()), len(made.objects())


def test_the_span_is_written_after_all_objects() -> None:
    """Killed between any two writes, the ledger claims nothing untrue."""
    made = delivery()
    counts: list[tuple[int, int]] = []
    look = lambda _: counts.append(spans_and_objects(made))  # noqa: E731 -- a hook
    made.s3.before["put_object"] = look
    made.s3.after["put_object"] = look
    made.dynamodb.before["put_item"] = look
    set_aside(made)

    assert [(0, 0), (0, 1), (0, 1), *[(0, 2)] * 5] == counts  # archived, noted, then planned
    assert (1, 2) == spans_and_objects(made)


def test_a_failed_object_put_leaves_no_span() -> None:
    """The message is retried and set aside then."""
    made = delivery()
    made.s3.before["put_object"] = once(lose_answer)
    with pytest.raises(BucketUnavailableError):
        set_aside(made)
    assert [] == made.spans()

    assert set_aside(made)
    assert 3 == made.redrive().delivered


@pytest.mark.parametrize("call", ["batch_execute_statement", "put_item"])
def test_without_the_ledger_nothing_is_set_aside(call: str) -> None:
    """The message is retried. No object is written before the envelope is claimed."""
    made = delivery()
    made.dynamodb.before[call] = once(lose_answer)
    with pytest.raises(LedgerUnavailableError):
        set_aside(made)

    assert (0, 0 if call.startswith("batch") else 2) == spans_and_objects(made)
    assert set_aside(made)
    assert 3 == made.redrive().delivered


POINTS: list[tuple[str, str, str]] = [
    (client, when, call)
    for client, call in (
        ("dynamodb", "batch_execute_statement"),
        ("s3", "put_object"),
        ("dynamodb", "put_item"),
    )
    for when in ("before", "after")
]


@pytest.mark.parametrize("later", [0.0, 86_400.0])
@pytest.mark.parametrize(("client", "when", "call"), POINTS)
def test_an_interrupted_run_is_completed_by_the_next_one(
    client: str, when: str, call: str, later: float
) -> None:
    """Each step may be repeated, days later too."""
    made = delivery()
    getattr(getattr(made, client), when)[call] = once(kill)
    with pytest.raises(KilledError):
        set_aside(made)
    made.clock.sleep(later)
    made.start()

    assert set_aside(made)
    assert 3 == made.redrive().delivered
    assert ["e1", "e2", "e3"] == ids(made)


def test_a_message_redelivered_after_delivery_changes_nothing() -> None:
    """Whether it would be parked or in doubt now, the ledger's entry stays."""
    made = delivery()
    set_aside(made)
    made.redrive()
    for absent in (True, False):
        assert set_aside(made, absent=absent)

    assert 0 == made.redrive(*ASIDE).delivered
    assert ["e1", "e2", "e3"] == ids(made)
    made.clock.sleep(3600)
    assert 2 == made.invoke_redrive({"sweep": True})["deleted"]


def test_a_parked_envelope_goes_to_the_account_s_current_database() -> None:
    """It was never planned for a database."""
    made = delivery()
    set_aside(made)
    made.map(shop="new_db")
    made.start()

    assert 3 == made.redrive().delivered
    assert {"shop_db": {"clicks": 0, "views": 0}, "new_db": {"clicks": 1, "views": 2}} == made.td.counts()


# Messages without an envelope


def message(body: str = "text", message_id: str = "m-1", fault: str = "undecodable") -> Message:
    """Return a message that does not hold an envelope."""
    return Message(message_id, "receipt", SENT_AT, body, "", refused=False, envelope=None, fault=fault)


@pytest.mark.parametrize("fault", ["undecodable", "no_partition_key"])
def test_a_message_without_an_envelope_is_a_dead_letter(fault: str) -> None:
    """Its body is kept unchanged until a person drops it."""
    made = delivery()
    overflow(made).bury(message(fault=fault))

    assert {f"-/-{fault}/0": ("dead_letter", fault, 1)} == made.aside()
    (name,) = made.objects()
    stored = made.store.read(name)
    assert ("original", b"text") == (stored.payload_form, msgpack.unpackb(stored.payload))
    assert (round(SENT_AT * 1000),) * 2 == (stored.first_seen, stored.last_seen)
    assert 1 == made.redrive(State.DEAD_LETTER).kept
    assert 1 == made.redrive(State.DEAD_LETTER, decision=Decision.DROP).dropped
    assert [] == made.objects()


def test_messages_are_identified_by_their_message_ids() -> None:
    """Two messages with the same body are two; one delivered twice is one."""
    made = delivery()
    for message_id in ("m-1", "m-2", "m-1"):
        overflow(made).bury(message(message_id=message_id))

    assert 2 == len(made.spans()) == len(made.objects())


def test_a_message_s_object_is_written_before_its_span() -> None:
    """If the drainer is killed in between, the next run completes it."""
    made = delivery()
    made.s3.after["put_object"] = once(kill)
    with pytest.raises(KilledError):
        overflow(made).bury(message())
    assert (0, 1) == spans_and_objects(made)
    overflow(made).bury(message())

    assert (1, 1) == spans_and_objects(made)
    items: list[Any] = list(made.dynamodb.client.items(TABLE))
    assert {ChainId.overflow("m-1").name, "set_aside#overflow"} == {item["pk"]["S"] for item in items}
