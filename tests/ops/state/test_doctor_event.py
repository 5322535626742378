"""What the doctor says about its test event."""

import pytest

from ops.state.checks import TEST_TABLE
from ops.state.doctor_event import outcome
from tests.support.spans import span
from worker.span import ChunkKey, Group, RowSender
from worker.states import Entry, State

KEY = ChunkKey(Group(RowSender("shop"), TEST_TABLE), 0)


@pytest.mark.parametrize(
    ("entry", "state", "said"),
    [
        (Entry(State.DELIVERED), "ok", "delivered (according to the ledger) after 1.2 s"),
        (Entry(State.WAITING, reason="http_503"), "waiting", "Treasure Data answers 503. No action needed"),
        (Entry(State.WAITING, reason="http_401"), "fault", "it rejects the API key. Store a valid one"),
        (Entry(State.DEAD, reason="http_422"), "fault", "dead after 1.2 s (http_422)"),
    ],
)
def test_an_event_that_waits_is_no_fault_of_its_own(entry: Entry, state: str, said: str) -> None:
    """The doctor says what it waits for, and whether somebody has to act, as `status` does of other rows."""
    found = outcome(span(chunks={KEY: 1}, entries={KEY: entry}), 1.2, "--local")

    assert state == found.state
    assert said in found.line
