"""What becomes of chunks that are set aside."""

from collections.abc import Callable
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest

from doubles.treasure_data import API_KEY, Action, Fault, Kind, Right, TreasureData
from doubles.treasure_data.settings import Settings
from shared import accounts
from shared.accounts import Account
from tests.support.delivery import (
    BUCKET,
    INVOCATION_MS,
    TABLE,
    Delivery,
    KilledError,
    envelope,
    kill,
    lose_answer,
    once,
    row,
)
from tests.support.virtual_time import SideBySide, VirtualClock
from worker.delivery import ASIDE, Decision, Entry, State
from worker.executor import Threads
from worker.redrive import RedriveReport, Selection
from worker.span import ChunkKey, Span
from worker.treasure_data import Reply

CHUNK = ChunkKey.parse("shop/views/0")
HALVES = CHUNK.halves


def parked(*, in_doubt: bool = False, **changes: Any) -> Delivery:
    """Return a delivery with one set-aside chunk of two rows whose database takes rows again."""
    made = Delivery(**changes)
    made.map(shop="shop_db")
    made.put(envelope("shop", {"views": [row("e1"), row("e2")]}))
    fail(made, status=500) if in_doubt else fail(made, status=429, retry_after=100)
    assert made.deliver() is None
    made.td.faults.clear()
    assert ["in_doubt" if in_doubt else "parked"] == states(made)
    return made


def fail(made: Delivery, **members: Any) -> None:
    """Let imports fail."""
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, **members))


def make_table(made: Delivery) -> None:
    """Make the table that the chunk goes to."""
    made.td.create("shop_db", "views")


def states(made: Delivery) -> list[str]:
    """Return the states of what is set aside."""
    return [state for state, _, _ in made.aside().values()]


def reasons(made: Delivery) -> list[str]:
    """Return why chunks are set aside."""
    return [reason for _, reason, _ in made.aside().values()]


def span(made: Delivery) -> Span:
    """Return the first span."""
    return made.spans()[0]


def entry(made: Delivery) -> Entry:
    """Return what the ledger says of the chunk."""
    return span(made).entry(CHUNK)


def numbers(report: RedriveReport) -> tuple[int, int, int, int, bool]:
    """Return what a run did: rows delivered, kept, dead and dropped, and whether it is complete."""
    return report.delivered, report.kept, report.dead, report.dropped, report.complete


def is_settled(made: Delivery) -> bool:
    """Tell whether nothing is left: no entry but of what is final, no object, nothing on the worklist."""
    places = [*made.ledger.worklist(dead=False), *made.ledger.worklist(dead=True)]
    return all(one.is_settled for one in made.spans()) and not made.objects() and not places


def attempted(made: Delivery) -> list[str]:
    """Return the chunks that are sent from now on."""
    sent: list[str] = []
    attempt = made.wiring.uploader.attempt
    made.wiring.uploader.attempt = lambda upload, *rest: (
        sent.append(upload.chunk.key.name),
        attempt(upload, *rest),
    )[1]  # type: ignore[method-assign]  # watched, not changed
    return sent


@pytest.mark.parametrize("in_doubt", [False, True])
def test_set_aside_rows_arrive_by_themselves(in_doubt: bool) -> None:
    """They are delivered by the next redrive, and their object and breaker are gone."""
    made = parked(in_doubt=in_doubt)
    report = made.redrive()

    assert (2, 0, 0, 0, True) == numbers(report)
    assert ["e1", "e2"] == made.ids("shop_db", "views")
    assert is_settled(made)
    assert [] == list(made.ledger.breakers())
    assert 2 == made.telemetry.counts["RowsRedriven"]


def test_free_of_doubt_goes_where_the_account_goes_today() -> None:
    """Rows that were never accepted follow their account to its new database."""
    made = parked()
    made.map(shop="new_db")
    made.start()

    assert 2 == made.redrive().delivered
    assert {"new_db": {"views": 2}} == made.td.counts()
    assert "new_db" == entry(made).database


def test_in_doubt_goes_where_it_went_before() -> None:
    """Rows that may have been accepted go to the database of their plan under the id they had."""
    made = parked(in_doubt=True)
    unique_id = span(made).unique_id(CHUNK, "shop_db", 0)
    made.map(shop="new_db")
    made.td.create("shop_db")  # of a remapped account no database is made
    made.start()

    assert 2 == made.redrive().delivered
    assert [("shop_db", unique_id)] == [(one.database, one.unique_id) for one in made.td.imports()]


def test_what_was_redriven_elsewhere_and_is_in_doubt_stays_there() -> None:
    """An account that is remapped twice does not have its rows twice."""
    made = parked()
    made.map(shop="new_db")
    made.td.create("new_db", "views")
    made.start()
    fail(made, status=500, lands=0, count=1)
    assert 2 == made.redrive().kept
    made.map(shop="newest_db")
    made.start()

    assert 2 == made.redrive().delivered
    assert {"new_db": {"views": 2}} == made.td.counts()


def test_a_missing_database_that_is_no_longer_the_account_s() -> None:
    """It is not made: once the doubt is over the rows are a dead letter, free of doubt, and go where the account goes."""
    made = parked(in_doubt=True)
    made.map(shop="new_db")
    made.start()
    made.redrive()
    assert {CHUNK.name: ("in_doubt", "no_such_database", 2)} == made.aside()
    made.clock.sleep(3 * 3600)
    assert 2 == made.redrive().dead
    assert {CHUNK.name: ("dead_letter", "no_such_database", 2)} == made.aside()
    assert entry(made).since is None

    assert 2 == made.redrive(State.DEAD_LETTER).delivered
    assert {"new_db": {"views": 2}} == made.td.counts()


@pytest.mark.parametrize("taken", [False, True])
def test_what_is_refused_after_a_doubt_is_asked_about(taken: bool) -> None:
    """Rows that an earlier attempt may have brought are no dead letter, whatever a later one is answered."""
    made = parked()
    make_table(made)
    fail(made, status=500, count=1, lands=0 if taken else None)
    made.redrive()
    made.td.faults.clear()
    fail(made, status=422)
    made.redrive()
    assert {CHUNK.name: ("in_doubt", "http_422", 2)} == made.aside()
    made.clock.sleep(3 * 3600)
    report = made.redrive()

    assert ((2, 0) if taken else (0, 2)) == (report.delivered, report.dead)
    assert ([] if taken else ["dead_letter"]) == states(made)
    assert (2 if taken else 0) == sum(len(one.rows) for one in made.td.imports())


