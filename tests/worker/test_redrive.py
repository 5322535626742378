"""What becomes of chunks that are set aside."""

from dataclasses import replace
from threading import Barrier
from typing import Any

import pytest

from doubles.treasure_data import API_KEY, Action, Fault, Kind, Right, TreasureData
from doubles.treasure_data.settings import Settings
from shared import accounts
from shared.accounts import Account
from tests.support.delivery import TABLE, Delivery, KilledError, envelope, kill, lose_answer, once, row
from worker.deadline import Deadline
from worker.executor import Threads
from worker.redrive import Report, Selection
from worker.span import Kind as AsideKind
from worker.span import Span
from worker.treasure_data import Answer

CHUNK = "shop/views/0"


def parked(*, in_doubt: bool = False, **changes: Any) -> Delivery:
    """Return a delivery with one parked chunk of two rows whose database takes rows again."""
    made = Delivery(**changes)
    made.map(shop="shop_db")
    made.put(envelope("shop", {"views": [row("e1"), row("e2")]}))
    fault = {"status": 500} if in_doubt else {"status": 429, "retry_after": 100}
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, **fault))  # type: ignore[arg-type]
    assert made.deliver() is None
    made.td.faults.clear()
    assert kinds(made) == ["parked"]
    assert (span(made).chunk(CHUNK).since is None) is not in_doubt
    return made


def made_tables(made: Delivery) -> None:
    """Make the table that the chunk goes to."""
    client = made.means.uploader.sender.treasure_data
    client.create_database("shop_db", 1)
    client.create_table("shop_db", "views", 1)


def kinds(made: Delivery) -> list[str]:
    """Return the kinds of the objects that are set aside."""
    return [name.split("/")[1] for name in made.objects()]


def reasons(made: Delivery) -> list[str]:
    """Return why objects are set aside."""
    return [one.reason for one in map(made.aside.get, made.objects()) if one]


def span(made: Delivery) -> Span:
    """Return the first span."""
    return next(Span.from_item(item) for item in made.dynamodb.client.items(TABLE) if "first" in item)


@pytest.mark.parametrize("in_doubt", [False, True])
def test_parked_rows_arrive_by_themselves(in_doubt: bool) -> None:
    """Parked rows are delivered by the next redrive, and their object, entry and breaker are gone."""
    made = parked(in_doubt=in_doubt)
    report = made.send_aside()
    assert (report.delivered, report.kept, report.dead, report.complete) == (2, 0, 0, True)
    assert made.ids("shop_db", "views") == ["e1", "e2"]
    assert made.objects() == []
    assert span(made).chunks == {}
    assert list(made.ledger.breakers()) == []
    assert made.journal.counts["RowsRedriven"] == 2


def test_free_of_doubt_goes_where_the_account_goes_today() -> None:
    """Rows that were never taken follow their account to its new database."""
    made = parked()
    made.map(shop="new_db")
    made.start()
    assert made.send_aside().delivered == 2
    assert made.td.counts() == {"new_db": {"views": 2}}


def test_in_doubt_goes_where_it_went_before() -> None:
    """Rows that may have been taken go to the database of their plan under the id they had."""
    made = parked(in_doubt=True)
    unique_id = span(made).unique_id(CHUNK, "shop_db", 0)
    made.map(shop="new_db")
    client = made.means.uploader.sender.treasure_data
    client.create_database("shop_db", 1)  # of a remapped account no database is made
    made.start()
    assert made.send_aside().delivered == 2
    assert [(one.database, one.unique_id) for one in made.td.imports()] == [("shop_db", unique_id)]


def test_a_missing_database_that_is_no_longer_the_account_s() -> None:
    """It is not made: once the doubt is over the rows are a dead letter, free of doubt, and go where the account goes."""
    made = parked(in_doubt=True)
    made.map(shop="new_db")
    made.start()
    made.send_aside()
    assert (kinds(made), reasons(made)) == (["in_doubt"], ["no_such_database"])
    made.clock.sleep(3 * 3600)
    assert made.send_aside().dead == 2
    assert (kinds(made), reasons(made)) == (["dead_letter"], ["no_such_database"])
    assert span(made).chunk(CHUNK).since is None
    assert made.send_aside(AsideKind.DEAD_LETTER).delivered == 2
    assert made.td.counts() == {"new_db": {"views": 2}}


