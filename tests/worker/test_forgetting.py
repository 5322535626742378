"""Forgetting a person: in chunks of every state, beside everybody else who writes a span."""

import hmac
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from copy import replace
from io import BytesIO
from itertools import islice
from types import SimpleNamespace
from typing import Any, override
from unittest.mock import Mock

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles.aws_errors import client_error
from doubles.treasure_data import Action, Fault, Kind
from ops.persons.person_search import WantedPersons, in_objects
from shared import policy
from shared.envelope import Envelope, RejectedEvent
from shared.errors import UnavailableError
from shared.policy import EdgePolicy
from tests.support.delivery import (
    BUCKET,
    HASH_KEY,
    KEYS,
    WRITE_KEY_SECRET,
    Delivery,
    KilledError,
    envelope,
    kill,
    lose_answer,
    once,
    other_sandbox,
    row,
    shops,
    stored,
)
from worker.chain import ChainId
from worker.deadline import Deadline
from worker.forget.person import Person, Persons
from worker.forget.requests import KEY, STRAY, ForgetRequest, RequestDocument
from worker.index import EMPTY, Index
from worker.record import number
from worker.rows import compress, decompress
from worker.span import ChunkKey, Destination, Group, RowSender, Span, milliseconds
from worker.span_object import Chunk, encode, name_of
from worker.states import Decision, Entry, State
from worker.sweeper import Sweep, Sweeper
from worker.treasure_data.answer import TdAnswer
from worker.treasure_data.statement import Statements

AT_MS = 1_700_000_000_000
NOW = 4_000_000_000_000
HOUR = 3600.0
DAY = 86_400.0
P = "p@example.com"


def delivered(*data: bytes) -> Delivery:
    """Return a delivery that has delivered these records, so long ago that queries see their rows."""
    made = shops(*data)
    made.deliver()
    made.clock.sleep(2 * HOUR)
    return made


def ask(made: Delivery, do: str, **members: Any) -> dict[str, Any]:
    """Ask the sender's function for something about P in the account shop."""
    asked = {"do": do, "account": "shop", "column": "email", "values": [P], **members}
    answer = made.invoke_sender({"forget": asked})
    assert "error" not in answer, answer
    return answer


def forget(made: Delivery) -> dict[str, int]:
    """Note a request and search all objects; return how many rows were forgotten, by their state."""
    ask(made, "note")
    ask(made, "forget", prefix="spans/", after="")
    return dict(receipt(made)["forgotten"])


def rejected_by(made: Delivery, do: str) -> dict[str, int]:
    """Return how many of shop's rejected events a search finds."""
    return dict(ask(made, do, prefix="rejected/shop/", after="")["rows"])


def sweep(made: Delivery, seconds: float) -> None:
    """Sweep in a new sandbox after a while."""
    made.clock.sleep(seconds)
    made.start().invoke_sender({"sweep": True})


def of_span(request: dict[str, Any]) -> bool:
    """Return whether a request of S3 is about a span's object."""
    return str(request["Key"]).startswith("spans/")


def receipt(made: Delivery) -> dict[str, Any]:
    """Return what became of the only request."""
    (found,) = receipts(made)
    return found


def receipts(made: Delivery) -> list[dict[str, Any]]:
    """Return what became of all requests."""
    return [one.receipt() for one in made.sender_wiring.forget_requests.document().requests.values()]


def books(made: Delivery) -> dict[str, int]:
    """Return how many rows of shop there are, by state."""
    found: Counter[str] = Counter()
    for span in made.spans():
        for key, entry in span.all_leaves():
            if key.account == "shop" and entry.state is not State.REPLACED:
                found[entry.state.value] += span.rows(key)
    return dict(+found)


def everything(made: Delivery) -> bytes:
    """Return all that S3 has, old versions too, decompressed."""
    begin = b"\x1f\x8b\x08"
    parts = [part for body in made.s3.versions(BUCKET) for part in body.split(begin)[1:]]
    return b"".join(decompress(begin + part) for part in parts if part)


def rows(*names: str) -> list[dict[str, Any]]:
    """Return rows of shop: those whose names begin with p are the person's."""
    return [row(name, email=P if name.startswith("p") else f"{name}@example.com") for name in names]


def test_delivered_rows_are_deleted_in_treasure_data_before_they_leave_the_object() -> None:
    """It says which rows they are; rows without an id leave it, too, as only the command finds them there."""
    theirs = row("p1", email="q@example.com") | {"received_at": 1_700_000_000_500}
    no_id = {"email": P, "time": 1_700_000_000, "received_at": 1_700_000_000_000}
    made = delivered(
        envelope("shop", {"views": rows("a", "p1", "b")}),
        envelope("blog", {"views": rows("p9")}),
        envelope("shop", {"views": [theirs], "odd": [no_id], "carts": rows("p2")}, request_id="s"),
    )

    assert {"delivered": 3} == forget(made)
    assert {"delivered": 3, "forgotten": 3} == books(made)
    assert ["a", "b", "p1"] == made.ids("shop_db", "views")
    assert ["p9"] == made.ids("blog_db", "views")
    assert {"shop_db.views": 1, "shop_db.carts": 1} == receipt(made)["treasure_data"]
    assert [] == receipt(made)["statements"]


@pytest.mark.parametrize("broken", ["document", "key"])
def test_the_sender_sends_nothing_of_a_person_who_is_forgotten(broken: str) -> None:
    """No search has to come before. It waits while S3 does not say who that is, or the key of the hashes cannot be read."""
    made = stored(429, envelope("shop", {"views": rows("a", "p1")}), envelope("blog", {"views": rows("p2")}))
    ask(made, "note")
    made.clock.sleep(180)
    made.start()
    members = made.secrets.values[WRITE_KEY_SECRET]
    if broken == "key":
        made.secrets.values[WRITE_KEY_SECRET] = "{}"
    else:
        made.s3.before["get_object"] = lambda request: request["Key"] == KEY and lose_answer()
    report = made.send()
    assert (0, 3, False) == (report.delivered, report.kept, report.complete)
    made.secrets.values[WRITE_KEY_SECRET] = members
    made.s3.before.clear()
    made.clock.sleep(61)
    made.send()

    assert (["a"], ["p2"]) == (made.ids("shop_db", "views"), made.ids("blog_db", "views"))
    assert {"delivered": 1, "forgotten": 1} == books(made)


