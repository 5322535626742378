"""The in-memory DynamoDB responds as moto does, and enforces the documented limits."""

import random
import re
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from doubles.dynamodb import MemoryDynamoDB
from doubles.dynamodb.table import MAX_ITEM_BYTES, item_size

Call = tuple[str, dict[str, Any]]
Value = dict[str, Any]


def _keys(*names: str) -> list[dict[str, str]]:
    kinds = zip(names, ("HASH", "RANGE"), strict=False)
    return [{"AttributeName": name, "KeyType": kind} for name, kind in kinds]


TABLE: dict[str, Any] = {
    "TableName": "ledger",
    "KeySchema": _keys("pk", "sk"),
    "AttributeDefinitions": [
        {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk", "kind", "since")
    ],
    "GlobalSecondaryIndexes": [
        {"IndexName": name, "KeySchema": keys, "Projection": {"ProjectionType": "KEYS_ONLY"}}
        for name, keys in {"by_kind": _keys("kind", "since"), "kind_only": _keys("kind")}.items()
    ],
    "BillingMode": "PAY_PER_REQUEST",
}
ALIASES = {"#o": "owner", "#at": "at", "#t": "ttl"}


def _double(**options: Any) -> MemoryDynamoDB:
    double = MemoryDynamoDB(**options)
    double.create_table(**TABLE)
    return double


def _outcome(client: Any, call: Call) -> tuple[str, Any]:
    name, request = call
    if not name.startswith(("batch", "transact")):
        request = {"TableName": "ledger", **request}
    try:
        answer = getattr(client, name)(**request)
    except ClientError as error:
        told: Any = error.response
        reasons = [one["Code"] for one in told.get("CancellationReasons", ())]
        return told["Error"]["Code"], told.get("Item") or reasons
    # moto returns LastEvaluatedKey only if there is a next page, DynamoDB whenever the limit is reached
    for differing in ("ResponseMetadata", "ConsumedCapacity", "ItemCollectionMetrics", "LastEvaluatedKey"):
        answer.pop(differing, None)
    return "ok", answer


def _wire(value: str | int | Value) -> Value:
    if isinstance(value, dict):
        return value
    return {"S": value} if isinstance(value, str) else {"N": str(value)}


def _item(pk: str, sk: str, **attributes: str | int | Value) -> dict[str, Value]:
    return {name: _wire(value) for name, value in {"pk": pk, "sk": sk, **attributes}.items()}


def _with(values: dict[str, Any], **request: Any) -> dict[str, Any]:
    """Return a request without its empty expressions and with the placeholders that its expressions use."""
    request = {name: value for name, value in request.items() if value != ""}
    text = " ".join(value for name, value in request.items() if name.endswith("Expression"))
    names = {alias: ALIASES[alias] for alias in re.findall(r"#\w+", text)}
    wired = {f":{name}": _wire(value) for name, value in values.items() if f":{name}" in text}
    request |= {"ExpressionAttributeNames": names} if names else {}
    return request | ({"ExpressionAttributeValues": wired} if wired else {})


def _put(item: dict[str, Value], condition: str = "", **values: Any) -> Call:
    shown = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    return "put_item", _with(values, Item=item, ConditionExpression=condition, **shown)


def _update(expression: str, condition: str = "", *, key: Any = ("a", "1"), **values: Any) -> Call:
    request = {"UpdateExpression": expression, "ConditionExpression": condition}
    return "update_item", _with(values, Key=_item(*key), **request)


def _query(condition: str, values: dict[str, Any], **request: Any) -> Call:
    return "query", _with(values, KeyConditionExpression=condition, **request)


def _insert(statement: str, *parameters: str) -> dict[str, Any]:
    return {"Statement": statement, "Parameters": [_wire(value) for value in parameters]}


def _get(*keys: dict[str, Value]) -> Call:
    return "batch_get_item", {"RequestItems": {"ledger": {"Keys": list(keys), "ConsistentRead": True}}}


def _transact(*writes: Call, **token: str) -> Call:
    kinds = {"put_item": "Put", "update_item": "Update"}
    actions = [{kinds[name]: {"TableName": "ledger", **request}} for name, request in writes]
    return "transact_write_items", {"TransactItems": actions, **token}


def _new(pk: str) -> Call:
    return "put_item", _with({}, Item=_item(pk, "1"), ConditionExpression="attribute_not_exists(sk)")


def _touch(pk: str) -> Call:
    return _update("SET v = :v", "v = :old", key=(pk, "1"), v=2, old=1)


OPEN = {"k": "open"}
UNUSED = {":v": _wire(1), ":unused": _wire(2)}
SORT_KEYS = ("000", "001", "0022", "010")
INVALID: list[Call] = [
    ("update_item", _update("SET w = :v")[1] | {"ExpressionAttributeValues": UNUSED}),
    _update("SET w = :v, z = :undefined", v=1),
    _update("SET w = :v REMOVE w", v=1),
    _update("SET sk = :v", v="2"),
    _update("SET kind = :v", v=1),
    ("put_item", {"Item": {"pk": _wire("a")}}),
    ("get_item", {"Key": {"pk": _wire("a")}}),
    ("query", _with({"v": 1}, KeyConditionExpression="v = :v")),
    _query("kind = :k", OPEN, IndexName="by_kind", ConsistentRead=True),
    _get(_item("a", "1"), _item("a", "1")),
    _get(*(_item("a", str(i)) for i in range(101))),
]
SHOWN = {"ReturnValues": "UPDATED_NEW"}
ADDED: list[Call] = [
    # of an item that an update creates, moto returns the key as well, DynamoDB does not
    _put(_item("a", "1", u=1)),
    ("update_item", _update("ADD v :v, w :zero SET x = :v", v=2, zero=0)[1] | SHOWN),
    ("update_item", _update("ADD v :v SET y = :y", v=3, y="a")[1] | SHOWN),
    _update("ADD y :v", v=3),
    _update("ADD x :y", y="a"),
    _update("ADD v :v", key=("a", "2"), v=-1),
    _get(_item("a", "1"), _item("a", "2")),
]
TRANSACTIONS: list[Call] = [
    _put(_item("a", "1", v=1)),
    _put(_item("b", "1", v=7)),
    _transact(_new("c"), _touch("a")),
    _transact(_new("new"), _touch("b")),  # each write has its reason, in order
    _transact(_new("a"), _touch("absent")),
    _transact(_new("new"), _new("new")),
    _transact(*(_new(f"p{number}") for number in range(101))),
    ("scan", {}),
]
SPARSE: list[Call] = [
    _put(_item("a", "1", kind="open", since="2", v=1, x=2)),
    _put(_item("a", "2", kind="open", since="1")),
    _put(_item("a", "3", kind="open")),
    _query("kind = :k AND since >= :s", OPEN | {"s": "0"}, IndexName="by_kind"),
    _query("kind = :k", OPEN, IndexName="by_kind", ScanIndexForward=False, Limit=1),
    _update("REMOVE kind, since"),
    _query("kind = :k", OPEN, IndexName="by_kind"),
    ("delete_item", {"Key": _item("a", "2")}),
    _query("kind = :k", OPEN, IndexName="kind_only"),
]

_KEYS = st.tuples(st.sampled_from("ab"), st.sampled_from(SORT_KEYS))
_COUNTS = st.integers(0, 3)
_CALLS = st.one_of(
    st.builds(
        lambda key, v, more, condition: _put(_item(*key, v=v, **more), condition, c=v),
        _KEYS,
        _COUNTS,
        st.sampled_from(
            [{}, {"kind": "open", "since": "1"}, {"kind": "open"}, {"x": {"M": {"y": _wire(1)}}}]
        ),
        st.sampled_from(["", "attribute_not_exists(sk)", "attribute_exists(kind) AND v < :c OR #o = :c"]),
    ),
    st.builds(
        lambda key, expression, v, condition: _update(expression, condition, key=key, v=v, w=1),
        _KEYS,
        st.sampled_from(["SET v = :v, #o = :w", "SET v = :w, #t = :w", "REMOVE #o, x SET v = :w"]),
        _COUNTS,
        st.sampled_from(["", "v >= :v", "v = :v"]),
    ),
    _KEYS.map(lambda k: ("delete_item", {"Key": _item(*k), "ConditionExpression": "attribute_exists(v)"})),
    _KEYS.map(lambda key: ("get_item", {"Key": _item(*key), "ConsistentRead": True})),
    st.builds(
        lambda pk, sign, sk, forward, limit: _query(
            f"pk = :p AND sk {sign} :x", {"p": pk, "x": sk}, ScanIndexForward=forward, Limit=limit
        ),
        st.sampled_from("ab"),
        st.sampled_from(["<", "<=", ">", ">=", "="]),
        st.sampled_from(["000", "001", "005", "0022"]),
        st.booleans(),
        st.integers(2, 5),
    ),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(_CALLS, max_size=20))
@example(INVALID)
@example(SPARSE)
@example(ADDED)
@example(TRANSACTIONS)
def test_any_sequence_of_calls_matches_moto(calls: list[Call]) -> None:
    """For any calls in any order, responses, indexes, error codes and the final state are moto's."""
    with mock_aws():
        real: Any = boto3.client("dynamodb", "us-east-1")
        real.create_table(**TABLE)
        double = _double()
        last = _query("kind = :k", OPEN, IndexName="by_kind"), _get(*(_item("a", sk) for sk in SORT_KEYS))
        for call in [*calls, *last]:
            assert _outcome(real, call) == _outcome(double, call), call
        items = real.scan(TableName="ledger")["Items"]

        assert sorted(items, key=lambda item: (item["pk"]["S"], item["sk"]["S"])) == [*double.items("ledger")]


def _pages(double: MemoryDynamoDB, call: Call) -> list[str]:
    name, request = call
    found = []
    while True:
        page = getattr(double, name)(TableName="ledger", **request)
        found += [item["sk"]["S"] for item in page["Items"]]
        if "LastEvaluatedKey" not in page:
            return found
        request = request | {"ExclusiveStartKey": page["LastEvaluatedKey"]}


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("index", [None, "by_kind", "kind_only"])
def test_pages_add_up_to_the_whole(index: str | None, *, forward: bool) -> None:
    """The pages of the table or an index contain every item once, in either order."""
    double = _double(page_items=3)
    numbers = [f"{i:03}" for i in range(10)]
    for sk in random.Random(1).sample(numbers, len(numbers)):
        double.put_item(TableName="ledger", Item=_item("a", sk, kind="a", since=str(int(sk) // 4)))
    request: dict[str, Any] = {"IndexName": index} if index else {}
    condition = "kind = :p" if index else "pk = :p"
    found = _pages(double, _query(condition, {"p": "a"}, ScanIndexForward=forward, **request))

    assert (numbers if forward else numbers[::-1]) == found
    assert numbers == _pages(double, ("scan", {}))


def test_an_index_lags_behind_its_table() -> None:
    """A lagging index shows writes and removals after their delay, or as soon as the lag is set to 0."""
    now = [100.0]
    double = _double(now=lambda: now[0])
    query = _query("kind = :k", OPEN, IndexName="by_kind")
    double.lag_indexes("ledger", 5)
    _outcome(double, _put(_item("a", "1", kind="open", since="1")))
    seen = [_pages(double, query)]
    now[0] = 105.0
    seen.append(_pages(double, query))
    double.lag_indexes("ledger", float("inf"))
    _outcome(double, _update("REMOVE kind"))
    now[0] = 1e9
    seen.append(_pages(double, query))
    double.lag_indexes("ledger", 0)

    assert [[], ["1"], ["1"], []] == [*seen, _pages(double, query)]


def test_unprocessed_keys_can_be_requested_again() -> None:
    """A BatchGetItem that stops early returns the keys that it did not process. What it returns are copies of what is stored."""
    double, items = _double(), [_item("a", sk, x={"M": {"one": _wire(1)}}) for sk in "123"]
    double.batch_get_keys = 2
    for item in items:
        double.put_item(TableName="ledger", Item=item)
        item["x"]["M"]["one"] = _wire(2)
    _, request = _get(*(_item("a", sk) for sk in "123"))
    answer = double.batch_get_item(**request)
    rest = double.batch_get_item(RequestItems=answer["UnprocessedKeys"])
    found = [one["Responses"]["ledger"] for one in (answer, rest)]
    assert [["1", "2"], ["3"]] == [[item["sk"]["S"] for item in page] for page in found]
    for item in [*found[0], *double.items("ledger"), *double.scan(TableName="ledger")["Items"]]:
        item["x"]["M"].clear()

    assert [{"M": {"one": _wire(1)}}] * 3 == [item["x"] for item in double.items("ledger")]


def test_the_size_of_an_item_follows_the_documented_rule() -> None:
    """Names and strings count in UTF-8, numbers one byte per two digits plus one, maps three bytes plus one per member."""
    item = {
        "é": {"S": "€uro"},  # 2 + 6
        "n": {"N": "-120.450e3"},  # 1 + 3 for the digits 12045 + 1
        "z": {"N": "0"},  # 1 + 1
        "b": {"B": b"12345"},  # 1 + 5
        "t": {"BOOL": True},  # 1 + 1
        "m": {"M": {"ab": {"S": "c"}, "l": {"L": [{"NULL": True}]}}},  # 1 + 3 + 4 + (1 + 3 + 1 + 1 + 1)
    }

    assert 8 + 5 + 2 + 6 + 2 + 15 == item_size(item)


@pytest.mark.parametrize(
    ("excess", "codes"), [(0, ["ok"] * 3), (1, ["ValidationException"] * 2 + ["ValidationError"])]
)
def test_an_item_larger_than_400_kb_is_rejected(excess: int, codes: list[str]) -> None:
    """An item may have at most 400 KB, whether it is put, inserted or updated."""
    body = "x" * (MAX_ITEM_BYTES - item_size(_item("a", "1", x="")) + excess)
    insert = _insert("""INSERT INTO "ledger" VALUE {'pk': ?, 'sk': ?, 'x': ?}""", "a", "1", body)
    [inserted] = _double().batch_execute_statement(Statements=[insert])["Responses"]
    calls = _put(_item("a", "1", x=body)), _update("SET x = :x", x=body)
    outcomes = [_outcome(_double(), call) for call in calls]

    assert codes == [*(code for code, _ in outcomes), inserted.get("Error", {}).get("Code", "ok")]


@pytest.mark.parametrize(("name", "code"), [("at", "ValidationException"), ("#at", "ok")])
def test_reserved_words_need_an_alias(name: str, code: str) -> None:
    """An attribute with a reserved name is rejected in every expression unless it is aliased."""
    calls = [
        _put(_item("a", "1"), f"attribute_not_exists(sk) OR {name} < :v", v=1),
        _update(f"SET {name} = :v", v=1),
        ("scan", _with({"v": 1}, FilterExpression=f"{name} = :v")),
    ]

    assert [code] * 3 == [_outcome(_double(), call)[0] for call in calls]


@pytest.mark.parametrize(
    "call",
    [
        ("put_item", {"Item": _item("a", "1"), "ReturnValues": "ALL_OLD"}),
        ("update_item", _update("SET v = :v", v=1)[1] | {"ReturnValues": "ALL_NEW"}),
        _update("SET v = v + :v", v=1),
        _query("pk = :p AND begins_with(sk, :x)", {"p": "a", "x": "0"}),
        ("batch_execute_statement", {"Statements": [_insert("DELETE FROM ledger")]}),
    ],
)
def test_unsupported_requests_raise(call: Call) -> None:
    """Requests that the double does not support raise NotImplementedError, not an error of DynamoDB's."""
    with pytest.raises(NotImplementedError):
        _outcome(_double(), call)


def test_a_token_makes_a_transaction_idempotent() -> None:
    """What was written is not written again, what failed is tried anew, other writes are refused; an invalid one leaves nothing."""
    double, token = _double(), {"ClientRequestToken": "t"}
    invalid = _update("REMOVE owner", "v = :old", old=1)
    assert "ValidationException" == _outcome(double, _transact(_new("b"), invalid))[0]
    assert [] == list(double.items("ledger"))
    assert "TransactionCanceledException" == _outcome(double, _transact(_touch("a"), **token))[0]
    double.put_item(TableName="ledger", Item=_item("a", "1", v=1))

    codes = [_outcome(double, _transact(_touch(pk), **token))[0] for pk in ("a", "a", "b")]
    assert ["ok", "ok", "IdempotentParameterMismatchException"] == codes
