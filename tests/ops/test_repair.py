"""Rejected events in an editor: what is shown, and what is made of what was saved."""

import msgpack
import pytest

from ops.edit import MistakeError
from ops.repair import Original, RejectedBatch, lines, originals, read, text_of
from ops.set_aside import SetAsideChunk
from shared.tracking_plan import TrackingPlan
from tests.support.spans import span
from worker.delivery import Entry, State
from worker.span import ChunkKey, Group, Owner

AT = 1_764_000_000_000
ENTRY = Entry(State.REJECTED, rows=5, reason="missing_table", aside_at=AT, digest="d")


def batch(*texts: str, table: str = "", plan: TrackingPlan | None = None, message: str = "") -> RejectedBatch:
    """Return rejected events, of five of which these are kept."""
    key = ChunkKey(Group(Owner("shop"), table, "missing_table", is_rejected=True), 0)
    events = tuple(Original(AT, text, message) for text in texts)
    return RejectedBatch(SetAsideChunk(span(), key, ENTRY), events, plan)


def test_each_event_is_a_line_with_its_number() -> None:
    """Under a heading that says whose they are, and why they were rejected."""
    lines = text_of([batch('{"a": 1}', '{"a": 2}'), batch("7", table="views")]).splitlines()

    shown = [line for line in lines if line and not line.startswith("#")]
    assert ['1.1 {"a": 1}', '1.2 {"a": 2}', "2.1 7"] == shown
    assert 1 == sum("shop, views, missing_table" in line for line in lines)


def test_originals_are_shown_on_one_line() -> None:
    """Whatever they are: JSON over several lines, or bytes that are not text."""
    kept = ((AT, b'{"a":\n 1}', "a\n message"), (AT, b"\xff \n x"))
    payload = b"".join(map(msgpack.packb, kept))

    assert [(AT, '{"a": 1}', "a message"), (AT, "\ufffd x", "")] == originals(payload)


def test_the_message_is_above_its_events() -> None:
    """Once, until another follows."""
    events = [Original(AT, f'{{"a": {number}}}', message) for number, message in enumerate("xxy")]

    assert ["# x", '1 {"a": 0}', '2 {"a": 1}', "# y", '3 {"a": 2}'] == list(lines(events, "123"))
    assert ["# x", '{"a": 0}', '{"a": 1}', "# y", '{"a": 2}'] == list(lines(events))


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
        ('1.1 {"a": 2}', "line 1: the event names no table"),
        ("1.1 {", "line 1: this is not JSON"),
    ],
)
def test_a_mistake_is_named(line: str, why: str) -> None:
    """By its line."""
    with pytest.raises(MistakeError, match=why):
        read([batch('{"a": 1}')], line)


PLAN = {
    "tables": {
        "views": {
            "columns": {
                "amount": {"type": "number", "required": True},
                "td_url": {"type": "string", "required": True},
                "email": {"type": "string", "required": True, "personal": "drop"},
            }
        }
    },
}


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
def test_what_the_plan_still_rejects_is_named(text: str, why: str) -> None:
    """In quarantine a repaired event has to fit the plan, like any other; where it only observes, it has not."""
    quarantine, observe = (TrackingPlan.parse(PLAN | {"mode": mode}) for mode in ("quarantine", "observe"))

    with pytest.raises(MistakeError, match=why):
        read([batch("{}", plan=quarantine)], f"1.1 {text}")
    assert 1 == len(read([batch("{}", plan=observe)], f"1.1 {text}"))


def test_a_repair_need_not_have_what_no_copy_has() -> None:
    """What the ingest adds to a row, and what the plan drops or hashes."""
    plan = TrackingPlan.parse(PLAN | {"mode": "quarantine"})

    assert 1 == len(read([batch("{}", plan=plan)], '1.1 {"table":"views","amount":5}'))