def test_a_forced_replay_brings_nothing_back() -> None:
    """Neither from what was cut, nor from what it read just before. If it is repeated, it leaves out nothing for that."""
    made = delivered(envelope("shop", {"views": rows("a", "p1", "b")}))
    places = [[span.chain.name, span.after] for span in made.spans()]
    force = {"force": {"tag": "early", "places": places}}
    made.s3.after["get_object"] = once(lambda: ask(made, "note"), of_span)
    assert {"shop/views": 3} == made.invoke_sender(force)["appended"]
    forget(made)
    repeated = made.invoke_sender(force)
    made.invoke_sender({"force": {"tag": "late", "places": places}})
    made.send()

    assert ({"shop/views": 2}, {}) == (repeated["repeated"], repeated["left_out"])
    assert ["a", "b"] * 3 == made.ids("shop_db", "views")
    assert P.encode() not in everything(made)


def test_a_forced_replay_reads_again_what_was_cut_meanwhile() -> None:
    """The object that it was about to read is gone; it leaves out nothing for that."""
    made = delivered(envelope("shop", {"views": rows("a", "p1", "b")})).start()
    (span,) = made.spans()
    made.dynamodb.after["get_item"] = once(
        lambda: forget(other_sandbox(made)), lambda request: request["Key"]["pk"]["S"] == span.chain.name
    )
    answer = made.invoke_sender({"force": {"tag": "t", "places": [[span.chain.name, span.after]]}})

    assert ({"shop/views": 2}, {}) == (answer["appended"], answer["left_out"])


@pytest.mark.parametrize("act", [kill, lose_answer])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "call", ["put_object", "update_item", "list_object_versions", "delete_object", "get_object"]
)
@pytest.mark.parametrize("status", [200, 429, 415])
def test_a_search_may_die_anywhere(status: int, call: str, moment: str, act: Callable[[], Any]) -> None:
    """Nothing of anybody else is lost or doubled, and nothing of the person is left after the last search."""
    made = shops()
    if status != 200:
        made.fail(status, database="shop_db")
    more = envelope("shop", {"views": rows("p2")}, request_id="s")
    made.put(envelope("shop", {"views": rows("a", "p1", "b")}), more)
    made.deliver()
    made.td.faults.clear()
    ask(made, "note")
    made.clock.sleep(3 * HOUR)
    is_ours = once(act, lambda request: not str(request.get("Key", "")).startswith("forget/"))
    getattr(made.s3 if call != "update_item" else made.dynamodb, moment)[call] = is_ours
    with suppress(KilledError):
        made.invoke_sender({"sweep": True})
    made.start().send(State.WAITING, State.DEAD)
    for days in (1, 20, 20):
        made.clock.sleep(days * DAY)
        made.s3.expire_versions(BUCKET, 7 * DAY)
        made.start().invoke_sender({"sweep": True})

    assert ["a", "b"] == made.ids("shop_db", "views")
    assert {"delivered": 2, "forgotten": 2} == books(made)
    assert receipt(made)["done"]
    assert P.encode() not in everything(made)


def test_a_cut_is_noted_although_the_old_object_cannot_be_deleted() -> None:
    """A later search deletes it: what was cut cannot be found again."""
    made = delivered(envelope("shop", {"views": rows("a", "p1", "b")}))
    made.s3.before["list_object_versions"] = once(lose_answer)
    ask(made, "note")

    assert {"": 1} == ask(made, "forget", prefix="spans/", after="")["left"]
    assert ({"delivered": 1}, 2) == (receipt(made)["forgotten"], len(made.span_objects()))


@pytest.mark.parametrize("is_cut", [False, True])
def test_who_writes_a_span_meanwhile_wins(is_cut: bool) -> None:
    """An operator, or another search. This one reads the span again, and does not end: the objects behind it have their turn."""
    made = stored(415, envelope("shop", {"views": rows("a", "p1")}))
    other = other_sandbox(made)
    if is_cut:
        made.s3.after["get_object"] = once(lambda: forget(other), of_span)
    else:
        made.dynamodb.before["update_item"] = once(
            lambda: other.send(State.DEAD, decision=Decision.DROP),
            lambda request: ":g" in request["ExpressionAttributeValues"],
        )
    ask(made, "note")

    assert {"": 0} == ask(made, "forget", prefix="spans/", after="")["left"]
    assert ({"dead": 1, "forgotten": 1} if is_cut else {"dropped": 2}) == books(made)
    assert {"dead" if is_cut else "dropped": 1} == receipt(made)["forgotten"]


def test_rows_stay_in_their_object_until_a_count_finds_none_in_treasure_data() -> None:
    """A statement may fail, or not find what was imported a moment ago. Of a span that is not final, nobody knows when that was."""
    made = shops(envelope("shop", {"views": rows("a", "p1")}), envelope("blog", {"views": rows("b")}))
    made.fail(415, database="blog_db")
    made.deliver()
    assert {} == forget(made)
    made.clock.sleep(HOUR / 2)
    made.put(envelope("shop", {"views": rows("p2")}, request_id="later"))
    made.deliver(2)
    assert {} == forget(made)
    made.clock.sleep(HOUR / 2 + 60)
    for kind in (Kind.STATUS, Kind.REFUSE):
        made.td.faults.add(Fault(kind=kind, action=Action.QUERY, status=500))
        assert {} == forget(made)
        made.td.faults.clear()
    search, results = made.sender_wiring.forget._search, list[TdAnswer]()
    real = search._statements

    def counted_as_before(method: str, *path: str, **options: Any) -> TdAnswer:
        answer = real.api(method, *path, **options)
        results.extend([answer] * (path[1] == "result"))
        return results[0] if path[1] == "result" else answer

    search._statements = Statements(counted_as_before, made.clock)
    assert {} == forget(made)
    search._statements = real

    assert {"delivered": 1} == forget(made)
    made.clock.sleep(HOUR)
    assert {"delivered": 2} == forget(made)


