"""Each step of the delivery protocol, in the situation that requires it."""

from dataclasses import replace
from typing import Any

import pytest
from worker.delivery import ASIDE, State

from doubles.treasure_data import Action, Fault, Kind
from shared.accounts import Account
from shared.policy import AccountLimits
from tests.support.delivery import (
    KEYS,
    Delivery,
    envelope,
    is_settling,
    kill,
    lose_answer,
    once,
    other_sandbox,
    row,
)
from tests.support.delivery import KilledError as Killed
from worker.span import ChunkKey, Span

CHUNK = ChunkKey.parse("shop/views/0")


def delivery(events: int = 1, **changes: Any) -> Delivery:
    """Return a delivery with one account and this many records."""
    made = Delivery(**changes)
    made.map(shop="shop_db")
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(events)))
    return made


def span(made: Delivery) -> Span:
    """Return the first span."""
    return made.spans()[0]


def fault(made: Delivery, **members: Any) -> None:
    """Add a fault to imports."""
    made.td.faults.add(Fault(action=Action.IMPORT, **members))


def queries_breakers(request: dict[str, Any]) -> bool:
    """Return whether a query looks for open breakers."""
    return bool(request["ExpressionAttributeValues"][":pk"] == {"S": "breakers"})


def test_only_one_span_follows_the_last() -> None:
    """If two invocations find nothing planned, one plans, and the other executes what the plan leaves."""
    made = delivery(2)

    def run_other(_: Any = None) -> None:
        assert other_sandbox(made).deliver(0, 1) is None

    made.dynamodb.before = {"put_item": once(run_other)}

    assert made.deliver(0, 2) is None
    assert ["e0", "e1"] == made.ids("shop_db", "views")


def test_rows_of_a_killed_invocation_are_sent_again_under_the_same_id() -> None:
    """An invocation is killed after it has sent its rows. The next one sends them again, and Treasure Data ignores the repetition."""
    made = delivery(3)
    made.dynamodb.before = {"update_item": once(kill, is_settling)}
    with pytest.raises(Killed):
        made.deliver(0, 2)
    made.start()

    assert made.deliver(1, 3) is None
    assert ["e0", "e1", "e2"] == made.ids("shop_db", "views")
    assert 1 == made.td.duplicates


def test_nothing_is_sent_if_the_plan_s_answer_is_lost_for_good() -> None:
    """A plan that may not be in the ledger is not executed. The next invocation that finds it executes it."""
    made = delivery()
    made.dynamodb.after = {"put_item": lambda _: lose_answer()}
    assert made.deliver() is not None
    assert [] == made.td.imports()
    made.dynamodb.after = {}

    assert made.deliver() is None
    assert ["e0"] == made.ids("shop_db", "views")


def test_a_plan_that_the_client_repeats_is_recognised_as_own() -> None:
    """The first answer was lost. The plan still needs no fence, and its doubt can be cleared."""
    made = delivery()
    made.td.create("shop_db", "views")
    client = made.dynamodb.client
    made.dynamodb.before = {"put_item": once(lambda: None)}
    original = client.put_item

    def twice(**request: Any) -> Any:
        original(**request)
        return original(**request)

    client.put_item = twice
    made.start()

    assert made.deliver() is None
    assert ["create_table", "query", "put_item", "update_item"] == made.dynamodb.calls


def test_a_settlement_that_the_client_repeats_is_recognised_as_own() -> None:
    """It is settled once, in one version."""
    made = delivery()
    client = made.dynamodb.client
    original = client.update_item

    def twice(**request: Any) -> Any:
        original(**request)
        return original(**request)

    client.update_item = twice

    assert made.deliver() is None
    assert (span(made).done, span(made).version) == (True, 2)


