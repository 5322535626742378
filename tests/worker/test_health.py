"""DatabaseHealth: which databases get no rows for now."""

from dataclasses import replace

import pytest

from doubles.treasure_data import Action, Fault, Kind
from tests.support.delivery import Delivery
from worker.health import AWAY, PROBE_EVERY_SECONDS, PROBE_TABLE, SLOW, SLOW_SECONDS
from worker.states import Event
from worker.treasure_data.client import Outcome

DB = "shop_db"
ACCEPTED, FAILED = Outcome(Event.ACCEPTED), Outcome(Event.UNANSWERED, "http_500")


@pytest.fixture
def made() -> Delivery:
    """Return a delivery with a database."""
    made = Delivery()
    made.td.create(DB, "views")
    return made


def test_a_database_fails_until_a_probe_is_answered(made: Delivery) -> None:
    """A probe is due now and then, and every failure puts it off. Rows that are accepted after a failure were sent before it."""
    one = made.wiring.health
    one.note(DB, ACCEPTED)
    assert one.works(DB)
    one.note(DB, FAILED)
    assert not one.works(DB)
    one.note(DB, ACCEPTED)
    assert (True, False, []) == (bool(one.reason(DB)), one.works(DB), one.due([DB]))
    made.clock.sleep(PROBE_EVERY_SECONDS)
    assert [DB] == one.due([DB])

    assert "" == one.probe(DB, 1.0)
    assert (False, False, []) == (bool(one.reason(DB)), one.works(DB), one.due([DB]))
    assert 1 == len(made.telemetry.said("a database fails"))
    one.note(DB, ACCEPTED)
    assert (False, True) == (bool(one.reason(DB)), one.works(DB))


def test_in_an_outage_no_database_gets_rows_until_one_answers_a_probe() -> None:
    """Those that were never probed are due first. Those that have failed themselves each need an answer of their own."""
    made = Delivery()
    one = made.wiring.health
    one.note(DB, replace(FAILED, reason="timeout"))
    one.away()
    assert ["timeout", AWAY] == [one.reason(DB), one.reason("blog_db")]
    assert ["blog_db"] == one.due([DB, "blog_db"])
    made.clock.sleep(PROBE_EVERY_SECONDS)
    assert ["blog_db", DB] == one.due([DB, "blog_db"])

    assert "" == one.probe("blog_db", 1.0)
    assert ["timeout", "", ""] == [one.reason(name) for name in (DB, "blog_db", "news_db")]


@pytest.mark.parametrize("tables", [["views"], ["views", PROBE_TABLE]])
def test_a_probe_is_an_import_without_rows(made: Delivery, tables: list[str]) -> None:
    """A missing table is an answer too, and none is created. Each has an id of its own: a repeated one is answered from memory."""
    one = made.wiring.health
    made.td.create(DB, *tables)

    for _ in range(2):
        assert "" == one.probe(DB, 1.0)
        made.clock.sleep(1)
    assert {DB: dict.fromkeys(tables, 0)} == made.td.counts()
    assert all(not accepted.rows for accepted in made.td.imports())
    assert 0 == made.td.duplicates


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"kind": Kind.STATUS, "status": 503}, "http_503"),
        ({"kind": Kind.STATUS, "status": 429}, "http_429"),
        ({"kind": Kind.STATUS, "status": 403}, "http_403"),
        ({"kind": Kind.STATUS, "status": 404, "body": "<html>"}, "http_404"),
        ({"kind": Kind.HANG}, "timeout"),
        ({"kind": Kind.REFUSE}, "connection_refused"),
    ],
)
def test_any_other_answer_keeps_it_closed(made: Delivery, fault: dict[str, object], reason: str) -> None:
    """Although a listing may answer. A probe takes only as long as it may."""
    one, began = made.wiring.health, made.clock.now()
    made.td.faults.add(Fault(action=Action.IMPORT, **fault))  # type: ignore[arg-type]  # a table of arguments

    assert reason == one.probe(DB, 2.0)
    assert one.reason(DB)
    assert made.clock.now() - began <= 2.0


def test_a_slow_database_is_left_to_the_sender(made: Delivery) -> None:
    """If others have waited for it twice; it gets another chance later."""
    one = made.wiring.health
    one.late(DB)
    assert not one.reason(DB)
    one.late(DB)
    assert SLOW == one.reason(DB)
    made.clock.sleep(SLOW_SECONDS)
    assert not one.reason(DB)
