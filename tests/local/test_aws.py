"""The local stack's AWS differs from moto where moto differs from AWS."""

import json
from typing import Any

from doubles.http_server import Request
from local.aws import Cloud
from shared.counters import Counters, Spent, totals


def _call(cloud: Cloud, operation: str, request: dict[str, Any]) -> dict[str, Any]:
    headers = (
        ("host", "127.0.0.1"),
        ("authorization", "AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/dynamodb/aws4_request"),
        ("x-amz-target", f"DynamoDB_20120810.{operation}"),
        ("content-type", "application/x-amz-json-1.0"),
    )
    reply = cloud.answer(Request("POST", "/", headers, json.dumps(request).encode()))
    found: dict[str, Any] = json.loads(reply.body)
    return found


def test_an_update_returns_what_it_names_even_if_unchanged() -> None:
    """Counters that stay the same because 0 is added are in the response to each update of a minute."""
    cloud = Cloud("http://127.0.0.1:9")
    keys = {"pk": "HASH", "sk": "RANGE"}
    table = {
        "TableName": "counters",
        "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in keys.items()],
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in keys],
        "BillingMode": "PAY_PER_REQUEST",
    }
    _call(cloud, "CreateTable", table)
    spent = Counters(61, Spent(1.5, 0.0), 0, 0)
    answers = [_call(cloud, "UpdateItem", spent.update("counters", "shop")) for _ in range(2)]

    assert [(Spent(1.5, 0.0), Spent(0.0, 0.0)), (Spent(3.0, 0.0), Spent(0.0, 0.0))] == [
        totals(answer, spent.minute) for answer in answers
    ]
