"""The in-memory DynamoDB answers as moto's does."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from doubles.dynamodb import MemoryDynamoDB

TABLE = {
    "TableName": "ledger",
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    "AttributeDefinitions": [
        {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk", "kind", "since")
    ],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": "by_kind",
            "KeySchema": [
                {"AttributeName": "kind", "KeyType": "HASH"},
                {"AttributeName": "since", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "ALL"},
        }
    ],
    "BillingMode": "PAY_PER_REQUEST",
}
Call = tuple[str, dict[str, Any]]


@pytest.fixture
def pair() -> Iterator[tuple[Any, MemoryDynamoDB]]:
    """Moto's client and ours, each with the table."""
    with mock_aws():
        yield _pair()


def _pair() -> tuple[Any, MemoryDynamoDB]:
    real = boto3.client("dynamodb", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    double = MemoryDynamoDB()
    for client in (real, double):
        client.create_table(**TABLE)
    return real, double


def _outcome(client: Any, call: Call) -> tuple[str, Any]:
    name, request = call
    try:
        answer = getattr(client, name)(TableName="ledger", **request)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response.get("Item")
    answer.pop("ResponseMetadata", None)
    answer.pop("ConsumedCapacity", None)  # moto tells it unasked
    return "ok", answer


def _s(text: str) -> dict[str, str]:
    return {"S": text}


def _n(number: int) -> dict[str, str]:
    return {"N": str(number)}


def _item(pk: str, sk: str, **attributes: Any) -> dict[str, Any]:
    return {"pk": _s(pk), "sk": _s(sk), **attributes}


SCRIPTS: dict[str, list[Call]] = {
    "a conditional put is refused and shows the item that stands": [
        ("put_item", {"Item": _item("a", "1", v=_n(1)), "ConditionExpression": "attribute_not_exists(sk)"}),
        (
            "put_item",
            {
                "Item": _item("a", "1", v=_n(9)),
                "ConditionExpression": "attribute_not_exists(sk)",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            },
        ),
        (
            "put_item",
            {
                "Item": _item("a", "1", owner=_s("me")),
                "ConditionExpression": "attribute_not_exists(pk) OR #o = :me",
                "ExpressionAttributeNames": {"#o": "owner"},
                "ExpressionAttributeValues": {":me": _s("me")},
            },
        ),
    ],
    "an update counts, moves into maps, removes and adds": [
        ("put_item", {"Item": _item("a", "1", v=_n(1), x={"M": {"one": {"M": {"state": _s("pending")}}}})}),
        (
            "update_item",
            {
                "Key": _item("a", "1"),
                "UpdateExpression": "SET v = v + :one, x.#c.#s = :s, fresh = if_not_exists(fresh, :n) REMOVE absent ADD amount :n",
                "ConditionExpression": "v = :v AND attribute_exists(x.#c)",
                "ExpressionAttributeNames": {"#c": "one", "#s": "state"},
                "ExpressionAttributeValues": {":one": _n(1), ":v": _n(1), ":s": _s("aside"), ":n": _n(5)},
                "ReturnValues": "ALL_NEW",
            },
        ),
        (
            "update_item",
            {
                "Key": _item("a", "1"),
                "UpdateExpression": "SET v = v + :one",
                "ConditionExpression": "v = :v",
                "ExpressionAttributeValues": {":one": _n(1), ":v": _n(1)},
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            },
        ),
        (
            "update_item",
            {
                "Key": _item("a", "1"),
                "UpdateExpression": "REMOVE x.#c.#s, amount SET fresh = fresh - :one",
                "ExpressionAttributeNames": {"#c": "one", "#s": "state"},
                "ExpressionAttributeValues": {":one": _n(7)},
                "ReturnValues": "UPDATED_NEW",
            },
        ),
        ("get_item", {"Key": _item("a", "1"), "ConsistentRead": True}),
    ],
    "an update without an item makes one": [
        (
            "update_item",
            {
                "Key": _item("a", "1"),
                "UpdateExpression": "ADD n :one SET #t = :t",
                "ExpressionAttributeNames": {"#t": "ttl"},
                "ExpressionAttributeValues": {":one": _n(1), ":t": _n(3)},
                "ReturnValues": "ALL_OLD",
            },
        ),
        ("get_item", {"Key": _item("a", "1")}),
    ],
    "what cannot be updated is refused": [
        ("put_item", {"Item": _item("a", "1", v=_n(1))}),
        (
            "update_item",
            {
                "Key": _item("a", "1"),
                "UpdateExpression": "SET missing.#x = :v",
                "ExpressionAttributeNames": {"#x": "x"},
                "ExpressionAttributeValues": {":v": _n(1)},
            },
        ),
        (
            "update_item",
            {
                "Key": _item("a", "1"),
                "UpdateExpression": "SET w = absent + :v",
                "ExpressionAttributeValues": {":v": _n(1)},
            },
        ),
        (
            "update_item",
            {
                "Key": _item("a", "1"),
                "UpdateExpression": "SET w = :v",
                "ExpressionAttributeValues": {":v": _n(1), ":unused": _n(2)},
            },
        ),
        ("get_item", {"Key": _item("a", "1")}),
    ],
    "a query walks back from a sort key": [
        *(("put_item", {"Item": _item("a", f"{i:03}", v=_n(i))}) for i in range(6)),
        ("put_item", {"Item": _item("b", "003")}),
        (
            "query",
            {
                "KeyConditionExpression": "pk = :p AND sk < :x",
                "ExpressionAttributeValues": {":p": _s("a"), ":x": _s("004")},
                "ScanIndexForward": False,
                "Limit": 1,
                "ConsistentRead": True,
            },
        ),
        (
            "query",
            {
                "KeyConditionExpression": "pk = :p AND sk BETWEEN :x AND :y",
                "FilterExpression": "v <> :v",
                "ExpressionAttributeValues": {":p": _s("a"), ":x": _s("001"), ":y": _s("003"), ":v": _n(2)},
                "ProjectionExpression": "sk",
            },
        ),
        (
            "query",
            {
                "KeyConditionExpression": "#p = :p AND begins_with(sk, :x)",
                "ExpressionAttributeNames": {"#p": "pk"},
                "ExpressionAttributeValues": {":p": _s("a"), ":x": _s("00")},
                "Select": "COUNT",
            },
        ),
        (
            "query",
            {
                "KeyConditionExpression": "pk = :p",
                "ExpressionAttributeValues": {":p": _s("nothing")},
            },
        ),
    ],
    "a sparse index holds only the items that have its attributes": [
        ("put_item", {"Item": _item("a", "1", kind=_s("open"), since=_s("2"))}),
        ("put_item", {"Item": _item("a", "2", kind=_s("open"), since=_s("1"))}),
        ("put_item", {"Item": _item("a", "3")}),
        (
            "update_item",
            {
                "Key": _item("a", "1"),
                "UpdateExpression": "REMOVE kind",
            },
        ),
        (
            "query",
            {
                "IndexName": "by_kind",
                "KeyConditionExpression": "kind = :k AND since >= :s",
                "ExpressionAttributeValues": {":k": _s("open"), ":s": _s("0")},
            },
        ),
        ("delete_item", {"Key": _item("a", "2"), "ReturnValues": "ALL_OLD"}),
        (
            "query",
            {
                "IndexName": "by_kind",
                "KeyConditionExpression": "kind = :k",
                "ExpressionAttributeValues": {":k": _s("open")},
            },
        ),
    ],
    "a conditional delete keeps what changed": [
        ("put_item", {"Item": _item("a", "1", v=_n(2))}),
        (
            "delete_item",
            {
                "Key": _item("a", "1"),
                "ConditionExpression": "NOT (v > :v OR attribute_not_exists(v)) AND size(sk) IN (:v, :one)",
                "ExpressionAttributeValues": {":v": _n(1), ":one": _n(1)},
            },
        ),
        ("get_item", {"Key": _item("a", "1"), "ProjectionExpression": "v, sk"}),
    ],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_answers_as_moto_does(pair: tuple[Any, MemoryDynamoDB], script: str) -> None:
    """Every answer, error code and standing item of the script is moto's."""
    real, double = pair
    for call in SCRIPTS[script]:
        assert _outcome(double, call) == _outcome(real, call), call


_KEYS = st.builds(_item, st.sampled_from("ab"), st.sampled_from(["000", "001", "0022", "010"]))
_COUNTS = st.integers(0, 3).map(_n)
_MAPS = st.dictionaries(st.sampled_from(["one", "two"]), _COUNTS).map(lambda members: {"M": members})
_PUTS = st.builds(
    lambda key, v, x, kind, condition: (
        "put_item",
        {
            "Item": key | {"v": v, "x": x} | kind,
            **({"ConditionExpression": "attribute_not_exists(sk)"} if condition else {}),
            "ReturnValues": "ALL_OLD",
        },
    ),
    _KEYS,
    _COUNTS,
    _MAPS,
    st.sampled_from([{}, {"kind": _s("open"), "since": _s("1")}, {"kind": _s("open")}]),
    st.booleans(),
)
_UPDATES = st.builds(
    lambda key, expression, v, name: (
        "update_item",
        {
            "Key": key,
            "UpdateExpression": expression,
            "ConditionExpression": "v >= :v",
            "ExpressionAttributeNames": {"#n": name},
            "ExpressionAttributeValues": {":v": v, ":w": _n(1)},
            "ReturnValues": "ALL_NEW",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        },
    ),
    _KEYS,
    st.sampled_from(
        [
            "SET v = v + :w, x.#n = :w",
            "SET x.#n = if_not_exists(x.#n, :w) + :w",
            "REMOVE x.#n SET v = :w",
            "ADD v :w REMOVE kind, x.#n",
        ]
    ),
    _COUNTS,
    st.sampled_from(["one", "two", "odd-name#1"]),
)
_DELETES = _KEYS.map(lambda key: ("delete_item", {"Key": key, "ReturnValues": "ALL_OLD"}))
_QUERIES = st.builds(
    lambda pk, operator, bound, forward, limit: (
        "query",
        {
            "KeyConditionExpression": f"pk = :p AND sk {operator} :x",
            "ExpressionAttributeValues": {":p": _s(pk), ":x": _s(bound)},
            "ScanIndexForward": forward,
            "Limit": limit,
        },
    ),
    st.sampled_from("ab"),
    st.sampled_from(["<", "<=", ">", ">=", "="]),
    st.sampled_from(["000", "001", "005", "0022"]),
    st.booleans(),
    st.integers(2, 5),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(_PUTS, _PUTS, _UPDATES, _UPDATES, _DELETES, _QUERIES), max_size=20))
def test_any_sequence_leaves_the_same(calls: list[Call]) -> None:
    """Whatever is done in whatever order, answers and what is left are moto's."""
    with mock_aws():
        real, double = _pair()
        for call in calls:
            expected, actual = _outcome(real, call), _outcome(double, call)
            for _, answer in (expected, actual):
                if isinstance(
                    answer, dict
                ):  # moto names a next page only where there is one, DynamoDB at each limit
                    answer.pop("LastEvaluatedKey", None)
            assert actual == expected, call
        key = lambda item: (item["pk"]["S"], item["sk"]["S"])  # noqa: E731 -- said once
        assert sorted(double.items("ledger"), key=key) == sorted(
            real.scan(TableName="ledger")["Items"], key=key
        )


def _pages(call: Callable[..., dict[str, Any]], request: dict[str, Any]) -> list[str]:
    found = []
    while True:
        page = call(TableName="ledger", **request)
        found += [item["sk"]["S"] for item in page["Items"]]
        if "LastEvaluatedKey" not in page:
            return found
        request = request | {"ExclusiveStartKey": page["LastEvaluatedKey"]}


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("index", [None, "by_kind"])
def test_pages_add_up_to_the_whole(index: str | None, *, forward: bool) -> None:
    """Pages in either order, of the table or an index, are the whole partition once."""
    double = MemoryDynamoDB(page_items=3)
    double.create_table(**TABLE)
    numbers = [f"{i:03}" for i in range(10)]
    for sk in random.Random(1).sample(numbers, len(numbers)):
        double.put_item(TableName="ledger", Item=_item("a", sk, kind=_s("a"), since=_s(str(int(sk) // 4))))
    request: dict[str, Any] = {
        "KeyConditionExpression": "kind = :p" if index else "pk = :p",
        "ExpressionAttributeValues": {":p": _s("a")},
        "ScanIndexForward": forward,
        **({"IndexName": index} if index else {}),
    }
    assert _pages(double.query, request) == (numbers if forward else numbers[::-1])
    assert sorted(_pages(double.scan, {})) == numbers


def test_what_is_returned_is_a_copy() -> None:
    """Changing an answer, or what was put, changes nothing that is stored."""
    double = MemoryDynamoDB()
    double.create_table(**TABLE)
    item = _item("a", "1", x={"M": {"one": _n(1)}})
    double.put_item(TableName="ledger", Item=item)
    item["x"]["M"]["one"] = _n(2)
    double.get_item(TableName="ledger", Key=_item("a", "1"))["Item"]["x"]["M"].clear()
    stored = double.get_item(TableName="ledger", Key=_item("a", "1"))["Item"]
    assert stored["x"] == {"M": {"one": _n(1)}}


def test_errors_can_be_caught_by_class() -> None:
    """A client's `exceptions` names the class that is raised."""
    double = MemoryDynamoDB()
    double.create_table(**TABLE)
    double.put_item(TableName="ledger", Item=_item("a", "1"))
    with pytest.raises(double.exceptions.ConditionalCheckFailedException):
        double.put_item(
            TableName="ledger", Item=_item("a", "1"), ConditionExpression="attribute_not_exists(pk)"
        )
