"""What became of a replay's rows, from the spans of its records before and after it."""

from types import SimpleNamespace
from typing import Any

import pytest

from doubles.treasure_data import Action, Fault, Kind
from ops.books.replayed import Planned, Replayed
from tests.support.delivery import SHARD, Delivery, envelope, row
from tests.support.spans import KEY, span
from worker.chain import ChainId
from worker.membership import Membership
from worker.record import Number, number
from worker.states import Entry, State


class Replaying:
    """A delivery of six records with two rows each, of which the first two have been delivered."""

    def __init__(self) -> None:
        self.delivery = Delivery()
        self.delivery.map(shop="shop", ill="ill")
        for one in range(6):
            self.put("ill" if one == 4 else "shop", str(one))
        self.delivery.deliver(0, 2)
        self.planned = Planned(Membership(self.delivery.ledger, self.delivery.objects))

    def put(self, account: str, request_id: str, claim: int = 0) -> None:
        """Put an envelope."""
        rows = [row(f"{request_id}{n}") for n in "ab"]
        self.delivery.put(envelope(account, {"views": rows}, request_id=request_id, claim=claim))

    @property
    def chain(self) -> ChainId:
        """The shard's chain."""
        return self.delivery.wiring.shards.chain(SHARD)

    def numbers(self) -> list[Number]:
        """Return the records' numbers."""
        return [number(record["SequenceNumber"]) for record in self.delivery.records()]

    def replay(self, begin: int = 0, end: int = 6) -> Replayed:
        """Deliver a range, and return what became of its rows."""
        numbers = self.numbers()[begin:end]
        self.planned.note_before(self.chain, numbers)
        self.delivery.deliver(begin, end)
        self.planned.note_after(self.chain, numbers)
        return self.planned.replayed(2 * len(numbers))


def test_records_that_are_in_no_span_are_passed_over_at_once(replaying: Replaying) -> None:
    """However many there are: the ledger shows where the next span begins."""
    made = replaying.delivery
    made.deliver(3, 5)
    for one in range(20):
        replaying.put("shop", f"more{one}")
    made.dynamodb.calls.clear()
    members = replaying.planned.note_before(replaying.chain, replaying.numbers())

    assert [*replaying.numbers()[:2], *replaying.numbers()[3:5]] == sorted(members)
    assert 5 >= made.dynamodb.calls.count("query")


@pytest.fixture
def replaying() -> Replaying:
    """The replay of a test."""
    return Replaying()


def test_each_row_counts_once(replaying: Replaying) -> None:
    """Rows delivered before are passed over, those that the replay had delivered are sent, and those that wait count until the sender has delivered them."""
    fault = Fault(kind=Kind.STATUS, action=Action.IMPORT, database="ill", status=429, retry_after=100)
    replaying.delivery.td.faults.add(fault)
    assert Replayed(sent=6, passed_over=4, waiting=2) == replaying.replay()
    [(place, names)] = replaying.planned.waiting().items()
    replaying.delivery.td.faults.clear()
    replaying.delivery.clock.sleep(600)
    replaying.delivery.invoke_sender({"chunks": names})
    span = replaying.delivery.ledger.get(place)
    assert span is not None
    replaying.planned.refresh([span])

    assert {} == replaying.planned.waiting()
    assert Replayed(sent=8, passed_over=4) == replaying.planned.replayed(12)


def test_records_between_the_borders_of_a_span_may_be_in_none(replaying: Replaying) -> None:
    """The event source passed them over. They are found, and in a span of their own after the replay."""
    numbers = replaying.numbers()
    event = replaying.delivery.event(2, 6)
    replaying.delivery.run({"Records": [event["Records"][0], *event["Records"][2:]]})

    members = replaying.planned.note_before(replaying.chain, numbers)

    assert {numbers[3]} == set(numbers) - members
    assert Replayed(sent=2, passed_over=10) == replaying.replay()


def test_copies_are_passed_over(replaying: Replaying) -> None:
    """Their rows count elsewhere, also those that were put again, and decided later: another copy of their envelope counts."""
    for _ in range(2):
        replaying.put("shop", "twice", claim=1)
    assert Replayed(sent=2, passed_over=2) == replaying.replay(6, 8)
    again = span(entries={KEY: Entry(State.COPY)}, settled=True)
    fixed: Any = SimpleNamespace(locate=lambda *_: again, numbers=lambda *_: {again.first})
    planned = Planned(fixed)
    planned.note_before(again.chain, [again.first])
    planned.note_after(again.chain, [again.first])

    assert Replayed(sent=0, passed_over=2) == planned.replayed(2)
