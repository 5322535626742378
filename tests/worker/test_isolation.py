"""Databases are isolated from each other, and the stream from all of them, in virtual time."""

from typing import Any

import pytest

from doubles.treasure_data import Action, Fault, Kind, Settings
from tests.support.delivery import Delivery, envelope, row
from tests.support.virtual_time import SideBySide, VirtualClock
from worker.health import PROBE_EVERY_SECONDS, PROBE_TABLE
from worker.states import Event
from worker.treasure_data.client import Outcome

SICK = "sick_db"


def delivery(accounts: int = 10, **changes: Any) -> Delivery:
    """Return a delivery with sends of 0.2 s; the account `sick` goes to sick_db, `acct_n` to db_n."""
    clock = VirtualClock()
    made = Delivery(clock=clock, executors=lambda: SideBySide(clock), **changes)
    made.td.settings = Settings(answer_seconds=0.2, query_delay=600)
    made.map(sick=SICK, **{f"acct_{n}": f"db_{n}" for n in range(accounts)})
    for name in [SICK, *(f"db_{n}" for n in range(accounts))]:
        made.td.create(name, "views")
    return made


def fault(made: Delivery, kind: Kind, database: str | None = SICK, **members: Any) -> None:
    """Add a fault to imports."""
    made.td.faults.add(Fault(kind=kind, action=Action.IMPORT, database=database, **members))


def deliver_round(made: Delivery, number: int, accounts: int = 10) -> float:
    """Put and deliver one record of each account; return how many seconds the invocation took."""
    names = ["sick", *(f"acct_{n}" for n in range(accounts))]
    rows = {name: {"views": [row(f"{name}-{number}")]} for name in names}
    made.put(*(envelope(name, tables, request_id=f"{name}{number}") for name, tables in rows.items()))
    began = made.clock.now()
    assert made.deliver(number * len(names)) is None
    return made.clock.now() - began


def test_after_an_outage_the_probes_of_many_databases_do_not_hold_the_stream() -> None:
    """If thousands of databases answer slowly, the probes of all would take longer than an invocation may."""
    made = delivery(160)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=500))
    deliver_round(made, 0, 160)
    made.td.faults.clear()
    made.td.faults.add(Fault(kind=Kind.SLOW, action=Action.IMPORT, seconds=0.9))
    stored: list[float] = []
    made.s3.before["put_object"] = lambda _: stored.append(made.clock.now())
    made.clock.sleep(PROBE_EVERY_SECONDS)
    began = made.clock.now()
    deliver_round(made, 1, 160)

    assert stored[0] - began < 3


def test_a_failing_database_is_probed_by_the_worker_now_and_then() -> None:
    """Once it answers, it gets rows again in the same batch. While it hangs, the probe costs a second."""
    made = delivery()
    fault(made, Kind.HANG)
    deliver_round(made, 0)
    made.clock.sleep(PROBE_EVERY_SECONDS)
    assert deliver_round(made, 1) < 1 + 1
    made.td.faults.clear()
    made.clock.sleep(PROBE_EVERY_SECONDS)
    deliver_round(made, 2)

    assert ["sick-2"] == made.ids(SICK, "views")
    made.clock.sleep(60)
    assert 2 == made.send().delivered
    assert 0 == made.td.duplicates


def test_many_waiting_spans_are_sent_quickly() -> None:
    """An outage's spans of many databases drain side by side."""
    made = delivery()
    fault(made, Kind.STATUS, database=None, status=429)
    for number in range(20):
        deliver_round(made, number)
    made.td.faults.clear()
    made.clock.sleep(60)
    began = made.clock.now()

    assert 220 == made.send().delivered
    assert made.clock.now() - began < 5


def test_databases_that_fail_together_hide_no_others_that_work() -> None:
    """In what seems to be an outage, a few are probed first. Those that fail may have similar names, so names do not decide which."""
    made = delivery(100)
    names = sorted(f"acct_{n}" for n in range(100))
    for name in names[:60]:
        fault(made, Kind.HANG, name.replace("acct", "db"))
    made.put(*(envelope(name, {"views": [row(name)]}, request_id=name) for name in names[:20]))
    assert made.deliver() is None
    made.put(*(envelope(name, {"views": [row(name)]}, request_id=f"{name}.2") for name in names))
    assert made.deliver(20) is None

    assert 40 == sum(len(made.td.imports(name.replace("acct", "db"))) for name in names[60:])


