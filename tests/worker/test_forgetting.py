"""Forgetting a person: in chunks of every state, beside everybody else who writes a span."""

from collections import Counter
from dataclasses import replace
from io import BytesIO
from itertools import islice
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from doubles.treasure_data import Action, Fault, Kind
from tests.support.delivery import BUCKET, Delivery, envelope, row
from worker.chain import ChainId
from worker.index import Index
from worker.person import Person, Persons
from worker.record import number
from worker.rows import decompress
from worker.span import ChunkKey, Database, Group, RowSender, Span
from worker.span_object import Chunk, encode, name_of
from worker.states import Entry, State

NOW = 4_000_000_000_000
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
def stored(draw: st.DrawFn) -> tuple[Span, bytes, dict[ChunkKey, list[dict[str, Any]]]]:
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
            chunks.append(Chunk(key, blocks, len(found), list(counted), list(counted.values())))
            entries |= draw(trees(key, len(found)))
            held[key] = [one | {"owner": owner} for one, owner in zip(found, owners, strict=True)]
    numbers = [number(digit) for digit in "123"]
    index = Index(numbers, [1, 2, 3], [1, 2, 3], ["a", "b", "c"], [0, 1, 0], frozenset({1}), {})
    encoded = encode(chunks, index, 0)
    span = Span(
        chain=ChainId.parse("events@1#shard"),
        after="000",
        first=numbers[0],
        last=numbers[2],
        planned_at=IN_DOUBT,
        chunks={one.key: one.rows for one in chunks},
        destinations={RowSender("shop"): Database("shop_db")},
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


def counts(span: Span) -> Counter[State]:
    """Return how many rows a span has, by state."""
    found: Counter[State] = Counter()
    for key, entry in span.all_leaves():
        found[entry.state] += span.rows(key)
    return found


HAVE_ROWS = {State.WAITING, State.DEAD, State.DELIVERED}


@given(stored(), st.permutations("pqr"))
def test_only_the_person_s_rows_leave_and_every_name_is_used_once(
    made_of: tuple[Span, bytes, dict[ChunkKey, list[dict[str, Any]]]], order: list[str]
) -> None:
    """Whatever states a span's chunks and halves are in. The books balance, the index stays whole, and what is in doubt stays as it is."""
    span, data, _ = made_of
    made = Delivery()
    made.ledger.append(span)
    made.objects.rewrite(span, data)
    names = set(span.chunks)
    for person in order[:2]:
        before, (index, bodies) = held_by(made, span), made.objects.whole(span)
        doubted = {
            key
            for key in bodies
            if any(
                entry.since is not None or entry.state is State.AGAIN
                for entry in map(span.entry, span.leaves(key))
            )
        }
        persons = made.sender_wiring.forget_requests
        wanted = Person(
            "1", "shop", "email", (bytes.fromhex(persons.hashes("shop", "email", person)[0]),), NOW
        )
        cut = made.sender_wiring.forgetting.forget(span, Persons(b"forget-key", [wanted]))
        after_cut = made.ledger.get(span.place)
        assert after_cut is not None
        after = held_by(made, after_cut)
        theirs = {one for one in before if one.endswith(person)}
        gone = {
            one for one in theirs if before[one][1] in HAVE_ROWS and span.entry(before[one][0]).since is None
        }

        # nobody else's row is lost, moves to another state, or is taken for another record's
        needed = {one for one in before if before[one][1] in HAVE_ROWS | {State.AGAIN}}
        live = {one: place[1:] for one, place in after.items() if place[1] in HAVE_ROWS | {State.AGAIN}}
        assert {one: before[one][1:] for one in needed - gone} == live
        # the person's are in no chunk whose rows are known
        left = {one for one in after if one.endswith(person)}
        assert all(after[one][0].planned in doubted for one in left)
        assert bool(left) == bool(cut.left)
        # the books
        assert counts(after_cut)[State.FORGOTTEN] == counts(span)[State.FORGOTTEN] + len(gone)
        received = counts(span) - Counter({State.REPLACED: counts(span)[State.REPLACED]})
        then = counts(after_cut) - Counter({State.REPLACED: counts(after_cut)[State.REPLACED]})
        assert received.total() == then.total()
        assert all(received[one] == then[one] for one in (State.DROPPED, State.COPY, State.AGAIN))
        # what stands under a name that stays is the same bytes
        new_index, new_bodies = made.objects.whole(after_cut)
        assert all(new_bodies[key] == bodies[key] for key in bodies.keys() & new_bodies.keys())
        assert names.isdisjoint(after_cut.chunks.keys() - span.chunks.keys())
        assert replace(index, members={}) == replace(new_index, members={})
        assert {key: one.rows for key, one in new_index.members.items()} == dict(after_cut.chunks)
        assert made.span_objects() == [name_of(after_cut)]
        names |= set(after_cut.chunks)
        span = after_cut