def test_a_redrive_that_is_refused_keeps_the_doubt_of_before() -> None:
    """One whose own send was definitely refused clears no doubt that began before it."""
    made = parked(in_doubt=True)
    since = entry(made).since
    fail(made, status=429)
    made.redrive()

    assert since == entry(made).since
    assert ["in_doubt"] == states(made)


@pytest.mark.parametrize(
    ("status", "state", "reason"), [(429, "parked", "http_429"), (500, "in_doubt", "http_429")]
)
def test_a_redrive_s_own_doubt_is_over_where_nothing_can_have_been_accepted(
    status: int, state: str, reason: str
) -> None:
    """While it was sent the chunk was in doubt; then it is parked again, or not."""
    made = parked()
    fail(made, status=status)
    made.redrive()

    assert {CHUNK.name: (state, reason, 2)} == made.aside()
    assert (state == "parked") == (entry(made).since is None)


def test_what_was_never_to_be_sent_is_free_of_doubt() -> None:
    """A dead letter by plan is free of doubt, also when the invocation that planned it was killed."""
    made = Delivery()
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.s3.before = {"put_object": once(kill)}
    with pytest.raises(KilledError):
        made.deliver()
    made.start()
    assert made.deliver() is None
    assert entry(made).since is None
    made.map(shop="shop_db")

    assert 1 == made.redrive(State.DEAD_LETTER).delivered
    assert ["e1"] == made.ids("shop_db", "views")


# Databases that fail


def several(count: int = 10, **changes: Any) -> Delivery:
    """Return a delivery with parked chunks of the same database, in a span each."""
    made = Delivery(**changes)
    made.map(shop="shop_db")
    made.td.create("shop_db", *(f"table_{n}" for n in range(count)))
    fail(made, status=429, retry_after=100)
    for n in range(count):
        made.put(envelope("shop", {f"table_{n}": [row(f"x{n}")]}))
        assert made.deliver(n) is None
    made.td.faults.clear()
    assert ["parked"] * count == states(made)
    return made


def test_still_sick_is_left_for_the_next_run() -> None:
    """While the database fails nothing changes, and only one of its chunks is tried a run."""
    made = several()
    fail(made, status=429)
    sent = attempted(made)
    report = made.redrive()

    assert (0, 10, 0, 0, False) == numbers(report)
    assert 1 == len(sent)
    assert {"parked"} == set(states(made))
    assert {None} == {one.since for span in made.spans() for one in span.entries.values()}
    assert ["shop_db"] == [breaker.database for breaker in made.ledger.breakers()]


def test_a_database_that_fails_again_is_left_alone_after_three_failures() -> None:
    """One that has accepted rows in this run may fail now and then, not three times in a row."""
    made = several(20)
    fail(made, status=429, count=2)
    made.ledger.close_breaker("shop_db")
    assert 18 == made.redrive().delivered
    fail(made, status=429)
    for n in range(20, 30):
        made.put(envelope("shop", {"table_0": [row(f"x{n}")]}))
    made.wiring.breakers.open("shop_db", "http_429")
    made.deliver(20)
    made.ledger.close_breaker("shop_db")
    sent = attempted(made)
    made.redrive()

    assert 3 == len(sent)


def test_accounts_do_not_wait_for_each_other() -> None:
    """One account's sick database keeps no other account's rows in the bucket."""
    made = Delivery()
    names = [f"acct_{n}" for n in range(5)]
    made.map(**{name: f"db_{name}" for name in names})
    made.put(*(envelope(name, {f"table_{t}": [row(f"{name}{t}")] for t in range(3)}) for name in names))
    fail(made, status=429, retry_after=100)
    assert made.deliver() is None
    made.td.faults.clear()
    fail(made, database="db_acct_0", status=500)

    assert 12 == made.redrive().delivered
    assert [f"acct_0/table_{t}/0" for t in range(3)] == sorted(made.aside())
    assert ["db_acct_0"] == [breaker.database for breaker in made.ledger.breakers()]


@pytest.mark.parametrize("status", [429, 500])
def test_accounts_of_one_sick_database_try_it_once(status: int) -> None:
    """Accounts that share a database do not each find out that it is still sick, be their rows in doubt or not."""
    made = Delivery()
    names = [f"acct_{n}" for n in range(5)]
    made.map(**dict.fromkeys(names, "shared_db"))
    fail(made, status=status)
    for n, name in enumerate(names):
        made.put(envelope(name, {f"table_{name}": [row(name)]}))
        assert made.deliver(n) is None
    sent = attempted(made)

    assert 5 == made.redrive().kept
    assert 1 == len(sent)


@pytest.mark.parametrize("status", [403, 500])
@pytest.mark.parametrize("refused", range(5))
def test_a_chunk_that_always_fails_keeps_no_other_one_of_its_database_waiting(
    refused: int, status: int
) -> None:
    """Wherever the worklist has it: a table that the key may not write, or one that breaks Treasure Data."""
    made = several(5)
    fail(made, table=f"table_{refused}", status=status)
    for _ in range(6):
        made.clock.sleep(600)
        made.redrive()

    assert {f"shop/table_{refused}/0"} == set(made.aside())
    assert [] == list(made.ledger.breakers())


@pytest.mark.parametrize("refused", range(5))
def test_a_chunk_that_always_fails_keeps_no_other_one_of_its_span_waiting(refused: int) -> None:
    """Nor do the chunks of one span: none of them is the first each time."""
    made = Delivery()
    made.map(shop="shop_db")
    made.td.create("shop_db", *(f"table_{n}" for n in range(5)))
    made.put(envelope("shop", {f"table_{n}": [row(f"x{n}")] for n in range(5)}))
    fail(made, status=429, retry_after=100)
    assert made.deliver() is None
    made.td.faults.clear()
    fail(made, table=f"table_{refused}", status=403)
    for _ in range(6):
        made.clock.sleep(600)
        made.redrive()

    assert {f"shop/table_{refused}/0"} == set(made.aside())


def test_a_hanging_database_takes_its_turn_after_all_others() -> None:
    """Others' rows do not wait for its time-outs, and it is tried once."""
    clock = VirtualClock()
    made = Delivery(clock=clock, executors=lambda: SideBySide(clock))
    names = [f"acct_{n}" for n in range(40)]
    made.map(**{name: f"db_{name}" for name in names})
    fail(made, status=429, retry_after=100)
    for n, name in enumerate(names):
        made.put(envelope(name, {"views": [row(name)]}))
        made.deliver(n)
    made.td.faults.clear()
    made.td.faults.add(Fault(kind=Kind.HANG, action=Action.IMPORT, database="db_acct_0"))
    for breaker in list(made.ledger.breakers()):
        if breaker.database != "db_acct_0":
            made.ledger.close_breaker(breaker.database)
    began = made.clock.now()
    sent = attempted(made)

    assert 39 == made.redrive().delivered
    assert 40 == len(sent)
    assert max(one.at for one in made.td.imports()) - began < 1
    assert made.clock.now() - began < 11