@pytest.mark.parametrize("taken", [False, True])
def test_what_is_refused_after_a_doubt_is_asked_about(taken: bool) -> None:
    """Rows that an earlier attempt may have brought are no dead letter, whatever a later one is answered."""
    made = parked()
    made_tables(made)
    lands = 0 if taken else None
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=500, count=1, lands=lands))
    made.send_aside()
    made.td.faults.clear()
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=422))
    made.send_aside()
    assert (kinds(made), reasons(made)) == (["in_doubt"], ["http_422"])
    made.clock.sleep(3 * 3600)
    report = made.send_aside()
    assert (report.delivered, report.dead) == ((2, 0) if taken else (0, 2))
    assert kinds(made) == ([] if taken else ["dead_letter"])
    assert sum(len(one.rows) for one in made.td.imports()) == (2 if taken else 0)


def test_what_is_too_large_after_a_doubt_is_halved_once_treasure_data_was_asked() -> None:
    """A chunk in doubt is left whole; one that is surely not there goes in halves, and too large a row is a dead letter."""
    made = parked(in_doubt=True)
    largest = made.td.settings.largest_import
    made.td.settings = replace(made.td.settings, largest_import=1)
    made.send_aside()
    assert list(span(made).chunks) == [CHUNK]
    made.clock.sleep(3 * 3600)
    made.send_aside()
    assert list(span(made).chunks) == [f"{CHUNK}.0", f"{CHUNK}.1"]
    made.send_aside()
    assert (kinds(made), reasons(made)) == (["dead_letter"] * 2, ["row_too_large"] * 2)
    made.td.settings = replace(made.td.settings, largest_import=largest)
    assert made.send_aside(AsideKind.DEAD_LETTER).delivered == 2
    assert sorted(made.ids("shop_db", "views")) == ["e1", "e2"]


def test_too_large_a_row_in_doubt_is_asked_about() -> None:
    """One row that may have been taken before is no dead letter when it is called too large."""
    made = Delivery()
    made.map(shop="shop_db")
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=500))
    assert made.deliver() is None
    made.td.faults.clear()
    made.td.settings = replace(made.td.settings, largest_import=1)
    made.send_aside()
    assert (kinds(made), reasons(made)) == (["in_doubt"], ["row_too_large"])


def test_unaskable_doubt_that_is_refused_is_a_dead_letter() -> None:
    """Rows that are sent although nobody could be asked, and surely refused, are reported once and wait for a person."""
    made = unaskable("send")
    made_tables(made)
    client = made.means.uploader.sender.treasure_data
    send = client.send

    def answered(*sent: Any) -> Answer:
        made.td.faults.clear()
        if len(sent[3]) > 40:
            made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=422))
        return send(*sent)

    client.send = answered  # type: ignore[method-assign]  # an import of nothing is taken, rows are refused
    assert made.send_aside().dead == 2
    for _ in range(3):
        made.clock.sleep(3 * 3600)
        made.send_aside()
    assert made.journal.counts["RowsAmbiguous"] == 2
    assert (kinds(made), reasons(made)) == (["dead_letter"], ["http_422"])


def test_still_sick_is_left_for_the_next_run() -> None:
    """While the database fails nothing changes but the time, and only one of its chunks is tried a run."""
    made = parked()
    made.put(*(envelope("shop", {f"table_{n}": [row(f"x{n}")]}) for n in range(9)))
    assert made.deliver(1) is None
    assert kinds(made) == ["parked"] * 10
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=429))
    handled: list[str] = []
    sender = made.means.uploader.sender
    attempt = sender.attempt
    sender.attempt = lambda upload, *rest: (handled.append(upload.chunk.key), attempt(upload, *rest))[1]  # type: ignore[method-assign]
    report = made.send_aside()
    assert (report.delivered, len(handled)) == (0, 1)
    assert kinds(made) == ["parked"] * 10
    assert span(made).chunk(CHUNK).since is None
    assert len(list(made.ledger.breakers())) == 1


