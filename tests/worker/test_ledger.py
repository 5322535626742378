"""The ledger's reads and writes, against the double and moto."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from hypothesis import given
from moto import mock_aws
from worker.delivery import Entry, State
from worker.guards import Guard

from doubles.clock import START as BEGAN
from doubles.clock import ManualClock
from doubles.dynamodb import MemoryDynamoDB
from local.resources import LEDGER
from shared.errors import LedgerUnavailableError
from tests.support.delivery import TABLE, Meddled, lose_answer
from tests.support.spans import CHAIN, KEY, key, span, spans
from tests.support.telemetry import CollectedTelemetry
from worker.chain import ChainId, ClaimOwner
from worker.ledger import (
    MOST_CLAIMS,
    WORKLIST_KEYS,
    Claim,
    Gap,
    Ledger,
    OpenBreaker,
    Place,
    _item,
    _span,
)
from worker.record import START, Number, number
from worker.span import SECONDS_KEPT, Span

OTHER = replace(CHAIN, shard="shardId-000000000001")
N = {n: number(str(n)) for n in (9, 10, 11, 13, 14, 15, 17, 19, 100)}
PARKED, DEAD = Entry(State.PARKED, 2, digest="d"), Entry(State.DEAD_LETTER, 2, digest="d")
IN_DOUBT = Entry(State.IN_DOUBT, 2, since=1, digest="d")


@pytest.fixture(params=["memory", "moto"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Return a client with the ledger's table."""
    if request.param == "memory":
        yield memory()
        return
    with mock_aws():
        moto = boto3.client(
            "dynamodb", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        moto.create_table(TableName=TABLE, **LEDGER)
        yield moto


def memory() -> MemoryDynamoDB:
    """Return the double with the ledger's table."""
    double = MemoryDynamoDB(page_items=2)
    double.create_table(TableName=TABLE, **LEDGER)
    return double


def ledger(client: Any, first: int = 1, *without: Guard) -> Ledger:
    """Return a sandbox's ledger that numbers its writers from `first`."""
    counter = itertools.count(first)
    return Ledger(
        client,
        "ledger",
        clock=ManualClock(),
        entropy=lambda n: next(counter).to_bytes(n, "big"),
        telemetry=CollectedTelemetry(),
        without=frozenset(without),
    )


def stretch(after: Number, first: Number, last: Number, chain: ChainId = CHAIN) -> Span:
    """Return a span with these borders."""
    return span(chain=chain, after=after, first=first, last=last)


def stored(client: Any, after: Number = START, chain: ChainId = CHAIN) -> dict[str, Any]:
    """Return a span's item."""
    item: dict[str, Any] = client.get_item(
        TableName="ledger", Key={"pk": {"S": chain.name}, "sk": {"S": after}}
    )["Item"]
    return item


@given(spans)
def test_spans_round_trip_through_their_items(one: Span) -> None:
    """This holds for every span."""
    assert one == _span(_item(one))


def test_the_format_of_an_item_is_stable() -> None:
    """Items outlive the code that wrote them."""
    one = span(
        ignored=frozenset((0, 9)),
        version=3,
        writer="w",
        done=True,
        entries={
            KEY: Entry(State.IN_DOUBT, 2, 5, "http_500", 6, "db", 1, 2, "d1"),
            key("shop/views/1"): Entry(),
        },
    )

    assert {
        "pk": {"S": CHAIN.name},
        "sk": {"S": "000"},
        "first": {"S": "0011"},
        "last": {"S": "0019"},
        "at": {"N": "1700000000000"},
        "m": {"M": {"shop": {"S": "shop_db"}}},
        "cut": {"M": {"rows": {"N": "1000000"}, "bytes": {"N": "1073741824"}}},
        "g": {"M": {"shop/views": {"N": "2"}}},
        "n": {"N": "2"},
        "v": {"N": "3"},
        "w": {"S": "w"},
        "st": {"S": "done"},
        "i": {"B": b"\x01\x02"},
        "x": {
            "M": {
                "shop/views/0": {
                    "M": {
                        "s": {"S": "in_doubt"},
                        "n": {"N": "2"},
                        "since": {"N": "5"},
                        "why": {"S": "http_500"},
                        "t": {"N": "6"},
                        "db": {"S": "db"},
                        "gen": {"N": "1"},
                        "e": {"N": "2"},
                        "o": {"S": "d1"},
                    }
                },
                "shop/views/1": {"M": {"s": {"S": "pending"}}},
            }
        },
        "wk": {"S": _item(one)["wk"]["S"]},
    } == _item(one)


def test_preceding_finds_the_span_whose_predecessor_ends_before_a_number(client: Any) -> None:
    """It is the last such span of the given chain."""
    one = ledger(client)
    assert one.preceding(CHAIN, N[15]) is None
    for appended in (
        stretch(START, N[11], N[13]),
        stretch(N[13], N[15], N[17]),
        stretch(START, N[9], N[9], OTHER),
    ):
        won, added = one.append(appended)
        assert (True, appended.last) == (won, added.last)

    found = [one.preceding(CHAIN, each) for each in (N[9], N[11], N[13], N[14], N[15], N[100])]
    assert [N[13], N[13], N[13], N[17], N[17], N[17]] == [each and each.last for each in found]
    assert N[9] == getattr(one.get(Place(OTHER, START)), "last", None)
    assert one.get(Place(OTHER, N[11])) is None
    assert [N[17], START] == [one.end(CHAIN), one.end(CHAIN.hole(START))]
    assert [N[17], N[13]] == [each.last for each in one.latest(CHAIN)]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (N[9], Gap(CHAIN.hole(START), START, N[11])),
        (N[10], Gap(CHAIN.hole(START), START, N[11])),
        (N[11], N[13]),
        (N[13], N[13]),
        (N[14], Gap(CHAIN.hole(N[13]), N[14], N[17])),
        (N[15], Gap(CHAIN.hole(N[13]), N[14], N[17])),
        (N[17], N[19]),
        (N[19], N[19]),
        (N[100], Gap(CHAIN, N[19], None)),
    ],
)
def test_a_number_is_in_a_span_or_in_a_gap(client: Any, at: Number, expected: Number | Gap) -> None:
    """A gap is behind the last span, in front of a span, or in the unplanned rest of the hole in front of one."""
    one = ledger(client)
    for appended in (
        stretch(START, N[11], N[13]),
        stretch(N[13], N[17], N[19]),
        stretch(START, N[14], N[14], CHAIN.hole(N[13])),
    ):
        one.append(replace(appended, done=True))
    found = one.locate(CHAIN, at)

    if at == N[14]:
        assert isinstance(found, Span)
        assert (CHAIN.hole(N[13]), N[14]) == (found.chain, found.last)
    else:
        assert expected == (found.last if isinstance(found, Span) else found)