def test_a_hanging_database_is_tried_by_one_span_at_a_time() -> None:
    """Those that wait for it are left for the next run once it has failed."""
    clock = VirtualClock()
    made = several(8, clock=clock, executors=lambda: SideBySide(clock))
    made.td.faults.add(Fault(kind=Kind.HANG, action=Action.IMPORT))
    sent = attempted(made)

    assert (0, 8, 0, 0, False) == numbers(made.redrive())
    assert 1 == len(sent)


def test_spans_that_wait_for_one_database_s_proof_cost_nothing_meanwhile() -> None:
    """While one of them tries it, the others are not read from the ledger again and again."""
    clock = VirtualClock()
    made = several(8, clock=clock, executors=lambda: SideBySide(clock))
    made.td.settings = replace(made.td.settings, answer_seconds=5.0)
    made.dynamodb.calls.clear()
    began = made.clock.now()

    assert 8 == made.redrive().delivered
    assert made.dynamodb.calls.count("get_item") <= 3 * 8
    assert made.clock.now() - began < 8 * 5
    assert is_settled(made)


# Breakers


def open_breaker(reason: str = "http_500", **changes: Any) -> Delivery:
    """Return a delivery with an open breaker that nothing is set aside for."""
    made = Delivery(**changes)
    made.map(shop="shop_db")
    made.ledger.open_breaker("shop_db", reason)
    return made


def test_an_idle_breaker_is_closed_by_a_probe() -> None:
    """With nothing set aside for it, the database is asked after a while: so it parks nothing for ever."""
    made = open_breaker()
    made.clock.sleep(300)
    made.redrive()
    assert (1, []) == (len(list(made.ledger.breakers())), made.td.counts().get("shop_db", []))

    made.clock.sleep(1)
    made.redrive()
    assert [] == list(made.ledger.breakers())
    assert {} == made.td.counts()


def test_an_idle_breaker_stays_open_while_its_database_fails() -> None:
    """Only an answer closes it; that nothing is on the worklist says nothing."""
    made = open_breaker()
    fail(made, status=503)
    made.clock.sleep(3600)
    made.redrive()

    assert ["shop_db"] == [breaker.database for breaker in made.ledger.breakers()]


def test_a_breaker_stays_open_while_the_worklist_lags() -> None:
    """What the index does not show yet may be there: rows are parked until the database has answered."""
    made = open_breaker()
    made.dynamodb.client.lag_indexes(TABLE, float("inf"))
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.wiring.breakers.consult("shop_db")
    assert made.deliver() is None
    assert ["parked"] == states(made)
    fail(made, status=503)
    made.clock.sleep(3600)
    assert (0, 0, 0, 0, True) == numbers(made.redrive())
    assert 1 == len(list(made.ledger.breakers()))

    made.td.faults.clear()
    made.dynamodb.client.settle_indexes(TABLE)
    assert 1 == made.redrive().delivered
    assert [] == list(made.ledger.breakers())


def test_what_the_worklist_still_shows_is_left_alone() -> None:
    """A span that was settled meanwhile is read again before anything is done."""
    made = parked()
    made.dynamodb.client.lag_indexes(TABLE, float("inf"))
    assert 2 == made.redrive().delivered
    assert 1 == len(list(made.ledger.worklist(dead=False)))

    assert (0, 0, 0, 0, True) == numbers(made.redrive())
    assert ["e1", "e2"] == made.ids("shop_db", "views")


def test_a_redrive_by_hand_leaves_idle_breakers_alone() -> None:
    """It concerns what was selected."""
    made = open_breaker()
    made.clock.sleep(3600)
    made.redrive(State.DEAD_LETTER)

    assert 1 == len(list(made.ledger.breakers()))


@pytest.mark.parametrize(
    ("seconds", "age", "closed"), [(2.0, 60, True), (2.1, 60, False), (2.1, 3600, True), (2.1, 3599, False)]
)
def test_a_slow_database_s_breaker_closes_when_it_is_quick_or_after_an_hour(
    seconds: float, age: float, closed: bool
) -> None:
    """That it accepts rows says nothing: it always did."""
    made = parked()
    make_table(made)
    made.ledger.open_breaker("shop_db", "slow")
    made.clock.sleep(age - seconds)
    made.td.faults.add(Fault(kind=Kind.SLOW, action=Action.IMPORT, seconds=seconds))

    assert 2 == made.redrive().delivered
    assert closed == (list(made.ledger.breakers()) == [])


# Time, accounts, refusals


def test_parked_for_too_long() -> None:
    """What is parked for longer than is allowed becomes a dead letter, which a person may still send."""
    made = parked()
    made.clock.sleep(15 * 86_400)

    assert 2 == made.redrive().dead
    assert {CHUNK.name: ("dead_letter", "parked_too_long", 2)} == made.aside()
    assert 0 == made.redrive().delivered
    assert 2 == made.redrive(State.DEAD_LETTER).delivered
    assert ["e1", "e2"] == made.ids("shop_db", "views")


def test_in_doubt_for_too_long_is_asked_about() -> None:
    """What Treasure Data may have accepted never becomes a dead letter by its age."""
    made = parked(in_doubt=True)
    made.clock.sleep(15 * 86_400)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=500))
    made.redrive()
    assert ["in_doubt"] == states(made)
    made.td.faults.clear()

    assert 2 == made.redrive().delivered


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (None, "unknown_account"),
        (Account("shop_db", "disabled").to_fields(), "disabled_account"),
        ({"database": "No!"}, "invalid_account"),
    ],
)
def test_parked_rows_of_an_account_that_has_gone(fields: dict[str, str] | None, reason: str) -> None:
    """Parked rows whose account is unknown, disabled or invalid by now become dead letters."""
    made = parked()
    made.redis.delete(accounts.redis_key("shop"))
    if fields:
        made.redis.hset(accounts.redis_key("shop"), mapping=fields)
    made.start()

    assert (0, 0, 2, 0, True) == numbers(made.redrive())
    assert {CHUNK.name: ("dead_letter", reason, 2)} == made.aside()
    assert 2 == made.telemetry.counts["RowsDeadLettered"]


