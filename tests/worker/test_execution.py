"""The execution of a span's plan, where worker and redrive differ."""

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.delivery import Delivery, row
from tests.support.spans import KEY, chains, span, tables
from worker.chain import ChainId
from worker.chunk import Chunk
from worker.deadline import Deadline
from worker.delivery import Entry, Event, State
from worker.execution import Execution
from worker.span import ChunkKey, Group, Owner, Span
from worker.upload import Outcome, Upload


def describe(*_: Any) -> Any:
    """Stand for a function that must not be called: nothing is set aside."""
    raise NotImplementedError


@pytest.mark.parametrize(
    ("state", "sent"),
    [
        (State.PENDING, [["shop/views/0"], ["shop/views/0.0", "shop/views/0.1"]]),
        (State.IN_DOUBT, [["shop/views/0"]]),
    ],
)
def test_only_pending_halves_are_sent_at_once(state: State, sent: list[list[str]]) -> None:
    """Halves of a set-aside chunk are set aside first, since each is fenced before it is sent."""
    made = Delivery()
    entry = Entry(state, rows=2, since=1_700_000_000_000, digest="d")
    _, planned = made.ledger.append(span(entries={KEY: entry}))
    payload = b"".join(msgpack.packb(row(one)) for one in ("e1", "e2"))
    wiring, calls = made.wiring, []

    def send(uploads: list[Upload], _deadline: Deadline) -> list[Outcome]:
        calls.append([upload.chunk.key.name for upload in uploads])
        event = Event.TOO_LARGE if len(calls) == 1 else Event.ACCEPTED
        return [Outcome(event, definitely_not_delivered=event is Event.TOO_LARGE) for _ in uploads]

    execution = Execution(
        wiring.delivery,
        planned,
        {KEY: Chunk.of_payload(KEY, 2, payload)},
        describe=describe,
        report=lambda *_: None,
        opened={KEY},
        whole=False,
    )
    upload = execution.upload(KEY, "shop_db")
    execution.deliver(send, Deadline(made.clock, made.clock.now() + 60), [upload])

    assert sent == calls


class Choosing(Execution):
    """An execution that can be kept from its shortcut for spans of which everything is accepted."""

    takes_shortcut = True
    has_shortcut = False

    def _all_accepted(self, span: Span) -> bool:
        found = super()._all_accepted(span)
        self.has_shortcut |= found
        return found and self.takes_shortcut


@settings(max_examples=60, deadline=None)
@given(
    chain=chains.filter(lambda chain: not chain.is_overflow),
    rows=st.dictionaries(
        st.tuples(tables, st.integers(0, 9)).map(lambda one: ChunkKey(Group(Owner("shop"), one[0]), one[1])),
        st.integers(1, 10**6),
        min_size=1,
        max_size=4,
    ),
    may_close=st.booleans(),
    is_overtaken=st.booleans(),
)
def test_the_shortcut_writes_the_same_span_as_the_state_machine(
    *, chain: ChainId, rows: dict[ChunkKey, int], may_close: bool, is_overtaken: bool
) -> None:
    """This also holds if the span may not be closed yet, or if another invocation has written it meanwhile."""
    results = []
    for takes_shortcut in (True, False):
        made = Delivery()
        _, planned = made.ledger.append(span(chain=chain, counts={key.group: 1 for key in rows}))
        if is_overtaken:
            made.ledger.fence(planned)
        execution = Choosing(
            made.wiring.delivery,
            planned,
            {key: Chunk(key, [], count) for key, count in rows.items()},
            describe=describe,
            report=lambda *_: None,
            may_close=lambda: may_close,
        )
        execution.takes_shortcut = takes_shortcut
        execution.deliver(accept, Deadline(made.clock, made.clock.now() + 60))

        assert execution.has_shortcut
        assert [execution.span] == made.spans()
        assert may_close == execution.span.done
        results.append((list(made.dynamodb.client.items("ledger")), execution.span, execution.rows))
    assert results[0] == results[1]


def accept(uploads: list[Upload], _deadline: Deadline) -> list[Outcome]:
    """Return the outcomes of uploads that Treasure Data accepts."""
    return [Outcome(Event.ACCEPTED) for _ in uploads]