def test_a_gap_names_the_open_span_before_it(client: Any) -> None:
    """The span's records may have expired, so no batch brings them any more."""
    one = ledger(client)
    _, first = one.append(stretch(START, N[11], N[13]))
    expected = Gap(CHAIN, N[13], None, first)

    assert expected == one.locate(CHAIN, N[14])
    one.append(stretch(N[13], N[17], N[19]))
    assert Gap(CHAIN.hole(N[13]), START, N[17]) == one.locate(CHAIN, N[14])


def test_only_one_span_follows_the_last(client: Any) -> None:
    """A second append fails and returns the existing span."""
    _, existing = ledger(client).append(stretch(START, N[11], N[13]))

    assert (False, existing) == ledger(client, 100).append(stretch(START, N[11], N[19]))


def test_an_update_requires_the_current_version(client: Any) -> None:
    """A writer that has not seen the last write loses and gets the current span."""
    one = ledger(client)
    _, read = one.append(span())
    won, written = one.update(read.with_entries({KEY: PARKED}))

    assert (True, 2) == (won, written.version)
    assert written == one.get(Place(CHAIN, START))
    assert (False, written) == ledger(client, 100).update(read.with_entries({}, done=True))


def test_only_settled_spans_expire(client: Any) -> None:
    """A span with pending or set-aside chunks is kept forever."""
    one = ledger(client)
    _, read = one.append(span())
    _, aside = one.update(read.with_entries({KEY: PARKED}, done=True))
    assert "ttl" not in stored(client)

    one.update(aside.with_entries({KEY: Entry(State.DELIVERED, 2, digest="d")}))
    assert {"N": str(int(BEGAN) + SECONDS_KEPT)} == stored(client)["ttl"]
    assert "x" not in stored(client)


def test_a_span_that_is_done_at_once_expires() -> None:
    """Nothing of it was set aside when it was appended."""
    double = memory()
    one = ledger(double)
    _, read = one.append(span())
    one.update(read.with_entries({}, done=True))

    assert {"N": str(int(BEGAN) + SECONDS_KEPT)} == stored(double)["ttl"]
    assert "x" not in stored(double)