def test_what_the_key_may_not_delete_is_told_before_the_rows_leave() -> None:
    """A receipt has the statement, by the ids of the person's rows and nobody else's: the value is nowhere."""
    made = delivered(envelope("shop", {"views": rows("a", "p1", "b")}))
    made.td.settings = replace(made.td.settings, refuses_delete=True)
    ask(made, "note", values=[P, "b@example.com"])
    assert {"delivered": 2} == ask(made, "forget", prefix="spans/", after="")["rows"]
    found = receipts(made)

    assert [{"delivered": 1}] * 2 == [one["forgotten"] for one in found]
    assert P not in json.dumps(found)
    time, received = "TD_TIME_RANGE(time, 1700000000, 1700000001)", "received_at = 1700000000000"
    deletes = f'shop_db: DELETE FROM "views" WHERE {time} AND (({time} AND event_id = %r AND {received}))'
    assert [[deletes % one] for one in ("p1", "b")] == [one["statements"] for one in found]


@pytest.mark.parametrize(("is_listed", "statements"), [(False, 0), (True, 1)])
def test_rows_in_a_database_that_is_gone_are_gone(is_listed: bool, statements: int) -> None:
    """Nobody has to delete them any more. If Treasure Data still lists the database, somebody must look."""
    made = delivered(envelope("shop", {"views": rows("a", "p1")}))
    del made.td._log._counts["shop_db"]
    if is_listed:
        listed = '{"databases": [{"name": "shop_db"}]}'
        made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.LIST, status=200, body=listed))

    assert {"delivered": 1} == forget(made)
    assert (statements, {}) == (len(receipt(made)["statements"]), receipt(made)["treasure_data"])


def test_a_hashed_column_is_recognised_by_the_same_value() -> None:
    """HashedColumns keeps a keyed hash in the row."""
    hashed = hmac.digest(HASH_KEY.encode(), P.encode(), "sha256")[:16].hex()
    views = [row("p1", email=hashed), row("a", email="x"), row("n", email=None)]
    made = stored(415, envelope("shop", {"views": views}))

    assert {"dead": 1} == forget(made)
    assert {"dead": 2, "forgotten": 1} == books(made)


def test_rejected_events_of_a_person_are_deleted_with_their_old_versions() -> None:
    """Those that come later, too. The others are kept; the ledger counts all of them as before."""
    made = shops()
    rejected = tuple(
        RejectedEvent(0, "missing_table", "views", json.dumps({"email": one}).encode(), "no")
        for one in (P, "a@example.com")
    )
    first, later = (Envelope("shop", "k1", AT_MS, one, 0, (), rejected).encode() for one in "rs")
    made.put(first)
    made.deliver()

    assert {"rejected": 1} == rejected_by(made, "look")
    ask(made, "note")
    assert {"rejected": 1} == rejected_by(made, "forget")
    made.put(later)
    made.deliver(1)
    sweep(made, 3 * HOUR)
    assert P.encode() not in everything(made)
    assert b"a@example.com" in everything(made)
    assert {"rejected": 2} == receipt(made)["forgotten"]
    assert {"rejected": 4} == books(made)


def test_rejected_events_that_cannot_be_read_or_deleted_are_left() -> None:
    """They are not nobody's. The others are gone, and noted, and a search that is repeated finds what it can read by then."""
    made = shops()
    refused = RejectedEvent(0, "missing_table", "views", json.dumps({"email": P}).encode(), "no")
    made.deliver_each(*(Envelope("shop", "k1", AT_MS, one, 0, (), (refused,)).encode() for one in "rst"))
    ask(made, "note")
    made.s3.before["list_object_versions"] = once(lose_answer)
    made.s3.client.put_object(Bucket=BUCKET, Key=made.rejected_objects()[0], Body=b"<html>")

    assert {"": 2} == ask(made, "forget", prefix="rejected/shop/", after="")["left"]
    assert {"rejected": 1} == receipt(made)["forgotten"]
    assert {"rejected": 1} == rejected_by(made, "forget")


def test_rows_of_tables_that_are_too_many_are_searched_too() -> None:
    """They share a chunk, by table; what never became rows is an original."""
    made = shops()
    packed = [msgpack.packb(one) for one in rows("a", "p1")]
    key = ChunkKey(Group(RowSender("shop"), "", "too_many_tables"), 0)
    both = msgpack.packb(("views", 2, b"".join(packed))) + msgpack.packb(("more", 1, packed[1]))
    original = ChunkKey(Group(RowSender("shop"), "", "too_deep"), 0)
    texts = [msgpack.packb(json.dumps({"Email": one}).encode()) for one in (P, "b")]
    chunks = [Chunk(key, [both], [3]), Chunk(original, [b"".join(texts)], [2])]
    encoded = encode(chunks, EMPTY, made.clock.now())
    span = Span(
        ChainId.edit("x"), "000", "000", "000", AT_MS, {key: 3, original: 2}, object=encoded.ref, settled=True
    )
    made.objects.put(span, encoded.data)
    made.ledger.append(span)

    assert {"dead": 3} == forget(made)
    assert {"dead": 2, "forgotten": 3} == books(made)
    (after,) = made.spans()
    kept = [made.objects.payload(after, key) for key, one in after.all_leaves() if one.state is State.DEAD]
    assert sorted(kept) == sorted([msgpack.packb(("views", 1, packed[0])), texts[1]])


def test_the_last_search_finds_what_was_sent_meanwhile_and_drops_the_hashes() -> None:
    """A worker sends from memory; an envelope may wait in the queue for two weeks, and then on the stream."""
    made = shops()
    (note,) = ask(made, "note")["requests"]
    ask(made, "counted", requests=[note["id"]], counts={}, clear=True)
    sweep(made, 3 * HOUR)
    sweep(made, 15 * DAY)
    made.put(envelope("shop", {"views": rows("a", "p1")}))
    made.deliver()
    assert ["a", "p1"] == made.ids("shop_db", "views")
    sweep(made, 0)
    sweep(made, 2 * DAY)
    assert not receipt(made)["done"]
    for days in (6, 14):
        assert not receipt(made)["done"]
        sweep(made, days * DAY)

    assert ["a"] == made.ids("shop_db", "views")
    assert {"delivered": 1, "forgotten": 1} == books(made)
    assert receipt(made)["done"]
    assert not made.sender_wiring.forget_requests.document().requests[receipt(made)["id"]].hashes
    assert {"shop_db.views": 1} == receipt(made)["treasure_data"]