def test_accounts_do_not_wait_for_each_other() -> None:
    """One account's sick database keeps no other account's rows in the bucket."""
    made = Delivery()
    names = [f"acct_{n}" for n in range(5)]
    made.map(**{name: f"db_{name}" for name in names})
    made.put(*(envelope(name, {f"table_{t}": [row(f"{name}{t}")] for t in range(3)}) for name in names))
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=429, retry_after=100))
    assert made.deliver() is None
    made.td.faults.clear()
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, database="db_acct_0", status=500))
    assert made.send_aside().delivered == 12
    assert [name.split("/")[2] for name in made.objects()] == ["acct_0"] * 3
    assert [breaker.database for breaker in made.ledger.breakers()] == ["db_acct_0"]


@pytest.mark.parametrize("status", [429, 500])
def test_accounts_of_one_sick_database_try_it_once(status: int) -> None:
    """Accounts that share a database do not each find out that it is still sick, be their rows in doubt or not."""
    made = Delivery()
    names = [f"acct_{n}" for n in range(5)]
    made.map(**dict.fromkeys(names, "shared_db"))
    made.put(*(envelope(name, {f"table_{name}": [row(name)]}) for name in names))
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=status))
    assert made.deliver() is None
    tried: list[str] = []
    sender = made.means.uploader.sender
    attempt = sender.attempt
    sender.attempt = lambda upload, *rest: (tried.append(upload.chunk.key), attempt(upload, *rest))[1]  # type: ignore[method-assign]
    assert made.send_aside().kept == 5
    assert len(tried) == 1


def test_a_refused_redrive_keeps_the_doubt_of_before() -> None:
    """A redrive whose own send was surely refused clears no doubt that began before it."""
    made = parked(in_doubt=True)
    since = span(made).chunk(CHUNK).since
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=429))
    made.send_aside()
    assert span(made).chunk(CHUNK).since == since


def test_what_was_never_to_be_sent_is_free_of_doubt() -> None:
    """A dead letter by plan is free of doubt, also when the invocation that planned it was killed."""
    made = Delivery()
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.s3.before = {"put_object": once(kill)}
    with pytest.raises(KilledError):
        made.deliver()
    made.start()
    assert made.deliver() is None
    assert span(made).chunk(CHUNK).since is None
    made.map(shop="shop_db")
    assert made.send_aside(AsideKind.DEAD_LETTER).delivered == 1
    assert made.ids("shop_db", "views") == ["e1"]


def test_parked_for_too_long() -> None:
    """What is parked for longer than is allowed becomes a dead letter, which a person may still send."""
    made = parked()
    made.clock.sleep(15 * 86_400)
    assert made.send_aside().dead == 2
    assert (kinds(made), reasons(made)) == (["dead_letter"], ["parked_too_long"])
    assert span(made).chunk(CHUNK).kind == "dead_letter"
    assert made.send_aside().delivered == 0
    assert made.send_aside(AsideKind.DEAD_LETTER).delivered == 2
    assert made.ids("shop_db", "views") == ["e1", "e2"]


def test_parked_for_too_long_in_doubt() -> None:
    """What Treasure Data may have taken is no dead letter: it is asked about."""
    made = parked(in_doubt=True)
    made.clock.sleep(15 * 86_400)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=500))
    made.send_aside()
    assert (kinds(made), reasons(made)) == (["in_doubt"], ["parked_too_long"])
    made.td.faults.clear()
    assert made.send_aside().delivered == 2


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
    assert made.send_aside().dead == 2
    assert reasons(made) == [reason]


def test_redis_away_keeps_what_is_parked() -> None:
    """While accounts cannot be asked for, what is free of doubt stays where it is."""
    made = parked()
    made.redis.flushall()
    made.start()
    assert made.send_aside().kept == 2
    assert kinds(made) == ["parked"]


def test_refused_when_redriven() -> None:
    """Parked rows that Treasure Data then refuses become a dead letter with the new reason."""
    made = parked()
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=422))
    assert made.send_aside().dead == 2
    assert (kinds(made), reasons(made)) == (["dead_letter"], ["http_422"])
    assert span(made).chunk(CHUNK).since is None


def test_dead_letters_by_hand() -> None:
    """A person who has repaired what was wrong sends dead letters, of one account and table alone if need be."""
    made = Delivery()
    made.put(envelope("shop", {"views": [row("e1")], "clicks": [row("e2")]}), b"junk")
    assert made.deliver() is None
    made.map(shop="shop_db")
    assert made.send_aside().delivered == 0
    assert made.send_aside(AsideKind.DEAD_LETTER).delivered == 2
    assert made.td.counts() == {"shop_db": {"clicks": 1, "views": 1}}
    assert [name.split("/")[3] for name in made.objects()] == ["-undecodable"]


