"""What became of a replay's rows, from the spans of its records before and after it."""

from ops.books.replayed import Planned, Replayed, outcome
from tests.support.delivery import SHARD, Delivery, envelope, row
from tests.support.spans import key, span
from worker.membership import Membership
from worker.record import number
from worker.states import Entry, State


def test_each_row_counts_once() -> None:
    """What was put again waits, and copies count elsewhere. A span may extend beyond the range, so no more rows count than were read."""
    rows = {State.DELIVERED: 16, State.WAITING: 8, State.AGAIN: 4, State.DEAD: 2, State.COPY: 1}
    entries = {key(f"shop/views/{part}"): Entry(state) for part, state in enumerate(rows)}
    one = span(chunks=dict(zip(entries, rows.values(), strict=True)), entries=entries, settled=True)

    assert Replayed(sent=10, passed_over=7, waiting=12, dead=2) == outcome(31, [one], 6)
    assert Replayed(sent=10, waiting=12, dead=1) == outcome(23, [one], 6)
    assert Replayed(sent=10, waiting=3) == outcome(13, [one], 6)
    assert Replayed(sent=3) == outcome(3, [one], 6)
    assert Replayed(waiting=12, dead=2, passed_over=17) == outcome(31, [one], 40)


def test_records_that_are_in_no_span_are_passed_over_at_once() -> None:
    """However many: the ledger shows where the next span begins. Rows of spans that the replay has made are sent."""
    made = Delivery().map(shop="shop")
    for one in range(26):
        made.put(envelope("shop", {"views": [row(f"{one}")]}, request_id=f"{one}"))
    made.deliver(0, 2)
    made.run({"Records": made.event(22, 25)["Records"][::2]})
    numbers = [number(record["SequenceNumber"]) for record in made.records()]
    planned, chain = Planned(Membership(made.ledger, made.objects)), made.wiring.shards.chain(SHARD)
    made.dynamodb.calls.clear()
    members = planned.note_before(chain, numbers)

    assert [*numbers[:2], numbers[22], numbers[24]] == sorted(members)
    assert 8 >= made.dynamodb.calls.count("query")
    made.deliver(2, 22)
    planned.note_after(chain, numbers)
    assert Replayed(sent=20, passed_over=6) == planned.replayed(26)