def refused(made: Delivery) -> set[bytes]:
    """Return the hashes of persons of shop whose events the edge policy refuses."""
    document = EdgePolicy.parse(made.s3.get_object(Bucket=BUCKET, Key=policy.KEY)["Body"].read())
    entry = document.account("shop")
    assert entry is not None
    return set(entry.refused.get("email", ()))


def test_the_ingest_is_told_whose_events_to_refuse_until_that_is_lifted() -> None:
    """The hashes outlive the last search, and the sweep tells it again if the edge policy was replaced; without one, nobody can be refused."""
    made = shops()
    made.s3.client.delete_object(Bucket=BUCKET, Key=policy.KEY)
    kept = {"column": "email", "values": ["kept@example.com"], "refuse": True}
    answer = made.invoke_sender({"forget": {"do": "note", "account": "shop", **kept}})
    assert "No accounts have been applied" in answer["message"]
    made.map()  # publishes the edge policy
    ask(made, "note", **kept)
    both = [one["id"] for one in ask(made, "note", values=[P, "q@example.com"], refuse=True)["requests"]]
    ask(made, "counted", requests=both, counts={}, clear=True)
    persons = (P, "q@example.com", "kept@example.com")
    hashes = [set(one) for one in made.sender_wiring.forget_requests.hashes("shop", "email", persons)]
    assert {one.hex() for one in refused(made)} == set.union(*hashes)
    made.clock.sleep(60)
    made.put(envelope("shop", {"views": rows("p1", "a")}))  # some instances do not know yet
    made.deliver()
    ask(made, "lift", ids=both[1:])
    made.map()  # publishes the edge policy
    for days in (1, 20, 14):
        sweep(made, days * DAY)

    assert {one.hex() for one in refused(made)} == hashes[0] | hashes[2]
    assert ["a"] == made.ids("shop_db", "views")
    found = {one["id"]: one for one in receipts(made)}
    assert [True, False] == [found[one]["refuses"] for one in both]
    assert all(one["done"] for one in found.values())
    assert both[:1] == [one["id"] for one in ask(made, "lift", ids=[*both[:1], "unknown"])["requests"]]
    assert {one.hex() for one in refused(made)} == hashes[2]
    requests = made.sender_wiring.forget_requests.document().requests
    assert [[], []] == [requests[one].hashes for one in both]


def test_a_search_does_not_undo_a_refusal_that_was_asked_for_meanwhile() -> None:
    """It tells the ingest in the end, perhaps a quarter of an hour after it has read the requests."""
    made = stored(415, envelope("shop", {"views": rows("a", "p1")}))
    ask(made, "note")
    made.clock.sleep(3 * HOUR)
    other = other_sandbox(made.start())
    made.s3.before["get_object"] = once(
        lambda: ask(other, "note", values=["q@example.com"], refuse=True), of_span
    )
    made.invoke_sender({"sweep": True})

    assert 2 == len(refused(made))


def test_a_put_that_is_repeated_after_it_succeeded_counts_nothing_twice() -> None:
    """If a response is lost, S3's client repeats the put, and its condition fails."""
    made = delivered(envelope("shop", {"views": rows("p1", "a")}))
    repeat = Mock(side_effect=client_error("PreconditionFailed", "PutObject"))
    notes = lambda request: request["Key"] == KEY and "forgotten" in books(made)  # noqa: E731 -- a condition
    made.s3.after["put_object"] = once(repeat, notes)

    assert {"delivered": 1} == forget(made)
    assert {"shop_db.views": 1} == receipt(made)["treasure_data"]


@pytest.mark.parametrize(
    ("counted", "other", "gone"), [(1, "p2", {"delivered": 1}), (3, "p2", {"delivered": 1}), (3, "c", {})]
)
def test_rows_with_a_wrong_count_do_not_end_a_search(counted: int, other: str, gone: dict[str, int]) -> None:
    """Which of them would stay is unknown. Their chunk is left, and reported; others of the same object are cut."""
    wrong = envelope("shop", {"views": rows("a", "p1")}, counted=counted, request_id="w")
    made = delivered(wrong, envelope("shop", {"carts": rows("b", other)}))
    ask(made, "note")
    found = ask(made, "forget", prefix="spans/", after="")

    assert (1, {"": 1}, gone) == (found["objects"], found["left"], receipt(made)["forgotten"])


@pytest.mark.parametrize("trouble", ["full", "gone", "denied", "odd", "refused", "away"])
def test_a_span_that_cannot_be_cut_does_not_end_a_search(trouble: str) -> None:
    """Without room in its item, or an object that S3 gives and takes, it is left, and reported; if the ledger is away, the search notes what it did."""
    made = shops()
    made.deliver_each(*(envelope("shop", {"views": rows(f"a{n}", f"p{n}")}) for n in range(3)))
    made.clock.sleep(2 * HOUR)
    ask(made, "note")
    said = "Item size to update has exceeded the maximum allowed size"
    refuse = Mock(side_effect=client_error("ValidationException", "UpdateItem", said))

    def lose() -> None:
        made.s3.client.delete_object(Bucket=BUCKET, Key=name_of(made.spans()[-1]))

    act = {"full": refuse, "gone": lose, "odd": [].pop}.get(trouble, lose_answer)
    in_s3 = {"denied": "get_object", "odd": "get_object", "refused": "put_object"}
    hooks = made.s3.before if trouble in in_s3 else made.dynamodb.before
    hooks[in_s3.get(trouble, "update_item")] = once(act, lambda asked: asked["Key"] != KEY)
    found = made.invoke_sender({"forget": {"do": "forget", "prefix": "spans/", "after": ""}})

    assert (None if trouble == "away" else {"": 1}) == found.get("left")
    assert {"delivered": 2} == receipt(made)["forgotten"]
    assert (trouble == "odd") == made.telemetry.counts["UnforeseenErrors"]


