"""The execution of a span's plan, where worker and redrive differ."""

from typing import Any

import msgpack
import pytest

from tests.support.delivery import Delivery, row
from tests.support.spans import KEY, span
from worker.chunk import Chunk
from worker.deadline import Deadline
from worker.delivery import Entry, Event, State
from worker.execution import Execution
from worker.upload import Outcome, Upload


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

    def describe(*_: Any) -> Any:
        raise NotImplementedError

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