def test_redis_away_keeps_what_is_parked() -> None:
    """While accounts cannot be asked for, what is free of doubt stays where it is."""
    made = parked()
    made.redis.flushall()
    made.start()

    assert 2 == made.redrive().kept
    assert ["parked"] == states(made)


def test_refused_when_redriven() -> None:
    """Parked rows that Treasure Data then refuses become a dead letter with the new reason."""
    made = parked()
    fail(made, status=422)

    assert (0, 0, 2, 0, True) == numbers(made.redrive())
    assert {CHUNK.name: ("dead_letter", "http_422", 2)} == made.aside()
    assert entry(made).since is None


def test_dead_letters_by_hand() -> None:
    """A person who has repaired what was wrong sends dead letters; what could not become rows stays."""
    made = Delivery()
    made.put(envelope("shop", {"views": [row("e1")], "clicks": [row("e2")]}), b"junk")
    assert made.deliver() is None
    made.map(shop="shop_db")

    assert (0, 0, 0, 0, True) == numbers(made.redrive())
    assert (2, 1, 0, 0, True) == numbers(made.redrive(State.DEAD_LETTER))
    assert {"shop_db": {"clicks": 1, "views": 1}} == made.td.counts()
    assert ["-/-undecodable/0"] == list(made.aside())


def test_revoked_key_by_hand() -> None:
    """Rows of a revoked key stay set aside until the key is no longer revoked."""
    made = Delivery()
    revoked = Account("shop_db", "active", frozenset({"k1"}))
    made.redis.hset(accounts.redis_key("shop"), mapping=revoked.to_fields())
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.deliver()
    assert 0 == made.redrive(State.DEAD_LETTER).delivered
    made.map(shop="shop_db")
    made.start()

    assert 1 == made.redrive(State.DEAD_LETTER).delivered


def dead(made: Delivery) -> Delivery:
    """Let the parked chunk become a dead letter."""
    make_table(made)
    fail(made, status=422, count=1)
    assert 2 == made.redrive().dead
    return made


@pytest.mark.parametrize("taken", [False, True])
def test_a_dead_letter_whose_send_was_in_doubt_is_seen_through_by_the_schedule(taken: bool) -> None:
    """Whether Treasure Data accepted it or not, the next runs find out, and it is there once in the end."""
    made = dead(parked())
    fail(made, status=500, count=1, lands=0 if taken else None)

    assert 2 == made.redrive(State.DEAD_LETTER).kept
    assert {CHUNK.name: ("in_doubt", "http_422", 2)} == made.aside()
    assert 2 == made.redrive().delivered
    assert ["e1", "e2"] == made.ids("shop_db", "views")
    assert is_settled(made)


def test_a_dead_letter_that_is_sent_and_not_answered_is_parked() -> None:
    """Nobody would see it otherwise: it is the schedule's from then on, from this time on."""
    made = dead(parked())
    made.clock.sleep(13 * 86_400)
    fail(made, status=429)

    assert 2 == made.redrive(State.DEAD_LETTER).kept
    assert {CHUNK.name: ("parked", "http_429", 2)} == made.aside()
    made.td.faults.clear()
    made.clock.sleep(13 * 86_400)
    assert 2 == made.redrive().delivered


@pytest.mark.parametrize("attempt_first", [False, True])
def test_a_dead_letter_whose_redrive_was_killed_is_seen_through_by_the_schedule(attempt_first: bool) -> None:
    """It is in doubt before it is sent, so that a redrive may die at any time."""
    made = dead(parked())
    attempt = made.wiring.uploader.attempt
    made.wiring.uploader.attempt = lambda *sent: (attempt(*sent) if attempt_first else None, kill())[0]  # type: ignore[assignment,method-assign,return-value]
    with pytest.raises(KilledError):
        made.redrive(State.DEAD_LETTER)
    assert ["in_doubt"] == states(made)
    made.start()

    assert 2 == made.redrive().delivered
    assert ["e1", "e2"] == made.ids("shop_db", "views")
    assert is_settled(made)


def test_a_dead_letter_that_is_refused_again_stays_one() -> None:
    """With its new reason; it is not counted as a new one."""
    made = dead(parked())
    fail(made, status=400)

    assert (0, 2, 0, 0, True) == numbers(made.redrive(State.DEAD_LETTER))
    assert {CHUNK.name: ("dead_letter", "http_400", 2)} == made.aside()
    assert 2 == made.telemetry.counts["RowsDeadLettered"]
    assert 1 == len(made.objects())


# What the chunks of one span have to do with each other


def test_chunks_of_one_span_do_not_hinder_each_other() -> None:
    """Each definitely refused chunk of a span is free of doubt, and one accepted is delivered."""
    made = Delivery()
    made.map(shop="shop_db", other="other_db", third="third_db")
    made.put(*(envelope(name, {"views": [row(name)]}) for name in ("shop", "other", "third")))
    fail(made, status=429, retry_after=100)
    assert made.deliver() is None
    made.td.faults.clear()
    fail(made, database="shop_db", status=422)
    fail(made, database="other_db", status=429)

    assert (1, 1, 1, 0, False) == numbers(made.redrive())
    assert {
        "shop/views/0": ("dead_letter", "http_422", 1),
        "other/views/0": ("parked", "http_429", 1),
    } == made.aside()
    assert {None} == {one.since for one in span(made).entries.values()}


def test_spans_are_sent_side_by_side() -> None:
    """Two that wait for each other end."""
    made = Delivery(executors=Threads)
    made.map(shop="shop_db", other="other_db")
    fail(made, status=429, retry_after=100)
    for n, name in enumerate(("shop", "other")):
        made.put(envelope(name, {"views": [row(name)]}))
        assert made.deliver(n) is None
    made.td.faults.clear()
    both = Barrier(2, timeout=60)
    attempt = made.wiring.uploader.attempt
    made.wiring.uploader.attempt = lambda *sent: (both.wait(), attempt(*sent))[1]  # type: ignore[method-assign]

    assert 2 == made.redrive().delivered


@pytest.mark.parametrize("accepted", [False, True])
def test_an_open_span_stays_open(accepted: bool) -> None:
    """What of it is pending is the worker's, whatever becomes of what is set aside."""
    made = Delivery()
    made.map(shop="shop_db", blog="blog_db")
    made.td.create("blog_db", "views")
    made.put(*(envelope(name, {"views": [row(name)]}) for name in ("shop", "blog")))
    fail(made, database="shop_db", status=422, count=1)
    fail(made, database="blog_db", status=503)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.STATUS, status=503))
    made.td.create("shop_db", "views")
    assert made.deliver() is not None
    assert {"shop/views/0": ("dead_letter", "http_422", 1)} == made.aside()
    made.td.faults.clear()
    if not accepted:
        fail(made, database="shop_db", status=422)
    made.redrive(State.DEAD_LETTER)

    assert (False, []) == (span(made).done, made.ids("blog_db", "views"))
    made.start()
    assert made.deliver() is None
    assert (True, ["blog"]) == (span(made).done, made.ids("blog_db", "views"))
    assert (["shop"] if accepted else []) == made.ids("shop_db", "views")