def test_without_the_ledger_a_search_ends() -> None:
    """No object can be judged, so it is not called unreadable."""
    made = delivered(envelope("shop", {"views": rows("p1")}))
    ask(made, "note")
    made.dynamodb.before["query"] = lambda _: lose_answer()
    found = made.invoke_sender({"forget": {"do": "forget", "prefix": "spans/", "after": ""}})

    assert "unavailable" == found.get("error")


def test_waiting_rows_of_a_person_with_a_wrong_count_die() -> None:
    """They can be neither cut nor sent; nothing else of their span waits for them."""
    wrong = envelope("shop", {"views": rows("a", "p1")}, counted=3)
    made = stored(429, wrong, envelope("shop", {"carts": rows("b", "p2")}))
    made.clock.sleep(HOUR)
    ask(made, "note")
    made.send()

    assert {"shop/views/0": ("dead", "wrong_row_count", 3)} == made.chunks(State.DEAD, State.WAITING)
    assert ["b"] == made.ids("shop_db", "carts")


@pytest.mark.parametrize(
    ("change", "end", "found"),
    [
        ({}, "success", ["p1", "p2"]),
        ({"body": b'["p1"]\n'}, "failed", []),
        ({"body": 2 * f'["{"日" * 450_000}"]\n'.encode()}, "failed", []),
    ],
)
def test_rows_that_cannot_be_read_are_not_none(change: dict[str, Any], end: str, found: list[str]) -> None:
    """The query's result may be cut off, or larger than an answer may be; only nulls are left out."""
    made = delivered(envelope("shop", {"views": [one | {"plan": None} for one in rows("p1", "p2")]}))
    real = made.sender_wiring.forget._statements

    def changed(method: str, *path: str, **options: Any) -> TdAnswer:
        answer = real.api(method, *path, **options)
        return replace(answer, **change) if path[1] == "result" else answer

    made.sender_wiring.forget._statements = Statements(changed, made.clock)
    answer = ask(made, "select", database="shop_db", table="views", columns=["event_id", "plan"])

    assert (end, [{"event_id": one} for one in found]) == (answer["end"], answer["rows"])


def test_requests_that_are_noted_at_once_are_all_kept() -> None:
    """Whoever writes second reads what the first wrote, whether or not there were requests before."""
    made = shops()
    other = other_sandbox(made)
    for one in "ab":
        made.s3.before["put_object"] = once(lambda one=one: ask(other, "note", values=[f"other {one}"]))
        ask(made, "note", values=[one])

    assert 4 == len(receipts(made))


def test_what_arrives_after_a_refusal_was_lifted_is_kept() -> None:
    """Even within the five minutes in which some instances would not have known of the refusal."""
    made = shops()
    (note,) = ask(made, "note", refuse=True)["requests"]
    for name in ("p1", "p2"):
        made.clock.sleep(60)
        received = {"received_at": milliseconds(made.clock.now())}
        made.put(envelope("shop", {"views": [rows(name)[0] | received]}, request_id=name, **received))
        made.clock.sleep(1)
        ask(made, "lift", ids=[note["id"]])
    made.deliver()
    sweep(made, DAY)

    assert ["p2"] == made.ids("shop_db", "views")


def test_a_search_goes_on_where_it_stopped() -> None:
    """An invocation has minutes; a search may take hours, in rejected events and in span objects, also one of the command."""
    made = shops()
    made.fail(415, database="shop_db")
    body = compress(msgpack.packb((AT_MS, json.dumps({"email": P}).encode(), "no")))
    for one in range(101):
        name = f"rejected/{'shop' if one else 'blog'}/views!too_deep/{one:03}.gz"
        made.s3.put_object(Bucket=BUCKET, Key=name, Body=body)
    for one in range(99):  # of spans or of an account, 96 are looked at together
        made.put(envelope("shop", {"views": rows("p1" if one == 98 else "a")}, request_id=str(one)))
        made.deliver(one)
        made.clock.sleep(HOUR * (one in {0, 97, 98}))
    for account in ("shop", "blog"):
        ask(made, "note", account=account)
    made.clock.sleep(3 * HOUR)
    slow = ("spans/", "rejected/")
    made.s3.before["get_object"] = lambda request: made.clock.sleep(30 * request["Key"].startswith(slow))
    answers = list[dict[str, Any]]()

    def invoke(_: str, event: dict[str, Any]) -> dict[str, Any]:
        answers.append(made.invoke_sender(event))
        return answers[-1]

    stack: Any = SimpleNamespace(invoke=invoke)
    wanted = WantedPersons("shop", "email", (P,))
    in_objects(stack, "look", [wanted.rejected], wanted.members, lambda *_: None)
    assert [96, 4] == [one["rows"]["rejected"] for one in answers]
    for forgotten, rejected in ((0, 100), (0, 4), (0, 0), (0, 0), (1, 0)):
        made.sender_wiring.forget.run_due(made.deadline(30_000))
        assert (forgotten, rejected) == (books(made).get("forgotten", 0), len(made.rejected_objects()))
        assert (forgotten == 0) == bool(made.sender_wiring.forget_requests.document().began)

    assert [100, 1] == [one["forgotten"]["rejected"] for one in receipts(made)]


class Busy(Sweeper):
    """Takes all the time that it has, and fails."""

    @override
    def run(self, deadline: Deadline) -> Sweep:
        self._clock.sleep(deadline.left())
        raise UnavailableError


def test_a_sweep_that_takes_long_or_fails_leaves_time_for_a_search() -> None:
    """In a large bucket, each may take all the time that it has. A sweep asks Kinesis, too, which no search needs."""
    made = shops(envelope("shop", {"views": rows("p1")}), replaced={Sweeper: Busy})
    made.deliver()
    ask(made, "note")
    with pytest.raises(UnavailableError):
        sweep(made, 3 * HOUR)

    assert [{"requests": 1, "done": 0}] == made.telemetry.said("searched for persons to forget")


def test_a_run_that_goes_on_after_its_search_has_ended_does_not_move_the_next_one() -> None:
    """Or that would leave out hours."""
    document = RequestDocument()
    document.begin(1.0)
    document.finish(1.0, 2.0)
    document.begin(3.0)
    document.reach(1.0, "spans/x", {"": 1})
    document.finish(1.0, 4.0)

    assert (3.0, "", {}) == (document.began, document.after, document.left)