@pytest.mark.parametrize("call", ["put_item", "update_item"])
def test_repeated_writes_are_recognised_as_own(client: Any, call: str) -> None:
    """A write whose answer was lost and that the client repeated does not count as another writer's."""

    class Repeating:
        def __getattr__(self, name: str) -> Any:
            real = getattr(client, name)
            if name != call:
                return real
            return lambda **request: (real(**request), real(**request))[1]

    one = ledger(Repeating())
    won, read = one.append(span())
    assert (True, 1) == (won, read.version)
    won, written = one.update(read.with_entries({}, done=True))
    assert (True, 2) == (won, written.version)
    assert written == one.get(Place(CHAIN, START))


def test_a_deleted_span_cannot_be_updated() -> None:
    """An update never creates an item."""
    double = memory()
    with pytest.raises(LedgerUnavailableError, match="no longer has the span"):
        ledger(double).update(span())

    assert [] == list(double.items("ledger"))


# The worklist


def places(one: Ledger, *, dead: bool) -> list[Place]:
    """Return the worklist in order."""
    return sorted(one.worklist(dead=dead), key=lambda place: (place.chain.name, place.after))


@pytest.mark.parametrize(
    ("entries", "aside", "dead"),
    [
        ({}, False, False),
        ({KEY: Entry(State.PENDING, since=1)}, False, False),
        ({KEY: PARKED}, True, False),
        ({KEY: IN_DOUBT}, True, False),
        ({KEY: DEAD}, False, True),
        ({KEY: DEAD, key("shop/clicks/0"): PARKED}, True, False),
        ({KEY: DEAD, key("shop/clicks/0"): Entry(State.DROPPED, 1)}, False, True),
        (
            {KEY: Entry(State.SPLIT), KEY.halves[0]: Entry(State.DELIVERED, 1), KEY.halves[1]: IN_DOUBT},
            True,
            False,
        ),
        ({KEY: Entry(State.DELIVERED, 2, digest="d")}, False, False),
        ({KEY: Entry(State.MISSING, 2)}, False, False),
    ],
)
@pytest.mark.parametrize("done", [False, True])
def test_the_worklist_holds_spans_with_set_aside_chunks(
    client: Any, entries: dict[Any, Entry], aside: bool, dead: bool, done: bool
) -> None:
    """A span with only dead letters set aside waits for a person, any other for the schedule."""
    one = ledger(client)
    _, read = one.append(span())
    one.update(read.with_entries(entries, done=done))
    here = [Place(CHAIN, START)]

    assert here * aside == places(one, dead=False)
    assert here * dead == places(one, dead=True)


def test_a_span_leaves_the_worklist_with_its_last_chunk(client: Any) -> None:
    """Its worklist key changes with the chunks that are left."""
    one = ledger(client)
    clicks = key("shop/clicks/0")
    _, read = one.append(span(entries={KEY: PARKED, clicks: DEAD}, done=True))
    assert (1, 0) == (len(places(one, dead=False)), len(places(one, dead=True)))

    _, read = one.update(read.with_entries({KEY: Entry(State.DELIVERED, 2, digest="d")}))
    assert (0, 1) == (len(places(one, dead=False)), len(places(one, dead=True)))

    one.update(read.with_entries({clicks: Entry(State.DROPPED, 1, digest="d")}))
    assert (0, 0) == (len(places(one, dead=False)), len(places(one, dead=True)))
    assert "wk" not in stored(client)


def test_the_worklist_has_no_hot_partition() -> None:
    """After an outage, spans spread over all of its keys, and all are found across pages."""
    double = memory()
    one = ledger(double)
    wanted = []
    for serial in range(200):
        chain = replace(CHAIN, shard=f"shardId-{serial:012d}")
        one.append(span(chain=chain, entries={KEY: PARKED}, done=True))
        wanted.append(Place(chain, START))

    assert wanted == places(one, dead=False)
    assert WORKLIST_KEYS == len({item["wk"]["S"] for item in double.items("ledger")})


def test_the_worklist_is_eventually_consistent() -> None:
    """The index may lag; reads of a span do not depend on it."""
    double = memory()
    double.lag_indexes("ledger", float("inf"))
    one = ledger(double)
    one.append(span(entries={KEY: PARKED}, done=True))

    assert [] == places(one, dead=False)
    assert one.get(Place(CHAIN, START)) is not None
    double.lag_indexes("ledger", 0)
    assert [Place(CHAIN, START)] == places(one, dead=False)


