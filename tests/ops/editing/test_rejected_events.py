"""Rejected events in an editor: the text that is shown, and how the saved text is read."""

from types import SimpleNamespace
from typing import Any

import pytest

from ops.books.chunks import ListedChunk, chunks
from ops.editing.rejected_events import Original, RejectedBatch, batches_of, lines, read, text_of
from shared.envelope import RejectedEvent, decode
from shared.errors import EditRefusedError
from shared.tracking_plan import TrackingPlan
from tests.support.delivery import BUCKET, Delivery, envelope, row
from tests.support.spans import span
from worker.bucket import Bucket
from worker.selection import Selection
from worker.span import ChunkKey, Group, RowSender
from worker.states import Entry, State

AT = 1_764_000_000_000


def batch(*texts: str, table: str = "", plan: TrackingPlan | None = None) -> RejectedBatch:
    """Return a batch of five rejected events. Copies of only these are kept."""
    key = ChunkKey(Group(RowSender("shop"), table, "missing_table", is_rejected=True), 0)
    events = tuple(Original(AT, text, "") for text in texts)
    chunk = ListedChunk(span(chunks={key: 5}), key, Entry(State.REJECTED))
    return RejectedBatch(chunk, events, plan)


def test_each_event_is_a_line_with_its_number() -> None:
    """A heading gives their account and table and why they were rejected. Consecutive events with the same message share one line for it."""
    text = text_of([batch('{"a": 1}', '{"a": 2}'), batch("7", table="views")]).splitlines()
    events = [Original(AT, f'{{"a": {number}}}', message) for number, message in enumerate("xxy")]

    shown = [line for line in text if line and not line.startswith("#")]
    assert ['1.1 {"a": 1}', '1.2 {"a": 2}', "2.1 7"] == shown
    assert 1 == sum("shop, views, missing_table" in line for line in text)
    assert ["# x", '1 {"a": 0}', '2 {"a": 1}', "# y", '3 {"a": 2}'] == list(lines(events, "123"))
    assert ["# x", '{"a": 0}', '{"a": 1}', "# y", '{"a": 2}'] == list(lines(events))


def test_originals_are_shown_on_one_line() -> None:
    """This holds for JSON over several lines, for what is not UTF-8, and for half a character. Events that were not kept are not shown."""
    made = Delivery()
    kept = (
        RejectedEvent(0, "too_deep", "views", b'{"a":\n 1}', "a\n message"),
        RejectedEvent(1, "too_deep", "views", b"\xff \n x"),
        RejectedEvent(2, "too_deep", "views", b'{"a": "\\ud83d"}'),
        RejectedEvent(3, "too_deep", "views", b"[" * 20_000),
    )
    made.put(decode(envelope("shop", {"views": [row("a")]}))._replace(rejected=kept).encode())
    made.deliver()
    stack: Any = SimpleNamespace(bucket=lambda: Bucket(made.s3, BUCKET))
    [found] = chunks(made.ledger, Selection((State.REJECTED,), since=0.0))
    [one] = batches_of(stack, [found], {})
    made.s3.delete_object(Bucket=BUCKET, Key=made.rejected_objects()[0])

    assert ['{"a": 1}', "\ufffd x", '{"a": "\ufffd"}', "[" * 20_000] == [event.text for event in one.events]
    assert ["a message", "", "", ""] == [event.message for event in one.events]
    assert [] == batches_of(stack, [found], {})


def test_only_a_batch_with_a_changed_event_is_sent() -> None:
    """With all of its remaining events. Deleted events and events without a copy are given up; deleting lines is not a change."""
    batches = [batch('{"a": 1}', '{"a": 2}'), batch('{"a": 3}')]

    [one] = read(batches, '1.2 {"table": "views", "a": 2}\n2.1 {"a": 3}')

    assert (1, 4) == (one.count, one.dropped)
    assert {"chain", "after", "chunk", "events"} == one.event["repair"].keys()
    assert [] == read(batches, text_of(batches)) == read(batches, '1.1 {"a": 1}')


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"table": "views"}', "does not begin with the number"),
        *((f'{place} {{"table": "views"}}', f"no event {place}") for place in ("3.1", "1.9", "0.1")),
        ('1.1 {"a": 2}', "line 1: the event names no table"),
        ("1.1 {", "line 1: this is not JSON"),
    ],
)
def test_a_mistake_in_the_saved_text_is_reported(line: str, why: str) -> None:
    """The error gives the line, so that the operator can correct it in the editor."""
    with pytest.raises(EditRefusedError, match=why):
        read([batch('{"a": 1}')], line)


COLUMNS = {
    "amount": {"type": "number", "required": True},
    "td_url": {"type": "string", "required": True},
    "email": {"type": "string", "required": True, "personal": "drop"},
}
PLAN = {"tables": {"views": {"columns": COLUMNS}}}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            '{"table":"views","amount":"5"}',
            "line 1: column amount has the type string, but the tracking plan requires number",
        ),
        ('{"table":"views","amount":5,"coupon":1}', "line 1: the tracking plan has no column coupon"),
        ('{"table":"views","coupon":1}', "no column coupon .*; the tracking plan requires .* amount"),
        ('{"table":"orders"}', "line 1: the tracking plan has no such table"),
    ],
)
def test_an_event_that_the_plan_still_rejects_is_reported(text: str, why: str) -> None:
    """A repair must fit a plan in quarantine mode, except for columns that no copy has: those of the ingest, and dropped or hashed ones."""
    quarantine, observe = (TrackingPlan.parse(PLAN | {"mode": mode}) for mode in ("quarantine", "observe"))

    with pytest.raises(EditRefusedError, match=why):
        read([batch("{}", plan=quarantine)], f"1.1 {text}")
    assert 1 == len(read([batch("{}", plan=observe)], f"1.1 {text}"))
    assert 1 == len(read([batch("{}", plan=quarantine)], '1.1 {"table":"views","amount":5}'))