@pytest.mark.parametrize(
    ("left", "day", "ends"),
    [
        ({}, 10, True),
        ({"": 1}, 20, False),
        ({"1": 2}, 20, False),
        ({"-": 1}, 10, False),
        ({"-": 1}, 20, True),
    ],
)
def test_a_request_is_done_once_its_last_search_left_nothing(left: Any, day: int, ends: bool) -> None:
    """Until then it is known when rows were first seen that no statement may find yet; a request that was made meanwhile stays due."""
    document = RequestDocument(seen={"span/chunk": 1.0})
    for one, before in (("1", 1), ("2", day * milliseconds(DAY) + 1)):
        document.requests[one] = ForgetRequest(one, "shop", "email", ["00"], before, until=5.0, next=7.0)
    document.begin(day * DAY)
    document.reach(day * DAY, "", left)
    document.finish(day * DAY, (day + 1) * DAY)

    assert (ends, "1" in left) == (bool(document.requests["1"].done), bool(document.seen))
    assert ["00"] == document.requests["1"].hashes  # as long as no query has counted 0 rows
    assert (0.0, 7.0) == (document.requests["2"].done, document.requests["2"].next)


def test_the_same_person_asked_for_twice_is_one_request() -> None:
    """It is for what was received until now."""
    made = shops()
    noted = ask(made, "note", values=["a", "b"])["requests"]
    made.clock.sleep(DAY)
    (again,) = ask(made, "note", values=["a"])["requests"]

    assert [one["id"] for one in noted] == [one["id"] for one in receipts(made)]
    assert noted[0]["id"] == again["id"]
    assert noted[0]["before"] < again["before"]


@pytest.mark.parametrize("there", ["another object", "no object", "no span"])
def test_an_object_that_nobody_names_is_waited_for_and_then_erased(there: str) -> None:
    """Its writer may be about to name it; the sweep deletes it after a day, and the last search comes later."""
    made = stored(415, envelope("shop", {"views": rows("p1")}))
    (span,) = made.spans()
    stray = replace(span, last=number("9" * 5))
    if there == "no span":
        stray = replace(stray, chain=ChainId.parse("events@1#shard"))
    elif there == "no object":
        made.ledger.update(replace(span, object=None))
    made.objects.put(stray, made.s3.objects(BUCKET)[name_of(span)].body)
    ask(made, "note")
    strays = 1 + (there == "no object")
    assert {"": strays} == ask(made, "forget", prefix="spans/", after="")["left"]
    assert {STRAY: strays} == made.sender_wiring.forget._search.forget("spans/", "", made.deadline()).left
    assert name_of(stray) in made.span_objects()
    made.clock.sleep(2 * DAY)
    ask(made, "forget", prefix="spans/", after="")

    assert name_of(stray) not in made.span_objects()
    assert P.encode() not in everything(made)


def test_rows_stay_in_s3_however_old_until_treasure_data_has_deleted_them() -> None:
    """It runs no statement until the sweep would delete them; then nobody would know which rows of a person it still has."""
    made = shops(envelope("shop", {"views": rows("a", "p1")}), archive_days=2)
    made.deliver()
    ask(made, "note")
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.QUERY, status=500))
    (name,) = made.span_objects()
    body = made.s3.objects(BUCKET)[name].body
    for one in (body, body, body[:15] + b"?" + body[16:], body):  # S3 answers once with other bytes
        made.s3.put_object(Bucket=BUCKET, Key=name, Body=one)
        sweep(made, DAY)
    made.td.faults.clear()
    sweep(made, 14 * DAY)

    assert ["a"] == made.ids("shop_db", "views")
    assert {"shop_db.views": 1} == receipt(made)["treasure_data"]


@pytest.mark.parametrize("accounts", ["shop", "blog", "shop blog", "shop shop"])
def test_treasure_data_is_asked_by_rows_that_no_statement_deleted(accounts: str) -> None:
    """The chunk is there, although P's rows are not any more, whose account may share the database. `a` may be of a person, too, of either account."""
    account, *others = accounts.split()
    database = f"{account}_db"
    made = stored(500, envelope(account, {"views": rows("p1", "a", "p2")}), lands=0).map(shop=database)
    ask(made, "note")
    made.clock.sleep(HOUR)
    ask(made, "delete", database=database, table="views", named=True)
    assert ["a"] == made.ids(database, "views")
    for one in others:
        ask(made, "note", account=one, values=["a@example.com"])
    made.clock.sleep(HOUR)
    made.start().send()
    sweep(made, 2 * HOUR)

    assert ([] if accounts == "shop shop" else ["a"]) == made.ids(database, "views")
    counted = {"blog": {}, "shop shop": {"forgotten": 3}}
    assert counted.get(accounts, {"delivered": 1, "forgotten": 2}) == books(made)


def test_where_accounts_share_a_database_only_rows_that_s3_knows_are_deleted() -> None:
    """By the value, rows of the other account would go; in a database that was the account's for a while, too. An operator may decide that."""
    made = Delivery().map(shop="media", blog="media")
    made.put(envelope("shop", {"views": rows("p1", "a")}), envelope("blog", {"views": rows("p2")}))
    made.deliver()
    made.map(shop="shop_db", blog="blog_db")
    made.clock.sleep(2 * HOUR)
    place = {"database": "media", "table": "views", "columns": ["email"]}
    assert ["media"] == ask(made, "tables", databases=["media"])["shared"]
    assert ["shared", "shared"] == [ask(made, do, **place)["end"] for do in ("delete", "select")]
    assert {"delivered": 1} == forget(made)
    assert ["a", "p2"] == sorted(made.ids("media", "views"))
    ask(made, "delete", named=True, **place)

    assert ["a"] == made.ids("media", "views")


