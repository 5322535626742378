"""The redrive and the sweep: the fate of set-aside chunks."""

from collections.abc import Callable
from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest

from doubles.treasure_data import API_KEY, Action, Fault, Kind, Settings, TreasureData
from shared.accounts import Account
from shared.errors import LedgerUnavailableError
from tests.support.delivery import (
    BUCKET,
    KEYS,
    Delivery,
    KilledError,
    envelope,
    kill,
    lose_answer,
    once,
    other_sandbox,
    row,
)
from worker.breaker import SLOW
from worker.deadline import Deadline
from worker.delivery import ASIDE, Decision, Entry, State
from worker.executor import InlineExecutor, Threads
from worker.ledger import Place
from worker.redrive import BREAKER_LEFT_SECONDS, LONGEST_QUERY_SECONDS, SLOW_SECONDS, RedriveReport
from worker.selection import SCHEDULED, Selection
from worker.span import ChunkKey, Span
from worker.treasure_data import Reply
from worker.upload import Upload

CHUNK = ChunkKey.parse("shop/views/0")
ASKABLE_SECONDS = 3 * 3600.0
"""After this many seconds Treasure Data can be asked about a doubt."""


def fault(made: Delivery, status: int, **members: Any) -> None:
    """Make imports fail with a status."""
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=status, **members))


def set_aside(status: int, *data: bytes, **changes: Any) -> Delivery:
    """Return a delivery of these records whose imports failed with the status; from now on they succeed."""
    made = Delivery(**changes)
    made.map(shop="shop_db", blog="blog_db")
    made.td.create("shop_db", "views")
    made.put(*data or (envelope("shop", {"views": [row("e1"), row("e2")]}),))
    fault(made, status)
    assert made.deliver() is None
    made.td.faults.clear()
    return made.start()


def parked(**changes: Any) -> Delivery:
    """Return a delivery with one parked chunk of two rows."""
    made = set_aside(429, **changes)
    assert {"shop/views/0": ("parked", "http_429", 2)} == made.aside()
    return made


def in_doubt(**changes: Any) -> Delivery:
    """Return a delivery with one chunk of two rows in doubt that Treasure Data does not have."""
    made = set_aside(500, **changes)
    assert {"shop/views/0": ("in_doubt", "http_500", 2)} == made.aside()
    return made


def dead(**changes: Any) -> Delivery:
    """Return a delivery with a dead letter of two rows."""
    made = set_aside(415, **changes)
    assert {"shop/views/0": ("dead_letter", "http_415", 2)} == made.aside()
    return made


def unaskable(setting: str) -> Delivery:
    """Return a delivery with a chunk long in doubt, and a key that may not query."""
    made = in_doubt(unaskable_doubt=setting)
    keys = {API_KEY: frozenset({Action.IMPORT, Action.CREATE})}
    made.td = TreasureData(clock=made.clock, keys=keys, settings=Settings())
    made.td.create("shop_db", "views")
    made.clock.sleep(ASKABLE_SECONDS)
    return made.start()


def span(made: Delivery) -> Span:
    """Return the first span."""
    return made.spans()[0]


def entry(made: Delivery) -> Entry:
    """Return the chunk's ledger entry."""
    return span(made).entry(CHUNK)


def breakers(made: Delivery) -> list[str]:
    """Return the databases whose breaker is open."""
    return [breaker.database for breaker in made.ledger.breakers()]


def around_attempts(
    made: Delivery, before: Callable[[], Any] = lambda: None, after: Callable[[], Any] = lambda: None
) -> list[str]:
    """Call functions before and after each attempt; return a list of the chunks attempted."""
    attempted: list[str] = []
    attempt = made.redrive_wiring.uploader.attempt

    def watched(upload: Upload, timeout: float, deadline: Deadline) -> Reply:
        attempted.append(upload.chunk.key.name)
        before()
        reply = attempt(upload, timeout, deadline)
        after()
        return reply

    made.redrive_wiring.uploader.attempt = watched  # type: ignore[method-assign]
    return attempted


def assert_delivered_once(made: Delivery) -> None:
    """Check that both rows were delivered once and nothing of them is left."""
    assert ["e1", "e2"] == sorted(made.ids("shop_db", "views"))
    assert ({}, []) == (span(made).entries, made.objects())


# What is sent, and to where


@pytest.mark.parametrize("make", [parked, in_doubt])
def test_the_schedule_delivers_chunks_that_are_parked_or_in_doubt(make: Callable[[], Delivery]) -> None:
    """Object, entry and breaker are then gone."""
    made = make()

    assert RedriveReport(delivered=2) == made.redrive()
    assert_delivered_once(made)
    assert [] == breakers(made)
    assert 2 == made.telemetry.total("redrive", "delivered")


def test_parked_rows_go_to_the_account_s_current_database() -> None:
    """Treasure Data cannot have them, so they follow their account."""
    made = parked()
    made.map(shop="new_db")
    made.start()

    assert RedriveReport(delivered=2) == made.redrive()
    assert {"new_db": {"views": 2}, "shop_db": {"views": 0}} == made.td.counts()


def test_rows_in_doubt_go_to_their_planned_database() -> None:
    """Treasure Data may have them there, so they are sent under the same id."""
    made = in_doubt()
    unique_id = span(made).unique_id(CHUNK, "shop_db", 0)
    made.map(shop="new_db")
    made.start()

    assert RedriveReport(delivered=2) == made.redrive()
    assert [("shop_db", unique_id)] == [(one.database, one.unique_id) for one in made.td.imports()]


