"""What was accepted against what is there."""

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
from local.reconciliation import NOWHERE, Outcome, Place, Reconciliation
from local.recording import RecordedRequest
from local.sender import Exchange
from shared.accounts import Account

ACCOUNTS = {"shop": Account("goods"), "outlet": Account("goods")}
ORDERS = Place("goods", "orders")
SETTLED: Mapping[str, int] = {"records": 0}


def post(body: object, *headers: tuple[str, str], target: str = "/v1/events") -> RecordedRequest:
    """Return a recorded request to the events API."""
    return RecordedRequest("step", "POST", target, headers, json.dumps(body).encode())


def answered(
    *events: AcceptedEvent, rejected: Mapping[str, int] | None = None, refused: str = "", fault: str = ""
) -> Exchange:
    """Return a request with its verdict."""
    return Exchange(post([]), 200, Acknowledgement(events, Counter(rejected or {}), refused), fault)


def test_an_answer_names_the_events_it_accepts() -> None:
    """Events that the answer does not reject are accepted, under the key's account and their own tables."""
    events = [{"table": "orders", "event_id": "a"}, {"table": "No"}, {"table": "carts"}]
    answer = {"accepted": 2, "rejected": [{"index": 1, "code": "invalid_table", "message": "…"}]}

    found = read_acknowledgement(
        post(events, ("x-write-key", "shop.k1.mac")), 200, {}, json.dumps(answer).encode()
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
def test_the_key_is_found_wherever_it_may_be(request_: RecordedRequest) -> None:
    """A key names the account from the body, the query and the header alike."""
    found = read_acknowledgement(request_, 200, {}, b'{"accepted": 1, "rejected": []}')

    assert found.accepted == (AcceptedEvent("shop", "orders", ""),)


def test_a_pixel_is_one_event() -> None:
    """An image that came without an error is one accepted event."""
    request = RecordedRequest("step", "GET", "/pixel.gif?k=shop.k1.mac&t=views&event_id=e1", ())

    assert read_acknowledgement(request, 200, {}, b"GIF89a") == Acknowledgement(
        (AcceptedEvent("shop", "views", "e1"),)
    )


@pytest.mark.parametrize(
    ("status", "headers", "refused"),
    [(401, {"x-sluice-error": "missing_key"}, "missing_key"), (414, {}, "http_414")],
)
def test_a_refused_request_has_a_code(status: int, headers: Mapping[str, str], refused: str) -> None:
    """A request is refused by the ingest's code, else by the gateway's status."""
    request = RecordedRequest("step", "GET", "/pixel.gif?t=views", ())

    assert read_acknowledgement(request, status, headers, b"GIF89a") == Acknowledgement(refused=refused)


def test_an_answer_that_counts_wrongly_is_odd() -> None:
    """More accepted than sent is a contradiction, not a number to go on with."""
    with pytest.raises(InconsistentResponseError):
        read_acknowledgement(post([{"table": "orders"}]), 200, {}, b'{"accepted": 2, "rejected": []}')


def test_it_adds_up_when_each_event_is_one_row() -> None:
    """Accepted events that are in Treasure Data or set aside, each once, add up."""
    count = Reconciliation()
    count.count_exchange(
        answered(AcceptedEvent("shop", "orders", "a"), AcceptedEvent("outlet", "orders", "b")), ACCOUNTS
    )
    count.count_exchange(
        answered(AcceptedEvent("nobody", "orders", "c"), rejected={"invalid_table": 1}), ACCOUNTS
    )
    count.count_outcomes(
        [Outcome(ORDERS, ("a", "b"))],
        [Outcome(Place(NOWHERE, "orders"), ("c",), "dead_letter", "unknown")],
        SETTLED,
    )

    assert count.adds_up
    assert count.differences == {}
    assert count.dead_letters == {"unknown": 1}


@pytest.mark.parametrize(
    ("rows", "difference", "odd"),
    [
        (("a",), {ORDERS: 1}, {(ORDERS, "b"): 1}),
        (("a", "b", "b"), {ORDERS: -1}, {(ORDERS, "b"): -1}),
        (("a", "a"), {}, {(ORDERS, "a"): -1, (ORDERS, "b"): 1}),
    ],
    ids=["lost", "doubled", "one lost and one doubled"],
)
def test_what_is_lost_or_doubled_is_named(
    rows: tuple[str, ...], difference: Mapping[Place, int], odd: Mapping[tuple[Place, str], int]
) -> None:
    """A lost or doubled row spoils the count and is named by its id, though the totals be right."""
    count = Reconciliation()
    count.count_exchange(
        answered(AcceptedEvent("shop", "orders", "a"), AcceptedEvent("shop", "orders", "b")), ACCOUNTS
    )
    count.count_outcomes([Outcome(ORDERS, rows)], [], SETTLED)

    assert not count.adds_up
    assert count.differences == difference
    assert count.mismatched_ids == odd


@pytest.mark.parametrize("in_flight", [{"records": 1}, {"records": 0, "messages": 2}])
def test_nothing_adds_up_while_something_is_on_its_way(in_flight: Mapping[str, int]) -> None:
    """What is in flight could still become a second row."""
    count = Reconciliation()
    count.count_outcomes([], [], in_flight)

    assert not count.adds_up


def test_nothing_adds_up_while_rows_are_set_aside_for_a_while() -> None:
    """Parked rows are found, but not settled: only dead letters stay where they are."""
    count = Reconciliation()
    count.count_exchange(answered(AcceptedEvent("shop", "orders", "a")), ACCOUNTS)
    count.count_outcomes([], [Outcome(ORDERS, ("a",), "parked", "td_503")], SETTLED)

    assert count.differences == {}
    assert count.in_flight == {"records": 0, "rows parked": 1}
    assert not count.adds_up


def test_an_answer_that_did_not_come_spoils_the_count() -> None:
    """A request without an answer may or may not have become rows."""
    count = Reconciliation()
    count.count_exchange(answered(fault="no answer"), ACCOUNTS)
    count.count_outcomes([], [], SETTLED)

    assert not count.adds_up
    assert count.faults == ["step: no answer"]


def test_looking_again_starts_anew() -> None:
    """What was found replaces what was found before."""
    count = Reconciliation()
    count.count_exchange(answered(AcceptedEvent("shop", "orders", "a")), ACCOUNTS)
    for _ in range(2):
        count.count_outcomes([Outcome(ORDERS, ("a",))], [], SETTLED)

    assert count.adds_up
