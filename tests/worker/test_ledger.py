"""The ledger's reads and writes."""

import itertools
from collections.abc import Callable
from contextlib import nullcontext
from copy import replace
from functools import partial
from operator import itemgetter
from typing import Any
from unittest.mock import Mock

import msgpack
import pytest
from boto3.dynamodb.types import TypeDeserializer
from botocore.parsers import ResponseParserError
from hypothesis import given
from hypothesis import strategies as st

from doubles.aws_errors import client_error
from doubles.clock import START as BEGAN
from doubles.clock import ManualClock
from doubles.dynamodb import MemoryDynamoDB
from local.resources import LEDGER
from shared.errors import LedgerUnavailableError
from tests.support.delivery import TABLE, Meddled, lose_answer
from tests.support.spans import CHAIN, KEY, REF, VIEWS, key, span, spans
from tests.support.telemetry import CollectedTelemetry
from worker.chain import ChainId, Owner
from worker.ledger import (
    BEHIND_ALL,
    MOST_CLAIMS_WITH_APPEND,
    SWEPT,
    WORKLIST_KEYS,
    WRITTEN_IN,
    Claim,
    Claiming,
    Ledger,
    _item,
    _span,
    worklist_key,
)
from worker.record import START, Number, number
from worker.span import SECONDS_KEPT, ChunkKey, Destination, Place, RowSender, Span
from worker.states import Entry, State

OTHER = replace(CHAIN, shard="shardId-000000000001")
N = {n: number(str(n)) for n in (9, 10, 11, 13, 14, 15, 17, 19, 100)}
WAITING, DEAD, DELIVERED = Entry(reason="http_500"), Entry(State.DEAD), Entry(State.DELIVERED)
CLICKS = key("shop/clicks/0")
AGAIN = key("shop/views~r/0")
A, B, C = (Owner(replace(CHAIN, shard=f"shardId-{n:012d}"), N[9]) for n in range(3))
Q = {"q": Claiming(A)}
REJECTED = ChunkKey(VIEWS._replace(code="too_deep", is_rejected=True), 0)


def memory() -> MemoryDynamoDB:
    """Return the double with the ledger's table."""
    double = MemoryDynamoDB(page_items=2)
    double.create_table(TableName=TABLE, **LEDGER)
    return double


@pytest.fixture
def client() -> MemoryDynamoDB:
    """Return the double with the ledger's table."""
    return memory()


def ledger(client: Any, first: int = 1) -> Ledger:
    """Return a sandbox's ledger that numbers its writers from `first`."""
    counter, telemetry = itertools.count(first), CollectedTelemetry()
    return Ledger(client, TABLE, ManualClock(), lambda n: next(counter).to_bytes(n, "big"), telemetry)


def appended(one: Ledger, wanted: Span) -> Span:
    """Append a span."""
    won, there = one.append(wanted)
    assert won
    return there


def stretch(after: Number, first: Number, last: Number, chain: ChainId = CHAIN) -> Span:
    """Return a span with these borders."""
    return span(chain=chain, after=after, first=first, last=last)


def stored(client: Any, after: Number = START, chain: ChainId = CHAIN) -> dict[str, Any]:
    """Return a span's item."""
    key = {"pk": {"S": chain.name}, "sk": {"S": after}}
    item: dict[str, Any] = client.get_item(TableName=TABLE, Key=key)["Item"]
    return item


@given(spans)
def test_spans_round_trip_through_their_items(one: Span) -> None:
    """This holds for every span."""
    assert one == _span(_item(one))


def test_the_format_of_an_item_is_stable() -> None:
    """Items outlive the code that wrote them. One may lack the members that came later."""
    one = span(
        chunks={KEY: 2, CLICKS: 1},
        digest=b"h",
        earliest=4,
        latest=5,
        received_at=3,
        origin="from/here",
        copies={"q": Owner(CHAIN, N[9])},
        version=3,
        writer="w",
        settled=True,
        entries={KEY: Entry(State.DEAD, 5, "db", 1, "http_415", 6, "said"), CLICKS: Entry()},
    )

    views, clicks = ((("shop", ""), table, "", False, "") for table in ("views", "clicks"))
    chain = {"stream": CHAIN.stream, "start": CHAIN.start, "shard": CHAIN.shard, "gaps": ()}
    members = (
        *("0011", "0019", 1_700_000_000_000, {(views, 0, ""): 2, (clicks, 0, ""): 1}),
        *({("shop", ""): ("shop_db", "", False)}, 2, b"h", 4, 5, 3),
        *(tuple(REF), "from/here", {"q": (chain, "0019")}, 3, "w", True),
        {
            (views, 0, ""): ("dead", 5, "db", 1, "http_415", 6, "said"),
            (clicks, 0, ""): ("waiting", None, "", 0, "", 0, ""),
        },
    )
    item = _item(one)
    older = msgpack.packb(members[:-1])

    assert replace(one, entries={}) == _span(item | {"g": {"B": older}})
    assert members == msgpack.unpackb(item.pop("g")["B"], use_list=False, strict_map_key=False)
    assert {"pk": CHAIN.name, "sk": "000", "at": "01700000000000", "v": 3, "wk": worklist_key(one)} == (
        TypeDeserializer().deserialize({"M": item})
    )


