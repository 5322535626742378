"""The ledger's writes, over the double and over moto."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, ConnectionClosedError
from moto import mock_aws

from doubles.clock import START, ManualClock
from doubles.dynamodb import MemoryDynamoDB
from tests.support.delivery import CollectedJournal, Meddled, lose_answer
from worker.ledger import Ledger, LedgerUnavailableError, OpenBreaker
from worker.span import SECONDS_KEPT, Cut, Entry, Span, State

SCHEMA: dict[str, Any] = {
    "TableName": "ledger",
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
}


@pytest.fixture(params=["memory", "moto"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A client with the ledger's table."""
    if request.param == "memory":
        double = MemoryDynamoDB()
        double.create_table(**SCHEMA)
        yield double
        return
    with mock_aws():
        moto = boto3.client(
            "dynamodb", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        attributes = [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")]
        moto.create_table(**SCHEMA, AttributeDefinitions=attributes, BillingMode="PAY_PER_REQUEST")
        yield moto


def ledger(client: Any) -> Ledger:
    """Return a ledger over a client."""
    counter = itertools.count(1)
    return Ledger(
        client, "ledger", ManualClock(), lambda n: next(counter).to_bytes(n, "big"), CollectedJournal()
    )


def span(after: str, first: str, last: str, chain: str = "c") -> Span:
    """Return a span."""
    return Span(chain, after, first, last, 1, {"shop": "shop_db"}, Cut(1, 1), {"shop/views": 2})


def test_chain(client: Any) -> None:
    """Of what was appended, the span whose end precedes a number is found, in its chain alone."""
    one = ledger(client)
    assert one.preceding("c", "0015") is None
    for appended in (
        span("000", "0011", "0013"),
        span("0013", "0015", "0017"),
        span("000", "0011", "0011", "d"),
    ):
        ours, standing = one.append(appended)
        assert (ours, standing.last) == (True, appended.last)
    assert one.preceding("c", "0011").last == "0013"  # type: ignore[union-attr]  # it is there
    assert one.preceding("c", "0014").last == "0017"  # type: ignore[union-attr]  # it is there
    assert one.preceding("c", "02100").last == "0017"  # type: ignore[union-attr]  # it is there
    assert one.get("d", "000").last == "0011"  # type: ignore[union-attr]  # it is there
    assert one.get("d", "0011") is None


def test_a_second_successor_is_refused(client: Any) -> None:
    """A chain's end takes one successor; who comes second is handed what stands there."""
    first, second = ledger(client), ledger(client)
    second._entropy = lambda n: b"\xff" * n
    _, standing = first.append(span("000", "0011", "0013"))
    assert second.append(span("000", "0011", "0019")) == (False, standing)


def test_an_update_is_bound_to_its_version(client: Any) -> None:
    """Who has not seen the last write is refused, and handed what stands there."""
    one, other = ledger(client), ledger(client)
    other._entropy = lambda n: b"\xff" * n
    _, read = one.append(span("000", "0011", "0013"))
    ours, written = one.update(read.with_chunks({"shop/views/0": Entry(State.ASIDE, 2, kind="parked")}))
    assert (ours, written.version) == (True, 2)
    assert one.get("c", "000") == written
    assert other.update(read.with_chunks({}, done=True)) == (False, written)


def test_settled_spans_expire_and_others_do_not(client: Any) -> None:
    """Only a span of which nothing is pending or aside may ever be forgotten."""
    one = ledger(client)
    _, read = one.append(span("000", "0011", "0013"))
    _, aside = one.update(read.with_chunks({"shop/views/0": Entry(State.ASIDE, 2)}, done=True))
    key = {"pk": {"S": "c"}, "sk": {"S": "000"}}
    assert "ttl" not in client.get_item(TableName="ledger", Key=key)["Item"]
    one.update(
        aside.with_chunks({"shop/views/0": replace(aside.chunk("shop/views/0"), state=State.DELIVERED)})
    )
    item = client.get_item(TableName="ledger", Key=key)["Item"]
    assert item["ttl"] == {"N": str(int(START) + SECONDS_KEPT)}
    assert item["x"] == {"M": {}}


@pytest.mark.parametrize("call", ["put_item", "update_item"])
def test_own_writes_are_known(client: Any, call: str) -> None:
    """A write that took effect, was not answered, and was repeated by the client, is known as one's own."""

    class Repeating:
        def __getattr__(self, name: str) -> Any:
            real = getattr(client, name)
            if name != call:
                return real
            return lambda **request: (real(**request), real(**request))[1]

    one = ledger(Repeating())
    ours, read = one.append(span("000", "0011", "0013"))
    assert (ours, read.version) == (True, 1)
    ours, written = one.update(read.with_chunks({}, done=True))
    assert (ours, written.version) == (True, 2)
    assert one.get("c", "000") == written


def test_claims_are_for_good(client: Any) -> None:
    """Who claims an envelope first owns it, however often it is asked."""
    one = ledger(client)
    assert [one.claim("q#1", "a"), one.claim("q#1", "b"), one.claim("q#1", "a"), one.claim("q", "b")] == [
        True,
        False,
        True,
        True,
    ]


def test_breakers(client: Any) -> None:
    """A breaker is open from the first time it was opened until it is closed."""
    one = ledger(client)
    assert list(one.breakers()) == []
    one.open_breaker("shop_db", "http_500")
    opened = OpenBreaker("shop_db", round(START * 1000), "http_500")
    assert list(one.breakers()) == [opened]
    one.open_breaker("blog_db", "timeout")
    assert sorted(breaker.database for breaker in one.breakers()) == ["blog_db", "shop_db"]
    one.close_breaker("blog_db")
    assert list(one.breakers()) == [opened]


def test_failures_are_told_apart_from_refusals() -> None:
    """Whatever keeps the ledger from answering is that it is unavailable, and is counted."""
    double = MemoryDynamoDB()
    double.create_table(**SCHEMA)
    meddled = Meddled(double)
    one = ledger(meddled)

    def throttle(_: Any) -> None:
        raise ClientError({"Error": {"Code": "ProvisionedThroughputExceededException"}}, "Query")  # type: ignore[typeddict-item]

    for failure in (throttle, lambda _: lose_answer()):
        meddled.before = dict.fromkeys(("query", "put_item", "get_item", "update_item"), failure)
        for act in (
            lambda: one.preceding("c", "1"),
            lambda: one.append(span("000", "0011", "0012")),
            lambda: one.update(span("000", "0011", "0012")),
            lambda: one.get("c", "1"),
            lambda: one.claim("q", "a"),
            lambda: list(one.breakers()),
        ):
            with pytest.raises(LedgerUnavailableError):
                act()
    assert one._journal.counts["LedgerErrors"] == 12  # type: ignore[attr-defined]  # the collected one
    assert ConnectionClosedError


def test_a_span_that_has_gone() -> None:
    """A span that is no longer in the ledger cannot be written about."""
    double = MemoryDynamoDB()
    double.create_table(**SCHEMA)
    with pytest.raises(LedgerUnavailableError, match="gone"):
        ledger(double).update(span("000", "0011", "0012"))
