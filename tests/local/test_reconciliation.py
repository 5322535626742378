"""Reconciles accepted events with their outcomes."""

import json
from collections import Counter
from collections.abc import Mapping

import pytest

from local.acknowledgement import (
    AcceptedEvent,
    Acknowledgement,
    InconsistentResponseError,
    read_acknowledgement,
)
from local.reconciliation import NOWHERE, Reconciliation, TableOutcome, TablePlace
from local.recording import RecordedRequest
from local.sender import Exchange
from shared.accounts import Account

ACCOUNTS = {"shop": Account("goods"), "outlet": Account("goods")}
ORDERS = TablePlace("goods", "orders")
SETTLED: Mapping[str, int] = {"records": 0}


def post(body: object, *headers: tuple[str, str], target: str = "/v1/events") -> RecordedRequest:
    """Return a recorded request to the events API."""
    return RecordedRequest("step", "POST", target, headers, json.dumps(body).encode())


def acknowledged(
    *events: AcceptedEvent, rejected: Mapping[str, int] | None = None, refused: str = "", error: str = ""
) -> Exchange:
    """Return a request and its response."""
    return Exchange(post([]), 200, Acknowledgement(events, Counter(rejected or {}), refused), error)


def test_events_that_are_not_rejected_are_accepted() -> None:
    """An accepted event belongs to the key's account and to the table that it names."""
    events = [{"table": "orders", "event_id": "a"}, {"table": "No"}, {"table": "carts"}]
    response = {"accepted": 2, "rejected": [{"index": 1, "code": "invalid_table", "message": "…"}]}

    found = read_acknowledgement(
        post(events, ("x-write-key", "shop.k1.mac")), 200, {}, json.dumps(response).encode()
    )

    assert found == Acknowledgement(
        (AcceptedEvent("shop", "orders", "a"), AcceptedEvent("shop", "carts", "")), Counter(invalid_table=1)
    )


@pytest.mark.parametrize(
    "request_",
    [
        post({"events": [{"table": "orders"}], "write_key": "shop.k1.mac"}),
        post({"table": "orders"}, target="/v1/events?k=shop.k1.mac"),
        post([{"table": "orders"}], ("Authorization", "Bearer shop.k1.mac")),
    ],
)
def test_the_key_may_be_in_body_query_or_header(request_: RecordedRequest) -> None:
    """The account is read from the write key in any of the places that the API accepts."""
    found = read_acknowledgement(request_, 200, {}, b'{"accepted": 1, "rejected": []}')

    assert found.accepted == (AcceptedEvent("shop", "orders", ""),)


def test_a_pixel_is_one_event() -> None:
    """A pixel that gets a response without an error counts as one accepted event."""
    request = RecordedRequest("step", "GET", "/pixel.gif?k=shop.k1.mac&t=views&event_id=e1", ())

    assert read_acknowledgement(request, 200, {}, b"GIF89a") == Acknowledgement(
        (AcceptedEvent("shop", "views", "e1"),)
    )


def test_receipts_stand_for_the_events_of_a_td_sdk() -> None:
    """The path names their table, and each receipt says whether its event was accepted."""
    response = {
        "receipts": [
            {"success": True},
            {"success": False, "error": {"name": "…", "description": "not_an_object: …"}},
        ]
    }
    request = post(
        {"events": [{"event_id": "a"}, 5]}, ("x-td-write-key", "shop.k1.mac"), target="/shop/views"
    )

    found = read_acknowledgement(request, 200, {}, json.dumps(response).encode())

    assert found == Acknowledgement((AcceptedEvent("shop", "views", "a"),), Counter(not_an_object=1))


@pytest.mark.parametrize(
    ("status", "headers", "refused"),
    [(401, {"x-sluice-error": "missing_key"}, "missing_key"), (414, {}, "http_414")],
)
def test_a_refused_request_has_a_code(status: int, headers: Mapping[str, str], refused: str) -> None:
    """The code comes from the ingest, or from the gateway's status if the request did not reach the ingest."""
    request = RecordedRequest("step", "GET", "/pixel.gif?t=views", ())

    assert read_acknowledgement(request, status, headers, b"GIF89a") == Acknowledgement(refused=refused)


def test_a_response_with_wrong_counts_is_an_error() -> None:
    """A response cannot accept more events than were sent."""
    with pytest.raises(InconsistentResponseError):
        read_acknowledgement(post([{"table": "orders"}]), 200, {}, b'{"accepted": 2, "rejected": []}')


def test_it_adds_up_if_each_accepted_event_has_one_outcome() -> None:
    """Each is delivered or dead exactly once."""
    count = Reconciliation()
    count.count_exchange(
        acknowledged(AcceptedEvent("shop", "orders", "a"), AcceptedEvent("outlet", "orders", "b")), ACCOUNTS
    )
    count.count_exchange(
        acknowledged(AcceptedEvent("nobody", "orders", "c"), rejected={"invalid_table": 1}), ACCOUNTS
    )
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
    count.count_exchange(
        acknowledged(AcceptedEvent("shop", "orders", "a"), AcceptedEvent("shop", "orders", "b")), ACCOUNTS
    )
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
    count.count_exchange(acknowledged(AcceptedEvent("shop", "orders", "a")), ACCOUNTS)
    count.count_outcomes([], [TableOutcome(ORDERS, ("a",), "waiting", "http_503")], SETTLED)

    assert count.differences == {}
    assert count.in_flight == {"records": 0, "rows waiting": 1}
    assert not count.adds_up


def test_a_missing_response_is_an_error() -> None:
    """The events of a request without a response may or may not have become rows."""
    count = Reconciliation()
    count.count_exchange(acknowledged(error="no response"), ACCOUNTS)
    count.count_outcomes([], [], SETTLED)

    assert not count.adds_up
    assert count.errors == ["step: no response"]


def test_counting_again_replaces_the_outcomes() -> None:
    """Rows that are counted twice are not duplicates."""
    count = Reconciliation()
    count.count_exchange(acknowledged(AcceptedEvent("shop", "orders", "a")), ACCOUNTS)
    for _ in range(2):
        count.count_outcomes([TableOutcome(ORDERS, ("a",))], [], SETTLED)

    assert count.adds_up
