"""What the doctor says about its test event, and when it sends none."""

import pytest

from doubles.treasure_data import Action, Fault, Kind
from ops.state.checks import TEST_TABLE
from ops.state.doctor_event import outcome
from tests.support.faulty_stack import FaultyStack
from tests.support.spans import span
from worker.span import ChunkKey, Group, RowSender
from worker.states import Entry, State

KEY, OTHER = (ChunkKey(Group(RowSender("shop"), table), 0) for table in (TEST_TABLE, "views"))


@pytest.mark.parametrize(
    ("entry", "state", "said"),
    [
        (Entry(State.DELIVERED), "ok", "delivered (according to the ledger) after 1.2 s"),
        (Entry(State.AGAIN), "unknown", "again after 1.2 s: it is not certain yet whether they are copies"),
        (Entry(State.WAITING, reason="deadline"), "unknown", "the worker had no time left to send them"),
        (Entry(State.WAITING, reason="http_503"), "waiting", "Treasure Data answers 503. No action needed"),
        (Entry(State.WAITING, reason="http_401"), "fault", "it rejects the API key. Store a valid one"),
        (Entry(State.WAITING, reason="http_422"), "fault", "fix them with `sluice redrive --local --edit --"),
        (
            Entry(State.WAITING, reason="may_not_create"),
            "fault",
            "(may_not_create). Create it in Treasure Data",
        ),
        (Entry(State.WAITING, reason="create_http_503"), "waiting", "No action needed"),
        (Entry(State.DEAD, reason="http_422"), "fault", "dead after 1.2 s (http_422)"),
    ],
)
def test_an_event_that_waits_is_no_fault_of_its_own(entry: Entry, state: str, said: str) -> None:
    """The doctor says what it waits for, and whether somebody has to act, as `status` does of other rows."""
    entries = {KEY: entry, OTHER: Entry(State.DEAD)}
    found = outcome(span(chunks=dict.fromkeys(entries, 1), entries=entries), 1.2, "--local")

    assert state == found.state
    assert said in found.line


@pytest.mark.parametrize(
    ("database", "table", "unlisted", "said"),
    [
        ("shop_db", "", 0, None),
        ("shop_db", TEST_TABLE, 2, None),
        ("shpo_db", "", 0, "not sent: Treasure Data has no database shpo_db of shop"),
        ("shpo_db", "", 9, "not sent: Treasure Data does not list the database shpo_db of shop"),
    ],
    ids=["listed", "has the table", "missing", "unknown"],
)
def test_an_event_creates_no_database(database: str, table: str, unlisted: int, said: str | None) -> None:
    """A mistyped one would come into being. The doctor says what to do, and takes it for no fault: the name may be right."""
    stack = FaultyStack()
    stack.made.map(shop=database)
    stack.made.td.create("shop_db", *([table] if table else []))
    if unlisted:
        stack.made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.LIST, status=403, count=unlisted))
    shown = stack.run("doctor")

    assert (said is None) is any(TEST_TABLE in body for body in stack.api.bodies)
    if said is not None:
        assert (0, True) == (shown.exit_code, f"?      test event: {said}" in shown.stdout)
        assert "`sluice accounts apply accounts.yaml --stack sluice-dev --region us-east-1`" in shown.stdout
