"""Uploads: lanes that keep one database from delaying another."""

from dataclasses import replace
from typing import Any

import msgpack
import pytest

from doubles.treasure_data import Action, Fault, Kind, Settings
from shared.accounts import Account
from shared.policy import AccountLimits
from tests.support.delivery import Delivery, lose_answer, row
from tests.support.virtual_time import SideBySide, VirtualClock
from worker.deadline import Deadline
from worker.rows import compress
from worker.span import ChunkKey, Group, RowSender
from worker.states import Event
from worker.treasure_data.client import UNSENT, Outcome
from worker.upload import LINGER_SECONDS, OUTAGE_DATABASES, PATIENCE_SECONDS, Upload

UNANSWERED = Event.UNANSWERED


class Made:
    """An uploader in virtual time."""

    def __init__(self, databases: int = 3, **changes: Any) -> None:
        clock = VirtualClock()
        self.delivery = Delivery(clock=clock, executors=lambda: SideBySide(clock), **changes)
        self.clock, self.td = clock, self.delivery.td
        self.td.settings = Settings(answer_seconds=0.2)
        self.delivery.map(**{f"acct_{n}": f"db_{n}" for n in range(databases)})
        self.began = clock.now()

    def uploads(self, *counts: int) -> list[Upload]:
        """Return that many uploads for each database, each of a table of its own."""
        found = []
        for n, count in enumerate(counts):
            tables = [f"table_{t}" for t in range(count)]
            self.td.create(f"db_{n}", *tables)
            for table in tables:
                key = ChunkKey(Group(RowSender(f"acct_{n}"), table), 0)
                body = compress(msgpack.packb(row(f"{n}-{table}")))
                found.append(Upload(key, f"db_{n}", f"{len(found):032x}", body))
        return found

    def run(self, uploads: list[Upload], begin: float = 5.0, end: float = 60.0) -> dict[ChunkKey, Outcome]:
        """Send, with so many seconds to begin and to end."""
        self.began = self.clock.now()
        deadlines = (Deadline(self.clock, self.began + seconds) for seconds in (begin, end))
        return self.delivery.wiring.uploader.upload(uploads, *deadlines)

    def fault(self, kind: Kind, database: str = "db_0", **members: Any) -> None:
        """Add a fault to imports."""
        self.td.faults.add(Fault(kind=kind, action=Action.IMPORT, database=database, **members))


def events(outcomes: dict[ChunkKey, Outcome]) -> list[Event]:
    """Return the events, in the order of the chunks' names."""
    return [outcomes[key].event for key in sorted(outcomes, key=lambda key: key.name)]


@pytest.mark.parametrize(
    ("kind", "members", "surely_not"),
    [
        (Kind.STATUS, {"status": 500}, False),
        (Kind.STATUS, {"status": 404, "body": "<html>"}, False),
        (Kind.STATUS, {"status": 429}, True),
        (Kind.STATUS, {"status": 403}, True),
        (Kind.HANG, {}, False),
        (Kind.REFUSE, {}, True),
        (Kind.WRONG_MD5, {}, False),
        (Kind.STATUS, {"body": "\ud800"}, False),  # which raises an error that nobody foresees
    ],
)
def test_a_failing_database_gets_nothing(kind: Kind, members: dict[str, Any], surely_not: bool) -> None:
    """One chunk has the doubt, the others are surely not sent, and other databases are not delayed."""
    made = Made()
    made.fault(kind, **members)
    outcomes = made.run(made.uploads(5, 5))
    mine = [one for key, one in outcomes.items() if key.account == "acct_0"]

    assert [UNANSWERED] * 5 == [one.event for one in mine]
    assert (4 + surely_not) == sum(one.surely_not for one in mine)
    assert max(one.at for one in made.td.imports("db_1")) - made.began < 1
    assert made.delivery.wiring.health.reason("db_0")


@pytest.mark.parametrize("status", [415, 422, 413])
def test_a_refusal_concerns_one_chunk_alone(status: int) -> None:
    """The others of its database are delivered."""
    made = Made()
    made.fault(Kind.STATUS, table="table_0", status=status)
    outcomes = made.run(made.uploads(3))

    assert 2 == events(outcomes).count(Event.ACCEPTED)
    assert not made.delivery.wiring.health.reason("db_0")


