"""Settlements: one write names what became of a span's chunks."""

from typing import Any

import pytest

from tests.support.delivery import Delivery, once
from tests.support.spans import CHAIN, KEY, key, span
from worker.chain import Owner
from worker.record import START
from worker.settlement import MOST_HALVINGS, MOST_VAIN_HALVINGS
from worker.span import ChunkKey, Span
from worker.states import Entry, Event, State
from worker.treasure_data.client import UNSENT, Outcome

CLICKS = key("shop/clicks/0")
OK = Outcome(Event.ACCEPTED)
REFUSED = Outcome(Event.REFUSED, "http_415", surely_not=True, words="why")
LOST = Outcome(Event.UNANSWERED, "timeout")
PARTLY = Outcome(Event.PARTLY_REFUSED, "http_422", surely_not=True)


class Made:
    """A span in a ledger in memory."""

    def __init__(self, **changes: Any) -> None:
        self.delivery = Delivery()
        _, self.span = self.delivery.ledger.append(span(chunks={KEY: 8, CLICKS: 1}, **changes))

    def settle(self, outcomes: dict[ChunkKey, Outcome], *opened: ChunkKey) -> Span:
        """Settle the span for an invocation that opened these doubts; return it as the ledger has it."""
        made = self.delivery
        settled = made.wiring.settlement.settle(self.span, opened or (KEY, CLICKS), outcomes)
        assert made.ledger.get(self.span.place) == settled
        return settled

    def overtake(self, entries: dict[ChunkKey, Entry] | None = None) -> None:
        """Let another invocation write the span just before the next write."""
        ledger, written = self.delivery.ledger, self.span.with_entries(entries or {}, settled=True)
        self.delivery.dynamodb.before["update_item"] = once(lambda: ledger.update(written))


def test_delivered_chunks_need_no_entry() -> None:
    """One write settles the span, also if nothing was sent; none is made that would change nothing. What was cut meanwhile has none either."""
    made = Made()
    found = made.settle({KEY: OK, CLICKS: OK, key("shop/clicks/1"): LOST})
    assert (True, {}) == (found.settled, found.entries)
    assert 1 == made.delivery.dynamodb.calls.count("update_item")
    assert Made().settle({}).settled

    entries = {KEY: Entry(since=5, reason="timeout"), CLICKS: Entry()}
    made = Made(entries=entries, settled=True)
    assert entries == made.settle({KEY: LOST}).entries
    assert "update_item" not in made.delivery.dynamodb.calls


def test_what_is_not_delivered_is_named() -> None:
    """Refused chunks die, and are counted, unsent ones lose their doubt, and those without an answer keep it."""
    made = Made()
    found = made.settle({KEY: REFUSED, CLICKS: UNSENT})
    now = round(Delivery().clock.now() * 1000)

    assert Entry(State.DEAD, None, "", 0, "http_415", now, "why") == found.entries[KEY]
    assert {"RowsDead": 8} == made.delivery.telemetry.counts
    assert Entry(reason="deadline") == found.entries[CLICKS]
    assert span().planned_at == Made().settle({KEY: LOST, CLICKS: OK}).entries[KEY].since


@pytest.mark.parametrize("outcome", [REFUSED, UNSENT, PARTLY])
@pytest.mark.parametrize("cause", ["not opened here", "written by another", "not sure"])
def test_a_doubt_is_cleared_only_by_its_opener_on_its_own_version(outcome: Outcome, cause: str) -> None:
    """And only if every attempt was surely refused or not made."""
    made = Made()
    if cause == "written by another":
        made.overtake()
    if cause == "not sure":
        outcome = Outcome(outcome.event, outcome.reason)
    found = made.settle({KEY: outcome}, *([CLICKS] if cause == "not opened here" else []))

    assert (State.WAITING, span().planned_at) == (found.entry(KEY).state, found.entry(KEY).since)


@pytest.mark.parametrize(
    ("written", "outcome", "state"),
    [
        (State.DEAD, OK, State.DELIVERED),
        *((state, REFUSED, state) for state in (State.DELIVERED, State.DROPPED, State.REPLACED)),
    ],
)
def test_an_outcome_is_applied_to_what_another_wrote(written: State, outcome: Outcome, state: State) -> None:
    """Acceptance is a fact, whoever settled the span meanwhile; what is final stays."""
    made = Made()
    made.overtake(entries={KEY: Entry(written, reason="x")})

    assert state is made.settle({KEY: outcome}).entry(KEY).state


@pytest.mark.parametrize(("reason", "expected"), [("http_422", "http_422"), ("http_413", "row_too_large")])
def test_a_chunk_that_is_partly_refused_is_split(reason: str, expected: str) -> None:
    """Its halves wait without a doubt. A single row dies alone, as does a chunk whose halves the item cannot hold, or no write would succeed."""
    partly = Outcome(Event.PARTLY_REFUSED, reason, surely_not=True)
    found = Made().settle({KEY: partly, CLICKS: partly})
    halves = {one.path: entry for one, entry in found.entries.items() if one.planned == KEY}

    assert ["split", "waiting", "waiting"] == [halves[path].state for path in ("", "0", "1")]
    assert {None} == {entry.since for entry in halves.values()}
    assert (State.DEAD, expected) == (found.entry(CLICKS).state, found.entry(CLICKS).reason)
    full = Made(copies={"q" * 359_500: Owner(CHAIN, START)})
    assert State.DEAD is full.settle({KEY: partly}).entry(KEY).state


def split(made: Made, parts: int, *, delivered: bool) -> tuple[Span, ChunkKey]:
    """Split the chunk into that many parts, all of which wait but perhaps the last; return the span and a part."""
    leaves, entries = [KEY], {}
    while len(leaves) < parts:
        one = leaves.pop(0)
        entries[one] = Entry(State.SPLIT)
        leaves += one.halves
    entries |= dict.fromkeys(leaves, Entry())
    if delivered:
        entries[leaves[-1]] = Entry(State.DELIVERED)
    full = span(chunks={KEY: 10**6}, entries=entries, settled=True, after="0019")
    return made.delivery.ledger.append(full)[1], leaves[0]


@pytest.mark.parametrize(
    ("parts", "delivered", "reason", "state"),
    [
        (MOST_VAIN_HALVINGS, False, "http_422", State.SPLIT),
        (MOST_VAIN_HALVINGS + 1, False, "http_422", State.DEAD),
        (MOST_VAIN_HALVINGS + 1, True, "http_422", State.SPLIT),
        (MOST_VAIN_HALVINGS + 1, False, "http_413", State.SPLIT),
    ],
)
def test_halving_in_vain_ends(parts: int, delivered: bool, reason: str, state: State) -> None:
    """If no part is accepted, before it or with it, no few rows are to blame. A chunk that is too large is halved as often as it takes."""
    made = Made()
    made.span, first = split(made, parts, delivered=delivered)
    found = made.settle({first: Outcome(Event.PARTLY_REFUSED, reason, surely_not=True)}, first)

    assert MOST_VAIN_HALVINGS < MOST_HALVINGS
    assert state is found.entry(first).state
    assert CHAIN == found.chain
    made = Made()
    made.span, first = split(made, parts, delivered=delivered)
    other = next(one for one, _ in made.span.all_leaves() if one != first)
    assert State.SPLIT is made.settle({first: PARTLY, other: OK}, first, other).entry(first).state
