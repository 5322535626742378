"""What a response says about its events, for the gateway's log."""

import json
from typing import Any

import pytest

from doubles.http_server import Request, Response
from local.result import answer_line

JSON, GIF = (("Content-Type", "application/json"),), (("content-type", "image/gif"),)
MOVED = (("location", "https://a.example"),)
RECEIPT, ERROR = {"success": True}, {"success": False}
TABLES = {"shop.a": [RECEIPT, RECEIPT], "shop.b": [ERROR, RECEIPT]}


@pytest.mark.parametrize(
    ("line", "status", "headers", "body", "expected"),
    [
        ("POST /v1/events?k=x", 200, JSON, {"accepted": 3, "rejected": []}, b"accepted 3\n"),
        ("POST /v1/events", 400, (*JSON, ("x-sluice-error", "not_events")), {}, b"refused not_events\n"),
        ("HEAD /pixel.gif", 200, GIF, "", b""),
        ("GET /pixel.gif", 200, (("x-sluice-error", "invalid_table"),), "GIF", b"refused invalid_table\n"),
        ("POST /shop/views", 200, JSON, {"receipts": [RECEIPT, ERROR, RECEIPT]}, b"accepted 2\n"),
        ("POST /ios/v3/event", 200, JSON, TABLES, b"accepted 3\n"),
        ("GET /postback/v3/event/shop/views", 302, MOVED, "", b"accepted 1\n"),
        ("GET /js/v3/event/shop/views", 200, JSON, {"created": True}, b"accepted 1\n"),
        ("GET /js/v3/global_id", 200, JSON, {"global_id": "x"}, b""),
        ("OPTIONS /v1/events", 204, (), "", b""),
        ("GET /nowhere", 503, (), "", b"refused http_503\n"),
    ],
)
def test_counts_accepted_events(line: str, status: int, headers: Any, body: Any, expected: bytes) -> None:
    """Each dialect reports them in its own way; a refusal gives its error code."""
    method, target = line.split()
    content = body if isinstance(body, str) else json.dumps(body)

    assert expected == answer_line(Request(method, target), Response(status, content.encode(), headers))
