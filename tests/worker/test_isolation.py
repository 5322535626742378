"""Databases are isolated from each other, in virtual time."""

from typing import Any

import pytest
from worker.delivery import ASIDE

from doubles.treasure_data import Action, Fault, Kind, Settings
from tests.support.delivery import Delivery, KilledError, envelope, is_settling, kill, once, row
from tests.support.virtual_time import SideBySide, VirtualClock
from worker.deadline import Deadline
from worker.span import Cut
from worker.treasure_data import Reply
from worker.upload import Upload

SICK = "sick_db"
READ_SECONDS = 10.0


def delivery(accounts: int = 10, **changes: Any) -> Delivery:
    """Return a delivery with sends of 0.2 s; the account `sick` goes to sick_db, `acct_n` to db_n."""
    clock = VirtualClock()
    made = Delivery(clock=clock, executors=lambda: SideBySide(clock), **changes)
    made.td.settings = Settings(answer_seconds=0.2, query_delay=600)
    made.map(sick=SICK, **{f"acct_{n}": f"db_{n}" for n in range(accounts)})
    client = made.wiring.treasure_data
    for name in [SICK, *(f"db_{n}" for n in range(accounts))]:
        client.create_database(name, 1)
        client.create_table(name, "views", 1)
    return made


def fault(made: Delivery, kind: Kind, database: str | None = SICK, **members: Any) -> None:
    """Add a fault to imports."""
    made.td.faults.add(Fault(kind=kind, action=Action.IMPORT, database=database, **members))


def silence(made: Delivery) -> None:
    """Make Treasure Data's status endpoint fail."""
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.STATUS, status=503))


def put_round(made: Delivery, number: int, accounts: int = 10, *, sick: bool = True) -> int:
    """Put one record of each account and return how many."""
    names = [f"acct_{n}" for n in range(accounts)] + (["sick"] if sick else [])
    made.put(*(envelope(name, {"views": [row(f"{name}-{number}")]}) for name in names))
    return len(names)


def kinds(made: Delivery) -> list[str]:
    """Return the states of the set-aside chunks."""
    return [
        entry.state.value for span in made.spans() for entry in span.entries.values() if entry.state in ASIDE
    ]


BROKEN = [
    (Kind.STATUS, {"status": 500}, "in_doubt"),
    (Kind.STATUS, {"status": 429, "retry_after": 3600}, "parked"),
    (Kind.STATUS, {"status": 403}, "parked"),
    (Kind.HANG, {}, "in_doubt"),
    (Kind.RESET, {}, "in_doubt"),
    (Kind.REFUSE, {}, "parked"),
    (Kind.UNREACHABLE, {}, "parked"),
    (Kind.CLOSE, {}, "in_doubt"),
    (Kind.NOT_JSON, {}, "in_doubt"),
]
"""Ways in which a database fails, and the resulting state of its rows: in doubt if Treasure Data may have them."""


@pytest.mark.parametrize(("kind", "members", "state"), BROKEN)
def test_a_failing_database_delays_no_other_and_is_parked_in_time(
    kind: Kind, members: dict[str, Any], state: str
) -> None:
    """The others' rows arrive within 1 s, and its own are set aside within its patience of 20 s."""
    made = delivery()
    fault(made, kind, **members)
    put_round(made, 0)
    began = made.clock.now()

    assert made.deliver() is None
    assert made.clock.now() - began < 20 + 1
    assert all(accepted.at - began < 1 for accepted in made.td.imports() if accepted.database != SICK)
    assert 10 == sum(len(accepted.rows) for accepted in made.td.imports() if accepted.database != SICK)
    assert [state] == kinds(made)


@pytest.mark.parametrize(("kind", "members", "state"), BROKEN)
def test_a_batch_of_only_a_failing_database_is_parked_in_time(
    kind: Kind, members: dict[str, Any], state: str
) -> None:
    """Treasure Data itself answers, so the same bound applies."""
    made = delivery()
    fault(made, kind, **members)
    put_round(made, 0, accounts=0)
    began = made.clock.now()

    assert made.deliver() is None
    assert made.clock.now() - began < 20 + 1
    assert [state] == kinds(made)