@pytest.mark.parametrize("taken", [False, True])
def test_a_dead_letter_whose_send_was_in_doubt_is_seen_through_by_the_schedule(taken: bool) -> None:
    """Whether Treasure Data took it or not, the next runs find out, and it is there once in the end."""
    made = parked()
    made_tables(made)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=422, count=1))
    assert made.send_aside().dead == 2
    lands = 0 if taken else None
    made.td.faults.clear()
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=500, count=1, lands=lands))
    assert made.send_aside(AsideKind.DEAD_LETTER).kept == 2
    assert (kinds(made), reasons(made)) == (["parked"], ["http_422"])
    assert made.send_aside().delivered == 2
    assert (made.ids("shop_db", "views"), made.objects()) == (["e1", "e2"], [])


def test_a_dead_letter_whose_redrive_was_killed_is_seen_through_by_the_schedule() -> None:
    """It is parked before it is sent, so that a redrive may die at any time."""
    made = parked()
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=422, count=1))
    assert made.send_aside().dead == 2
    attempt = made.means.uploader.sender.attempt
    made.means.uploader.sender.attempt = lambda *sent: (attempt(*sent), kill())[0]  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        made.send_aside(AsideKind.DEAD_LETTER)
    made.start()
    assert made.send_aside().delivered == 2
    assert (made.ids("shop_db", "views"), made.objects()) == (["e1", "e2"], [])


def test_a_dead_letter_that_is_refused_again_stays_one() -> None:
    """It is not counted as a new one."""
    made = parked()
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=422))
    assert made.send_aside().dead == 2
    report = made.send_aside(AsideKind.DEAD_LETTER)
    assert (report.kept, report.dead) == (2, 0)
    assert (kinds(made), reasons(made)) == (["dead_letter"], ["http_422"])
    assert made.journal.counts["RowsDeadLettered"] == 2


def test_chunks_of_one_span_do_not_hinder_each_other() -> None:
    """Side by side in one run, each surely refused chunk of a span is free of doubt."""
    made = Delivery(executors=Threads)
    made.map(shop="shop_db", other="other_db")
    made.put(envelope("shop", {"views": [row("e1"), row("e2")]}), envelope("other", {"views": [row("e3")]}))
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=429, retry_after=100))
    assert made.deliver() is None
    made.td.faults.clear()
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=422))
    both = Barrier(2, timeout=60)
    attempt = made.means.uploader.sender.attempt
    made.means.uploader.sender.attempt = lambda *sent: (both.wait(), attempt(*sent))[1]  # type: ignore[method-assign]
    assert made.send_aside().dead == 3
    assert kinds(made) == ["dead_letter"] * 2
    assert {entry.since for entry in span(made).chunks.values()} == {None}


def test_a_run_that_dies_while_it_deletes_is_made_good() -> None:
    """The object that was met is deleted last, so that the next run meets it and deletes the others."""
    made = parked()
    made.s3.after = {"delete_object": once(kill)}
    with pytest.raises(KilledError):
        made.send_aside()
    assert kinds(made) == ["parked"]
    made.start()
    assert made.send_aside().delivered == 0
    assert (made.ids("shop_db", "views"), made.objects()) == (["e1", "e2"], [])


def test_revoked_key_by_hand() -> None:
    """Rows of a revoked key stay set aside until the key is no longer revoked."""
    made = Delivery()
    made.redis.hset(
        accounts.redis_key("shop"), mapping=Account("shop_db", "active", frozenset({"k1"})).to_fields()
    )
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.deliver()
    assert made.send_aside(AsideKind.DEAD_LETTER).delivered == 0
    made.map(shop="shop_db")
    made.start()
    assert made.send_aside(AsideKind.DEAD_LETTER).delivered == 1


def unaskable(setting: str) -> Delivery:
    """Return a delivery with a chunk in old doubt, and a key that may not query."""
    made = parked(in_doubt=True, unaskable_doubt=setting)
    made.td = TreasureData(
        clock=made.clock, keys={API_KEY: frozenset({Right.WRITE, Right.CREATE})}, settings=Settings()
    )
    made.clock.sleep(3 * 3600)
    return made.start()