def test_a_database_gets_one_chunk_until_it_has_accepted_one() -> None:
    """Then several at once, and so it goes on in the next batch."""
    made = Made(1)
    made.td.settings = Settings(answer_seconds=1.0)
    made.run(made.uploads(17), begin=60)
    per = made.delivery.wiring.uploader.per_database
    assert made.clock.now() - made.began == pytest.approx(1 + -(-16 // per), abs=0.1)
    made.run(made.uploads(16), begin=60)

    assert made.clock.now() - made.began == pytest.approx(-(-16 // per), abs=0.1)


def test_a_send_ends_with_the_invocation() -> None:
    """It is then a doubt."""
    made = Made(1)
    made.fault(Kind.HANG)
    [outcome] = made.run(made.uploads(1), end=2.0).values()

    assert ("timeout", False) == (outcome.reason, outcome.surely_not)
    assert made.clock.now() - made.began <= 2.0


def test_many_hanging_databases_leave_threads_to_the_others() -> None:
    """Each has its own."""
    made = Made(30)
    for n in range(15):
        made.fault(Kind.HANG, f"db_{n}")
    made.run(made.uploads(*[1] * 30), begin=15)

    assert max(one.at for n in range(15, 30) for one in made.td.imports(f"db_{n}")) - made.began < 4


@pytest.mark.parametrize(("working", "is_away"), [(0, True), (1, False)])
def test_an_outage_is_noted_only_if_nothing_is_accepted(working: int, is_away: bool) -> None:
    """Then a database that was not tried gets no rows either. One that accepts rows shows that the others fail on their own."""
    made = Made(OUTAGE_DATABASES + 1)
    uploads = made.uploads(*[1] * (OUTAGE_DATABASES + working))
    for n in range(OUTAGE_DATABASES):
        made.fault(Kind.HANG, f"db_{n}")
    made.run(uploads)

    assert is_away == bool(made.delivery.wiring.health.reason("another_db"))


@pytest.mark.parametrize(
    ("databases", "slow", "seconds", "times", "noted"),
    [
        (2, 1, 7.0, 1, []),
        (2, 1, 7.0, 2, ["db_0"]),
        (1, 1, 7.0, 2, []),
        (2, 1, 4.0, 2, []),
        (2, 2, 7.0, 2, []),
    ],
)
def test_others_do_not_wait_long_for_a_slow_database(
    databases: int, slow: int, seconds: float, times: int, noted: list[str]
) -> None:
    """Its chunk stays in doubt. The second time, it is left to the sender, even when it answers probes: not alone, nor do all together."""
    made = Made(2)
    for n in range(slow):
        made.fault(Kind.SLOW, f"db_{n}", seconds=seconds)
    health, took = made.delivery.wiring.health, list[float]()
    for _ in range(times):
        began = made.clock.now()
        [outcome, *_] = made.run(made.uploads(*[1] * databases)).values()
        took.append(made.clock.now() - began)
        for n in range(slow):
            health.probe(f"db_{n}", 10.0)

    is_cut = databases > 1 and seconds > PATIENCE_SECONDS
    assert max(took) <= (PATIENCE_SECONDS + 0.1 if databases > 1 else seconds + 1)
    assert (UNANSWERED if is_cut else Event.ACCEPTED, False) == (outcome.event, outcome.surely_not)
    assert noted == [one for one in ("db_0", "db_1") if health.reason(one)]


def test_others_do_not_wait_for_one_database_with_much_to_send() -> None:
    """Once most are done, the rest is left to the sender, without a doubt. A database alone is sent everything."""
    made = Made(3)
    outcomes = made.run(made.uploads(100, 1, 1), begin=60)
    left = [one for one in outcomes.values() if one.event is Event.UNANSWERED]

    assert made.clock.now() - made.began < LINGER_SECONDS + 1
    assert 0 < len(left) == 102 - len([one for one in outcomes.values() if one.event is Event.ACCEPTED])
    assert {True} == {one.surely_not for one in left}
    assert [Event.ACCEPTED] * 100 == events(Made(1).run(Made(1).uploads(100), begin=60))


def attempt(made: Made, end: float = 60.0, database: str = "db_0") -> tuple[Event, str, bool]:
    """Attempt one upload to a table that need not exist; return the event, its reason, and whether nothing can have been accepted."""
    [upload] = made.uploads(1)
    key = upload.key._replace(group=upload.key.group._replace(table="new"))
    deadline = Deadline(made.clock, made.clock.now() + end)
    outcome = made.delivery.wiring.uploader.attempt(replace(upload, key=key, database=database), deadline)
    return outcome.event, outcome.reason, outcome.surely_not


def test_missing_tables_and_databases_are_created() -> None:
    """Only the account's own database."""
    made = Made(1)
    attempt(made)
    assert 1 == made.td.counts()["db_0"]["new"]
    made.delivery.map(acct_0="other")
    made.delivery.start()

    assert (Event.ACCEPTED, "", False) == attempt(made, database="other")
    assert 1 == made.td.counts()["other"]["new"]


def test_a_database_that_failed_since_the_plan_gets_nothing() -> None:
    """The spans of one batch are planned before the first of them is sent."""
    made = Made(2)
    uploads = made.uploads(1, 1)
    made.delivery.wiring.health.note("db_0", Outcome(UNANSWERED, "http_503"))
    outcomes = made.run(uploads)

    assert [UNANSWERED, Event.ACCEPTED] == events(outcomes)
    assert Outcome(UNANSWERED, "http_503", surely_not=True) == outcomes[uploads[0].key]
    assert [] == made.td.imports("db_0")


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # another account's database is gone, as a listing confirms; without an answer of Redis, it may be the account's own
        ("gone", (Event.REFUSED, "no_such_database", True)),
        ("gone, without Redis", (UNANSWERED, "account_unavailable", True)),
        # a proxy's page proves nothing, so the chunk keeps its doubt
        ("proxy", (UNANSWERED, "http_404", False)),
        # an account has a limited number of tables, which the ledger counts
        ("limit", (Event.REFUSED, "too_many_tables", True)),
        ("no ledger", (UNANSWERED, "ledger_unavailable", True)),
    ],
)
def test_only_what_the_account_may_have_is_created(case: str, expected: tuple[Event, str, bool]) -> None:
    """Neither a table nor a database. Rows are refused only if that is certain."""
    made = Made(1)
    match case:
        case "gone, without Redis":
            made.delivery.redis.flushall()
        case "proxy":
            made.fault(Kind.STATUS, status=404, body="<html>")
        case "limit":
            made.delivery.ledger.note_table("acct_0", "old", 1)
            made.delivery.map(acct_0=Account("db_0", limits=AccountLimits(tables=1)))
        case "no ledger":
            made.delivery.dynamodb.before["query"] = lambda _: lose_answer()

    assert expected == attempt(made, database="gone" if "gone" in case else "db_0")
    assert {"db_0": {"table_0": 0}} == made.td.counts()


def test_creations_end_with_the_time_for_sends() -> None:
    """Else Lambda would end the function before it has settled what it sent."""
    made = Made(1)
    made.delivery.map(acct_0="db_new")
    made.delivery.start()
    made.td.faults.add(Fault(kind=Kind.SLOW, action=Action.CREATE, seconds=5.0))
    until = made.clock.now() + 6.0
    attempt(made, end=6.0, database="db_new")

    assert made.clock.now() <= until + 1.0


def test_a_rotated_key_needs_no_restart() -> None:
    """The new one is read as soon as rows, or a probe, are refused with the old one. That rows are is counted."""
    made = Made(1)
    made.delivery.wiring.treasure_data.try_key()
    key = made.delivery.secrets.values["td"]
    made.delivery.secrets.values["td"] = "1/0000"
    made.delivery.start()
    attempt(made)
    assert 1 == made.delivery.telemetry.counts["KeyRefused"]
    made.delivery.secrets.values["td"] = key
    made.clock.sleep(60)

    assert "" == made.delivery.wiring.health.probe("db_0", 1.0)
    assert Event.ACCEPTED is attempt(made)[0]
    assert UNSENT.surely_not


def test_an_attempt_is_surely_refused_only_if_each_of_its_sends_was() -> None:
    """A proxy refused the old key; then Treasure Data refused the rows, which it may have by then."""
    made = Made(1)
    made.delivery.wiring.treasure_data._key.changed = lambda _: True  # type: ignore[method-assign]  # as after a rotation
    made.fault(Kind.STATUS, status=403, body="<html>", count=1)
    made.fault(Kind.STATUS, status=415)

    assert (Event.REFUSED, "http_415", False) == attempt(made)