# Halves


def test_a_parked_chunk_that_is_too_large_is_halved_and_delivered() -> None:
    """In one run, from its one object, which is gone in the end; halves are parked before they are sent."""
    made = Delivery()
    made.map(shop="shop_db")
    make_table(made)
    made.put(envelope("shop", {"views": [row(f"e{n}") for n in range(8)]}))
    fail(made, status=429, retry_after=100)
    assert made.deliver() is None
    made.td.faults.clear()
    made.td.settings = Settings(largest_import=70)
    objects = made.objects()
    seen: set[tuple[str, bool]] = set()

    def look(_: Any) -> None:
        seen.update((one.state.value, one.since is None) for one in span(made).entries.values())

    made.dynamodb.after["update_item"] = look
    report = made.redrive()

    assert (8, 0, 0, 0, True) == numbers(report)
    assert [f"e{n}" for n in range(8)] == sorted(made.ids("shop_db", "views"))
    assert [1] * 8 == [len(one.rows) for one in made.td.imports()]
    assert 8 == len({one.unique_id for one in made.td.imports()})
    assert (is_settled(made), 1) == (True, len(objects))
    assert ("parked", False) not in seen
    assert ("parked", True) in seen


def test_a_redrive_that_dies_once_a_chunk_is_split_is_followed_by_one_that_sends_the_halves() -> None:
    """They are on the worklist from then on."""
    made = parked()
    make_table(made)
    made.td.settings = Settings(largest_import=70)
    made.dynamodb.after["update_item"] = once(
        kill, lambda _: State.SPLIT in {one.state for one in span(made).entries.values()}
    )
    with pytest.raises(KilledError):
        made.redrive()
    assert {half.name: ("parked", "http_429", 1) for half in HALVES} == made.aside()
    made.start()

    assert 2 == made.redrive().delivered
    assert is_settled(made)


def test_what_is_too_large_after_a_doubt_is_halved_once_treasure_data_was_asked() -> None:
    """A chunk in doubt is left whole; one that is not there goes in halves, and too large a row is a dead letter."""
    made = parked(in_doubt=True)
    largest = made.td.settings.largest_import
    made.td.settings = replace(made.td.settings, largest_import=1)
    made.redrive()
    assert {CHUNK.name: ("in_doubt", "http_413", 2)} == made.aside()
    made.clock.sleep(3 * 3600)
    made.redrive()
    assert {half.name: ("dead_letter", "http_413", 1) for half in HALVES} == made.aside()
    assert 1 == len(made.objects())

    made.td.settings = replace(made.td.settings, largest_import=largest)
    assert 2 == made.redrive(State.DEAD_LETTER).delivered
    assert ["e1", "e2"] == sorted(made.ids("shop_db", "views"))
    assert is_settled(made)


def test_too_large_a_row_in_doubt_is_asked_about() -> None:
    """One row that may have been accepted before is no dead letter when it is called too large."""
    made = Delivery()
    made.map(shop="shop_db")
    made.put(envelope("shop", {"views": [row("e1")]}))
    fail(made, status=500)
    assert made.deliver() is None
    made.td.faults.clear()
    made.td.settings = replace(made.td.settings, largest_import=1)
    made.redrive()

    assert {CHUNK.name: ("in_doubt", "http_413", 1)} == made.aside()


def halved(*, refuse: bool = True) -> Delivery:
    """Return a delivery whose worker has halved a chunk of two rows, of which Treasure Data then refuses both or the first."""
    made = Delivery()
    made.map(shop="shop_db")
    make_table(made)
    made.put(envelope("shop", {"views": [row("e1"), row("e2")]}))
    fail(made, status=413, count=1)
    fail(made, status=422, count=2 if refuse else 1)
    assert made.deliver() is None
    assert {half.name: ("dead_letter", "http_422", 1) for half in HALVES[: 1 + refuse]} == made.aside()
    return made


@pytest.mark.parametrize("refuse", [False, True])
def test_halves_that_were_set_aside_alone_are_delivered_from_their_planned_chunk_s_object(
    refuse: bool,
) -> None:
    """The object, which holds all rows, goes with the last of them."""
    made = halved(refuse=refuse)
    (name,) = made.objects()
    assert 2 == made.wiring.store.read(name).rows

    assert 1 + refuse == made.redrive(State.DEAD_LETTER).delivered
    assert ["e1", "e2"] == sorted(made.ids("shop_db", "views"))
    assert is_settled(made)


def test_an_object_stays_as_long_as_a_half_of_it_is_needed() -> None:
    """One that is delivered alone leaves the other's rows where they are."""
    made = halved()
    selection = Selection(tuple(ASIDE), chunk=HALVES[0])

    assert 1 == made.wiring.redrive.run(deadline(made), selection).delivered
    assert (1, [HALVES[1].name]) == (len(made.objects()), list(made.aside()))
    assert 1 == made.redrive(State.DEAD_LETTER).delivered
    assert ["e1", "e2"] == made.ids("shop_db", "views")
    assert is_settled(made)


def test_a_half_that_is_dropped_leaves_the_other_one() -> None:
    """Dropped rows are not delivered ones, and the object goes with the last."""
    made = halved()
    dropped = replace(Selection(tuple(ASIDE), chunk=HALVES[0]), decision=Decision.DROP)

    assert (0, 0, 0, 1, True) == numbers(made.wiring.redrive.run(deadline(made), dropped))
    assert 1 == made.redrive(State.DEAD_LETTER).delivered
    assert ["e2"] == made.ids("shop_db", "views")
    assert (State.DROPPED, State.DELIVERED) == tuple(span(made).entry(half).state for half in HALVES)
    assert is_settled(made)


# Asking Treasure Data


def unaskable(setting: str) -> Delivery:
    """Return a delivery with a chunk in old doubt, and a key that may not query."""
    made = parked(in_doubt=True, unaskable_doubt=setting)
    made.td = TreasureData(
        clock=made.clock, keys={API_KEY: frozenset({Right.WRITE, Right.CREATE})}, settings=Settings()
    )
    made.clock.sleep(3 * 3600)
    return made.start()