def test_a_doubt_is_settled_in_the_database_where_it_arose() -> None:
    """A redrive opened it at the account's new database; the account has been remapped since."""
    made = parked()
    made.map(shop="new_db")
    made.td.create("new_db", "views")
    fault(made, 500, count=1, lands=0)
    made.start()
    assert RedriveReport(kept=2, complete=False) == made.redrive()
    made.map(shop="third_db")
    made.clock.sleep(ASKABLE_SECONDS)
    made.start()

    assert RedriveReport(delivered=2) == made.redrive()
    assert {"new_db": {"views": 2}, "shop_db": {"views": 0}} == made.td.counts()


def test_a_former_database_is_not_recreated() -> None:
    """Once the doubt is over, the rows are a dead letter that goes to the account's current database."""
    made = Delivery()
    made.map(shop="shop_db")
    made.put(envelope("shop", {"views": [row("e1")]}))
    fault(made, 500)
    assert made.deliver() is None
    made.td.faults.clear()
    made.map(shop="new_db")
    made.start()
    made.redrive()
    assert {"shop/views/0": ("in_doubt", "no_such_database", 1)} == made.aside()
    made.clock.sleep(ASKABLE_SECONDS)
    made.start()

    assert RedriveReport(dead=1) == made.redrive()
    assert {"shop/views/0": ("dead_letter", "no_such_database", 1)} == made.aside()
    assert RedriveReport(delivered=1) == made.redrive(State.DEAD_LETTER)
    assert {"new_db": {"views": 1}} == made.td.counts()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (None, "unknown_account"),
        (Account("shop_db", "disabled").to_fields(), "disabled_account"),
        ({"database": "No!"}, "invalid_account"),
    ],
)
def test_parked_rows_of_a_removed_account_become_dead_letters(
    fields: dict[str, str] | None, reason: str
) -> None:
    """They have no destination until a person decides."""
    made = parked()
    made.redis.delete(KEYS.of("shop"))
    if fields:
        made.redis.hset(KEYS.of("shop"), mapping=fields)
    made.start()

    assert RedriveReport(dead=2) == made.redrive()
    assert {"shop/views/0": ("dead_letter", reason, 2)} == made.aside()
    assert 2 == made.telemetry.counts["RowsDeadLettered"]


@pytest.mark.parametrize("large", [False, True])
def test_a_dead_letter_that_is_rejected_again_is_not_counted_again(large: bool) -> None:
    """Nor are its halves."""
    made = dead()
    if large:
        made.td.settings = Settings(largest_import=20)
    else:
        fault(made, 422)
    made.redrive(*ASIDE)

    assert {"dead_letter"} == {one[0] for one in made.aside().values()}
    assert 0 == made.telemetry.counts["RowsDeadLettered"]


def test_a_run_interrupted_by_a_service_is_not_complete() -> None:
    """Some of the selected chunks have not been tried."""
    made = parked()
    made.s3.before["get_object"] = once(lose_answer)

    assert RedriveReport(kept=2, complete=False) == made.redrive()
    assert RedriveReport(delivered=2) == made.redrive()


def test_a_database_is_left_alone_after_consecutive_failures() -> None:
    """A success in between restarts the count."""
    made = set_aside(429, *(envelope("shop", {f"table_{n}": [row(f"x{n}")]}) for n in range(6)))
    made.ledger.close_breaker("shop_db")
    attempted: list[str] = []

    def two_of_three_fail() -> None:
        made.td.faults.clear()
        if len(attempted) % 3:
            fault(made, 429)

    attempted = around_attempts(made, before=two_of_three_fail)
    report = made.redrive()

    assert (6, 2, 4) == (len(attempted), report.delivered, report.kept)


def test_halves_are_fenced_before_they_are_sent() -> None:
    """Like any set-aside chunk, a half is in doubt while it is being sent."""
    made = parked()
    made.td.settings = Settings(largest_import=80)
    states = []
    attempted: list[str] = []
    attempted = around_attempts(
        made, before=lambda: states.append(span(made).entry(ChunkKey.parse(attempted[-1])).state)
    )
    made.redrive()

    assert 3 == len(attempted)
    assert {State.IN_DOUBT} == set(states)


def test_rows_in_doubt_need_no_account() -> None:
    """The plan has their database."""
    made = in_doubt()
    made.redis.delete(KEYS.of("shop"))
    made.start()

    assert RedriveReport(delivered=2) == made.redrive()


def test_rows_stay_parked_while_accounts_are_unavailable() -> None:
    """An emptied Redis makes no dead letters."""
    made = parked()
    made.redis.flushall()
    made.start()

    assert RedriveReport(kept=2) == made.redrive()
    assert {"shop/views/0": ("parked", "http_429", 2)} == made.aside()


def test_rows_of_a_revoked_key_wait_until_it_is_restored() -> None:
    """Redriving them by hand before that changes nothing."""
    made = Delivery()
    revoked = Account("shop_db", "active", frozenset({"k1"}))
    made.redis.hset(KEYS.of("shop"), mapping=revoked.to_fields())
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.deliver()
    assert RedriveReport(kept=1) == made.redrive(State.DEAD_LETTER)
    made.redis.delete(KEYS.of("shop"))
    made.map(shop="shop_db")
    made.start()

    assert RedriveReport(delivered=1) == made.redrive(State.DEAD_LETTER)


