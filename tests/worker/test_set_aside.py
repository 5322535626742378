"""The set-aside store: objects that never change, and what is believed about them."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from doubles.s3 import MemoryS3
from shared.errors import BucketUnavailableError, InvalidObjectError
from tests.support.delivery import BUCKET, Meddled, lose_answer, row
from tests.support.spans import CHAIN, KEY, key, span
from worker.bucket import Bucket as S3Bucket
from worker.delivery import Entry, State
from worker.guards import Guard
from worker.record import START
from worker.set_aside import SetAside, SetAsideStore, decode

ROWS = msgpack.packb(row("e1")) + msgpack.packb(row("e2"))


def chunk(**changes: Any) -> SetAside:
    """Return the set-aside chunk of a span's only group."""
    members: dict[str, Any] = {
        "account": "shop",
        "table": "views",
        "rows": 2,
        "payload_form": "rows",
        "shard": CHAIN.shard,
        "sequence_numbers": ("7", "9"),
        "first_seen": 1,
        "last_seen": 2,
        "chain": CHAIN.name,
        "after": START,
        "chunk": KEY.name,
        "object_id": span().object_id(KEY),
        "payload": ROWS,
    }
    return SetAside(**(members | changes))


class Bucket:
    """A store, and the bucket behind it."""

    def __init__(self, *without: Guard) -> None:
        self.s3: Any = Meddled(MemoryS3(lambda: 1_700_000_000.0, page_keys=2))
        self.s3.create_bucket(Bucket=BUCKET)
        self.store = SetAsideStore(S3Bucket(self.s3, BUCKET), frozenset(without))

    def overwrite(self, data: bytes) -> None:
        """Replace the bytes of each object."""
        for name in self.s3.objects(BUCKET):
            self.s3.put_object(Bucket=BUCKET, Key=name, Body=data)

    def get(self, one: SetAside) -> SetAside:
        """Return the object that the store has for the chunk."""
        return self.store.get(span(), one.key, one.edit, one.digest)


@given(
    st.binary(max_size=100),
    st.binary(max_size=30),
    st.lists(st.text("0123456789", min_size=1), max_size=5).map(tuple),
    st.integers(0, 3),
)
def test_chunks_round_trip_through_their_objects(
    payload: bytes, original: bytes, numbers: tuple[str, ...], edit: int
) -> None:
    """This holds for any bytes, edited or not."""
    one = chunk(payload=payload, original=original, sequence_numbers=numbers, edit=edit)

    assert one == decode(one.encode())


def test_an_object_is_gzip_of_a_header_line_and_the_rows() -> None:
    """It is self-contained. Only edited chunks have original rows."""
    header, _, payload = gzip.decompress(chunk().encode()).partition(b"\n")

    assert ROWS == payload
    assert {
        "account": "shop",
        "table": "views",
        "rows": 2,
        "payload_form": "rows",
        "shard": CHAIN.shard,
        "sequence_numbers": ["7", "9"],
        "first_seen": 1,
        "last_seen": 2,
        "chain": CHAIN.name,
        "after": START,
        "chunk": KEY.name,
        "object_id": span().object_id(KEY),
        "edit": 0,
    } == json.loads(header)


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("shop/views/0", "aside/shop/views/"),
        ("shop/views/3.0.1", "aside/shop/views/"),
        ("shop:k2/views/0", "aside/shop/views/"),
        ("-/-undecodable/0", "aside/-/-undecodable/"),
    ],
)
def test_an_object_is_named_by_account_table_chunk_edit_and_digest(name: str, prefix: str) -> None:
    """A listing by prefix finds an account's table. Halves share the object of their planned chunk."""
    planned = key(name).planned

    assert f"{prefix}{span().object_id(planned)}-2-abc.gz" == Bucket().store.name(span(), key(name), 2, "abc")


@pytest.mark.parametrize(
    "change", [{"payload": b"\x80"}, {"original": b"\x80"}, {"edit": 1}, {"rows": 3}, {"last_seen": 3}]
)
def test_a_digest_covers_everything_in_an_object(change: dict[str, Any]) -> None:
    """Chunks that differ in anything have different names."""
    assert chunk().digest != chunk(**change).digest
    assert 32 == len(chunk().digest)


def test_an_existing_object_is_written_again() -> None:
    """The second writer writes the same bytes, and does not rely on what S3 says is there."""
    bucket = Bucket()
    bucket.store.put(span(), chunk())
    bucket.overwrite(b"other bytes")
    bucket.store.put(span(), chunk())

    assert chunk() == bucket.get(chunk())