def test_preceding_finds_the_span_whose_predecessor_ends_before_a_number(client: Any) -> None:
    """It is the last such span of the given chain."""
    one = ledger(client)
    assert one.preceding(CHAIN, N[15]) is None
    for borders in ((START, N[11], N[13]), (N[13], N[15], N[17]), (START, N[9], N[9], OTHER)):
        appended(one, stretch(*borders))

    found = [one.preceding(CHAIN, each) for each in (N[9], N[11], N[13], N[14], N[15], N[100])]
    assert [N[13], N[13], N[13], N[17], N[17], N[17]] == [each and each.last for each in found]
    assert N[9] == getattr(one.get(Place(OTHER, START)), "last", None)
    assert one.get(Place(OTHER, N[11])) is None
    assert (N[17], None) == (getattr(one.end(CHAIN), "last", None), one.end(CHAIN.before(START)))
    assert [N[17], N[13]] == [each.last for each in one.latest(CHAIN)]
    assert [N[13], N[17]] == [each.last for each in one.spans_of(CHAIN)]


@pytest.mark.parametrize("append", [Ledger.append, partial(Ledger.append_with, claims=Q, seconds_kept=60)])
def test_only_one_span_follows_the_last(client: Any, append: Callable[..., Any]) -> None:
    """A second append fails, claims nothing, and returns the existing span."""
    existing = appended(ledger(client), stretch(START, N[11], N[13]))

    assert (False, existing) == append(ledger(client, 100), span=stretch(START, N[11], N[19]))
    assert {} == ledger(client).claims("q")


def test_an_update_requires_the_current_version(client: Any) -> None:
    """A writer that has not seen the last write loses and gets the current span. Entries, copies and the object come and go."""
    one = ledger(client)
    read = appended(one, span(copies={"q": Owner(CHAIN, N[9])}))
    won, written = one.update(read.with_entries({KEY: WAITING}))

    assert (True, 2) == (won, written.version)
    assert written == one.get(Place(CHAIN, START))
    assert (False, written) == ledger(client, 100).update(read.with_entries({}, settled=True))
    _, last = one.update(replace(written, copies={}, object=None).with_entries({KEY: DEAD}, settled=True))
    assert last == one.get(read.place)


@pytest.mark.parametrize("copies", [{}, {"q": Owner(CHAIN, N[9])}])
def test_only_final_spans_expire(client: Any, copies: dict[str, Owner]) -> None:
    """A span with rows that somebody needs, or copies whose owner is in no span, is kept forever. One without rows is final at once."""
    one = ledger(client)
    read = appended(one, span(copies=copies))
    _, waiting = one.update(read.with_entries({KEY: WAITING}, settled=True))
    assert "ttl" not in stored(client)

    one.update(waiting.with_entries({KEY: DELIVERED}))
    ttl = {"N": str(int(BEGAN) + SECONDS_KEPT)}
    assert (None if copies else ttl) == stored(client).get("ttl")
    appended(one, span(chunks={}, settled=True, after=N[9]))
    assert ttl == stored(client, N[9])["ttl"]
    one._clock.sleep(60)
    one.update(replace(next(one.spans_of(CHAIN)), object=None))
    assert (None if copies else ttl) == stored(client).get("ttl")  # no later write prolongs it