def test_a_chunk_parked_for_too_long_becomes_a_dead_letter() -> None:
    """A person may still send it."""
    made = parked()
    made.clock.sleep(15 * 86_400)
    made.start()

    assert RedriveReport(dead=2) == made.redrive()
    assert {"shop/views/0": ("dead_letter", "parked_too_long", 2)} == made.aside()
    assert RedriveReport() == made.redrive()
    assert RedriveReport(delivered=2) == made.redrive(State.DEAD_LETTER)


def test_a_chunk_in_doubt_never_expires() -> None:
    """Treasure Data may have it, so it waits for an answer however long that takes."""
    made = in_doubt()
    made.clock.sleep(15 * 86_400)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=500))
    assert RedriveReport(kept=2) == made.redrive()
    made.td.faults.clear()

    assert RedriveReport(delivered=2) == made.redrive()


# Treasure Data's answers


def test_a_rejected_chunk_becomes_a_dead_letter_with_the_new_reason() -> None:
    """It was not in doubt, so nothing has to be asked."""
    made = parked()
    fault(made, 415)

    assert RedriveReport(dead=2) == made.redrive()
    assert {"shop/views/0": ("dead_letter", "http_415", 2)} == made.aside()
    assert entry(made).since is None


@pytest.mark.parametrize("accepted", [False, True])
def test_a_rejected_chunk_in_doubt_is_asked_about(accepted: bool) -> None:
    """An earlier attempt may have delivered the rows, so a later rejection does not make them dead letters."""
    made = parked()
    fault(made, 500, count=1, lands=0 if accepted else None)
    made.redrive()
    made.td.faults.clear()
    fault(made, 415)
    made.redrive()
    assert {"shop/views/0": ("in_doubt", "http_415", 2)} == made.aside()
    made.clock.sleep(ASKABLE_SECONDS)

    assert RedriveReport(delivered=2 * accepted, dead=2 * (not accepted)) == made.redrive()
    assert ["e1", "e2"] * accepted == made.ids("shop_db", "views")


def test_a_refused_redrive_keeps_an_earlier_doubt() -> None:
    """The refusal of its own attempt says nothing about earlier ones."""
    made = in_doubt()
    before = entry(made)
    made.clock.sleep(60)
    fault(made, 429)

    assert RedriveReport(kept=2, complete=False) == made.redrive()
    assert before == entry(made)


def test_a_refused_redrive_opens_no_doubt() -> None:
    """A parked chunk stays parked, with its age."""
    made = parked()
    before = entry(made)
    made.clock.sleep(60)
    fault(made, 429)

    assert RedriveReport(kept=2, complete=False) == made.redrive()
    assert before == entry(made)


def test_a_checksum_mismatch_is_in_doubt() -> None:
    """If Treasure Data reports other bytes than were sent, it is asked what it has."""
    made = parked()
    made.td.faults.add(Fault(kind=Kind.WRONG_MD5, action=Action.IMPORT, count=1))
    made.redrive()
    assert {"shop/views/0": ("in_doubt", "md5_mismatch", 2)} == made.aside()
    made.clock.sleep(ASKABLE_SECONDS)

    assert RedriveReport(delivered=2) == made.redrive()
    assert_delivered_once(made)


def test_chunks_of_one_span_are_independent() -> None:
    """Each rejected chunk of a span ends without a doubt."""
    data = envelope("shop", {"views": [row("e1")]}), envelope("blog", {"views": [row("e2")]})
    made = set_aside(429, *data)
    fault(made, 415)

    assert RedriveReport(dead=2) == made.redrive()
    assert {None} == {one.since for one in span(made).entries.values()}


# Halves


def test_a_chunk_that_is_too_large_is_halved_within_one_run() -> None:
    """The halves are written first, then sent under their own ids."""
    made = parked()
    made.td.settings = replace(made.td.settings, largest_import=70)

    assert RedriveReport(delivered=2) == made.redrive()
    assert_delivered_once(made)
    assert [1, 1] == [len(one.rows) for one in made.td.imports()]


def test_halves_are_counted_separately() -> None:
    """One half is delivered, the other a dead letter. Their object stays until both are settled."""
    made = parked()
    made.td.settings = replace(made.td.settings, largest_import=70)

    def reject_second() -> None:
        if attempted[-1].endswith(".1"):
            fault(made, 415)

    attempted = around_attempts(made, before=reject_second)

    assert RedriveReport(delivered=1, dead=1) == made.redrive()
    assert {"shop/views/0.1": ("dead_letter", "http_415", 1)} == made.aside()
    assert 1 == len(made.objects())
    made.start()
    made.td.faults.clear()
    assert RedriveReport(delivered=1) == made.redrive(State.DEAD_LETTER)
    assert_delivered_once(made)


def test_a_chunk_in_doubt_is_halved_only_after_treasure_data_was_asked() -> None:
    """Treasure Data may have it whole. Only after that is a row that is too large a dead letter."""
    made = in_doubt()
    largest = made.td.settings.largest_import
    made.td.settings = replace(made.td.settings, largest_import=1)
    made.redrive()
    assert {"shop/views/0": ("in_doubt", "too_large", 2)} == made.aside()
    made.clock.sleep(ASKABLE_SECONDS)

    assert RedriveReport(dead=2) == made.redrive()
    assert {f"shop/views/0.{n}": ("dead_letter", "row_too_large", 1) for n in range(2)} == made.aside()
    made.td.settings = replace(made.td.settings, largest_import=largest)
    assert RedriveReport(delivered=2) == made.redrive(State.DEAD_LETTER)
    assert_delivered_once(made)