def test_unaskable_doubt_is_sent_and_reported() -> None:
    """A key that may not query: the rows are sent under a new id and reported as ambiguous, with both ids."""
    made = unaskable("send")
    ids = [span(made).unique_id(CHUNK, "shop_db", generation) for generation in (0, 1)]
    assert made.send_aside().delivered == 2
    assert made.journal.counts["RowsAmbiguous"] == 2
    (note,) = [fields for message, fields in made.journal.notes if message.startswith("ambiguous")]
    assert (note["unique_id"], note["new_unique_id"], note["rows"]) == (*ids, 2)
    assert [one.unique_id for one in made.td.imports() if one.rows] == ids[1:]


def test_a_database_that_is_closed_for_a_while_is_asked_later() -> None:
    """Where the key may neither query nor write just now, nothing is called unaskable: it is asked once that has passed."""
    made = parked(in_doubt=True)
    made.clock.sleep(3 * 3600)
    made.td.faults.add(Fault(kind=Kind.STATUS, database="shop_db", status=403))
    assert made.send_aside().kept == 2
    assert made.journal.counts["RowsAmbiguous"] == 0
    assert span(made).chunk(CHUNK).generation == 0
    made.td.faults.clear()
    assert made.send_aside().delivered == 2
    assert made.journal.counts["RowsAmbiguous"] == 0


def test_a_query_that_was_forbidden_for_a_moment_is_made_again() -> None:
    """A key that may write is not believed at once to be one that may not query: it is asked twice."""
    made = parked(in_doubt=True)
    made.clock.sleep(3 * 3600)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=403, count=1))
    assert made.send_aside().delivered == 2
    assert made.journal.counts["RowsAmbiguous"] == 0


def test_unaskable_doubt_is_kept() -> None:
    """By setting the rows are kept for a person instead."""
    made = unaskable("keep")
    assert made.send_aside().kept == 2
    assert made.td.imports() == []
    assert len(made.objects()) == 1


def decided(made: Delivery, decision: str, **selected: Any) -> Report:
    """Run the redrive as a person has decided."""
    selection = Selection.from_event({"decision": decision} | selected)
    return made.redrive.run(Deadline.of(made.clock, 120_000), selection)


def test_a_person_sends_what_cannot_be_asked_about() -> None:
    """It goes out under a new id, and nothing is reported as ambiguous: somebody has decided."""
    made = unaskable("keep")
    assert decided(made, "send").delivered == 2
    assert [one.unique_id for one in made.td.imports()] == [span(made).unique_id(CHUNK, "shop_db", 1)]
    assert (made.objects(), made.journal.counts["RowsAmbiguous"]) == ([], 0)


def test_a_person_drops_what_treasure_data_has() -> None:
    """It counts as delivered, its object is gone, and nothing is sent."""
    made = unaskable("keep")
    assert decided(made, "drop").delivered == 2
    assert (made.td.imports(), made.objects(), span(made).chunks) == ([], [], {})


def test_what_treasure_data_can_never_have_taken_is_not_dropped() -> None:
    """Dropping leaves alone what is parked without doubt."""
    made = parked()
    assert decided(made, "drop").kept == 2
    assert kinds(made) == ["parked"]


@pytest.mark.parametrize(
    ("selected", "delivered"),
    [
        ({"reason": "http_500"}, 0),
        ({"reason": "http_429"}, 2),
        ({"since": 1_699_999_000}, 2),
        ({"since": 1_800_000_000}, 0),
    ],
)
def test_chunks_are_selected_by_reason_and_time(selected: dict[str, Any], delivered: int) -> None:
    """What is not selected is left alone, and not counted as kept."""
    made = parked()
    event = {"kinds": ["parked"]} | selected
    report = made.redrive.run(Deadline.of(made.clock, 120_000), Selection.from_event(event))
    assert (report.delivered, report.kept) == (delivered, 0)


def test_a_schedule_selects_nothing_by_its_account() -> None:
    """The account in EventBridge's event is AWS's, not one of ours: the scheduled run sends everything."""
    event = {
        "version": "0",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
    }
    assert Selection.from_event(event) == Selection()