# Reading everything


def test_reads_all_spans(client: Any) -> None:
    """It returns the spans of all chains, optionally of a time range, without claims and breakers."""
    one = ledger(client)
    for serial in range(5):
        one.append(span(chain=replace(CHAIN, shard=f"shardId-{serial:012d}"), planned_at=serial * 1000))
    client.put_item(TableName="ledger", Item={**CLAIMED, "owner": {"S": "overflow#a"}})
    one.open_breaker("shop_db", "http_500")

    assert [0, 1000, 2000, 3000, 4000] == sorted(each.planned_at for each in one.spans())
    assert [1000, 2000] == sorted(each.planned_at for each in one.spans(since=1.0, until=3.0))


def test_finds_open_spans(client: Any) -> None:
    """They were planned before a time and are not done."""
    one = ledger(client)
    for serial in range(4):
        chain = replace(CHAIN, shard=f"shardId-{serial:012d}")
        one.append(span(chain=chain, planned_at=serial * 1000, done=serial == 1))
    found = [each.planned_at for page in one.open_spans(3.0) for each in page]

    assert [0, 2000] == sorted(found)


# Claims


A, B, C = (Claim(ClaimOwner(ChainId.overflow(owner)), int(BEGAN)) for owner in "abc")
CLAIMED = {"pk": {"S": "put#q"}, "sk": {"S": "-"}}


def test_the_first_claim_wins() -> None:
    """Later claims get the first one's owner, whether alone or with others."""
    one = ledger(memory())

    assert {"q": A} == one.claim({"q": A}, 60)
    assert {"q": A, "r": B} == one.claim({"q": B, "r": B}, 60)
    assert {"q": A, "r": B} == one.claim({"q": A, "r": C}, 60)
    assert [True, False, True] == [one.claim_one(*wanted, 60) for wanted in (("q", A), ("q", B), ("s", B))]


def test_a_claim_expires_after_the_given_time() -> None:
    """It also stores when its owner's record arrived, which may have been long before."""
    double = memory()
    ledger(double).claim({"q": Claim(A.owner, 7)}, 90)

    assert {
        **CLAIMED,
        "owner": {"S": "overflow#a"},
        "at": {"N": "7"},
        "ttl": {"N": str(int(BEGAN) + 90)},
    } == double.get_item(TableName="ledger", Key=CLAIMED)["Item"]