@pytest.mark.parametrize("answer", [{}, {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"'}, {"ETag": ""}])
def test_a_put_counts_only_with_the_etag_of_its_bytes(answer: dict[str, Any]) -> None:
    """A 200 from a proxy, or for other bytes, does not prove that S3 has them."""
    bucket = Bucket()
    bucket.s3.client.put_object = lambda **_: answer
    with pytest.raises(BucketUnavailableError, match="did not acknowledge aside/"):
        bucket.store.put(span(), chunk())


def test_versions_of_a_chunk_coexist() -> None:
    """An edit has its own object, and the previous one stays."""
    bucket = Bucket()
    edited = chunk().edited(b"\x80" * 2)
    bucket.store.put(span(), chunk())
    bucket.store.put(span(), edited)

    assert [chunk(), edited] == [bucket.get(chunk()), bucket.get(edited)]


def test_an_edit_keeps_the_first_original() -> None:
    """However often a person edits, the rows as sent are not lost."""
    edited = chunk().edited(b"\x81").edited(b"\x82")

    assert (2, b"\x82", ROWS) == (edited.edit, edited.payload, edited.original)
    assert chunk() == replace(edited, edit=0, payload=edited.original, original=b"")


def zipped(data: bytes) -> bytes:
    """Return bytes as gzip."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        zipped(b""),
        zipped(b"[]\n"),
        zipped(b"{}\n"),
        zipped(b'{"account":"shop"}\n'),
        zipped(b"\xff\n"),
        zipped(json.dumps({"sequence_numbers": 1}).encode() + b"\n"),
        chunk().encode()[:-9],
        chunk(chain="nowhere").encode(),
        chunk(chunk="nothing").encode(),
        chunk(chain=5).encode(),
        zipped(gzip.decompress(chunk().encode()).replace(b'"edit"', b'"revision"')),
        zipped(gzip.decompress(chunk(original=b"\x80").encode()).replace(b'"gA=="', b'"g"')),
    ],
)
def test_other_bytes_are_not_a_chunk(data: bytes) -> None:
    """A foreign or broken object raises a documented error, whatever it holds."""
    bucket = Bucket()
    bucket.store.put(span(), chunk())
    bucket.overwrite(data)
    (name,) = bucket.s3.objects(BUCKET)

    with pytest.raises(InvalidObjectError):
        bucket.store.read(name)
    with pytest.raises(InvalidObjectError):
        bucket.get(chunk())


@pytest.mark.parametrize("other", [chunk(payload=b"\x80" * 2), chunk(edit=1), chunk(rows=1)])
def test_a_different_chunk_in_an_object_s_place_is_rejected(other: SetAside) -> None:
    """The ledger names the digest, so another chunk is never sent."""
    bucket = Bucket()
    bucket.store.put(span(), chunk())
    bucket.overwrite(other.encode())

    with pytest.raises(InvalidObjectError, match="holds other bytes than were written"):
        bucket.get(chunk())


def test_a_missing_object_is_distinguished_from_an_unavailable_store() -> None:
    """A missing object is gone for good; the store will come back."""
    bucket = Bucket()
    with pytest.raises(InvalidObjectError, match="has gone"):
        bucket.get(chunk())

    bucket.store.put(span(), chunk())
    bucket.s3.before["get_object"] = lambda _: lose_answer()
    with pytest.raises(BucketUnavailableError):
        bucket.get(chunk())


def refuse(code: str) -> Callable[[Any], None]:
    """Return a hook that makes S3 fail."""

    def refused(_: Any) -> None:
        raise ClientError({"Error": {"Code": code}}, "operation")

    return refused


@pytest.mark.parametrize(
    "failure",
    [refuse("SlowDown"), refuse("AccessDenied"), refuse("PreconditionFailed"), lambda _: lose_answer()],
)
def test_every_failure_of_s3_is_an_error(failure: Callable[[Any], None]) -> None:
    """A chunk counts as set aside only if S3 acknowledged its object."""
    bucket = Bucket()
    for call in ("put_object", "get_object", "list_objects_v2", "delete_object"):
        bucket.s3.before[call] = failure
    with pytest.raises(BucketUnavailableError):
        bucket.store.put(span(), chunk())
    with pytest.raises(BucketUnavailableError):
        bucket.get(chunk())
    with pytest.raises(BucketUnavailableError):
        list(bucket.store.listed())

    assert not bucket.store.delete("aside/x")


def test_lists_all_set_aside_objects() -> None:
    """The listing spans pages and gives each time of writing. The bucket's other objects are left out."""
    bucket = Bucket()
    for edit in range(5):
        bucket.store.put(span(), chunk(edit=edit))
    bucket.s3.put_object(Bucket=BUCKET, Key="archive/x", Body=b"")
    listed = list(bucket.store.listed())

    assert [bucket.store.name(span(), KEY, edit, chunk(edit=edit).digest) for edit in range(5)] == [
        one.name for one in listed
    ]
    assert {1_700_000_000.0} == {one.written_at for one in listed}


def test_an_object_may_be_deleted_only_if_the_ledger_says_so() -> None:
    """All of its chunk must be final. A done span has no entries of delivered chunks."""
    store = Bucket().store

    assert store.may_delete(span(entries={KEY: Entry(State.DELIVERED, 2)}), KEY)
    assert store.may_delete(span(done=True), KEY)
    assert not store.may_delete(span(), KEY)
    assert not store.may_delete(span(entries={KEY: Entry(State.PARKED, 2)}, done=True), KEY)


def test_guards_can_be_switched_off() -> None:
    """Fault injection needs objects that are overwritten, and deleted whatever the ledger says."""
    careless = Bucket(Guard.DIGEST_IN_NAME, Guard.FINAL_DELETE)
    careless.store.put(span(), chunk())
    careless.store.put(span(), chunk(payload=b"\x80" * 2))

    assert [chunk(payload=b"\x80" * 2)] == [careless.store.read(one.name) for one in careless.store.listed()]
    assert careless.store.may_delete(span(), KEY)
