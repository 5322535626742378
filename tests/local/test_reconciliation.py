"""Reconciles accepted events with their outcomes."""

import json
from collections.abc import Mapping

import pytest

from doubles.http_server import Response
from local.reconciliation import NOWHERE, Reconciliation, TableOutcome, TablePlace
from local.recording import RecordedRequest
from local.result import EventResult
from local.sender import Exchange, exchange_of
from shared.accounts import Account

ACCOUNTS = {"shop": Account("goods"), "outlet": Account("goods")}
ORDERS = TablePlace("goods", "orders")
SETTLED: Mapping[str, int] = {"records": 0}


def post(body: object, *headers: tuple[str, str], target: str = "/v1/events") -> RecordedRequest:
    """Return a recorded request to the events API."""
    return RecordedRequest("POST", target, headers, json.dumps(body).encode(), step="step")


def answered(*events: str, account: str = "shop", code: str = "", error: str = "") -> Exchange:
    """Return a request whose response accepts orders with these ids, or rejects them with a code."""
    results = [
        EventResult(n, {"event_id": event_id}, "orders", code=code) for n, event_id in enumerate(events)
    ]
    return Exchange(post([]), account, tuple(results), error=error)


@pytest.mark.parametrize(
    ("request_", "answer", "expected"),
    [
        (
            post([{"table": "orders"}, {"table": "No"}], ("x-write-key", "shop.k1.mac")),
            {"accepted": 1, "rejected": [{"index": 1, "code": "invalid_table", "message": "…"}]},
            [("orders", ""), ("No", "invalid_table")],
        ),
        (
            post({"events": [{"table": "orders"}], "write_key": "shop.k1.mac"}),
            {"accepted": 1, "rejected": []},
            [("orders", "")],
        ),
        (
            post({"table": "orders"}, target="/v1/events?k=shop.k1.mac"),
            {"accepted": 1, "rejected": []},
            [("orders", "")],
        ),
        (
            post([{"table": "orders"}], ("Authorization", "Bearer shop.k1.mac")),
            {"accepted": 1, "rejected": []},
            [("orders", "")],
        ),
        (
            RecordedRequest("GET", "/pixel.gif?k=shop.k1.mac&t=views", ()),
            "GIF89a",
            [("views", "")],
        ),
        (
            post({"events": [{"n": 1}, 5]}, ("x-td-write-key", "shop.k1.mac"), target="/shop/views"),
            {
                "receipts": [
                    {"success": True},
                    {"success": False, "error": {"name": "…", "description": "not_an_object: …"}},
                ]
            },
            [("views", ""), ("views", "not_an_object")],
        ),
    ],
    ids=["rejected", "key in body", "key in query", "key in header", "pixel", "receipts"],
)
def test_a_response_tells_which_events_are_accepted(
    request_: RecordedRequest, answer: object, expected: list[tuple[str, str]]
) -> None:
    """Each belongs to the key's account and to the table that it or the path names; a rejected one has a code."""
    found = exchange_of(request_, Response(200, json.dumps(answer).encode()))

    assert expected == [(one.table, one.code) for one in found.events]
    assert ("shop", "", "") == (found.account, found.refused, found.error)


@pytest.mark.parametrize(
    ("status", "headers", "refused"),
    [(401, (("x-sluice-error", "missing_key"),), "missing_key"), (414, (), "http_414")],
)
def test_a_refused_request_has_a_code(
    status: int, headers: tuple[tuple[str, str], ...], refused: str
) -> None:
    """The code comes from the ingest, or from the gateway's status if the request did not reach the ingest."""
    request = RecordedRequest("GET", "/pixel.gif?t=views", ())

    assert Exchange(request, refused=refused) == exchange_of(request, Response(status, b"GIF89a", headers))


@pytest.mark.parametrize(
    "answer", [b'{"accepted": 2, "rejected": []}', b'{"receipts": [{"success": true}, {"success": true}]}']
)
def test_a_response_with_wrong_counts_is_an_error(answer: bytes) -> None:
    """A response cannot accept more events than were sent."""
    found = exchange_of(post([{"table": "orders"}]), Response(200, answer))

    assert "2 of" in found.error


def test_it_adds_up_if_each_accepted_event_has_one_outcome() -> None:
    """Each is delivered or dead exactly once."""
    count = Reconciliation()
    for exchange in (
        answered("a"),
        answered("b", account="outlet"),
        answered("c", account="nobody"),
        answered("d", code="invalid_table"),
    ):
        count.count_exchange(exchange, ACCOUNTS)
    count.count_outcomes(
        [TableOutcome(ORDERS, ("a", "b"))],
        [TableOutcome(TablePlace(NOWHERE, "orders"), ("c",), "dead", "unknown")],
        SETTLED,
    )

    assert count.adds_up
    assert count.differences == {}
    assert count.dead == {"unknown": 1}


@pytest.mark.parametrize(
    ("rows", "difference", "mismatched"),
    [
        (("a",), {ORDERS: 1}, {(ORDERS, "b"): 1}),
        (("a", "b", "b"), {ORDERS: -1}, {(ORDERS, "b"): -1}),
        (("a", "a"), {}, {(ORDERS, "a"): -1, (ORDERS, "b"): 1}),
    ],
    ids=["lost", "duplicated", "one lost and one duplicated"],
)
def test_lost_and_duplicated_rows_are_reported(
    rows: tuple[str, ...],
    difference: Mapping[TablePlace, int],
    mismatched: Mapping[tuple[TablePlace, str], int],
) -> None:
    """Each is reported by its id, even if the totals are right."""
    count = Reconciliation()
    count.count_exchange(answered("a", "b"), ACCOUNTS)
    count.count_outcomes([TableOutcome(ORDERS, rows)], [], SETTLED)

    assert not count.adds_up
    assert count.differences == difference
    assert count.mismatched_ids == mismatched


@pytest.mark.parametrize("in_flight", [{"records": 1}, {"records": 0, "messages": 2}])
def test_it_does_not_add_up_while_records_or_messages_are_in_flight(in_flight: Mapping[str, int]) -> None:
    """They could still become duplicate rows."""
    count = Reconciliation()
    count.count_outcomes([], [], in_flight)

    assert not count.adds_up


def test_it_does_not_add_up_while_rows_wait() -> None:
    """Waiting rows are accounted for but not settled. Dead rows are."""
    count = Reconciliation()
    count.count_exchange(answered("a"), ACCOUNTS)
    count.count_outcomes([], [TableOutcome(ORDERS, ("a",), "waiting", "http_503")], SETTLED)

    assert count.differences == {}
    assert count.in_flight == {"records": 0, "rows waiting": 1}
    assert not count.adds_up


def test_a_missing_response_is_an_error() -> None:
    """The events of a request without a response may or may not have become rows."""
    count = Reconciliation()
    count.count_exchange(answered(error="no response"), ACCOUNTS)
    count.count_outcomes([], [], SETTLED)

    assert not count.adds_up
    assert count.errors == ["step: no response"]


def test_counting_again_replaces_the_outcomes() -> None:
    """Rows that are counted twice are not duplicates."""
    count = Reconciliation()
    count.count_exchange(answered("a"), ACCOUNTS)
    for _ in range(2):
        count.count_outcomes([TableOutcome(ORDERS, ("a",))], [], SETTLED)

    assert count.adds_up