@pytest.mark.parametrize("lost", ["", "*", "blog"])
def test_nothing_is_deleted_by_the_value_while_nobody_knows_who_shares_a_database(lost: str) -> None:
    """The edge policy names the accounts, and Redis says now which databases they have, unless it is from an old backup."""
    made = delivered(envelope("shop", {"views": rows("p1")})).start()
    ask(made, "tables")
    for key in list(made.redis.scan_iter(match=KEYS.of(lost))):
        made.redis.delete(key)
    made.s3.client.delete_object(Bucket=BUCKET, Key="" if lost else policy.KEY)
    with pytest.raises(AssertionError, match="unavailable"):
        ask(made, "delete", database="shop_db", table="views")

    assert ["p1"] == made.ids("shop_db", "views")


def test_rows_that_a_statement_deletes_during_a_question_do_not_prove_that_others_are_absent() -> None:
    """The request came after the sender had chosen the rows to ask for."""
    made = stored(500, envelope("shop", {"views": rows("p1", "a", "p2")}), lands=0)
    made.clock.sleep(2 * HOUR)

    def forget_now() -> None:
        ask(other, "note")
        ask(other, "delete", database="shop_db", table="views")

    other = other_sandbox(made.start())
    made.s3.before["get_object"] = once(forget_now, of_span)
    made.send()
    assert ["a"] == made.ids("shop_db", "views")
    for _ in range(2):
        made.clock.sleep(DAY)
        made.send()
        made.invoke_sender({"sweep": True})

    assert ["a"] == made.ids("shop_db", "views")
    assert {"delivered": 1, "forgotten": 2} == books(made)


def test_what_nobody_settled_is_settled_before_it_is_cut() -> None:
    """Its worker was killed while it sent rows of another account. Redis did not answer for this one."""
    made = shops()
    made.redis.flushall()
    made.map(blog="blog_db")
    made.put(envelope("shop", {"views": rows("a", "p1")}), envelope("blog", {"views": rows("b")}))
    made.dynamodb.before["update_item"] = once(kill)
    with suppress(KilledError):
        made.deliver()
    made.redis.hset(KEYS.sentinel, mapping={"at": "now", "count": "0"})
    made.map(shop="shop_db")
    ask(made, "note")
    made.clock.sleep(HOUR)
    made.start().send()

    assert ["a"] == made.ids("shop_db", "views")
    assert {"delivered": 1, "forgotten": 1} == books(made)


@pytest.mark.parametrize(("hours", "sent"), [(0.25, ["a", "p1"]), (2, ["a"])])
def test_a_chunk_whose_doubt_is_over_is_cut_before_it_is_sent_again(hours: float, sent: list[str]) -> None:
    """Treasure Data has nothing of it, so that nothing keeps the person's rows. Until then it is sent whole, under its id."""
    made = stored(500, envelope("shop", {"views": rows("a", "p1")}))
    ask(made, "note")
    made.clock.sleep(hours * HOUR)
    made.send()

    assert (sent, len(sent)) == (made.ids("shop_db", "views"), books(made)["delivered"])
    assert 2 == sum(books(made).values())


def test_delivered_rows_are_deleted_by_their_ids_although_a_query_by_value_counts_none() -> None:
    """Treasure Data's text of a truth value is another than the row's; so may be that of a number, in a column with fractions."""
    made = delivered(envelope("shop", {"views": [row("p1", email=True), row("a", email=False)]}))
    (note,) = ask(made, "note", values=["True"])["requests"]
    assert {} == ask(made, "count", values=["True"], database="shop_db", table="views")["counts"]
    ask(made, "counted", requests=[note["id"]], counts={}, clear=True)
    sweep(made, 3 * HOUR)

    assert ["a"] == made.ids("shop_db", "views")
    assert {"shop_db.views": 1} == receipt(made)["treasure_data"]


@pytest.mark.parametrize(
    ("counts", "deleted", "remaining"),
    [
        ([5, 0], 5, 0),
        ([5, 2], 3, 2),
        ([5], 0, 5),  # unknown what became of them
        ([5, 0, 0], 5, 0),
        ([5, 5, 5, 0], 5, 0),  # the first deletion has not succeeded
        ([5, 3, 0], 5, 0),
        ([5, 0, 2, 0], 7, 0),  # two that arrived late
        ([0, 2, 2, 0], 2, 0),
        ([5, -3, 0], 5, 0),  # a search has deleted three of them by their ids
    ],
)
def test_a_receipt_says_what_all_runs_have_deleted(counts: list[int], deleted: int, remaining: int) -> None:
    """Each row once: what was counted, and was gone by a later count, whichever run or search that made."""
    document = RequestDocument({"r": ForgetRequest("r", "shop", "email", [], 1, 0, 0)})
    for one in counts:
        if one < 0:
            document.add_deleted({("r", "shop.views"): -one})
        else:
            document.add_counts(["r"], {"shop.views": {"r": one} if one else {}})

    assert Counter({"shop.views": deleted}) == Counter(document.requests["r"].treasure_data)
    assert Counter({"shop.views": remaining}) == Counter(document.requests["r"].remaining)


STATES = [State.WAITING, State.DEAD, State.DELIVERED, State.DROPPED, State.COPY, State.REPLACED, State.AGAIN]
IN_DOUBT = 1_700_000_000_000