def test_a_run_with_halves_left_is_not_complete() -> None:
    """Finding one row that is too large among thousands takes more halvings than a run makes."""
    rows = [row("big", text="x" * 300_000), *(row(f"e{n}") for n in range(4_999))]
    made = set_aside(429, envelope("shop", {"views": rows}))
    made.td.settings = replace(made.td.settings, largest_import=290_000)
    first = made.redrive()
    assert (False, 5_000, 0) == (first.complete, first.delivered + first.kept, first.dead)

    assert RedriveReport(delivered=first.kept - 1, dead=1) == made.redrive()
    assert 4_999 == len(set(made.ids("shop_db", "views"))) == len(made.ids("shop_db", "views"))


# Dead letters


def test_dead_letters_wait_for_a_person() -> None:
    """Redriven by hand, those with rows are sent, and undecodable ones stay."""
    made = Delivery()
    made.put(envelope("shop", {"views": [row("e1")], "clicks": [row("e2")]}), b"junk")
    assert made.deliver() is None
    made.map(shop="shop_db")
    made.start()

    assert RedriveReport() == made.redrive()
    assert RedriveReport(delivered=2, kept=1) == made.redrive(State.DEAD_LETTER)
    assert {"shop_db": {"clicks": 1, "views": 1}} == made.td.counts()
    assert [("dead_letter", "undecodable", 1)] == list(made.aside().values())


def test_a_dead_letter_that_is_rejected_again_stays_one() -> None:
    """The report counts it as kept, not as a new dead letter."""
    made = dead()
    fault(made, 415)

    assert RedriveReport(kept=2) == made.redrive(State.DEAD_LETTER)
    assert {"shop/views/0": ("dead_letter", "http_415", 2)} == made.aside()


@pytest.mark.parametrize("accepted", [False, True])
def test_the_schedule_settles_a_dead_letter_s_send_in_doubt(accepted: bool) -> None:
    """Whether or not Treasure Data accepted it, it is delivered once in the end."""
    made = dead()
    fault(made, 500, count=1, lands=0 if accepted else None)
    assert RedriveReport(kept=2, complete=False) == made.redrive(State.DEAD_LETTER)
    assert {"shop/views/0": ("in_doubt", "http_415", 2)} == made.aside()

    assert RedriveReport(delivered=2) == made.redrive()
    assert_delivered_once(made)


def test_a_planned_dead_letter_has_no_doubt() -> None:
    """It was never to be sent, even if the invocation that planned it was killed."""
    made = Delivery()
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.s3.before = {"put_object": once(kill)}
    with pytest.raises(KilledError):
        made.deliver()
    made.start()
    assert made.deliver() is None
    made.map(shop="shop_db")
    made.start()

    assert RedriveReport(delivered=1) == made.redrive(State.DEAD_LETTER)


# Chunks that cannot be asked about, and decisions by a person


def test_an_unaskable_chunk_is_sent_and_reported() -> None:
    """The key may not query, so the rows are sent under a new id, and the log has both ids."""
    made = unaskable("send")
    ids = [span(made).unique_id(CHUNK, "shop_db", generation) for generation in (0, 1)]

    assert RedriveReport(delivered=2) == made.redrive()
    assert 2 == made.telemetry.counts["RowsAmbiguous"]
    (line,) = made.telemetry.said("ambiguous: sent again although Treasure Data may have the rows")
    assert (*ids, 2) == (line["unique_id"], line["new_unique_id"], line["rows"])
    assert [ids[1]] == [one.unique_id for one in made.td.imports() if one.rows]


def test_an_unaskable_chunk_can_be_kept() -> None:
    """By setting, it waits for a person instead."""
    made = unaskable("keep")

    assert RedriveReport(kept=2) == made.redrive()
    assert ([], 0) == (made.td.imports(), made.telemetry.counts["RowsAmbiguous"])


def test_an_unaskable_chunk_that_is_rejected_becomes_a_dead_letter() -> None:
    """It is reported as ambiguous once, and the schedule does not send it again."""
    made = unaskable("send")
    around_attempts(made, before=lambda: fault(made, 415))
    assert RedriveReport(dead=2) == made.redrive()
    for _ in range(3):
        made.clock.sleep(ASKABLE_SECONDS)
        made.redrive()

    assert 2 == made.telemetry.counts["RowsAmbiguous"]
    assert {"shop/views/0": ("dead_letter", "http_415", 2)} == made.aside()


def test_a_database_without_any_access_is_asked_later() -> None:
    """While the key may neither query nor write there, its rows do not count as unaskable."""
    made = in_doubt()
    made.clock.sleep(ASKABLE_SECONDS)
    made.td.faults.add(Fault(kind=Kind.STATUS, database="shop_db", status=403))
    before = entry(made)
    assert 2 == made.redrive().kept
    assert before == entry(made)
    made.td.faults.clear()

    assert RedriveReport(delivered=2) == made.redrive()
    assert 0 == made.telemetry.counts["RowsAmbiguous"]


def test_a_query_that_is_forbidden_once_is_repeated() -> None:
    """One refusal does not prove that a key that may write may not query."""
    made = in_doubt()
    made.clock.sleep(ASKABLE_SECONDS)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=403, count=1))

    assert RedriveReport(delivered=2) == made.redrive()
    assert 0 == made.telemetry.counts["RowsAmbiguous"]