@pytest.mark.parametrize("taken", [False, True])
def test_treasure_data_is_asked_once_it_may_have_forgotten_the_id(taken: bool) -> None:
    """Its answer decides: delivered without a send, or sent under another id."""
    made = parked()
    make_table(made)
    fail(made, status=500, lands=0 if taken else None, count=1)
    made.redrive()
    made.clock.sleep(46 * 60)
    sent = attempted(made)
    assert (0, 2, 0, 0, True) == numbers(made.redrive())  # too early to ask, too late to send
    assert [] == sent
    made.clock.sleep(25 * 60)

    assert 2 == made.redrive().delivered
    assert (0 if taken else 1) == len(sent)
    assert ["e1", "e2"] == made.ids("shop_db", "views")
    old, new = (span(made).unique_id(CHUNK, "shop_db", generation) for generation in (0, 1))
    assert [old if taken else new] == [one.unique_id for one in made.td.imports()]
    assert is_settled(made)


def test_an_undecided_answer_settles_nothing() -> None:
    """What Treasure Data does not say is never taken for a no."""
    made = parked(in_doubt=True)
    make_table(made)
    made.clock.sleep(3 * 3600)
    for fault in (
        Fault(kind=Kind.STATUS, action=Action.QUERY, status=503),
        Fault(kind=Kind.NOT_JSON, action=Action.QUERY),
        Fault(kind=Kind.CLOSE, action=Action.QUERY),
    ):
        made.td.faults.add(fault)
        assert (0, 2) == numbers(made.redrive())[:2]
        made.td.faults.clear()

    assert [] == made.td.imports()
    assert (["in_doubt"], 0) == (states(made), entry(made).generation)


def test_the_first_and_the_last_row_are_asked_for() -> None:
    """One of two there is undecided: neither is it delivered nor may it be sent."""
    made = parked(in_doubt=True)
    make_table(made)
    client = made.wiring.treasure_data
    asked: list[Any] = []
    ask = client.ask
    client.ask = lambda *args: (asked.append(args[2]), ask(*args))[1]  # type: ignore[method-assign]  # watched, not changed
    made.clock.sleep(3 * 3600)
    made.redrive()

    assert [[row("e1"), row("e2")]] == asked


def test_unaskable_doubt_is_sent_and_reported() -> None:
    """A key that may not query: the rows are sent under a new id and reported as ambiguous, with both ids."""
    made = unaskable("send")
    ids = [span(made).unique_id(CHUNK, "shop_db", generation) for generation in (0, 1)]

    assert 2 == made.redrive().delivered
    assert 2 == made.telemetry.counts["RowsAmbiguous"]
    (said,) = made.telemetry.said("ambiguous: sent again although Treasure Data may have the rows")
    assert (*ids, 2) == (said["unique_id"], said["new_unique_id"], said["rows"])
    assert ids[1:] == [one.unique_id for one in made.td.imports() if one.rows]


def test_unaskable_doubt_that_is_refused_is_a_dead_letter() -> None:
    """Rows that are sent although nobody could be asked, and definitely refused, are reported once and wait for a person."""
    made = unaskable("send")
    make_table(made)
    client = made.wiring.treasure_data
    send = client.send

    def answered(*sent: Any) -> Reply:
        made.td.faults.clear()
        if len(sent[3]) > 40:
            fail(made, status=422)
        return send(*sent)

    client.send = answered  # type: ignore[method-assign]  # an import of nothing is accepted, rows are refused
    assert 2 == made.redrive().dead
    for _ in range(3):
        made.clock.sleep(3 * 3600)
        made.redrive()

    assert 2 == made.telemetry.counts["RowsAmbiguous"]
    assert {CHUNK.name: ("dead_letter", "http_422", 2)} == made.aside()


def test_a_database_that_is_closed_for_a_while_is_asked_later() -> None:
    """Where the key may neither query nor write just now, nothing is called unaskable: it is asked once that has passed."""
    made = parked(in_doubt=True)
    made.clock.sleep(3 * 3600)
    made.td.faults.add(Fault(kind=Kind.STATUS, database="shop_db", status=403))
    assert 2 == made.redrive().kept
    assert (0, 0) == (made.telemetry.counts["RowsAmbiguous"], entry(made).generation)
    made.td.faults.clear()

    assert 2 == made.redrive().delivered
    assert 0 == made.telemetry.counts["RowsAmbiguous"]


def test_a_query_that_was_forbidden_for_a_moment_is_made_again() -> None:
    """A key that may write is not believed at once to be one that may not query: it is asked twice."""
    made = parked(in_doubt=True)
    made.clock.sleep(3 * 3600)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=403, count=1))

    assert 2 == made.redrive().delivered
    assert 0 == made.telemetry.counts["RowsAmbiguous"]


def test_unaskable_doubt_is_kept() -> None:
    """By setting the rows are kept for a person instead."""
    made = unaskable("keep")

    assert 2 == made.redrive().kept
    assert ([], 1) == (made.td.imports(), len(made.objects()))


def test_md5_mismatch_is_asked_about() -> None:
    """When Treasure Data says that it has something else than was sent, it is asked what it has."""
    made = Delivery()
    made.map(shop="shop_db")
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.td.faults.add(Fault(kind=Kind.WRONG_MD5, action=Action.IMPORT, count=2))
    assert made.deliver() is None
    assert {CHUNK.name: ("in_doubt", "md5_mismatch", 1)} == made.aside()
    made.clock.sleep(3 * 3600)

    assert 1 == made.redrive().delivered
    assert ["e1"] == made.ids("shop_db", "views")


def test_the_time_is_checked_before_each_send() -> None:
    """A redrive that was frozen between fence and send does not send what Treasure Data may have forgotten by then."""
    made = parked(in_doubt=True)
    make_table(made)
    made.clock.sleep(44 * 60)
    made.dynamodb.after["update_item"] = once(lambda: made.clock.sleep(2 * 60))
    sent = attempted(made)

    assert 2 == made.redrive().kept
    assert [] == sent
    assert ["in_doubt"] == states(made)


# What a person decides and selects


def decided(made: Delivery, decision: Decision) -> RedriveReport:
    """Run the redrive as a person has decided."""
    return made.redrive(*ASIDE, decision=decision)


def deadline(made: Delivery) -> Any:
    """Return the deadline of an invocation."""
    from worker.deadline import Deadline

    return Deadline.of(made.clock, INVOCATION_MS)