def without_token(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request as if it was made so long ago that DynamoDB has forgotten its token."""
    return {name: value for name, value in request.items() if name != "ClientRequestToken"}


@pytest.mark.parametrize("call", ["put_item", "update_item", "transact_write_items"])
def test_repeated_writes_are_recognised_as_own(client: Any, call: str) -> None:
    """A write whose answer was lost and that the client repeated does not count as another writer's."""
    repeating = Meddled(client)
    repeating.before[call] = lambda request: getattr(client, call)(**without_token(request))
    one = ledger(repeating)
    is_plain = call != "transact_write_items"
    answer = one.append(span()) if is_plain else one.append_with(span(), Q, 60)
    assert answer is not None
    won, read = answer
    assert (True, 1) == (won, read.version)
    won, written = one.update(read.with_entries({}, settled=True))
    assert (True, 2) == (won, written.version)
    assert written == one.get(Place(CHAIN, START))


def test_a_deleted_span_cannot_be_updated() -> None:
    """An update never creates an item."""
    double = memory()
    with pytest.raises(LedgerUnavailableError, match="no longer has the span"):
        ledger(double).update(span())

    assert [] == list(double.items(TABLE))


EDIT = ChainId.edit("e")


def test_a_replacement_is_one_transaction(client: Any) -> None:
    """Either both spans are written or none: a race that another has won writes nothing. A repetition of the request is one's own."""
    one = ledger(client)
    old = appended(one, span(entries={KEY: DEAD}, settled=True))
    done, new = old.with_entries({KEY: Entry(State.REPLACED)}), span(chain=EDIT)
    assert one.replace(done, new)
    written = one.get(old.place)
    assert written is not None
    assert State.REPLACED is written.entry(KEY).state
    assert one.get(new.place) is not None

    assert not ledger(client, 100).replace(old.with_entries({}), replace(new, after=N[9]))
    assert not ledger(client, 100).replace(written.with_entries({}), new)
    assert written == one.get(old.place)
    assert one.get(Place(EDIT, N[9])) is None

    repeating, repeat = Meddled(client), client.transact_write_items
    repeating.before["transact_write_items"] = lambda request: repeat(**without_token(request))
    assert ledger(repeating, 200).replace(written.with_entries({}), replace(new, after=N[9]))


def places(one: Ledger, kind: str) -> list[Place]:
    """Return the worklist of a kind, in order."""
    found = (place for part in range(WORKLIST_KEYS) for place in one.worklist(kind, part))
    return sorted(found, key=lambda place: (place.chain.name, place.after))


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "waiting"),
        ({"settled": True}, ""),
        ({"settled": True, "copies": {"q": Owner(CHAIN, N[9])}}, "waiting"),
        ({"settled": True, "entries": {KEY: WAITING}}, "waiting"),
        ({"settled": True, "entries": {KEY: DEAD}}, "dead"),
        ({"settled": True, "entries": {KEY: DEAD}, "chunks": {KEY: 1, AGAIN: 1}}, "waiting"),
        ({"settled": True, "chunks": {AGAIN: 1}}, "waiting"),
        ({"settled": True, "chunks": {AGAIN: 1}, "entries": {AGAIN: Entry(State.COPY)}}, ""),
        ({"settled": True, "chunks": {KEY: 1, REJECTED: 1}}, "rejected"),
        ({"settled": True, "chunks": {KEY: 1, REJECTED: 1}, "entries": {KEY: DEAD}}, "dead"),
        ({"destinations": {RowSender("shop"): Destination(reason="gone", is_final=True)}}, "dead"),
        ({"settled": True, "entries": {KEY: Entry(State.SPLIT), KEY.halves[0]: DELIVERED, KEY.halves[1]: WAITING}}, "waiting"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("written", [False, True])
def test_the_worklist_is_complete(client: Any, changes: dict[str, Any], kind: str, written: bool) -> None:
    """The entry is part of the append, so nothing is lost if its worker is killed, and follows every write."""
    one = ledger(client)
    if written:
        read = appended(one, span(**changes | {"entries": {}, "settled": False}))
        one.update(replace(span(**changes), version=read.version))
    else:
        appended(one, span(**changes))
    here = [Place(CHAIN, START)]

    assert here * (kind == "waiting") == places(one, "waiting")
    assert here * (kind == "dead") == places(one, "dead")
    day = 1_700_000_000.0
    assert here * (kind == "rejected") == list(one.rejected(day, day))
    assert [] == list(one.rejected(day - 2 * 86_400, day - 86_400))


def test_the_worklist_has_no_hot_partition() -> None:
    """During an outage, spans spread over all of its keys, and all are found across pages, in each key the oldest first."""
    one, times = ledger(memory()), range(200)
    for serial in sorted(times, key=lambda at: at * 7 % 200):
        appended(one, span(chain=replace(CHAIN, shard=f"shardId-{serial:012d}"), planned_at=serial))
    parts = [[found.planned_at for found in one.work("waiting", part)] for part in range(WORKLIST_KEYS)]

    assert list(times) == sorted(itertools.chain(*parts))
    assert parts == list(map(sorted, parts))
    assert all(parts)


def test_reads_all_spans(client: Any) -> None:
    """It returns the spans of all chains, optionally of a time range, without anything else."""
    one = ledger(client)
    for serial in range(5):
        appended(one, span(chain=replace(CHAIN, shard=f"shardId-{serial:012d}"), planned_at=serial * 1000))
    one.append_with(span(chain=replace(CHAIN, shard="s"), planned_at=9000), Q, 60)
    one.note_chain(CHAIN)
    one.bind_tag("t", "all")

    assert [0, 1000, 2000, 3000, 4000, 9000] == sorted(each.planned_at for each in one.spans())
    assert [1000, 2000] == sorted(each.planned_at for each in one.spans(since=1.0, until=3.0))


def test_keys_that_dynamodb_leaves_unanswered_are_asked_again_or_undecided(client: MemoryDynamoDB) -> None:
    """Spans are read together however few an answer has, unless it has none. An owner that is not read leaves its claim undecided."""
    one = ledger(client)
    written = [appended(one, stretch(after, N[11], N[19])) for after in (START, N[9], N[10])]
    client.batch_get_keys = 2
    assert {span.place: span for span in written} == one.get_all([span.place for span in written])
    wanted = {f"q{n}": A for n in range(10)}
    one.claim(wanted, 60)
    client.batch_get_keys = 4
    assert 4 == len(one.claim(dict.fromkeys(wanted, B), 60))
    client.batch_get_keys = 0

    with pytest.raises(LedgerUnavailableError):
        one.get_all([written[0].place])


def test_every_read_of_the_table_is_consistent() -> None:
    """An older item would show a claim without its owner, or a place without its span. Only the index lags."""
    meddled, asked = Meddled(memory()), list[dict[str, Any]]()
    meddled.before = dict.fromkeys(("get_item", "batch_get_item", "query", "scan"), asked.append)
    one, place = ledger(meddled), Place(CHAIN, START)
    for read in (one.get(place), one.get_all([place]), one.claims("q"), one.end(CHAIN), *one.spans()):
        assert not read
    assert [] == list(one.spans_of(CHAIN))

    assert 6 == len(asked)
    assert all({**call, **call.get("RequestItems", {}).get(TABLE, {})}["ConsistentRead"] for call in asked)


def test_claims_are_made_with_the_append_or_not_at_all(client: Any) -> None:
    """One that somebody else has prevents both. The most fit into a transaction: DynamoDB takes a hundred actions."""
    one = ledger(client)
    one.append_with(span(chain=OTHER), {"q": Claiming(B)}, 60)
    wanted = {name: Claiming(A) for name in ("p", "q", "r")}

    assert one.append_with(span(), wanted, 60) is None
    assert one.get(Place(CHAIN, START)) is None
    assert {"q": Claim(B, is_fixed=True)} == one.claims("pqr")
    most = {f"q{n}": Claiming(A) for n in range(MOST_CLAIMS_WITH_APPEND)}
    assert one.append_with(span(), most, 60)
    assert most.keys() == one.claims(most).keys()


@pytest.mark.parametrize("is_alone", [False, True])
@pytest.mark.parametrize(
    ("before", "claim", "wins"),
    [
        (None, Claiming(A), True),
        (None, Claiming(A, B), False),
        ((A, False), Claiming(A), True),
        ((B, False), Claiming(A), False),
        ((B, False), Claiming(A, B), True),
        ((B, True), Claiming(A, B), False),
        ((C, False), Claiming(A, B), False),
        ((A, True), Claiming(A, B), True),
    ],
)
def test_a_claim_is_taken_over_only_from_an_owner_that_no_append_has_fixed(
    client: Any, before: tuple[Owner, bool] | None, claim: Claiming, wins: bool, is_alone: bool
) -> None:
    """So the owner's own append and the one that takes over never both succeed. A repair takes over without an append."""
    one = ledger(client)
    if before is not None:
        fixed = {"fixed": {"BOOL": True}} if before[1] else {}
        claimed = {"pk": {"S": "put#q"}, "sk": {"S": "-"}, "owner": {"S": before[0].name}}
        client.put_item(TableName=TABLE, Item=claimed | fixed)

    assert is_alone or wins is (one.append_with(span(), {"q": claim}, 60) is not None)
    if is_alone:
        with nullcontext() if wins else pytest.raises(LedgerUnavailableError):
            one.take_over({"q": claim}, 60)
    assert wins is ({"q": Claim(A, is_fixed=True)} == one.claims("q"))


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
def test_a_transaction_that_failed_for_another_reason_proves_nothing(code: str) -> None:
    """Another transaction is under way, or DynamoDB throttles."""
    meddled, reasons = Meddled(memory()), [{"Code": "ConditionalCheckFailed"}, {"Code": code}]
    error = client_error("TransactionCanceledException", "TransactWriteItems", CancellationReasons=reasons)
    meddled.before["transact_write_items"] = Mock(side_effect=error)

    with pytest.raises(LedgerUnavailableError):
        ledger(meddled).append_with(span(), Q, 60)


def test_tags_chains_and_the_sweep_s_progress_are_remembered(client: Any) -> None:
    """A tag stands for its first use. Chains that the stream no longer lists are among them."""
    one = ledger(client)
    for chain in (CHAIN, OTHER, CHAIN):
        one.note_chain(chain)

    assert ["a", "a", "b"] == [one.bind_tag(*use) for use in (("t", "a"), ("t", "b"), ("u", "b"))]
    assert [CHAIN, OTHER] == one.chains()
    assert one.noted(SWEPT) is None
    one.note(SWEPT, "spans/x")
    assert ("spans/x", None) == (one.noted(SWEPT), one.noted(WRITTEN_IN))


FAILURES = client_error("ProvisionedThroughputExceededException", "Query"), ResponseParserError("html")


@pytest.mark.parametrize("failure", [*(Mock(side_effect=one) for one in FAILURES), lambda _: lose_answer()])
@pytest.mark.parametrize(
    "act",
    [
        lambda one: one.preceding(CHAIN, N[9]),
        lambda one: one.get(Place(CHAIN, START)),
        lambda one: one.end(CHAIN),
        lambda one: list(one.latest(CHAIN)),
        lambda one: one.append(span()),
        lambda one: one.append_with(span(), Q, 60),
        lambda one: one.update(span()),
        lambda one: one.replace(span(), span(chain=EDIT)),
        lambda one: list(one.worklist("dead", 0)),
        lambda one: list(one.spans()),
        lambda one: one.claim({"q": A}, 60),
        lambda one: one.claims("q"),
        lambda one: one.take_over({"q": Claiming(A, B)}, 60),
        lambda one: one.bind_tag("t", "x"),
        lambda one: one.chains(),
        lambda one: one.note_chain(CHAIN),
        lambda one: one.noted(SWEPT),
        lambda one: one.note(SWEPT, "x"),
    ],
)
def test_every_failure_is_logged(act: Callable[[Ledger], Any], failure: Callable[[Any], None]) -> None:
    """It is therefore never mistaken for a lost conditional write."""
    meddled = Meddled(memory())
    one = ledger(meddled)
    reads, writes = "query scan get_item batch_get_item", "put_item update_item transact_write_items"
    calls = f"{reads} {writes} batch_execute_statement".split()
    meddled.before = dict.fromkeys(calls, failure)

    with pytest.raises(LedgerUnavailableError):
        act(one)
    assert 1 == len(one._telemetry.said("the ledger cannot be reached"))  # type: ignore[attr-defined]  # the collected one


@given(
    st.lists(st.tuples(st.integers(1, 10**55), st.integers(0, 5)), max_size=12, unique_by=itemgetter(0)),
    st.integers(-1, 40),
    st.booleans(),
)
def test_the_first_later_span(spans_of: list[tuple[int, int]], moment: int, is_closed: bool) -> None:
    """It is the one that a look at all spans of the chain finds."""
    own, after, latest, chained = ledger(memory()), START, 1, []
    for offset, growth in sorted(spans_of):
        last, latest = number(str(int(CHAIN.start) + offset)), latest + growth
        chained.append(span(after=after, last=last, latest=latest))
        after = last
    if is_closed:
        chained.append(span(after=after, last=BEHIND_ALL, latest=latest))
    for one in chained:
        own.append(one)

    expected = next((one.place for one in chained if one.latest > moment), None)
    found = own.first_later(CHAIN, moment)
    assert expected == (found and found.place)