def test_a_person_can_send_an_unaskable_chunk() -> None:
    """It is sent under a new id, and the log says that the rows may be duplicates."""
    made = unaskable("keep")
    unique_id = span(made).unique_id(CHUNK, "shop_db", 1)

    assert RedriveReport(delivered=2) == made.redrive(decision=Decision.SEND)
    assert [unique_id] == [one.unique_id for one in made.td.imports()]
    assert ([], 2) == (made.objects(), made.telemetry.counts["RowsAmbiguous"])


def test_a_person_s_send_keeps_an_id_that_is_remembered() -> None:
    """While Treasure Data remembers the id, a new one could only create duplicates."""
    made = in_doubt()
    unique_id = span(made).unique_id(CHUNK, "shop_db", 0)

    assert RedriveReport(delivered=2) == made.redrive(decision=Decision.SEND)
    assert [unique_id] == [one.unique_id for one in made.td.imports()]
    assert 0 == made.telemetry.counts["RowsAmbiguous"]


def test_the_schedule_settles_a_person_s_send_in_doubt() -> None:
    """The new id has a doubt of its own."""
    made = in_doubt()
    made.clock.sleep(ASKABLE_SECONDS)
    fault(made, 500, count=1, lands=0)
    assert RedriveReport(kept=2, complete=False) == made.redrive(decision=Decision.SEND)
    assert (1, round(made.clock.now() * 1000)) == (entry(made).generation, entry(made).since)

    assert RedriveReport(delivered=2) == made.redrive()
    assert_delivered_once(made)


@pytest.mark.parametrize("make", [in_doubt, dead])
def test_a_person_can_drop_rows(make: Callable[[], Delivery]) -> None:
    """They count as dropped; nothing is sent, and their object is deleted."""
    made = make()

    assert RedriveReport(dropped=2) == made.redrive(*ASIDE, decision=Decision.DROP)
    assert ([], [], {}) == (made.td.imports(), made.objects(), made.aside())
    assert (State.DROPPED, 2) == (entry(made).state, entry(made).rows)
    assert RedriveReport() == made.redrive(*ASIDE)


def test_parked_rows_are_sent_even_if_told_to_drop() -> None:
    """Treasure Data cannot have them, and nobody rejected them."""
    made = parked()

    assert RedriveReport(delivered=2) == made.redrive(*ASIDE, decision=Decision.DROP)


def test_a_drop_that_comes_second_drops_nothing() -> None:
    """Rows that another redrive delivered meanwhile count as delivered."""
    made = dead()
    other = other_sandbox(made)
    made.dynamodb.before = {"update_item": once(lambda: other.redrive(State.DEAD_LETTER))}

    assert RedriveReport(delivered=2) == made.redrive(State.DEAD_LETTER, decision=Decision.DROP)
    assert_delivered_once(made)


# Selection


SELECTED = (
    envelope("shop", {"views": [row("v1"), row("v2")], "clicks": [row("c1")]}),
    envelope("blog", {"views": [row("b1")]}),
)


@pytest.mark.parametrize(
    ("selected", "delivered"),
    [
        ({}, ["b1", "c1", "v1", "v2"]),
        ({"kinds": ["parked"]}, ["b1", "c1", "v1", "v2"]),
        ({"kinds": ["in_doubt", "dead_letter"]}, []),
        ({"account": "shop"}, ["c1", "v1", "v2"]),
        ({"table": "views"}, ["b1", "v1", "v2"]),
        ({"account": "shop", "table": "views"}, ["v1", "v2"]),
        ({"account": "nobody"}, []),
        ({"reason": "http_429"}, ["b1", "c1", "v1", "v2"]),
        ({"reason": "http_500"}, []),
        ({"since": 1_699_999_000}, ["b1", "c1", "v1", "v2"]),
        ({"since": 1_800_000_000}, []),
    ],
)
def test_a_selection_limits_the_redrive(selected: dict[str, Any], delivered: list[str]) -> None:
    """Other chunks are left alone and not counted."""
    made = set_aside(429, *SELECTED)
    answer = made.invoke_redrive(selected)

    found = [event for tables in made.td.event_ids().values() for ids in tables.values() for event in ids]
    assert delivered == sorted(found)
    expected = {
        "delivered": len(delivered),
        "kept": 0,
        "dead": 0,
        "dropped": 0,
        "returned": 0,
        "complete": True,
    }
    assert expected == answer


def test_a_place_and_chunk_select_one_chunk() -> None:
    """Nothing else of its span is sent, and the worklist is not read."""
    made = set_aside(429, *SELECTED)
    found = span(made)
    made.dynamodb.calls.clear()
    place = Place(found.chain, found.after)

    assert RedriveReport(delivered=2) == made.redrive(place=place, chunk=CHUNK)
    assert {"shop/clicks/0", "blog/views/0"} == made.aside().keys()
    assert 1 == made.dynamodb.calls.count("query")  # the one for breakers


def test_a_missing_span_has_nothing_to_redrive() -> None:
    """The index may lag and name spans with nothing left set aside."""
    made = parked()
    found = span(made)

    assert RedriveReport() == made.redrive(place=Place(found.chain, found.last))


@pytest.mark.parametrize("event", [{"kinds": ["delivered!"]}, {"decision": "burn"}])
def test_an_invalid_selection_is_an_error(event: dict[str, Any]) -> None:
    """Nothing is redriven by mistake."""
    with pytest.raises(ValueError, match="is not a valid"):
        Selection.from_event(event)


