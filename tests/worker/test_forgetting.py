"""Forgetting a person: in chunks of every state, beside everybody else who writes a span."""

from collections import Counter
from typing import Any

from doubles.treasure_data import Action, Fault, Kind
from tests.support.delivery import BUCKET, Delivery, envelope, row
from worker.rows import decompress
from worker.states import State

HOUR = 3600.0
DAY = 86_400.0
P = "p@example.com"


def delivery(**changes: Any) -> Delivery:
    """Return a delivery with two accounts."""
    made = Delivery(**changes)
    made.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    made.map(shop="shop_db", blog="blog_db")
    made.td.create("shop_db", "views")
    made.td.create("blog_db", "views")
    return made


def fail(made: Delivery, status: int) -> None:
    """Have imports to shop_db answered with a status."""
    made.td.faults.add(Fault(kind=Kind.STATUS, action=Action.IMPORT, database="shop_db", status=status))


def ask(made: Delivery, do: str, **members: Any) -> dict[str, Any]:
    """Ask the sender's function for something about P in the account shop."""
    asked = {"do": do, "account": "shop", "column": "email", "values": [P], **members}
    answer = made.invoke_sender({"forget": asked})
    assert "error" not in answer, answer
    return answer


def forget(made: Delivery) -> dict[str, int]:
    """Note a request and search all objects; return how many rows were forgotten, by their state."""
    note = ask(made, "note")["requests"][0]
    totals: Counter[str] = Counter()
    for hour, *_ in ask(made, "objects")["hours"]:
        totals += Counter(ask(made, "forget", hour=hour, after="")["forgotten"].get(note["id"], {}))
    return dict(totals)


def receipt(made: Delivery) -> dict[str, Any]:
    """Return the only request."""
    (found,) = ask(made, "list")["requests"]
    return dict(found)


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
    return b"".join(_plain(body) for body in made.s3.versions(BUCKET))


def _plain(body: bytes) -> bytes:
    parts = body.split(b"\x1f\x8b\x08")
    return b"".join(decompress(b"\x1f\x8b\x08" + part) for part in parts[1:] if part)


def rows(*names: str) -> list[dict[str, Any]]:
    """Return rows of shop: those whose names begin with p are the person's."""
    return [row(name, email=P if name.startswith("p") else f"{name}@example.com") for name in names]


def test_a_dead_chunk_loses_the_person_s_rows_and_nothing_else() -> None:
    """The others are sent again when an operator says so."""
    made = delivery()
    fail(made, 415)
    made.put(envelope("shop", {"views": rows("a", "p1")}), envelope("shop", {"views": rows("p2", "b")}))
    made.deliver()
    made.td.faults.clear()

    assert {"dead": 2} == forget(made)
    assert {"dead": 2, "forgotten": 2} == books(made)
    assert P.encode() not in everything(made)

    made.send(State.DEAD)
    assert ["a", "b"] == made.ids("shop_db", "views")
    assert {"delivered": 2, "forgotten": 2} == books(made)


def test_a_waiting_chunk_is_sent_under_another_id() -> None:
    """Treasure Data remembers the first id: with other rows under it, they would be lost."""
    made = delivery()
    made.redis.flushall()
    made.put(envelope("shop", {"views": rows("a", "p1", "b")}))
    made.deliver()
    (span,) = made.spans()
    (key,) = span.chunks
    assert {"waiting": 1} == forget(made)
    (after,) = made.spans()

    assert key not in after.chunks
    assert {"waiting": 2, "forgotten": 1} == books(made)
    made.redis.hset("ledger:accounts", mapping={"at": "now", "count": "0"})
    made.map(shop="shop_db")
    made.start().send()
    assert [] == made.ids("shop_db", "views") or ["a", "b"] == made.ids("shop_db", "views")


def test_delivered_rows_are_deleted_in_treasure_data_before_they_leave_the_object() -> None:
    """The object is what says which rows they are."""
    made = delivery()
    made.put(envelope("shop", {"views": rows("a", "p1", "b")}), envelope("blog", {"views": rows("p9")}))
    made.deliver()
    made.clock.sleep(2 * HOUR)

    assert {"delivered": 1} == forget(made)
    assert {"delivered": 2, "forgotten": 1} == books(made)
    assert ["a", "b"] == made.ids("shop_db", "views")
    assert ["p9"] == made.ids("blog_db", "views")
    assert {"shop_db.views": 1} == receipt(made)["treasure_data"]


def test_what_is_in_doubt_is_left_until_that_is_over() -> None:
    """What stands under an id must not change while Treasure Data may have it."""
    made = delivery()
    fail(made, 500)
    made.put(envelope("shop", {"views": rows("a", "p1")}))
    made.deliver()
    made.td.faults.clear()
    before = made.spans()

    assert {} == forget(made)
    assert before == made.spans()

    made.clock.sleep(180)
    made.send()
    assert ["a", "p1"] == made.ids("shop_db", "views")
    made.clock.sleep(2 * HOUR)
    made.invoke_sender({"sweep": True})
    assert ["a"] == made.ids("shop_db", "views")
    assert {"delivered": 1, "forgotten": 1} == books(made)