def test_an_open_breaker_parks_rows_without_a_send() -> None:
    """They are never sent, so they are not in doubt."""
    made = delivery()
    fault(made, Kind.HANG)
    count = put_round(made, 0)
    made.deliver()
    put_round(made, 1)
    began = made.clock.now()
    calls = made.td.imports()

    assert made.deliver(count) is None
    assert made.clock.now() - began < 1
    assert len(made.td.imports()) == len(calls) + 10
    assert ["in_doubt", "parked"] == kinds(made)


def test_sandboxes_share_open_breakers() -> None:
    """After its own first failure, a fresh sandbox parks at once if another has opened the breaker."""
    made = delivery()
    fault(made, Kind.STATUS, status=500)
    count = put_round(made, 0)
    made.deliver()
    put_round(made, 1)
    made.start()
    began = made.clock.now()

    assert made.deliver(count) is None
    assert made.clock.now() - began < 1
    assert [] == made.telemetry.said("breaker opened")


def test_the_normal_path_reads_no_breakers() -> None:
    """While no database fails, breakers cost nothing."""
    made = delivery()
    put_round(made, 0)
    made.dynamodb.calls.clear()
    made.deliver()

    assert ["query", "put_item", "update_item"] == made.dynamodb.calls


def test_the_redrive_closes_the_breaker() -> None:
    """Once the database works again, the redrive delivers its set-aside rows and closes the breaker."""
    made = delivery()
    fault(made, Kind.STATUS, status=500)
    count = put_round(made, 0)
    made.deliver()
    put_round(made, 1)
    made.deliver(count)
    assert 0 == made.redrive().delivered
    made.td.faults.clear()
    made.clock.sleep(300)
    assert 2 == made.redrive().delivered
    assert [] == made.objects()
    made.clock.sleep(60)
    put_round(made, 2)

    assert made.deliver(2 * count) is None
    assert ["sick-0", "sick-1", "sick-2"] == sorted(made.ids(SICK, "views"))
    assert 0 == made.td.duplicates


def test_an_outage_of_treasure_data_holds_everything() -> None:
    """If all of Treasure Data is down, nothing is parked."""
    made = delivery()
    fault(made, Kind.STATUS, database=None, status=503)
    silence(made)
    put_round(made, 0)
    began = made.clock.now()
    assert made.deliver() is not None
    assert made.clock.now() - began < 20 + 1
    assert [] == made.objects()
    made.td.faults.clear()

    assert made.deliver() is None
    assert 11 == sum(len(accepted.rows) for accepted in made.td.imports())


def test_a_long_outage_costs_little_time() -> None:
    """A warm sandbox tries each database once and then holds."""
    made = delivery()
    fault(made, Kind.STATUS, database=None, status=503)
    silence(made)
    put_round(made, 0)
    made.deliver()
    made.clock.sleep(30)
    began = made.clock.now()

    assert made.deliver() is not None
    assert made.clock.now() - began < 2


def test_an_outage_for_half_the_retention_sets_rows_aside() -> None:
    """Held any longer, they would expire."""
    made = delivery(retention=48 * 3600.0)
    fault(made, Kind.STATUS, database=None, status=503)
    silence(made)
    put_round(made, 0)
    assert made.deliver() is not None
    event = made.event()
    made.clock.sleep(24 * 3600 + 60)
    made.start()

    assert {"batchItemFailures": []} == made.run(event, 120_000)
    assert {"in_doubt"} == set(kinds(made))


def test_rows_refused_for_half_the_retention_are_parked() -> None:
    """They are not in doubt, since every attempt was refused."""
    made = delivery(retention=48 * 3600.0)
    fault(made, Kind.STATUS, database=None, status=429)
    silence(made)
    put_round(made, 0, accounts=1)
    assert made.deliver() is not None
    event = made.event()
    made.clock.sleep(24 * 3600 + 60)
    made.start()

    assert {"batchItemFailures": []} == made.run(event, 120_000)
    assert {("parked", "held_too_long", 1)} == set(made.aside().values())
    assert [] == list(made.ledger.breakers())


def test_a_database_that_keeps_recovering_just_in_time_opens_its_breaker() -> None:
    """It delays every batch although it accepts the rows in the end."""
    made = delivery()
    begin = 0
    for number in range(3):
        fault(made, Kind.STATUS, status=429, retry_after=15, count=1)
        count = put_round(made, number)
        assert made.deliver(begin, begin + count) is None
        begin += count
        made.clock.sleep(10)
    assert ["slow"] == [breaker.reason for breaker in made.ledger.breakers()]
    put_round(made, 3)
    began = made.clock.now()

    assert made.deliver(begin) is None
    assert made.clock.now() - began < 1