def test_a_fence_keeps_the_doubt_from_being_cleared() -> None:
    """If another invocation has sent the chunk meanwhile, one whose sends were all refused clears no doubt."""
    made = delivery()
    fault(made, kind=Kind.STATUS, status=429, retry_after=1000, count=1)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.STATUS, status=500))

    def run_other() -> None:
        fault(made, kind=Kind.CLOSE, lands=0, count=1)  # accepted, but the answer is lost
        other = other_sandbox(made)
        other.dynamodb = made.dynamodb
        made.dynamodb.before = {"update_item": once(kill, settles)}
        with pytest.raises(Killed):
            other.start().deliver()

    def settles(request: dict[str, Any]) -> bool:
        return request["ExpressionAttributeValues"][":version"]["N"] == "2"

    made.dynamodb.before = {"update_item": once(run_other)}
    assert made.deliver() is not None
    made.dynamodb.before = {}
    assert ["e0"] == made.ids("shop_db", "views")
    assert span(made).entry(CHUNK).since is not None
    made.clock.sleep(3 * 3600)
    made.start()

    assert made.deliver() is None
    assert 1 == made.redrive().delivered
    assert ["e0"] == made.ids("shop_db", "views")


def test_the_object_is_written_before_the_ledger() -> None:
    """A chunk is set aside in the ledger only once its object exists."""
    made = delivery()
    fault(made, kind=Kind.STATUS, status=422)
    made.s3.before = {"put_object": once(kill)}
    with pytest.raises(Killed):
        made.deliver()
    assert span(made).entry(CHUNK).state is State.PENDING
    made.start()

    assert made.deliver() is None
    assert span(made).entry(CHUNK).state is State.IN_DOUBT  # the killed invocation may have delivered it
    assert 1 == len(made.objects())


def in_doubt(*, accepted: bool, **changes: Any) -> Delivery:
    """Return a delivery with a chunk set aside in doubt 46 minutes after its only send."""
    made = delivery(**changes)
    create_table(made)
    fault(made, kind=Kind.CLOSE, lands=0 if accepted else None, count=1)
    made.dynamodb.before = {"query": once(kill, queries_breakers)}  # after the first failure
    with pytest.raises(Killed):
        made.deliver()
    made.clock.sleep(46 * 60)
    made.start()
    assert made.deliver() is None
    assert 1 == len(made.objects())
    return made


def create_table(made: Delivery, database: str = "shop_db") -> None:
    """Create database and table in advance."""
    made.wiring.treasure_data.create_database(database, 1)
    made.wiring.treasure_data.create_table(database, "views", 1)


def test_an_old_doubt_forbids_sending_under_the_same_id() -> None:
    """Treasure Data may have had the rows for longer than it remembers ids, so they are set aside in doubt."""
    made = in_doubt(accepted=True)

    assert {"shop/views/0": ("in_doubt", "too_old_to_repeat", 1)} == made.aside()
    assert 1 == made.telemetry.counts["RowsInDoubt"]
    assert 1 == len(made.td.imports())


def test_treasure_data_is_asked_only_when_it_can_tell() -> None:
    """The redrive waits until a last send under the old id must have landed and its rows would show."""
    made = in_doubt(accepted=True)
    made.clock.sleep(23 * 60)  # 69 minutes after the send
    report = made.redrive()
    assert (report.delivered, report.kept, len(made.objects())) == (0, 1, 1)
    made.clock.sleep(2 * 60)

    assert 1 == made.redrive().delivered
    assert [] == made.objects()
    assert ["e0"] == made.ids("shop_db", "views")


def test_rows_absent_from_treasure_data_are_sent_under_a_new_id() -> None:
    """The query has found nothing."""
    made = in_doubt(accepted=False)
    before = span(made).unique_id(CHUNK, "shop_db", 0)
    made.clock.sleep(25 * 60)

    assert 1 == made.redrive().delivered
    assert ["e0"] == made.ids("shop_db", "views")
    assert before not in [one.unique_id for one in made.td.imports()]
    assert [] == made.objects()


def test_an_orderly_hold_keeps_the_doubt_of_a_5xx() -> None:
    """After a 5xx the rows may have been accepted."""
    made = delivery()
    fault(made, kind=Kind.STATUS, status=500)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.STATUS, status=500))

    assert made.deliver() is not None
    assert span(made).entry(CHUNK).since is not None


def test_an_orderly_hold_clears_the_doubt_of_a_refusal() -> None:
    """If every answer rules out that the rows were accepted, the chunk can be sent as planned at any time."""
    made = delivery()
    fault(made, kind=Kind.STATUS, status=429)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.STATUS, status=500))
    assert made.deliver() is not None
    assert span(made).entry(CHUNK).since is None
    made.td.faults.clear()
    made.clock.sleep(4 * 3600)
    made.start()

    assert made.deliver() is None
    assert ["e0"] == made.ids("shop_db", "views")