def test_a_scheduled_event_s_account_is_not_a_filter() -> None:
    """The account in EventBridge's event is AWS's. The schedule selects everything parked or in doubt."""
    event = {"version": "0", "source": "aws.events", "account": "123456789012"}

    assert Selection(SCHEDULED) == Selection.from_event(event)


# Databases that fail


def failing_tables(count: int) -> Delivery:
    """Return a delivery with parked chunks of one database that still fails."""
    made = set_aside(429, envelope("shop", {f"table_{n}": [row(f"x{n}")] for n in range(count)}))
    fault(made, 429)
    return made


def test_a_database_with_an_open_breaker_is_tried_once_a_run() -> None:
    """While it fails, only one chunk is attempted, and nothing changes."""
    made = failing_tables(10)
    before = span(made).entries
    attempted = around_attempts(made)

    assert RedriveReport(kept=10, complete=False) == made.redrive()
    assert 1 == len(attempted)
    assert (before, ["shop_db"]) == (span(made).entries, breakers(made))


def test_a_database_that_begins_to_fail_is_left_alone_after_three_chunks() -> None:
    """A single failing chunk does not stop the others, but three failures in a row do."""
    made = failing_tables(10)
    made.ledger.close_breaker("shop_db")
    attempted = around_attempts(made)

    assert RedriveReport(kept=10, complete=False) == made.redrive()
    assert 3 == len(attempted)
    assert [["shop_db"]] == [line["failing"] for line in made.telemetry.said("redrive")]


def test_one_failing_chunk_does_not_stop_the_others() -> None:
    """The others are delivered, and the breaker closes."""
    made = set_aside(429, envelope("shop", {f"table_{n}": [row(f"x{n}")] for n in range(10)}))
    fault(made, 429, table="table_5")

    assert RedriveReport(delivered=9, kept=1, complete=False) == made.redrive()
    assert {"shop/table_5/0": ("parked", "http_429", 1)} == made.aside()
    assert [] == breakers(made)


def test_accounts_are_redriven_independently() -> None:
    """One account's failing database does not delay the rows of others."""
    names = [f"acct_{n}" for n in range(5)]
    made = Delivery()
    made.map(**{name: f"db_{name}" for name in names})
    made.put(*(envelope(name, {f"table_{t}": [row(f"{name}{t}")] for t in range(3)}) for name in names))
    fault(made, 429, retry_after=100)
    assert made.deliver() is None
    made.td.faults.clear()
    fault(made, 500, database="db_acct_0")

    assert RedriveReport(delivered=12, kept=3, complete=False) == made.redrive()
    assert {"acct_0"} == {name.split("/")[0] for name in made.aside()}
    assert ["db_acct_0"] == breakers(made)


@pytest.mark.parametrize("executors", [InlineExecutor, Threads])
@pytest.mark.parametrize("status", [429, 500])
def test_spans_of_one_failing_database_try_it_once(status: int, executors: Callable[[], Any]) -> None:
    """They share the result, whether their rows are in doubt or parked."""
    made = Delivery()
    made.map(shop="shop_db")
    made.td.create("shop_db", "views")
    made.put(*(envelope("shop", {"views": [row(f"e{n}")]}) for n in range(5)))
    fault(made, status)
    for n in range(5):
        assert made.deliver(n, n + 1) is None
    made.executors = executors
    made.start()
    attempted = around_attempts(made)

    assert RedriveReport(kept=5, complete=False) == made.redrive()
    assert 1 == len(attempted)


def test_databases_with_an_open_breaker_come_last() -> None:
    """A database that may fail delays none that works."""
    data = envelope("shop", {"views": [row("e1")]}), envelope("blog", {"views": [row("e2")]})
    made = set_aside(429, *data)
    made.ledger.close_breaker("blog_db")

    assert RedriveReport(delivered=2) == made.redrive()
    assert ["blog_db", "shop_db"] == [one.database for one in made.td.imports()]


def test_spans_are_redriven_concurrently() -> None:
    """Two of them are being sent at the same time."""
    data = [envelope(name, {"views": [row(name)]}) for name in ("shop", "blog")]
    made = Delivery(executors=Threads)
    made.map(shop="shop_db", blog="blog_db")
    made.put(*data)
    fault(made, 429)
    for n in range(2):
        assert made.deliver(n, n + 1) is None
    made.td.faults.clear()
    both = Barrier(2, timeout=60)
    around_attempts(made, before=both.wait)

    assert RedriveReport(delivered=2) == made.redrive()


def test_an_idle_breaker_is_closed_by_a_probe() -> None:
    """A database with nothing set aside is probed after a while. While it fails, its breaker stays open."""
    made = Delivery()
    made.ledger.open_breaker("shop_db", "http_500")
    made.redrive()
    assert ["shop_db"] == breakers(made)
    made.clock.sleep(BREAKER_LEFT_SECONDS + 1)
    fault(made, 500)
    made.redrive()
    assert ["shop_db"] == breakers(made)
    made.td.faults.clear()
    made.redrive()

    assert [] == breakers(made)
    assert [] == made.td.imports()


def test_an_incomplete_run_closes_idle_breakers() -> None:
    """A database that fails in run after run does not keep another one's breaker open."""
    made = parked()
    made.ledger.open_breaker("blog_db", "http_500")
    made.clock.sleep(BREAKER_LEFT_SECONDS + 1)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, database="shop_db", status=500))

    assert not made.redrive().complete
    assert ["shop_db"] == breakers(made)