def test_throttling_of_most_databases_opens_no_breaker() -> None:
    """If Treasure Data throttles most of them, none keeps the others waiting."""
    made = delivery()
    begin = 0
    for number in range(3):
        for database in [SICK, *(f"db_{n}" for n in range(9))]:
            fault(made, Kind.STATUS, database, status=429, retry_after=15, count=1)
        count = put_round(made, number)
        assert made.deliver(begin, begin + count) is None
        begin += count

    assert [] == list(made.ledger.breakers())


def test_an_unknown_api_key_holds_everything() -> None:
    """The operator must fix it, so it is counted and nothing is parked."""
    made = delivery()
    made.secrets.values["td"] = "1/0000"
    made.start()
    put_round(made, 0)
    began = made.clock.now()

    assert made.deliver() is not None
    assert made.clock.now() - began < 10
    assert [] == made.objects()
    assert made.telemetry.counts["KeyRefused"] > 0


def test_a_key_without_any_write_access_holds_everything() -> None:
    """If every database of a batch refuses the key, none is parked."""
    made = delivery()
    fault(made, Kind.STATUS, database=None, status=403)
    put_round(made, 0)

    assert made.deliver() is not None
    assert [] == made.objects()


def test_a_rotated_key_needs_no_restart() -> None:
    """The new key is read as soon as the old one is refused."""
    made = delivery()
    key = made.secrets.values["td"]
    made.secrets.values["td"] = "1/0000"
    made.start()
    put_round(made, 0, accounts=2, sick=False)
    assert made.deliver() is not None
    made.secrets.values["td"] = key
    made.clock.sleep(60)

    assert made.deliver() is None
    assert ["acct_0-0"] == made.ids("db_0", "views")


def test_a_missing_key_holds_everything() -> None:
    """The secret has no value until somebody puts one there."""
    made = delivery()
    made.secrets.values["td"] = " "
    made.start()
    put_round(made, 0)

    assert made.deliver() is not None
    assert [] == made.objects()


def test_one_chunk_that_always_fails_is_set_aside_alone() -> None:
    """Its neighbours are delivered, and no breaker opens."""
    made = delivery()
    made.wiring.treasure_data.create_table("db_0", "odd", 1)
    fault(made, Kind.STATUS, database="db_0", table="odd", status=500)
    tables = {f"table_{n:03d}": [row(f"e{n}")] for n in range(150)}
    made.put(envelope("acct_0", {"odd": [row("bad")], **tables}))

    assert made.deliver() is None
    assert {"acct_0/odd/0": ("in_doubt", "http_500", 1)} == made.aside()
    assert 150 == len(made.td.imports("db_0"))
    assert [] == made.telemetry.said("breaker opened")


def test_a_slow_database_is_parked_in_time() -> None:
    """It holds a batch no longer than a failing one: the rest of its rows is parked."""
    made = delivery()
    client = made.wiring.treasure_data
    for n in range(50):
        client.create_table(SICK, f"table_{n:02d}", 1)
    fault(made, Kind.SLOW, seconds=5.0)
    made.put(
        envelope("sick", {f"table_{n:02d}": [row(f"s{n}")] for n in range(50)}),
        *(envelope(f"acct_{n}", {"views": [row(f"e{n}")]}) for n in range(10)),
    )
    began = made.clock.now()
    assert made.deliver() is None
    assert made.clock.now() - began < 20 + 10
    assert {"parked"} == set(kinds(made))
    assert ["slow"] == [breaker.reason for breaker in made.ledger.breakers()]
    while not made.redrive().complete:
        pass
    assert [] == made.objects()
    assert ["slow"] == [breaker.reason for breaker in made.ledger.breakers()]
    made.td.faults.clear()
    put_round(made, 1)
    made.deliver(11)
    assert ["parked"] == kinds(made)
    made.redrive()

    assert [] == list(made.ledger.breakers())
    assert 51 == len(made.td.imports(SICK))