def test_claims_match_dynamodb_s_service_model() -> None:
    """Botocore validates requests and responses. The owner of a refused claim is read consistently."""
    real = boto3.client("dynamodb", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
    insert = "INSERT INTO \"ledger\" VALUE {'pk': ?, 'sk': ?, 'owner': ?, 'at': ?, 'ttl': ?}"
    at, ttl = {"N": str(int(BEGAN))}, {"N": str(int(BEGAN) + 60)}
    parameters = [[{"S": f"put#{one}"}, {"S": "-"}, {"S": "overflow#b"}, at, ttl] for one in ("q", "r")]
    item = {**CLAIMED, "owner": {"S": "overflow#a"}, "at": {"N": "7"}}
    with Stubber(real) as stub:
        stub.add_response(
            "batch_execute_statement",
            {"Responses": [{"Error": {"Code": "DuplicateItem"}}, {"TableName": "ledger"}]},
            {"Statements": [{"Statement": insert, "Parameters": one} for one in parameters]},
        )
        stub.add_response(
            "batch_get_item",
            {"Responses": {"ledger": [item]}, "UnprocessedKeys": {}},
            {"RequestItems": {"ledger": {"Keys": [CLAIMED], "ConsistentRead": True}}},
        )

        assert {"q": Claim(A.owner, 7), "r": B} == ledger(real).claim({"q": B, "r": B}, 60)


def test_a_claim_can_be_taken_over_only_from_its_owner(client: Any) -> None:
    """Of two takeovers one wins, and the winner may repeat it."""
    one = ledger(client)
    client.put_item(TableName="ledger", Item={**CLAIMED, "owner": {"S": "overflow#a"}, "at": {"N": "7"}})

    taken = [one.take_over("q", *names) for names in ((B, C.owner), (B, A.owner), (C, A.owner), (B, A.owner))]
    assert [False, True, False, True] == taken
    assert {**CLAIMED, "owner": {"S": "overflow#b"}, "at": {"N": str(int(BEGAN))}} == client.get_item(
        TableName="ledger", Key=CLAIMED
    )["Item"]
    assert not one.take_over("never", B, A.owner)


@pytest.mark.parametrize("code", ["ThrottlingError", "InternalServerError", "ProvisionedThroughputExceeded"])
def test_a_failed_statement_leaves_its_claim_undecided(code: str) -> None:
    """A batch's 200 says nothing about single statements; the others are decided."""
    double = memory()
    meddled = Meddled(double)
    one = ledger(meddled)
    wanted = {f"q{n}": A for n in range(MOST_CLAIMS)}
    real = double.batch_execute_statement

    def throttled(**request: Any) -> Any:
        answer = real(**request)
        answer["Responses"][3] = {"Error": {"Code": code}}
        return answer

    meddled.client = type("Client", (), {"batch_execute_statement": staticmethod(throttled)})()

    assert wanted.keys() - {"q3"} == one.claim(wanted, 60).keys()


def test_an_unread_owner_leaves_its_claim_undecided() -> None:
    """DynamoDB may leave keys unprocessed or not return an item."""
    double = memory()
    one = ledger(double)
    wanted = {f"q{n}": A for n in range(10)}
    one.claim(wanted, 60)
    double.batch_get_keys = 4

    assert 4 == len(one.claim(dict.fromkeys(wanted, B), 60))


def test_a_single_claim_without_an_answer_is_an_error() -> None:
    """A missing answer is never a no."""
    double = memory()
    one = ledger(double)
    one.claim({"q": A}, 60)
    double.batch_get_keys = 0

    with pytest.raises(LedgerUnavailableError, match="does not say"):
        one.claim_one("q", B, 60)


# Breakers


def test_a_breaker_is_open_until_it_is_closed(client: Any) -> None:
    """It has a reason and the time at which it was last opened."""
    one = ledger(client)
    assert [] == list(one.breakers())

    one.open_breaker("shop_db", "http_500")
    one.open_breaker("blog_db", "timeout")
    opened = OpenBreaker("shop_db", round(BEGAN * 1000), "http_500")
    assert [OpenBreaker("blog_db", round(BEGAN * 1000), "timeout"), opened] == sorted(
        one.breakers(), key=lambda breaker: breaker.database
    )

    one.close_breaker("blog_db")
    assert [opened] == list(one.breakers())


# Failures


def throttle(_: Any) -> None:
    """Make DynamoDB throttle."""
    raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "Query")


def lose(_: Any) -> None:
    """Lose DynamoDB's answer."""
    lose_answer()


@pytest.mark.parametrize("failure", [throttle, lose])
@pytest.mark.parametrize(
    "act",
    [
        lambda one: one.preceding(CHAIN, N[9]),
        lambda one: one.locate(CHAIN, N[9]),
        lambda one: one.get(Place(CHAIN, START)),
        lambda one: one.end(CHAIN),
        lambda one: list(one.latest(CHAIN)),
        lambda one: one.append(span()),
        lambda one: one.update(span()),
        lambda one: list(one.worklist(dead=True)),
        lambda one: list(one.spans()),
        lambda one: list(one.open_spans(1.0)),
        lambda one: one.claim({"q": A}, 60),
        lambda one: one.claim_one("q", A, 60),
        lambda one: one.take_over("q", A, B.owner),
        lambda one: list(one.breakers()),
        lambda one: one.open_breaker("shop_db", "slow"),
        lambda one: one.close_breaker("shop_db"),
    ],
)
def test_every_failure_is_logged_as_an_unavailable_ledger(
    act: Callable[[Ledger], Any], failure: Callable[[Any], None]
) -> None:
    """It is therefore never mistaken for a lost conditional write."""
    meddled = Meddled(memory())
    one = ledger(meddled)
    calls = ("query", "scan", "put_item", "get_item", "update_item", "batch_execute_statement")
    meddled.before = dict.fromkeys(calls, failure)

    with pytest.raises(LedgerUnavailableError):
        act(one)
    assert 1 == len(one._telemetry.said("the ledger cannot be reached"))  # type: ignore[attr-defined]  # the collected one


# Guards


def test_guards_can_be_switched_off() -> None:
    """Fault injection needs plans that replace others and updates that ignore the version."""
    careless = ledger(memory(), 1, Guard.CONDITIONAL_PLAN, Guard.IF_VERSION)
    _, read = careless.append(stretch(START, N[11], N[13]))
    careless.update(read.with_entries({KEY: PARKED}))

    assert careless.update(read.with_entries({}, done=True))[0]
    assert careless.append(stretch(START, N[11], N[19]))[0]