@st.composite
def trees(draw: st.DrawFn, key: ChunkKey, rows: int) -> dict[ChunkKey, Entry]:
    """Return the entries of a chunk with so many rows: of itself, or of the halves that it was split into."""
    if rows > 1 and draw(st.booleans()):
        first, second = key.halves
        parts = draw(trees(first, rows // 2)) | draw(trees(second, rows - rows // 2))
        return {key: Entry(State.SPLIT)} | parts
    state = draw(st.sampled_from(STATES))
    has_doubt = state in {State.WAITING, State.DEAD} and draw(st.booleans())
    return {key: Entry(state, since=IN_DOUBT if has_doubt else None)}


@st.composite
def stored_spans(draw: st.DrawFn) -> tuple[Span, bytes, dict[ChunkKey, list[dict[str, Any]]]]:
    """Return a span, its object, and the rows of its chunks. Each row belongs to one of three persons, each to one of three records."""
    chunks, entries, held = [], {}, {}
    for table in draw(st.lists(st.sampled_from(["views", "clicks"]), min_size=1, unique=True)):
        for part in range(draw(st.integers(1, 2))):
            key = ChunkKey(Group(RowSender("shop"), table), part)
            persons = draw(st.lists(st.sampled_from("pqr"), min_size=1, max_size=7))
            found = [row(f"{table}{part}{n}{one}", email=one) for n, one in enumerate(persons)]
            owners = sorted(draw(st.lists(st.integers(0, 2), min_size=len(found), max_size=len(found))))
            counted = Counter(owners)
            parts = iter(found)
            blocks = [b"".join(map(msgpack.packb, islice(parts, n))) for n in counted.values()]
            chunks.append(Chunk(key, blocks, list(counted.values()), list(counted)))
            entries |= draw(trees(key, len(found)))
            held[key] = [one | {"owner": owner} for one, owner in zip(found, owners, strict=True)]
    numbers = [number(digit) for digit in "123"]
    index = Index(
        " ".join(numbers), [1, 2, 3], [1, 2, 3], ["a", "b", "c"], [0, 1, 0], frozenset({1}), (), EMPTY.plan
    )
    encoded = encode(chunks, index, 0)
    span = Span(
        chain=ChainId.parse("events@1#shard"),
        after="000",
        first=numbers[0],
        last=numbers[2],
        planned_at=IN_DOUBT,
        chunks={one.key: one.rows for one in chunks},
        destinations={RowSender("shop"): Destination("shop_db")},
        records=3,
        object=encoded.ref,
    )
    return span.with_entries(entries, settled=True), encoded.data, held


def held_by(made: Delivery, span: Span) -> dict[str, tuple[ChunkKey, State, int]]:
    """Return where each row in an object is: its leaf, the leaf's state and the record that it is of, by its id."""
    index, bodies = made.objects.whole(span)
    found = {}
    for key, body in bodies.items():
        member = index.members[key]
        owners = [one for one, n in zip(member.positions, member.row_counts, strict=True) for _ in range(n)]
        values = list(msgpack.Unpacker(BytesIO(decompress(body))))
        assert len(owners) == len(values) == member.rows == span.chunks[key]
        for place, value in enumerate(values):
            leaf = next(one for one in span.leaves(key) if place in one.within(span.chunks[key]))
            found[value["event_id"]] = leaf, span.entry(leaf).state, owners[place]
    return found


HAVE_ROWS = {State.WAITING, State.DEAD, State.DELIVERED}


@given(stored_spans(), st.permutations("pqr"))
def test_only_the_person_s_rows_leave_and_every_name_is_used_once(
    made_of: tuple[Span, bytes, dict[ChunkKey, list[dict[str, Any]]]], order: list[str]
) -> None:
    """Whatever states a span's chunks and halves are in. The books balance, the index stays whole, and what is in doubt stays as it is."""
    span, data, _ = made_of
    made = Delivery()
    made.ledger.append(span)
    made.objects.put(span, data)
    names = set(span.chunks)
    for person in order[:2]:
        before, (index, bodies), received = held_by(made, span), made.objects.whole(span), books(made)
        doubted = {
            key
            for key in bodies
            if any(
                entry.since is not None or entry.state is State.AGAIN
                for entry in map(span.entry, span.leaves(key))
            )
        }
        persons = made.sender_wiring.forget_requests
        hashed = bytes.fromhex(persons.hashes("shop", "email", [person])[0][0])
        wanted = Person("1", "shop", "email", (hashed,), NOW)
        cut = made.sender_wiring.forgetting.forget(span, Persons(b"forget-key", (wanted,)), lambda _: True)
        after_cut = made.ledger.get(span.place)
        assert after_cut is not None
        after = held_by(made, after_cut)
        theirs = {one for one in before if one.endswith(person)}
        whole = {one for one in theirs if span.entry(before[one][0]).since is None}
        gone = {one for one in whole if before[one][1] in HAVE_ROWS}

        # nobody else's row is lost, moves to another state, or is taken for another record's
        needed = {one for one in before if before[one][1] in HAVE_ROWS | {State.AGAIN}}
        live = {one: place[1:] for one, place in after.items() if place[1] in HAVE_ROWS | {State.AGAIN}}
        assert {one: before[one][1:] for one in needed - gone} == live
        asked_for = {one.row.id.event_id for one in cut.delivered if one.row.id}
        assert {one for one in theirs if before[one][1] is State.DELIVERED} == asked_for
        # the person's are in no chunk whose rows are known
        left = {one for one in after if one.endswith(person)}
        assert all(after[one][0].planned in doubted for one in left)
        assert bool(left) == bool(cut.left)
        # the books
        then = books(made)
        assert then.get("forgotten", 0) == received.get("forgotten", 0) + len(gone)
        assert sum(received.values()) == sum(then.values())
        assert all(received.get(one) == then.get(one) for one in ("dropped", "copy", "again"))
        # what stands under a name that stays is the same bytes
        new_index, new_bodies = made.objects.whole(after_cut)
        assert all(new_bodies[key] == bodies[key] for key in bodies.keys() & new_bodies.keys())
        assert names.isdisjoint(after_cut.chunks.keys() - span.chunks.keys())
        assert replace(index, chunks=()) == replace(new_index, chunks=())
        assert {key: one.rows for key, one in new_index.members.items()} == dict(after_cut.chunks)
        assert {key.planned for key in after_cut.entries} <= after_cut.chunks.keys()
        assert all(after_cut.rows(key) for key, one in after_cut.all_leaves() if one.state in HAVE_ROWS)
        assert made.span_objects() == [name_of(after_cut)]
        names |= set(after_cut.chunks)
        span = after_cut


@pytest.mark.parametrize(("job_seconds", "searches"), [(35, 1), (45, 2)])
def test_a_search_gives_treasure_data_all_the_time_that_there_is(job_seconds: float, searches: int) -> None:
    """It notes how far it has come each minute, but three jobs may take longer. What takes even longer is found to have ended by a later one."""
    made = delivered(envelope("shop", {"views": rows("a", "p1", "b")}))
    ask(made, "note")
    made.td.settings = replace(made.td.settings, job_seconds=job_seconds)
    for _ in range(searches):
        sweep(made, DAY)

    assert {"delivered": 2, "forgotten": 1} == books(made)
    assert {"shop_db.views": 1} == receipt(made)["treasure_data"]
