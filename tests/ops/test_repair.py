"""Rejected events in an editor: what is shown, and what is made of what was saved."""

import msgpack
import pytest

from ops.edit import MistakeError
from ops.repair import RejectedBatch, originals, read, text_of
from ops.set_aside import SetAsideChunk
from tests.support.spans import span
from worker.delivery import Entry, State
from worker.span import ChunkKey, Group, Owner

AT = 1_764_000_000_000
ENTRY = Entry(State.REJECTED, rows=5, reason="missing_table", aside_at=AT, digest="d")


def batch(*texts: str, table: str = "") -> RejectedBatch:
    """Return rejected events, of five of which these are kept."""
    key = ChunkKey(Group(Owner("shop"), table, "missing_table", is_rejected=True), 0)
    return RejectedBatch(SetAsideChunk(span(), key, ENTRY), tuple((AT, text) for text in texts))


def test_each_event_is_a_line_with_its_number() -> None:
    """Under a heading that says whose they are, and why they were rejected."""
    lines = text_of([batch('{"a": 1}', '{"a": 2}'), batch("7", table="views")]).splitlines()

    shown = [line for line in lines if line and not line.startswith("#")]
    assert ['1.1 {"a": 1}', '1.2 {"a": 2}', "2.1 7"] == shown
    assert 1 == sum("shop, views, missing_table" in line for line in lines)


def test_originals_are_shown_on_one_line() -> None:
    """Whatever they are: JSON over several lines, or bytes that are not text."""
    payload = b"".join(msgpack.packb((AT, one)) for one in (b'{"a":\n 1}', b"\xff \n x"))

    assert [(AT, '{"a": 1}'), (AT, "\ufffd x")] == originals(payload)


def test_changed_events_are_sent() -> None:
    """Of a batch with a change all that is left; what is deleted, and what was never kept, is given up."""
    batches = [batch('{"a": 1}', '{"a": 2}'), batch('{"a": 3}')]

    [one] = read(batches, '1.2 {"table": "views", "a": 2}\n2.1 {"a": 3}')

    assert (1, 4) == (one.events, one.dropped)
    assert {"chain", "after", "chunk", "events"} == one.event["repair"].keys()


def test_without_a_change_nothing_is_sent() -> None:
    """Also where lines were deleted."""
    batches = [batch('{"a": 1}', '{"a": 2}')]

    assert [] == read(batches, text_of(batches))
    assert [] == read(batches, '1.1 {"a": 1}')


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"table": "views"}', "does not begin with the number"),
        ('3.1 {"table": "views"}', "no event 3.1"),
        ('1.9 {"table": "views"}', "no event 1.9"),
        ('0.1 {"table": "views"}', "no event 0.1"),
        ('1.1 {"a": 2}', "line 1: set the table"),
        ("1.1 {", "line 1: this is not JSON"),
    ],
)
def test_a_mistake_is_named(line: str, why: str) -> None:
    """By its line."""
    with pytest.raises(MistakeError, match=why):
        read([batch('{"a": 1}')], line)