def test_a_person_sends_what_cannot_be_asked_about() -> None:
    """It goes out under a new id, and nothing is reported as ambiguous: somebody has decided."""
    made = unaskable("keep")

    assert 2 == decided(made, Decision.SEND).delivered
    assert [span(made).unique_id(CHUNK, "shop_db", 1)] == [one.unique_id for one in made.td.imports()]
    assert (True, 0) == (is_settled(made), made.telemetry.counts["RowsAmbiguous"])


@pytest.mark.parametrize("make", [lambda: unaskable("keep"), lambda: dead(parked())])
def test_a_person_drops_rows(make: Callable[[], Delivery]) -> None:
    """They count as dropped, not as delivered; their object is gone, and nothing is sent."""
    made = make()

    assert (0, 0, 0, 2, True) == numbers(decided(made, Decision.DROP))
    assert ([], State.DROPPED, 2) == (made.td.imports(), entry(made).state, entry(made).rows)
    assert is_settled(made)


def test_what_is_parked_is_not_dropped() -> None:
    """It goes out by itself: dropping leaves it alone, and sends it if it can."""
    made = parked()
    fail(made, status=429)

    assert (0, 2, 0, 0, False) == numbers(decided(made, Decision.DROP))
    assert ["parked"] == states(made)


@pytest.mark.parametrize(
    ("selected", "delivered"),
    [
        ({"reason": "http_500"}, 0),
        ({"reason": "http_429"}, 2),
        ({"since": 1_700_000_000}, 2),
        ({"since": 1_700_000_000.001}, 0),
        ({"account": "shop"}, 2),
        ({"account": "blog"}, 0),
        ({"table": "views"}, 2),
        ({"table": "clicks"}, 0),
        ({"kinds": ["dead_letter"]}, 0),
        ({"kinds": ["in_doubt", "parked"]}, 2),
        ({}, 2),
    ],
)
def test_chunks_are_selected(selected: dict[str, Any], delivered: int) -> None:
    """What is not selected is left alone, and not counted as kept."""
    made = parked()
    answer = made.invoke_redrive({"kinds": ["parked"]} | selected)

    assert (delivered, 0) == (answer["delivered"], answer["kept"])


def test_one_chunk_of_one_span_alone_is_selected() -> None:
    """Whatever the worklist says."""
    made = several(3)
    first, second, _ = made.spans()
    key = ChunkKey.parse("shop/table_1/0")
    place = next(one for one in made.ledger.worklist(dead=False) if one.after == second.after)

    assert 0 == made.redrive(*ASIDE, place=place, chunk=CHUNK).delivered
    assert 1 == made.redrive(*ASIDE, place=place, chunk=key).delivered
    assert first.entries == made.spans()[0].entries


def test_a_schedule_selects_nothing_by_its_account() -> None:
    """The account in EventBridge's event is AWS's, not one of ours: the scheduled run sends everything."""
    event = {
        "version": "0",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
    }

    assert Selection() == Selection.from_event(event)


# Objects that cannot be read, services that fail, runs that are cut short


def overwrite(made: Delivery, account: str, data: bytes | None) -> None:
    """Put other bytes in place of an account's objects, or delete them."""
    for name in made.objects():
        if name.split("/")[1] == account:
            made.s3.client.delete_object(Bucket=BUCKET, Key=name)
            if data is not None:
                made.s3.client.put_object(Bucket=BUCKET, Key=name, Body=data)


def two_accounts(**changes: Any) -> Delivery:
    """Return a delivery with parked chunks of two accounts, in a span each."""
    made = Delivery(**changes)
    made.map(aaa="aaa_db", bbb="bbb_db")
    fail(made, status=429, retry_after=100)
    for n, name in enumerate(("aaa", "bbb")):
        made.put(envelope(name, {"views": [row(name)]}))
        assert made.deliver(n) is None
    made.td.faults.clear()
    return made


@pytest.mark.parametrize("data", [None, b"", b"other bytes"])
def test_an_object_that_cannot_be_read_stops_nothing(data: bytes | None) -> None:
    """It is said and kept, never settled; the others have their turn."""
    made = two_accounts()
    overwrite(made, "aaa", data)

    assert (1, 1, 0, 0, False) == numbers(made.redrive())
    assert {"aaa/views/0": ("parked", "http_429", 1)} == made.aside()
    (said,) = made.telemetry.said("a set-aside object cannot be read")
    assert made.spans()[0].object_id(ChunkKey.parse("aaa/views/0")) == said["object_id"]


def test_another_chunk_in_an_object_s_place_is_not_sent() -> None:
    """Whatever it holds: the ledger names the digest of what was set aside."""
    made = two_accounts()
    one, other = sorted(made.objects())
    body = made.s3.objects(BUCKET)[other].body
    made.s3.client.put_object(Bucket=BUCKET, Key=one, Body=body)

    assert (1, 1) == numbers(made.redrive())[:2]
    assert {"bbb_db": {"views": 1}} == made.td.counts()


@pytest.mark.parametrize(
    ("client", "call"), [("s3", "get_object"), ("dynamodb", "get_item"), ("dynamodb", "update_item")]
)
def test_troubles_of_one_span_do_not_end_the_run(client: str, call: str) -> None:
    """When bucket or ledger fail for one of them, the others still have their turn."""
    made = two_accounts()
    getattr(made, client).before = {call: once(lose_answer)}

    assert 1 == made.redrive().delivered
    assert 1 == made.redrive().delivered
    assert is_settled(made)


def test_an_unforeseen_error_of_one_span_does_not_end_the_run() -> None:
    """It is counted, and the others still have their turn."""
    made = two_accounts()

    def break_down(_: Any) -> None:
        raise ZeroDivisionError

    made.s3.before = {"get_object": once(lambda: break_down(None))}

    assert (1, 0, 0, 0, False) == numbers(made.redrive())
    assert 1 == made.telemetry.counts["UnforeseenErrors"]


def test_an_object_whose_span_is_not_settled_is_left_alone() -> None:
    """An object that was written before the ledger says so belongs to the worker."""
    made = Delivery()
    made.put(envelope("nobody", {"views": [row("e1")]}))
    made.dynamodb.before = {"update_item": lambda _: lose_answer()}
    assert made.deliver() is not None
    made.dynamodb.before = {}

    assert (0, 0, 0, 0, True) == numbers(made.redrive(State.DEAD_LETTER))
    assert made.deliver() is None
    assert 1 == len(made.objects())
    assert ["dead_letter"] == states(made)


def test_the_ledger_is_written_before_an_object_is_deleted() -> None:
    """A redrive that dies in between leaves an object too many, never a row too few."""
    made = parked()
    made.s3.before = {"delete_object": once(kill)}
    with pytest.raises(KilledError):
        made.redrive()

    assert (State.DELIVERED, 1) == (entry(made).state, len(made.objects()))