def test_an_earlier_doubt_is_not_cleared() -> None:
    """An invocation that finds a chunk in doubt cannot clear it, whatever its own sends are answered."""
    made = delivery()
    create_table(made)
    fault(made, kind=Kind.CLOSE, count=1)
    made.dynamodb.before = {"query": once(kill, queries_breakers)}
    with pytest.raises(Killed):
        made.deliver()
    since = span(made).entry(CHUNK).since
    fault(made, kind=Kind.STATUS, status=429)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.STATUS, status=500))
    made.clock.sleep(60)
    made.start()

    assert made.deliver() is not None
    assert since == span(made).entry(CHUNK).since


@pytest.mark.parametrize("threads", [1, 16])
def test_every_send_checks_the_deadline(threads: int) -> None:
    """Once the time is up, no thread sends its next chunk, and unsent chunks are not in doubt."""
    made = Delivery(threads=threads)
    made.map(shop="shop_db", blog="blog_db")
    made.put(envelope("shop", {"views": [row("e1")]}), envelope("blog", {"views": [row("e2")]}))
    create_table(made)
    create_table(made, "blog_db")
    fault(made, kind=Kind.SLOW, seconds=7.4)
    assert made.deliver(remaining_ms=10_000) is not None
    assert 1 == len(made.td.imports())
    assert span(made).entry(ChunkKey.parse("blog/views/0")).since is None
    made.td.faults.clear()

    assert made.deliver() is None
    assert (["e1"], ["e2"]) == (made.ids("shop_db", "views"), made.ids("blog_db", "views"))


def test_two_invocations_settle_one_span_together() -> None:
    """When their writes meet, delivered beats set aside, and set aside beats pending."""
    made = Delivery()
    made.map(shop="shop_db", blog="blog_db")
    made.put(envelope("shop", {"views": [row("e1")]}), envelope("blog", {"views": [row("e2")]}))
    made.td.faults.add(Fault(kind=Kind.STATUS, database="blog_db", action=Action.IMPORT, status=422, count=1))

    def run_other() -> None:
        assert other_sandbox(made).deliver() is None

    made.dynamodb.before = {"update_item": once(run_other)}

    assert made.deliver() is None
    assert ["e2"] == made.ids("blog_db", "views")
    assert (True, {}) == (span(made).done, span(made).entries)


def test_rows_that_are_accepted_in_the_end_are_no_dead_letter() -> None:
    """An invocation was killed after it wrote the object.

    The next one's answer counts, and the object is unused.
    """
    made = delivery()
    fault(made, kind=Kind.STATUS, status=422, count=1)
    made.s3.after = {"put_object": once(kill)}
    with pytest.raises(Killed):
        made.deliver()
    assert ({}, 1) == (made.aside(), len(made.objects()))
    made.start()

    assert made.deliver() is None
    assert ({}, ["e0"]) == (made.aside(), made.ids("shop_db", "views"))
    assert 0 == made.redrive(*ASIDE).delivered


def test_a_repeated_invocation_writes_the_same_object() -> None:
    """The first one was killed after it wrote the object, and the second one leaves a single object."""
    made = delivery()
    fault(made, kind=Kind.STATUS, status=422)
    made.s3.after = {"put_object": once(kill)}
    with pytest.raises(Killed):
        made.deliver()
    made.clock.sleep(60)
    made.start()

    assert made.deliver() is None
    assert {"shop/views/0": ("in_doubt", "http_422", 1)} == made.aside()
    assert 1 == len(made.objects())