def test_a_breaker_is_probed_while_its_chunks_only_wait() -> None:
    """Otherwise new rows would be parked for as long as an old doubt cannot be asked about."""
    made = in_doubt()
    made.clock.sleep(3600 + 60)  # too late to resend, too early to ask

    assert RedriveReport(kept=2) == made.redrive()
    assert [] == breakers(made)


def test_a_database_that_has_just_rejected_rows_is_not_probed() -> None:
    """Its breaker closes in a later run, once it accepts an import."""
    made = parked()
    made.clock.sleep(BREAKER_LEFT_SECONDS + 1)
    fault(made, 415, table="views")
    assert RedriveReport(dead=2) == made.redrive()
    assert ["shop_db"] == breakers(made)
    made.redrive()

    assert [] == breakers(made)


def test_a_breaker_that_could_not_be_closed_is_closed_by_a_later_run() -> None:
    """The run ends with the ledger's failure, but its rows are delivered."""
    made = parked()
    made.dynamodb.before = {"put_item": once(lose_answer)}
    with pytest.raises(LedgerUnavailableError):
        made.redrive()
    assert_delivered_once(made)
    assert ["shop_db"] == breakers(made)
    made.clock.sleep(BREAKER_LEFT_SECONDS + 1)
    made.redrive()

    assert [] == breakers(made)


def test_a_slow_database_s_breaker_stays_open_until_it_is_fast() -> None:
    """Its rows are delivered all the same.

    After an hour the breaker closes even if the database is still slow.
    """
    made = set_aside(429, *(envelope("shop", {f"table_{n}": [row(f"x{n}")]}) for n in range(3)))
    made.ledger.open_breaker("shop_db", SLOW)
    made.td.faults.add(Fault(kind=Kind.SLOW, action=Action.IMPORT, seconds=3.0))

    assert RedriveReport(delivered=3) == made.redrive()
    assert ["shop_db"] == breakers(made)
    made.clock.sleep(SLOW_SECONDS)
    made.redrive()
    assert [] == breakers(made)


# Kills, races and lost answers


def settle(made: Delivery, *states: State) -> None:
    """Run new sandboxes until nothing is left, and check that the rows were delivered once."""
    made.dynamodb.before, made.dynamodb.after, made.s3.before, made.s3.after = {}, {}, {}, {}
    for _ in range(2):
        made.start()
        made.redrive(*states)
        made.clock.sleep(ASKABLE_SECONDS)
    made.invoke_redrive({"sweep": True})
    assert_delivered_once(made)


def at_call(number: int, act: Callable[[], Any]) -> Callable[..., None]:
    """Return a hook that acts at the call with this number, counted from 0."""
    calls: list[dict[str, Any]] = []

    def is_its_turn(request: dict[str, Any]) -> bool:
        calls.append(request)
        return len(calls) > number

    return once(act, is_its_turn)


@pytest.mark.parametrize("make", [parked, in_doubt, dead])
@pytest.mark.parametrize(
    ("client", "moment", "call", "number"),
    [
        ("s3", "before", "get_object", 0),
        ("dynamodb", "before", "update_item", 0),  # the fence
        ("dynamodb", "after", "update_item", 0),
        ("dynamodb", "before", "update_item", 1),  # the outcome of the send
        ("dynamodb", "after", "update_item", 1),
        ("s3", "before", "delete_object", 0),
        ("s3", "after", "delete_object", 0),
    ],
)
def test_a_redrive_may_be_killed_at_any_time(
    make: Callable[[], Delivery], client: str, moment: str, call: str, number: int
) -> None:
    """Later runs finish whatever it has written or deleted."""
    made = make()
    getattr(getattr(made, client), moment)[call] = at_call(number, kill)
    with pytest.raises(KilledError):
        made.redrive(*ASIDE)

    settle(made, *ASIDE)


@pytest.mark.parametrize("make", [parked, in_doubt, dead])
def test_a_redrive_may_be_killed_after_its_send(make: Callable[[], Delivery]) -> None:
    """The ledger recorded a doubt before the send began."""
    made = make()
    around_attempts(made, after=kill)
    with pytest.raises(KilledError):
        made.redrive(*ASIDE)
    assert State.IN_DOUBT is entry(made).state

    settle(made)


@pytest.mark.parametrize("make", [parked, in_doubt, dead])
@pytest.mark.parametrize("number", [0, 1])
def test_a_later_run_recovers_from_a_lost_ledger_answer(make: Callable[[], Delivery], number: int) -> None:
    """A redrive that cannot know what the ledger has sends nothing.

    What it has sent, the next run settles.
    """
    made = make()
    made.dynamodb.after["update_item"] = at_call(number, lose_answer)

    assert RedriveReport(kept=2, complete=False) == made.redrive(*ASIDE)
    assert number == len(made.td.imports())
    assert 1 == len(made.telemetry.said("the redrive could not finish a span"))
    settle(made)


def test_a_failing_object_read_does_not_stop_the_others() -> None:
    """The span is retried in the next run."""
    made = set_aside(429, *(envelope(name, {"views": [row(name)]}) for name in ("shop", "blog")))
    made.s3.before = {"get_object": once(lose_answer)}
    assert RedriveReport(kept=2, complete=False) == made.redrive()

    assert RedriveReport(delivered=2) == made.redrive()