def test_no_database_of_a_waiting_span_waits_for_each_other_that_hangs() -> None:
    """The sender probes the databases of a span side by side, and then sends. Other spans wait for no probe that has not begun."""
    made = delivery(40)
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, status=500))
    deliver_round(made, 0, 40)
    later = (envelope(f"acct_{n}", {"views": [row(f"{n}")]}, request_id=f"{n}") for n in range(30, 40))
    made.deliver_each(*later)
    made.td.faults.clear()
    for number in range(30):
        fault(made, Kind.HANG, f"db_{number}")
    made.clock.sleep(60)
    began = made.clock.now()

    assert 21 == made.send().delivered
    sent = [[one.at - began for one in made.td.imports(f"db_{n}") if one.rows] for n in range(30, 40)]
    assert max(map(min, sent)) < 1
    assert max(map(max, sent)) < 30


def test_what_a_span_can_send_does_not_wait_for_hundreds_of_databases_that_hang() -> None:
    """Their probes last longer than a run. So they are probed in several turns and runs; no probe begins once the time is up."""
    made = delivery(300)
    made.fail(429)
    deliver_round(made, 0, 300)
    made.start().td.faults.clear()
    for number in range(290):
        fault(made, Kind.HANG, f"db_{number}")

    sent = sum(made.send().delivered for _ in range(2))
    assert (11, 0) == (sent, made.telemetry.counts["UnforeseenErrors"])
    made.td.faults.clear()
    assert 290 == made.send().delivered


def test_a_span_that_sends_keeps_its_place_until_its_turn_ends() -> None:
    """It writes several times. If others took its place after each, very many would wait, and be kept in memory with what they wrote."""
    made, lost = delivery(1), list[str]()
    fault(made, Kind.STATUS, database=None, status=500)
    for number in range(60):
        made.start().deliver_each(envelope("acct_0", {"views": [row(f"{number}")]}))
    made.start().td.faults.clear()
    made.clock.sleep(2 * 3600)
    for call in ("get_item", "update_item"):
        made.dynamodb.before[call] = lambda _: made.clock.sleep(0.01)
    turns = made.sender_wiring.sender._turns
    take = turns.take
    turns.take = lambda turn: (take(turn), turn.ready and lost.append(turn.waits_for))[0]  # type: ignore[method-assign]  # observed

    assert 60 == made.send().delivered
    assert {""} == set(lost)


@pytest.mark.parametrize(("others", "each"), [(198, 1), (396, 3), (0, 1)])
def test_slow_databases_delay_no_others_that_wait(others: int, each: int) -> None:
    """Two of them take neither all turns of a run of the sender nor all sends of a span, nor the places at others that their spans have."""
    made, slow = delivery(12), {"sick": SICK, "acct_10": "db_10"}
    fault(made, Kind.STATUS, database=None, status=429)
    tables = {f"table_{n}": [row("some")] for n in range(each)}
    made.put(*(envelope([*slow, "acct_11"][n % 3], tables) for n in range(others)))
    assert not any(made.deliver(n, n + each) for n in range(0, others, each))
    few, many = {"views": [row("one")]}, {f"table_{n}": [row("many")] for n in range(40)}
    rest = (envelope(f"acct_{n}", few, request_id=f"one-{n}") for n in range(10))
    made.put(envelope("sick", many, request_id="many"), *rest)
    assert made.deliver(others) is None
    made.start().td.faults.clear()
    for database in slow.values():
        fault(made, Kind.SLOW, database, seconds=9.0)
        made.sender_wiring.health.note(database, Outcome(Event.ACCEPTED))  # so that no span waits for a probe
    fault(made, Kind.SLOW, "db_11", table=PROBE_TABLE, seconds=3.0)
    made.dynamodb.before["get_item"] = lambda _: made.clock.sleep(0.1)
    began = made.clock.now()
    made.send()
    sent = [one.at - began for one in made.td.imports() if one.rows and one.database not in slow.values()]

    assert 10 + others // 3 * len(tables) == sum(seconds < 15 * each for seconds in sent)