def test_a_refusal_during_another_invocation_s_send_is_in_doubt() -> None:
    """The other invocation may have delivered the rows, so they are not dead letters."""
    made = delivery()
    made.td.create("shop_db", "views")
    fault(made, kind=Kind.STATUS, status=422, count=1)

    def send_and_die() -> None:
        other = other_sandbox(made)
        attempt = other.wiring.uploader.attempt
        other.wiring.uploader.attempt = lambda *sent: (attempt(*sent), kill())[0]  # type: ignore[method-assign]
        with pytest.raises(Killed):
            other.deliver()

    made.dynamodb.before = {"update_item": once(send_and_die)}
    assert made.deliver() is None
    assert {"shop/views/0": ("in_doubt", "http_422", 1)} == made.aside()
    assert span(made).entry(CHUNK).since is not None
    made.clock.sleep(2 * 3600)
    made.redrive()

    assert ([], ["e0"]) == (made.objects(), made.ids("shop_db", "views"))


def test_a_refusal_after_a_lost_answer_is_in_doubt() -> None:
    """The earlier attempt may have been accepted, so the rows are not dead letters."""
    made = delivery()
    made.td.create("shop_db", "views")
    fault(made, kind=Kind.STATUS, status=500, lands=0, count=1)
    fault(made, kind=Kind.STATUS, status=422, count=1)

    assert made.deliver() is None
    assert ["e0"] == made.ids("shop_db", "views")
    assert (0, 1) == (made.telemetry.counts["RowsDeadLettered"], made.telemetry.counts["RowsInDoubt"])
    made.clock.sleep(2 * 3600)
    made.redrive()

    assert ([], ["e0"]) == (made.objects(), made.ids("shop_db", "views"))


# Halves


def accept_single_rows_only(made: Delivery) -> None:
    """Make Treasure Data accept one row per import."""
    made.td.settings = replace(made.td.settings, largest_import=70)


def two_rows(**changes: Any) -> Delivery:
    """Return a delivery of one chunk with two rows."""
    made = Delivery(**changes)
    made.map(shop="shop_db")
    create_table(made)
    made.put(envelope("shop", {"views": [row("e0"), row("e1")]}))
    return made


def test_halves_of_a_fenced_chunk_inherit_its_certainty() -> None:
    """If the halving invocation itself opened the doubt, a refused half is a dead letter."""
    made = two_rows()
    fault(made, kind=Kind.STATUS, status=429)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.STATUS, status=500))
    assert made.deliver() is not None
    made.td.faults.clear()
    fault(made, kind=Kind.STATUS, status=413, count=1)
    fault(made, kind=Kind.STATUS, status=422, count=1)
    made.start()

    assert made.deliver() is None
    assert {"shop/views/0.0": ("dead_letter", "http_422", 1)} == made.aside()
    assert ["e1"] == made.ids("shop_db", "views")


def test_a_split_that_was_written_is_final() -> None:
    """If the worker is killed after that, the next invocation sends the halves, and nothing twice."""
    made = two_rows()
    accept_single_rows_only(made)
    made.dynamodb.after = {"update_item": once(kill)}
    with pytest.raises(Killed):
        made.deliver()
    assert [] == made.td.imports()
    made.start()

    assert made.deliver() is None
    assert [1, 1] == [len(one.rows) for one in made.td.imports()]
    assert {} == made.aside()


def test_a_chunk_is_halved_as_long_as_its_span_s_item_has_room() -> None:
    """With the most tables and the longest names there is room for few halves.

    The other chunks are dead letters.
    """
    made = Delivery()
    account = "a" * 64
    fields = Account("d" * 128, limits=AccountLimits(tables=500)).to_fields()
    made.redis.hset(KEYS.of(account), mapping=fields)
    tables = [f"{n:0>128}" for n in range(500)]
    made.td.create("d" * 128, *tables)
    made.put(envelope(account, {table: [row("e0"), row("e1")] for table in tables}))
    accept_single_rows_only(made)

    assert made.deliver() is None
    split = [key for key, entry in span(made).entries.items() if entry.state is State.SPLIT]
    dead = [key for key, entry in span(made).entries.items() if entry.state is State.DEAD_LETTER]
    assert 0 < len(dead) < 500
    assert 1000 == 2 * len(dead) + len(made.td.imports()) + 2 * len(split)


def test_a_hold_without_changes_writes_nothing() -> None:
    """A doubt that stays needs no write."""
    made = delivery()
    fault(made, kind=Kind.STATUS, status=500)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.STATUS, status=500))
    made.dynamodb.calls.clear()

    assert made.deliver() is not None
    assert "update_item" not in made.dynamodb.calls