def test_a_missing_object_does_not_stop_the_others() -> None:
    """Its entry stays, and the log names the object."""
    made = set_aside(429, *(envelope(name, {"views": [row(name)]}) for name in ("shop", "blog")))
    (gone,) = [name for name in made.objects() if "/blog/" in name]
    made.s3.delete_object(Bucket=BUCKET, Key=gone)

    assert RedriveReport(delivered=1, kept=1, complete=False) == made.redrive()
    assert {"blog/views/0": ("parked", "http_429", 1)} == made.aside()
    (line,) = made.telemetry.said("a set-aside object cannot be read")
    assert line["object_id"] in gone


def test_an_unforeseen_error_does_not_stop_other_spans() -> None:
    """It is counted, and the run goes on."""
    made = Delivery()
    made.map(shop="shop_db", blog="blog_db")
    made.put(*(envelope(name, {"views": [row(name)]}) for name in ("shop", "blog")))
    fault(made, 429)
    for n in range(2):
        assert made.deliver(n, n + 1) is None
    made.td.faults.clear()
    made.start()

    def fail() -> None:
        raise RuntimeError("unforeseen")

    made.s3.before = {"get_object": once(fail)}

    assert RedriveReport(delivered=1, kept=1, complete=False) == made.redrive()
    assert 1 == made.telemetry.counts["UnforeseenErrors"]
    assert RedriveReport(delivered=1) == made.redrive()


@pytest.mark.parametrize("make", [parked, in_doubt, dead])
def test_an_overtaken_redrive_decides_again(make: Callable[[], Delivery]) -> None:
    """It finds everything done, and reports the rows as delivered."""
    made = make()
    other = other_sandbox(made)
    made.dynamodb.before = {"update_item": once(lambda: other.redrive(*ASIDE))}

    assert RedriveReport(delivered=2) == made.redrive(*ASIDE)
    assert_delivered_once(made)
    assert 0 == made.td.duplicates


@pytest.mark.parametrize("make", [parked, in_doubt, dead])
def test_concurrent_redrives_send_under_one_id(make: Callable[[], Delivery]) -> None:
    """Treasure Data ignores the repetition."""
    made = make()
    other = other_sandbox(made)
    hook = once(lambda: other.redrive(*ASIDE))
    around_attempts(made, before=lambda: hook({}))

    assert 2 == made.redrive(*ASIDE).delivered
    assert_delivered_once(made)
    assert 1 == made.td.duplicates


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_rejection_during_another_redrive_s_send_is_in_doubt(moment: str) -> None:
    """A redrive that was killed after its send, before or after our fence, may have delivered the rows."""
    made = parked()
    other = other_sandbox(made)
    around_attempts(other, after=kill)

    def run_other() -> None:
        with pytest.raises(KilledError):
            other.redrive()
        fault(made, 415, count=1)

    getattr(made.dynamodb, moment)["update_item"] = once(run_other)
    made.redrive()
    assert {"shop/views/0": ("in_doubt", "http_415", 2)} == made.aside()

    settle(made)


def test_a_frozen_redrive_sends_nothing_under_a_forgotten_id() -> None:
    """While it was frozen, another one sent the rows and confirmed that they are there."""
    made = parked()
    other = other_sandbox(made)

    def freeze() -> None:
        fault(made, 500, count=1, lands=0)
        other.redrive()
        made.clock.sleep(ASKABLE_SECONDS)
        other.redrive()

    made.dynamodb.after = {"update_item": once(freeze)}
    report = made.redrive_wiring.redrive.run(Deadline(made.clock, made.clock.now() + 86_400))

    assert 2 == report.delivered
    assert ["e1", "e2"] == sorted(made.ids("shop_db", "views"))
    assert 1 == len(made.td.imports())


# Time


def test_a_run_stops_when_its_time_is_up() -> None:
    """It reports that it is not complete, and later runs continue."""
    made = set_aside(429, *(envelope("shop", {f"table_{n}": [row(f"x{n}")]}) for n in range(22)))
    made.td.faults.add(Fault(kind=Kind.SLOW, action=Action.IMPORT, seconds=9.0))
    began = made.clock.now()
    first = made.redrive()
    assert (False, 22) == (first.complete, first.delivered + first.kept)
    assert 0 < first.delivered < 22
    assert made.clock.now() - began <= 120
    assert {"http_429"} == {reason for _, reason, _ in made.aside().values()}
    made.td.faults.clear()

    assert RedriveReport(delivered=first.kept) == made.redrive()
    assert 22 == len(made.td.imports())


def test_a_run_without_time_does_nothing() -> None:
    """It reads only the breakers, and does not report completion."""
    made = parked()
    report = made.redrive_wiring.redrive.run(Deadline(made.clock, made.clock.now()))

    assert (0, False) == (report.delivered, report.complete)
    assert {"shop/views/0": ("parked", "http_429", 2)} == made.aside()


def test_a_query_that_takes_too_long_is_repeated_by_a_later_run() -> None:
    """A run waits a minute for the answer and then goes on."""
    made = in_doubt()
    made.clock.sleep(ASKABLE_SECONDS)
    quick = made.td.settings
    made.td.settings = replace(quick, job_seconds=300.0)
    began = made.clock.now()
    assert RedriveReport(kept=2) == made.redrive()
    assert 60 <= made.clock.now() - began < LONGEST_QUERY_SECONDS + 10
    made.td.settings = quick

    assert RedriveReport(delivered=2) == made.redrive()