def test_a_slow_treasure_data_parks_nothing() -> None:
    """If all databases are slow, or there is only one, none keeps another waiting."""
    for accounts in (10, 0):
        made = delivery()
        made.td.settings = Settings(answer_seconds=8.0)
        for number in range(6):
            count = put_round(made, number, accounts=accounts)
            assert made.deliver(number * count) is None
        assert [] == made.objects()
        assert [] == list(made.ledger.breakers())


def test_many_hanging_databases_leave_threads_to_the_others() -> None:
    """Even if more databases hang than there are threads, the others' rows arrive within one time-out."""
    made = delivery(accounts=30, threads=8)
    for n in range(15):
        fault(made, Kind.HANG, database=f"db_{n}")
    put_round(made, 0, accounts=30, sick=False)
    began = made.clock.now()
    assert made.deliver() is None
    healthy = [accepted for accepted in made.td.imports() if int(accepted.database[3:]) >= 15]

    assert 15 == len(healthy)
    assert max(accepted.at for accepted in healthy) - began < 2 * READ_SECONDS + 2


def test_a_healthy_database_gets_more_than_one_thread() -> None:
    """After its first success, several chunks are sent at once, on all threads if no other database needs them."""
    made = delivery(accounts=1)
    made.put(envelope("acct_0", {f"table_{n:03d}": [row(f"e{n}")] for n in range(41)}))
    made.td.settings = Settings(answer_seconds=1)
    client = made.wiring.treasure_data
    for n in range(41):
        client.create_table("db_0", f"table_{n:03d}", 1)
    began = made.clock.now()
    made.deliver()

    assert made.clock.now() - began == pytest.approx(1 + 3, abs=0.1)  # 40 chunks, 16 at a time


def test_a_failing_database_is_retried_with_pauses() -> None:
    """It is tried one chunk at a time, however many chunks it has."""
    made = delivery(accounts=1)
    made.put(envelope("acct_0", {f"table_{n:03d}": [row(f"e{n}")] for n in range(41)}))
    client = made.wiring.treasure_data
    for n in range(41):
        client.create_table("db_0", f"table_{n:03d}", 1)
    fault(made, Kind.STATUS, database="db_0", begin=made.clock.now() + 0.5, status=500)
    times: list[float] = []
    attempt = made.wiring.uploader.attempt

    def timed(upload: Upload, timeout: float, deadline: Deadline) -> Reply:
        times.append(made.clock.now())
        return attempt(upload, timeout, deadline)

    made.wiring.uploader.attempt = timed  # type: ignore[method-assign]  # measured, not changed
    assert made.deliver() is None
    failing = [time for time in times if time > times[0] + 0.5]

    assert len(failing) < 4 + 15
    assert 41 == len(made.objects()) + len(made.td.imports())


def test_a_long_outage_of_treasure_data_sets_nothing_aside() -> None:
    """It does not count as slowness: batches of one database are held for as long as it lasts."""
    made = delivery()
    count = put_round(made, 0)
    assert made.deliver() is None
    fault(made, Kind.STATUS, database=None, status=503)
    silence(made)
    put_round(made, 1, accounts=0)
    for _ in range(10):
        assert made.deliver(count) is not None
        made.clock.sleep(30)

    assert [] == made.objects()


def test_retry_after_is_honoured() -> None:
    """A database that asks for a pause gets it."""
    made = delivery()
    fault(made, Kind.STATUS, status=429, retry_after=7, count=1)
    put_round(made, 0)
    began = made.clock.now()

    assert made.deliver() is None
    assert made.td.imports(SICK)[0].at - began >= 7
    assert 1 == len(made.telemetry.said("an upload failed"))


@pytest.mark.parametrize(
    ("kind", "members"),
    [
        (Kind.HANG, {}),
        (Kind.STATUS, {"status": 500}),
        (Kind.STATUS, {"status": 403}),
        (Kind.SLOW, {"seconds": 8.0}),
    ],
)
def test_a_broken_database_barely_raises_the_others_p99(kind: Kind, members: dict[str, Any]) -> None:
    """With one database broken, hanging or slow for an hour, the others' p99 rises by 50% at most."""

    def p99(*, sick: bool) -> float:
        made = delivery(accounts=4)
        start = made.clock.now()
        if sick:
            fault(made, kind, end=start + 3600, **members)
        waited: list[float] = []
        attempt = made.wiring.uploader.attempt

        def timed(upload: Upload, timeout: float, deadline: Deadline) -> Reply:
            answer = attempt(upload, timeout, deadline)
            waited.append(made.clock.now() - put_at) if upload.database != SICK else None
            return answer

        made.wiring.uploader.attempt = timed  # type: ignore[method-assign]  # measured, not changed
        delivered = 0
        for number in range(240):
            put_at = start + number * 15
            made.clock.sleep(max(0.0, put_at - made.clock.now()))
            # of three batches, one lacks the sick database, one has it among others, one has it alone
            put = delivered + put_round(made, number, 0 if number % 3 == 2 else 4, sick=number % 3 > 0)
            assert made.deliver(delivered, put) is None
            delivered = put
        waited.sort()
        assert 640 == len(waited)
        return waited[int(len(waited) * 0.99)]

    assert p99(sick=True) <= 1.5 * p99(sick=False)


