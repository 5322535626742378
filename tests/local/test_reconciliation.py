"""Reconciles accepted events with their outcomes."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from doubles.http_server import Response
from local.reconciliation import NOWHERE, Reconciliation, TableOutcome, TablePlace
from local.recording import RecordedRequest
from local.result import EventResult
from local.sender import Exchange, exchange_of
from shared.accounts import Account

ACCOUNTS = {"shop": Account("goods"), "outlet": Account("goods")}
ORDERS = TablePlace("goods", "orders")


def post(body: object, *headers: tuple[str, str], target: str = "/v1/events") -> RecordedRequest:
    """Return a recorded request to the events API."""
    return RecordedRequest("POST", target, headers, json.dumps(body).encode(), step="step")


def answered(*events: str, account: str = "shop", code: str = "", error: str = "") -> Exchange:
    """Return a request whose response accepts orders with these ids, or rejects them with a code."""
    results = [EventResult(n, {"event_id": one}, "orders", code=code) for n, one in enumerate(events)]
    return Exchange(post([]), account, tuple(results), error=error)


@pytest.mark.parametrize(
    ("status", "headers", "refused"),
    [(401, (("x-sluice-error", "missing_key"),), "missing_key"), (414, (), "http_414")],
)
def test_a_refusal_has_a_code(status: int, headers: tuple[tuple[str, str], ...], refused: str) -> None:
    """The code comes from the ingest, or from the gateway's status if the request did not reach the ingest."""
    request = RecordedRequest("GET", "/pixel.gif?t=views", ())

    assert Exchange(request, refused=refused) == exchange_of(request, Response(status, b"GIF89a", headers))


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (post([{"table": "orders"}], ("x-write-key", "shop.k1.mac")), b'{"accepted": 1, "rejected": []}'),
        (RecordedRequest("GET", "/pixel.gif?k=shop.k1.mac&t=orders", ()), b"GIF89a"),
    ],
    ids=["a batch", "pixel"],
)
def test_a_response_tells_which_events_are_accepted(request_: RecordedRequest, answer: bytes) -> None:
    """Each belongs to the key's account and to the table that it or the request names."""
    found = exchange_of(request_, Response(200, answer))

    assert ("shop", "", "") == (found.account, found.refused, found.error)
    assert [("orders", "")] == [(one.table, one.code) for one in found.events]


@pytest.mark.parametrize(
    "answer", [b'{"accepted": 2, "rejected": []}', b'{"receipts": [{"success": true}, {"success": true}]}']
)
def test_a_response_with_wrong_counts_is_an_error(answer: bytes) -> None:
    """A response cannot accept more events than were sent."""
    assert "2 of" in exchange_of(post([{"table": "orders"}]), Response(200, answer)).error


TAKEN_A, TAKEN_B, TAKEN_C = answered("a"), answered("b", account="outlet"), answered("c", account="nobody")
ILLEGAL = answered("d", code="invalid_table")
UNKNOWN = TableOutcome(TablePlace(NOWHERE, "orders"), ("c",), "dead", "unknown")
WAITING = TableOutcome(ORDERS, ("a",), "waiting", "http_503")


@pytest.mark.parametrize(
    ("exchanges", "rows", "undelivered", "unsettled", "found"),
    [
        ([TAKEN_A, TAKEN_B, TAKEN_C, ILLEGAL], "ab", [UNKNOWN], {"records": 0}, {"adds_up": True, "dead": {"unknown": 1}}),
        ([TAKEN_A, TAKEN_B], "a", [], {}, {"differences": {ORDERS: 1}, "mismatched_ids": {(ORDERS, "b"): 1}}),
        ([TAKEN_A, TAKEN_B], "abb", [], {}, {"differences": {ORDERS: -1}, "mismatched_ids": {(ORDERS, "b"): -1}}),
        ([TAKEN_A, TAKEN_B], "aa", [], {}, {"mismatched_ids": {(ORDERS, "a"): -1, (ORDERS, "b"): 1}}),
        ([Exchange(post([]), "shop", (EventResult(0, {}, "orders"),))], "", [], {}, {"differences": {ORDERS: 1}}),
        ([], "", [], {"records": 1}, {"unsettled": {"records": 1}}),
        ([], "", [], {"messages": 2}, {"unsettled": {"messages": 2}}),
        ([TAKEN_A], "", [WAITING], {"records": 0}, {"unsettled": {"rows waiting": 1}}),
        ([answered(error="no response")], "", [], {}, {"errors": ["step: no response"]}),
    ],
    ids=["all", "lost", "duplicated", "lost and duplicated", "no id", "record", "messages", "rows wait", "no response"],
)  # fmt: skip
def test_it_adds_up_if_each_accepted_event_has_one_outcome(
    exchanges: Sequence[Exchange], rows: str, undelivered: Sequence[TableOutcome], unsettled: Any, found: Any
) -> None:
    """Even if the totals are right, lost and duplicated rows are reported by id; counting the outcomes again changes nothing."""
    count = Reconciliation()
    for exchange in exchanges:
        count.count_exchange(exchange, ACCOUNTS)
    for _ in range(2):
        count.count_outcomes([TableOutcome(ORDERS, tuple(rows))], undelivered, unsettled)

    default = {"adds_up": False, "differences": {}, "mismatched_ids": {}, "errors": []}
    default |= {"unsettled": {kind: number for kind, number in unsettled.items() if number}}
    assert default | found == {name: getattr(count, name) for name in default | found}
