"""The in-memory DynamoDB answers as moto does, and keeps the documented limits."""

import random
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws
from moto.dynamodb.parsing.reserved_keywords import ReservedKeywords

from doubles.dynamodb import MemoryDynamoDB
from doubles.dynamodb.item_size import MAX_ITEM_BYTES, item_size
from doubles.dynamodb.reserved_words import RESERVED_WORDS


def _index(name: str, keys: list[str], **projection: Any) -> dict[str, Any]:
    schema = [
        {"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
    ]
    return {"IndexName": name, "KeySchema": schema, "Projection": projection}


TABLE = {
    "TableName": "ledger",
    "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    "AttributeDefinitions": [
        {"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk", "kind", "since")
    ],
    "GlobalSecondaryIndexes": [
        _index("by_kind", ["kind", "since"], ProjectionType="KEYS_ONLY"),
        _index("kind_only", ["kind"], ProjectionType="INCLUDE", NonKeyAttributes=["v"]),
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
    if not name.startswith("batch"):
        request = {"TableName": "ledger", **request}
    try:
        answer = getattr(client, name)(**request)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response.get("Item")
    for only_in_moto in ("ResponseMetadata", "ConsumedCapacity"):
        answer.pop(only_in_moto, None)
    return "ok", answer


def _s(text: str) -> dict[str, str]:
    return {"S": text}


def _n(number: int) -> dict[str, str]:
    return {"N": str(number)}


def _item(pk: str, sk: str, **attributes: Any) -> dict[str, Any]:
    return {"pk": _s(pk), "sk": _s(sk), **attributes}


def _put(pk: str, sk: str, **attributes: Any) -> Call:
    return "put_item", {"Item": _item(pk, sk, **attributes)}


def _update(pk: str, sk: str, expression: str, **request: Any) -> Call:
    return "update_item", {"Key": _item(pk, sk), "UpdateExpression": expression, **request}


def _query(condition: str, values: dict[str, Any], **request: Any) -> Call:
    return "query", {"KeyConditionExpression": condition, "ExpressionAttributeValues": values, **request}


def _insert(statement: str, *parameters: dict[str, str]) -> dict[str, Any]:
    return {"Statement": statement, **({"Parameters": list(parameters)} if parameters else {})}


SCRIPTS: dict[str, list[Call]] = {
    "a conditional put is rejected and returns the existing item": [
        (
            "put_item",
            {"Item": _item("a", "1", owner=_s("you")), "ConditionExpression": "attribute_not_exists(sk)"},
        ),
        (
            "put_item",
            {
                "Item": _item("a", "1", v=_n(9)),
                "ConditionExpression": "attribute_not_exists(sk)",
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            },
        ),
        *(
            (
                "put_item",
                {
                    "Item": _item("a", "1", owner=_s("me")),
                    "ConditionExpression": "attribute_not_exists(pk) OR (NOT #o <> :o AND attribute_exists(sk))",
                    "ExpressionAttributeNames": {"#o": "owner"},
                    "ExpressionAttributeValues": {":o": _s(owner)},
                },
            )
            for owner in ("me", "you")
        ),
        ("get_item", {"Key": _item("a", "1"), "ConsistentRead": True}),
    ],
    "an update sets, counts and removes": [
        _put("a", "1", v=_n(1), x={"M": {"one": _s("pending")}}),
        *(
            _update(
                "a",
                "1",
                "SET v = v + :one, fresh = if_not_exists(fresh, :five), #t = :one REMOVE x, absent",
                ConditionExpression="v = :v",
                ExpressionAttributeNames={"#t": "ttl"},
                ExpressionAttributeValues={":one": _n(1), ":v": _n(1), ":five": _n(5)},
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
            for _ in range(2)
        ),
        _update("a", "1", "SET fresh = fresh - :n", ExpressionAttributeValues={":n": _n(7)}),
        ("get_item", {"Key": _item("a", "1")}),
    ],
    "an update without an item creates it": [
        _update("a", "1", "SET v = :v", ExpressionAttributeValues={":v": _n(1)}),
        ("get_item", {"Key": _item("a", "1")}),
    ],
    "an invalid update is rejected": [
        _put("a", "1", v=_n(1)),
        _update("a", "1", "SET w = absent + :v", ExpressionAttributeValues={":v": _n(1)}),
        _update("a", "1", "SET w = :v", ExpressionAttributeValues={":v": _n(1), ":unused": _n(2)}),
        _update("a", "1", "SET w = :v, z = :undefined", ExpressionAttributeValues={":v": _n(1)}),
        _update("a", "1", "SET w = :v REMOVE w", ExpressionAttributeValues={":v": _n(1)}),
        _update("a", "1", "SET sk = :v", ExpressionAttributeValues={":v": _s("2")}),
        _update("a", "1", "SET kind = :v", ExpressionAttributeValues={":v": _n(1)}),
        _update("a", "1", "SET owner = :v", ExpressionAttributeValues={":v": _s("me")}),
        _update("a", "1", "SET v = :v,", ExpressionAttributeValues={":v": _n(1)}),
        ("put_item", {"Item": {"pk": _s("a")}}),
        ("get_item", {"Key": {"pk": _s("a")}}),
        ("get_item", {"Key": _item("a", "1")}),
    ],
    "a query returns a range of a partition in either order": [
        *(_put("a", f"{i:03}", v=_n(i)) for i in range(6)),
        _put("b", "003"),
        *(
            _query(
                f"pk = :p AND sk {operator} :x", {":p": _s("a"), ":x": _s("003")}, ScanIndexForward=forward
            )
            for operator in ("<", "<=", "=", ">=", ">")
            for forward in (True, False)
        ),
        _query(
            "pk = :p AND sk < :x",
            {":p": _s("a"), ":x": _s("004")},
            ScanIndexForward=False,
            Limit=1,
            ConsistentRead=True,
        ),
        _query("pk = :p", {":p": _s("a"), ":v": _n(2)}, FilterExpression="v > :v"),
        _query("pk = :p", {":p": _s("nothing")}),
        ("scan", {"FilterExpression": "attribute_exists(v)"}),
    ],
    "an index holds only the items that have its keys, and of these what it projects": [
        _put("a", "1", kind=_s("open"), since=_s("2"), v=_n(1), x=_n(2)),
        _put("a", "2", kind=_s("open"), since=_s("1")),
        _put("a", "3", kind=_s("open")),
        _query("kind = :k AND since >= :s", {":k": _s("open"), ":s": _s("0")}, IndexName="by_kind"),
        _query("kind = :k", {":k": _s("open")}, IndexName="by_kind", ScanIndexForward=False),
        _update("a", "1", "REMOVE kind, since"),
        _query("kind = :k", {":k": _s("open")}, IndexName="by_kind"),
        ("delete_item", {"Key": _item("a", "2")}),
        _query("kind = :k", {":k": _s("open")}, IndexName="by_kind"),
        _query("kind = :k", {":k": _s("open")}, IndexName="by_kind", ConsistentRead=True),
    ],
    "a conditional delete keeps an item that has changed": [
        _put("a", "1", v=_n(2)),
        *(
            (
                "delete_item",
                {
                    "Key": _item("a", "1"),
                    "ConditionExpression": "v = :v",
                    "ExpressionAttributeValues": {":v": _n(v)},
                },
            )
            for v in (1, 2)
        ),
        ("get_item", {"Key": _item("a", "1")}),
    ],
    "a batch of inserts fails statement by statement": [
        (
            "batch_execute_statement",
            {
                "Statements": [
                    _insert(f"""INSERT INTO "ledger" VALUE {{'pk': 'put#{i}', 'sk': '-', 'ttl': {i}}}""")
                    for i in range(2)
                ]
                + [_insert("""INSERT INTO "absent" VALUE {'pk': 'a'}""")]
            },
        ),
        ("scan", {}),
    ],
    "a batch of reads returns what is there": [
        _put("a", "1", v=_n(1)),
        (
            "batch_get_item",
            {
                "RequestItems": {
                    "ledger": {"Keys": [_item("a", "1"), _item("a", "2")], "ConsistentRead": True}
                }
            },
        ),
        ("batch_get_item", {"RequestItems": {"ledger": {"Keys": [_item("a", "1"), _item("a", "1")]}}}),
        ("batch_get_item", {"RequestItems": {"ledger": {"Keys": [_item("a", str(i)) for i in range(101)]}}}),
    ],
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_answers_as_moto_does(pair: tuple[Any, MemoryDynamoDB], script: str) -> None:
    """Every response and error code of the script is moto's."""
    real, double = pair
    for call in SCRIPTS[script]:
        assert _outcome(real, call) == _outcome(double, call), call


_KEYS = st.tuples(st.sampled_from("ab"), st.sampled_from(["000", "001", "0022", "010"]))
_COUNTS = st.integers(0, 3).map(_n)
_PUTS = st.builds(
    lambda key, v, kind, condition: (
        "put_item",
        {
            "Item": _item(*key, v=v, **kind),
            **({"ConditionExpression": "attribute_not_exists(sk)"} if condition else {}),
        },
    ),
    _KEYS,
    _COUNTS,
    st.sampled_from([{}, {"kind": _s("open"), "since": _s("1")}, {"kind": _s("open")}]),
    st.booleans(),
)
_UPDATES = st.builds(
    lambda key, expression, v: _update(
        *key,
        expression,
        ConditionExpression="v >= :v",
        ExpressionAttributeNames={"#n": "owner"},
        ExpressionAttributeValues={":v": v, ":w": _n(1)},
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    ),
    _KEYS,
    st.sampled_from(
        ["SET v = v + :w, #n = :w", "SET v = if_not_exists(#n, :w) + :w", "REMOVE #n SET v = :w"]
    ),
    _COUNTS,
)
_DELETES = _KEYS.map(lambda key: ("delete_item", {"Key": _item(*key)}))
_QUERIES = st.builds(
    lambda pk, operator, bound, forward, limit: _query(
        f"pk = :p AND sk {operator} :x",
        {":p": _s(pk), ":x": _s(bound)},
        ScanIndexForward=forward,
        Limit=limit,
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
    """Whatever the calls and their order, the responses and the final state are moto's."""
    with mock_aws():
        real, double = _pair()
        for call in [*calls, _query("kind = :k", {":k": _s("open")}, IndexName="by_kind")]:
            expected, actual = _outcome(real, call), _outcome(double, call)
            for _, answer in (expected, actual):
                if isinstance(answer, dict):
                    # moto names a next page only if there is one, DynamoDB whenever the limit is reached
                    answer.pop("LastEvaluatedKey", None)
            assert expected == actual, call
        key = lambda item: (item["pk"]["S"], item["sk"]["S"])  # noqa: E731 -- used twice
        left = sorted(double.items("ledger"), key=key)

        assert sorted(real.scan(TableName="ledger")["Items"], key=key) == left


def _double(**options: Any) -> MemoryDynamoDB:
    double = MemoryDynamoDB(**options)
    double.create_table(**TABLE)
    return double


def _pages(call: Any, **request: Any) -> list[str]:
    found = []
    while True:
        page = call(TableName="ledger", **request)
        found += [item["sk"]["S"] for item in page["Items"]]
        if "LastEvaluatedKey" not in page:
            return found
        request["ExclusiveStartKey"] = page["LastEvaluatedKey"]


@pytest.mark.parametrize("forward", [True, False])
@pytest.mark.parametrize("index", [None, "by_kind", "kind_only"])
def test_pages_add_up_to_the_whole(index: str | None, *, forward: bool) -> None:
    """The pages of the table or an index hold every item once, in either order."""
    double = _double(page_items=3)
    numbers = [f"{i:03}" for i in range(10)]
    for sk in random.Random(1).sample(numbers, len(numbers)):
        double.put_item(TableName="ledger", Item=_item("a", sk, kind=_s("a"), since=_s(str(int(sk) // 4))))
    request: dict[str, Any] = {"IndexName": index} if index else {}
    condition = "kind = :p" if index else "pk = :p"
    found = _pages(
        double.query,
        KeyConditionExpression=condition,
        ExpressionAttributeValues={":p": _s("a")},
        ScanIndexForward=forward,
        **request,
    )

    assert (numbers if forward else numbers[::-1]) == found
    assert numbers == _pages(double.scan)


def _open_items(double: MemoryDynamoDB) -> list[str]:
    name, request = _query("kind = :k", {":k": _s("open")}, IndexName="by_kind")
    return _pages(getattr(double, name), **request)


def test_an_index_lags_behind_its_table() -> None:
    """A lagging index shows writes, and removals, when their delay has passed or when it is settled."""
    now = [100.0]
    double = _double(now=lambda: now[0])
    key = {"TableName": "ledger", "Key": _item("a", "1")}
    double.lag_indexes("ledger", 5)
    double.put_item(TableName="ledger", Item=_item("a", "1", kind=_s("open"), since=_s("1")))
    before = _open_items(double)
    now[0] = 105.0
    after = _open_items(double)
    double.lag_indexes("ledger", float("inf"))
    double.update_item(**key, UpdateExpression="REMOVE kind")
    now[0] = 1e9
    unsettled = _open_items(double)
    double.settle_indexes("ledger")

    assert ([], ["1"], ["1"], []) == (before, after, unsettled, _open_items(double))
    assert "kind" not in double.get_item(**key)["Item"]


def test_unprocessed_keys_can_be_asked_again() -> None:
    """A batch of reads that stops early names the keys it did not come to."""
    double = _double()
    double.batch_get_keys = 2
    for sk in "123":
        double.put_item(TableName="ledger", Item=_item("a", sk))
    found: list[str] = []
    wanted: dict[str, Any] = {"ledger": {"Keys": [_item("a", sk) for sk in "123"], "ConsistentRead": True}}
    while wanted:
        answer = double.batch_get_item(RequestItems=wanted)
        found += [item["sk"]["S"] for item in answer["Responses"]["ledger"]]
        wanted = answer["UnprocessedKeys"]

    assert ["1", "2", "3"] == found


def test_an_insert_does_not_replace_an_item() -> None:
    """A duplicate is named in its own place of the response, and the other items are inserted."""
    double = _double()
    double.put_item(TableName="ledger", Item=_item("1", "-", owner=_s("first")))
    statement = """INSERT INTO "ledger" VALUE {'pk': ?, 'sk': '-', 'owner': ?}"""
    answer = double.batch_execute_statement(
        Statements=[_insert(statement, _s(pk), _s("second")) for pk in ("0", "1", "2", "2")]
    )
    codes = [response.get("Error", {}).get("Code") for response in answer["Responses"]]

    assert [None, "DuplicateItem", None, "DuplicateItem"] == codes
    assert [("0", "second"), ("1", "first"), ("2", "second")] == [
        (item["pk"]["S"], item["owner"]["S"]) for item in double.items("ledger")
    ]


def test_more_than_25_statements_are_rejected() -> None:
    """A batch of inserts holds 25 statements at most."""
    statements = [
        _insert("""INSERT INTO "ledger" VALUE {'pk': 'a', 'sk': ?}""", _s(str(i))) for i in range(26)
    ]
    double = _double()

    with pytest.raises(ClientError, match="ValidationException"):
        double.batch_execute_statement(Statements=statements)
    double.batch_execute_statement(Statements=statements[:25])
    assert 25 == len(list(double.items("ledger")))


def test_the_size_of_an_item_follows_the_documented_rule() -> None:
    """Names and values in UTF-8, a byte for two digits and one more, three for a map and one for each member."""
    item = {
        "é": {"S": "€uro"},  # 2 + 6
        "n": {"N": "-120.450e3"},  # 1 + digits 12045 in 3 bytes + 1
        "z": {"N": "0"},  # 1 + 1
        "b": {"B": b"12345"},  # 1 + 5
        "t": {"BOOL": True},  # 1 + 1
        "m": {
            "M": {"ab": {"S": "c"}, "l": {"L": [{"NULL": True}]}}
        },  # 1 + 3 + (2 + 1 + 1) + (1 + 3 + 1 + 1 + 1)
    }

    assert 8 + 5 + 2 + 6 + 2 + 15 == item_size(item)


@pytest.mark.parametrize("excess", [0, 1])
def test_an_item_larger_than_400_kb_is_rejected(excess: int) -> None:
    """An item may have 400 KB and not one byte more, whether put, inserted or updated."""
    body = _s("x" * (MAX_ITEM_BYTES - item_size(_item("a", "1", x=_s(""))) + excess))
    update = {"UpdateExpression": "SET x = :x", "ExpressionAttributeValues": {":x": body}}
    insert = _insert("""INSERT INTO "ledger" VALUE {'pk': 'a', 'sk': '1', 'x': ?}""", body)
    codes = [
        _outcome(_double(), ("put_item", {"Item": _item("a", "1", x=body)}))[0],
        _outcome(_double(), ("update_item", {"Key": _item("a", "1"), **update}))[0],
        _double()
        .batch_execute_statement(Statements=[insert])["Responses"][0]
        .get("Error", {})
        .get("Code", "ok"),
    ]

    assert (
        ["ValidationException", "ValidationException", "ValidationError"] if excess else ["ok"] * 3
    ) == codes


def test_reserved_words_are_those_of_moto() -> None:
    """The list of reserved words is complete."""
    assert set(ReservedKeywords.get_reserved_keywords()) == RESERVED_WORDS


@pytest.mark.parametrize("name", ["at", "#at"])
def test_reserved_words_need_an_alias(name: str) -> None:
    """An attribute with a reserved name is rejected in every expression unless it is aliased."""
    names = {"ExpressionAttributeNames": {name: "at"}} if name == "#at" else {}
    request = {"ExpressionAttributeValues": {":v": _n(1)}, **names}
    calls = [
        ("put_item", {"Item": _item("a", "1"), "ConditionExpression": f"NOT {name} = :v", **request}),
        _update("a", "1", f"SET {name} = :v", **request),
        ("scan", {"FilterExpression": f"{name} = :v", **request}),
    ]
    codes = [_outcome(_double(), call)[0] for call in calls]

    assert ["ok" if names else "ValidationException"] * 3 == codes


def test_unknown_requests_are_not_ignored() -> None:
    """What the double does not know raises an error of its own, not one of DynamoDB's."""
    double = _double()
    for call in (
        ("put_item", {"Item": _item("a", "1"), "ReturnValues": "ALL_OLD"}),
        _update("a", "1", "ADD v :v", ExpressionAttributeValues={":v": _n(1)}),
        _query("pk = :p AND begins_with(sk, :x)", {":p": _s("a"), ":x": _s("0")}),
    ):
        with pytest.raises(NotImplementedError):
            _outcome(double, call)


def test_what_is_returned_is_a_copy() -> None:
    """Changing a request or a response afterwards changes nothing that is stored."""
    double = _double()
    item = _item("a", "1", x={"M": {"one": _n(1)}})
    double.put_item(TableName="ledger", Item=item)
    item["x"]["M"]["one"] = _n(2)
    double.get_item(TableName="ledger", Key=_item("a", "1"))["Item"]["x"]["M"].clear()

    stored = double.get_item(TableName="ledger", Key=_item("a", "1"))["Item"]
    assert {"M": {"one": _n(1)}} == stored["x"]


def test_errors_can_be_caught_by_class() -> None:
    """A client's `exceptions` names the class that is raised."""
    double = _double()
    double.put_item(TableName="ledger", Item=_item("a", "1"))

    with pytest.raises(double.exceptions.ConditionalCheckFailedException):
        double.put_item(
            TableName="ledger", Item=_item("a", "1"), ConditionExpression="attribute_not_exists(pk)"
        )