def test_a_chunk_that_is_too_large_is_halved() -> None:
    """It is halved until it fits. All rows arrive once, in order, and every half has its own id."""
    made = delivery(accounts=1, cut=Cut(1000, 16 << 20))
    made.td.settings = Settings(largest_import=900)
    rows = [row(f"e{n:02d}", text="x" * 20) for n in range(50)]
    made.put(envelope("acct_0", {"views": rows}))
    assert made.deliver() is None
    assert [one["event_id"] for one in rows] == sorted(made.ids("db_0", "views"))
    assert [50] == [line["delivered"] for line in made.telemetry.said("span")]
    ids = [accepted.unique_id for accepted in made.td.imports("db_0")]
    assert len(set(ids)) == len(ids) > 4
    made.start()

    assert made.deliver() is None
    assert len(made.td.imports("db_0")) == len(ids)


def test_a_row_that_is_too_large_is_a_dead_letter() -> None:
    """Its neighbours are delivered."""
    made = delivery(accounts=1)
    made.td.settings = Settings(largest_import=900)
    made.put(envelope("acct_0", {"views": [row("e1"), row("big", text="x" * 2000), row("e2")]}))

    assert made.deliver() is None
    assert ["e1", "e2"] == sorted(made.ids("db_0", "views"))
    assert ["dead_letter"] == kinds(made)
    assert {"acct_0/views/0.1.0": ("dead_letter", "row_too_large", 1)} == made.aside()


def test_halves_are_noted_before_they_are_sent() -> None:
    """If the worker is killed after that, the next invocation sends the same halves under the same ids."""
    made = delivery(accounts=1)
    made.td.settings = Settings(largest_import=70)
    made.put(envelope("acct_0", {"views": [row("e1"), row("e2")]}))
    made.dynamodb.before = {"update_item": once(kill, is_settling)}
    with pytest.raises(KilledError):
        made.deliver()
    assert ["e1", "e2"] == sorted(made.ids("db_0", "views"))
    made.start()
    made.td.settings = Settings()

    assert made.deliver() is None
    assert ["e1", "e2"] == sorted(made.ids("db_0", "views"))
    assert 2 == made.td.duplicates


def test_a_chunk_in_doubt_is_not_halved() -> None:
    """Treasure Data may have it whole, so it is set aside and Treasure Data is asked first."""
    made = delivery(accounts=1)
    fault(made, Kind.CLOSE, database="db_0", lands=0, count=1)
    fault(made, Kind.STATUS, database="db_0", status=413)
    made.put(envelope("acct_0", {"views": [row("e1"), row("e2")]}))
    assert made.deliver() is None
    assert ["in_doubt"] == kinds(made)
    made.clock.sleep(3 * 3600)

    assert 2 == made.redrive().delivered
    assert ["e1", "e2"] == made.ids("db_0", "views")


def test_a_chunk_in_doubt_from_an_earlier_invocation_is_not_halved() -> None:
    """The earlier invocation may have sent it whole."""
    made = delivery(accounts=1)
    made.put(envelope("acct_0", {"views": [row("e1"), row("e2")]}))
    made.dynamodb.before = {"update_item": once(kill)}
    with pytest.raises(KilledError):
        made.deliver()
    made.start()
    fault(made, Kind.STATUS, database="db_0", status=413)
    assert made.deliver() is None
    assert ["in_doubt"] == kinds(made)
    made.td.faults.clear()
    made.clock.sleep(3 * 3600)
    made.redrive()

    assert ["e1", "e2"] == made.ids("db_0", "views")