def test_md5_mismatch_is_asked_about() -> None:
    """When Treasure Data says that it has something else than was sent, it is asked what it has."""
    made = Delivery()
    made.map(shop="shop_db")
    made.put(envelope("shop", {"views": [row("e1")]}))
    made.td.faults.add(Fault(kind=Kind.WRONG_MD5, action=Action.IMPORT, count=2))
    assert made.deliver() is None
    assert (kinds(made), reasons(made)) == (["in_doubt"], ["md5_mismatch"])
    made.clock.sleep(3 * 3600)
    assert made.send_aside().delivered == 1
    assert made.ids("shop_db", "views") == ["e1"]


def test_an_object_that_lost_a_race_is_put_right() -> None:
    """Where ledger and bucket name different kinds, the object is brought to the ledger's kind and stays one."""
    made = parked()
    (one,) = [made.aside.get(name) for name in made.objects()]
    assert one is not None
    made.aside.put(one.with_kind(AsideKind.IN_DOUBT, "too_large"))
    assert kinds(made) == ["in_doubt", "parked"]
    made.redis.flushall()
    made.start()
    made.send_aside()
    assert kinds(made) == ["parked"]
    made.aside.put(one.with_kind(AsideKind.IN_DOUBT, "too_large"))
    made.aside.delete(one.name)
    made.send_aside()
    assert kinds(made) == ["parked"]


def test_an_object_whose_span_is_not_settled_is_left_alone() -> None:
    """An object that was written before its span was settled belongs to the worker."""
    made = Delivery()
    made.map(shop="shop_db")
    made.put(envelope("nobody", {"views": [row("e1")]}))
    made.dynamodb.before = {"update_item": lambda _: lose_answer()}
    assert made.deliver() is not None
    made.dynamodb.before = {}
    assert made.send_aside(AsideKind.DEAD_LETTER).kept == 1
    assert len(made.objects()) == 1
    assert made.deliver() is None
    assert len(made.objects()) == 1


def test_an_object_without_a_span_is_kept() -> None:
    """An object that the ledger knows nothing of is never deleted."""
    made = parked()
    item = next(iter(made.dynamodb.client.items(TABLE)))
    for item in list(made.dynamodb.client.items(TABLE)):
        made.dynamodb.client.delete_item(TableName=TABLE, Key={"pk": item["pk"], "sk": item["sk"]})
    assert made.send_aside().kept == 2
    assert kinds(made) == ["parked"]


def test_whoever_writes_meanwhile_makes_it_decide_anew() -> None:
    """Two redrives of one chunk deliver it once."""
    made = parked(in_doubt=True)

    def run_other() -> None:
        made.send_aside()

    made.dynamodb.before = {"update_item": once(run_other)}
    made.send_aside()
    assert made.ids("shop_db", "views") == ["e1", "e2"]
    assert made.objects() == []
    assert span(made).chunks == {}


def test_troubles_of_one_object_do_not_end_the_run() -> None:
    """When bucket or ledger fail for one account, the others still have their turn."""
    made = Delivery()
    made.map(aaa="aaa_db", bbb="bbb_db")
    made.put(*(envelope(name, {"views": [row(name)]}) for name in ("aaa", "bbb")))
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=429, retry_after=100))
    made.deliver()
    made.td.faults.clear()
    made.s3.before = {"get_object": once(lose_answer)}
    assert made.send_aside().delivered == 1
    assert made.send_aside().delivered == 1


def test_an_idle_breaker_is_closed() -> None:
    """A breaker with nothing parked behind it is closed after a while, so that it parks nothing for ever."""
    made = Delivery()
    made.ledger.open_breaker("shop_db", "http_500")
    made.send_aside()
    assert len(list(made.ledger.breakers())) == 1
    made.clock.sleep(600)
    made.send_aside()
    assert list(made.ledger.breakers()) == []


def test_a_run_ends_with_its_time() -> None:
    """A run that cannot do everything in its time says so, and the next one goes on."""
    made = parked()
    made.put(*(envelope("shop", {f"table_{n}": [row(f"x{n}")]}) for n in range(20)))
    made.deliver(1)
    made.td.faults.add(Fault(kind=Kind.SLOW, action=Action.IMPORT, seconds=9.0))
    report = made.send_aside()
    assert not report.complete
    assert 0 < report.delivered < 22
    made.td.faults.clear()
    made.send_aside()
    made.send_aside()
    assert made.objects() == []
    assert len(made.td.imports()) == 21