def test_an_object_that_is_not_deleted_is_left_for_the_sweeper() -> None:
    """The rows are delivered whatever S3 says."""
    made = parked()
    made.s3.before = {"delete_object": once(lose_answer)}

    assert (2, 0, 0, 0, True) == numbers(made.redrive())
    assert 1 == len(made.objects())
    made.clock.sleep(3600)
    assert {"deleted": 1, "needed": 0, "unknown": 0} == made.invoke_redrive({"sweep": True})
    assert is_settled(made)


CALLS = ("get_object", "get_item", "update_item", "delete_object")


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("in_doubt", [False, True])
def test_a_redrive_that_was_killed_is_finished_by_the_next_one(
    call: str, after: bool, in_doubt: bool
) -> None:
    """Between any two steps: the rows arrive once, and in the end nothing is left."""
    made = parked(in_doubt=in_doubt)
    make_table(made)
    client = made.s3 if "object" in call else made.dynamodb
    (client.after if after else client.before)[call] = once(kill)
    with pytest.raises(KilledError):
        made.redrive()
    made.start()
    made.redrive()
    made.clock.sleep(3600)
    made.invoke_redrive({"sweep": True})

    assert ["e1", "e2"] == made.ids("shop_db", "views")
    assert is_settled(made)


def test_a_run_ends_with_its_time() -> None:
    """A run that cannot do everything in its time says so, and the next one goes on."""
    made = several(20)
    made.td.faults.add(Fault(kind=Kind.SLOW, action=Action.IMPORT, seconds=9.0))
    began = made.clock.now()
    report = made.redrive()

    assert not report.complete
    assert 0 < report.delivered < 20
    assert made.clock.now() - began < INVOCATION_MS / 1000
    made.td.faults.clear()
    made.redrive()
    assert is_settled(made)
    assert 20 == len(made.td.imports())


def test_a_span_with_more_chunks_than_the_time_allows_goes_on_in_the_next_run() -> None:
    """What was fenced and not sent is free of doubt again; the one whose answer was cut off is not."""
    made = Delivery()
    made.map(shop="shop_db")
    made.td.create("shop_db", *(f"table_{n}" for n in range(20)))
    made.put(envelope("shop", {f"table_{n}": [row(f"x{n}")] for n in range(20)}))
    fail(made, status=429, retry_after=100)
    assert made.deliver() is None
    made.td.faults.clear()
    made.td.faults.add(Fault(kind=Kind.SLOW, action=Action.IMPORT, seconds=9.0))
    report = made.redrive()

    assert (False, 20) == (report.complete, report.delivered + report.kept)
    assert {"parked": None, "in_doubt": 1} == {
        one.state.value: one.since and 1 for one in span(made).entries.values() if one.state in ASIDE
    }
    assert 1 == states(made).count("in_doubt")
    made.td.faults.clear()
    made.redrive()
    assert (is_settled(made), 20) == (True, len(made.td.imports()))


# Two at once


def other_sandbox(made: Delivery) -> Delivery:
    """Return the same delivery with another sandbox's redrive, whose calls no hook sees."""
    other = Delivery.__new__(Delivery)
    vars(other).update(vars(made))
    other.dynamodb, other.s3 = made.dynamodb.client, made.s3.client
    return other.start()


POINTS = [
    (client, call, when)
    for client, call in (
        ("dynamodb", "get_item"),
        ("s3", "get_object"),
        ("dynamodb", "update_item"),
        ("s3", "delete_object"),
    )
    for when in ("before", "after")
]


@pytest.mark.parametrize("nth", [0, 1])
@pytest.mark.parametrize(("client", "call", "when"), POINTS)
@pytest.mark.parametrize("kind", ["parked", "in_doubt", "in_doubt_old", "dead_letter", "halves"])
def test_two_redrives_deliver_once(kind: str, client: str, call: str, when: str, nth: int) -> None:
    """By hand beside the schedule, one within any step of the other: the rows are there once, and nothing is left."""
    made = {
        "parked": parked,
        "in_doubt": lambda: parked(in_doubt=True),
        "in_doubt_old": lambda: parked(in_doubt=True),
        "dead_letter": lambda: dead(parked()),
        "halves": halved,
    }[kind]()
    make_table(made)
    if kind == "in_doubt_old":
        made.clock.sleep(3 * 3600)
    calls: list[None] = []

    def run_other(_: Any) -> None:
        calls.append(None)
        if len(calls) == nth + 1:
            other_sandbox(made).redrive(*ASIDE)

    getattr(getattr(made, client), when)[call] = run_other
    made.redrive(*ASIDE)
    made.redrive(*ASIDE)
    made.clock.sleep(3600)
    made.invoke_redrive({"sweep": True})

    assert ["e1", "e2"] == sorted(made.ids("shop_db", "views"))
    assert is_settled(made)


def test_a_send_that_is_under_way_is_not_a_dead_letter_to_drop_or_edit() -> None:
    """While one redrive sends it another one sees that Treasure Data may have it."""
    made = dead(parked())
    seen: list[str] = []
    attempt = made.wiring.uploader.attempt
    made.wiring.uploader.attempt = lambda *sent: (seen.extend(states(made)), attempt(*sent))[1]  # type: ignore[method-assign]
    made.redrive(State.DEAD_LETTER)

    assert ["in_doubt"] == seen


@pytest.mark.parametrize("lands", [0, None])
def test_a_refusal_while_another_redrive_sends_is_a_doubt(lands: int | None) -> None:
    """Who was overtaken calls nothing refused: the other one may have brought the rows."""
    made = dead(parked())
    fail(made, status=422, count=1)

    def send_and_die() -> None:
        fail(made, status=500, count=1, lands=lands)
        other = other_sandbox(made)
        attempt = other.wiring.uploader.attempt
        other.wiring.uploader.attempt = lambda *sent: (attempt(*sent), kill())[0]  # type: ignore[method-assign]
        with pytest.raises(KilledError):
            other.redrive(*ASIDE)

    attempt = made.wiring.uploader.attempt
    made.wiring.uploader.attempt = lambda *sent: (
        attempt(*sent),
        send_and_die() if not taken.append(1) and len(taken) == 1 else None,
    )[0]  # type: ignore[method-assign,func-returns-value]
    taken: list[int] = []
    made.redrive(State.DEAD_LETTER)

    assert ["in_doubt"] == states(made)
    made.clock.sleep(3 * 3600)
    made.start()
    made.redrive()
    assert ["e1", "e2"] == made.ids("shop_db", "views")
