"""Span objects: what they hold, and that damage is never read as data."""

from collections import deque
from collections.abc import Callable
from copy import replace
from typing import Any
from unittest.mock import Mock

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles.aws_errors import client_error
from doubles.clock import ManualClock
from doubles.s3 import MemoryS3
from shared.errors import BucketUnavailableError, InvalidObjectError, ObjectGoneError
from tests.support.delivery import BUCKET, Meddled, lose_answer, once
from tests.support.inline_executor import InlineExecutor
from tests.support.spans import CHAIN, KEY, REF, chains, key, numbers, refs, span
from worker.bucket import Bucket
from worker.chain import ChainId
from worker.index import EMPTY, Index, digest_of
from worker.record import Number, number
from worker.rows import compress, decompress
from worker.span import ChunkKey, ObjectRef
from worker.span_object import Chunk, SpanObjects, Stored, encode, hour_of, name_of, parse

NOW = 1_700_000_000.0
INDEX = Index("0011 0019", [1, 2], [1, 2], ["a", "b"], [0, 1], frozenset(), [], EMPTY.plan)
ONE, TWO, THREE = (msgpack.packb({"n": n}) for n in range(3))
CLICKS = key("shop/clicks/0")
CHUNKS = [Chunk(KEY, [ONE, TWO], [1, 1], [0, 1]), Chunk(CLICKS, [THREE], [1], [1])]


class Made:
    """A bucket with one object."""

    def __init__(self) -> None:
        self.s3: Any = Meddled(MemoryS3(ManualClock().now))
        self.s3.create_bucket(Bucket=BUCKET)
        self.encoded = encode(CHUNKS, INDEX, NOW)
        self.span = span(chunks={KEY: 2, CLICKS: 1}, object=self.encoded.ref)
        self.objects = self.fresh()
        self.objects.put(self.span, self.encoded.data, InlineExecutor())

    def fresh(self) -> SpanObjects:
        """Return objects that remember nothing."""
        return SpanObjects(Bucket(self.s3, BUCKET))


@pytest.fixture
def made() -> Made:
    """Return a bucket with one object."""
    return Made()


blocks = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4)


@given(st.dictionaries(st.sampled_from([KEY, CLICKS, key("blog/views/3"), key("-/-undecodable/0")]), blocks))
def test_objects_round_trip(wanted: dict[ChunkKey, list[bytes]]) -> None:
    """Each chunk's member is its import body, byte for byte, and the index names whose rows it has."""
    s3 = MemoryS3(ManualClock().now)
    s3.create_bucket(Bucket=BUCKET)
    chunks = [Chunk(one, data, [2] * len(data), list(range(len(data)))) for one, data in wanted.items()]
    encoded = encode(chunks, INDEX, NOW)
    stored = span(object=encoded.ref)
    objects = SpanObjects(Bucket(s3, BUCKET))  # type: ignore[arg-type]  # a double
    objects.put(stored, encoded.data, InlineExecutor())

    assert {one: compress(b"".join(data)) for one, data in wanted.items()} == encoded.bodies
    for one, data in wanted.items():
        assert encoded.bodies[one] == objects.body(stored, one)
        member = objects.index(stored).members[one]
        assert [len(block) for block in data] == list(member.byte_counts)
        assert encoded.bodies[one] == encoded.data[member.offset : member.offset + member.length]
        whole = decompress(encoded.bodies[one])
        assert data == [whole[part] for _, _, part in member.parts()]
    assert replace(INDEX, chunks=objects.index(stored).chunks) == objects.index(stored)


def test_an_object_ends_with_its_index(made: Made) -> None:
    """The ledger has where that is, and its digest. A half is cut from its chunk and compressed anew."""
    ref = made.encoded.ref
    first, second = KEY.halves

    assert hour_of(NOW) == ref.hour == "2023-11-14T22"
    assert len(made.encoded.data) == ref.offset + ref.length
    assert ref.digest == digest_of(made.encoded.data[ref.offset :])
    assert made.encoded == encode(CHUNKS, INDEX, NOW)
    assert [compress(ONE), compress(TWO)] == [made.objects.body(made.span, one) for one in (first, second)]
    assert [ONE + TWO, THREE, TWO] == [made.objects.payload(made.span, one) for one in (KEY, CLICKS, second)]


def test_only_the_parts_that_are_needed_are_read(made: Made) -> None:
    """The index is read once."""
    asked: list[str] = []
    made.s3.before["get_object"] = lambda request: asked.append(request["Range"])
    objects = made.fresh()
    for one in (CLICKS, KEY, KEY):
        objects.body(made.span, one)
    index, clicks, views = asked[:3]

    assert ([views], 4) == (asked[3:], len(asked))
    assert {"bytes=0-"} == {views[:8]}
    assert index.endswith(f"-{len(made.encoded.data) - 1}")
    assert clicks != views


@pytest.mark.parametrize("part", [KEY, CLICKS, None])
@pytest.mark.parametrize("place", [0, 12, -1])
def test_a_changed_byte_is_noticed(made: Made, part: ChunkKey | None, place: int) -> None:
    """What it belongs to is not read; the other chunks are. Of a shortened object nothing is: it is damaged, not out of reach."""
    ref = made.encoded.ref
    member = None if part is None else made.objects.index(made.span).members[part]
    begin, length = (ref.offset, ref.length) if member is None else (member.offset, member.length)
    at = begin + place % length
    data = bytearray(made.encoded.data)
    data[at] ^= 1
    made.s3.client.put_object(Bucket=BUCKET, Key=name_of(made.span), Body=bytes(data))
    objects = made.fresh()
    for one in (KEY, CLICKS):
        if part in (one, None):
            with pytest.raises(InvalidObjectError, match="other bytes than were written"):
                objects.body(made.span, one)
        else:
            assert made.encoded.bodies[one] == objects.body(made.span, one)
    made.s3.client.put_object(Bucket=BUCKET, Key=name_of(made.span), Body=made.encoded.data[:place])
    with pytest.raises(InvalidObjectError, match="other bytes than were written"):
        made.fresh().index(made.span)


def test_a_deleted_object_is_gone(made: Made) -> None:
    """S3 says so, or the ledger names none."""
    assert made.objects.delete(name_of(made.span))
    with pytest.raises(ObjectGoneError, match="is gone"):
        made.fresh().body(made.span, KEY)
    with pytest.raises(ObjectGoneError, match="has been deleted"):
        made.objects.index(replace(made.span, object=None))


@pytest.mark.parametrize("code", ["AccessDenied", "SlowDown", "NoSuchBucket", "InternalError"])
def test_an_object_that_cannot_be_read_is_not_gone(made: Made, code: str) -> None:
    """A refusal proves nothing."""
    made.s3.before["get_object"] = Mock(side_effect=client_error(code, "x", status=403))

    with pytest.raises(BucketUnavailableError):
        made.fresh().index(made.span)


def test_a_rewritten_object_keeps_its_index(made: Made) -> None:
    """The chunks that nobody needs any more are gone from it, and only they. One read gets the others, and there may be hundreds."""
    encoded = made.objects.without(made.span, lambda one: one == CLICKS, NOW + 7200)
    assert 1 == made.s3.calls.count("get_object")
    rewritten = replace(made.span, object=encoded.ref)
    made.objects.put(rewritten, encoded.data)
    objects = made.fresh()
    index = objects.index(rewritten)

    assert name_of(made.span) != name_of(rewritten)
    assert INDEX == replace(index, chunks=[])
    assert made.encoded.bodies[CLICKS] == objects.body(rewritten, CLICKS)
    assert {CLICKS: 1, KEY: 2} == {one: member.rows for one, member in index.members.items()}
    assert [1, 1] == list(index.members[KEY].row_counts)
    with pytest.raises(ObjectGoneError, match="no longer has the chunk shop/views/0"):
        objects.body(rewritten, KEY)
    again = objects.without(rewritten, lambda _: True, NOW + 7200)
    assert encoded.data == again.data


@given(chains, numbers, numbers, refs)
def test_names_parse_back(chain: ChainId, first: Number, last: Number, ref: ObjectRef) -> None:
    """A name says which span may refer to the object."""
    one = span(chain=chain, first=first, last=last, object=ref)
    found = parse(name_of(one), 7)

    assert Stored(name_of(one), ref.hour, chain, first, last, ref.digest.hex(), 7) == found


@pytest.mark.parametrize(
    "name",
    [
        "",
        "spans/",
        "spans/2026-11-24T03/x",
        "spans/2026-11-31T03/events@1#s/1-2-aa.gz",
        "spans/2026-11-24T03/events@1#s/1-2.gz",
        "spans/2026-11-24T03/nothing/1-2-aa.gz",
        "spans/2026-11-24T03/overflow#a/b/1-2-aa.gz",
        "rejected/2026-11-24T03/events@1#s/1-2-aa.gz",
    ],
)
def test_other_names_are_nobody_s(name: str) -> None:
    """They are left alone."""
    assert parse(name) is None


def test_names_are_stable() -> None:
    """They sort by the hour of the plan, so that old objects are found without reading newer ones."""
    overflow = span(chain=ChainId.overflow("a/b"), first="000", last="000")
    digest = REF.digest.hex()

    assert f"spans/2026-11-24T03/{CHAIN.name}/1-9-{digest}.gz" == name_of(span())
    assert f"spans/2026-11-24T03/overflow#a%2Fb/--{digest}.gz" == name_of(overflow)


def test_objects_are_listed_by_hour(made: Made) -> None:
    """A listing can continue behind any name."""
    names = []
    for hour in ("2026-11-24T02", "2026-11-24T04"):
        for last in "34":
            one = span(last=number(last), object=REF._replace(hour=hour))
            made.objects.put(one, b"x")
            names.append(name_of(one))
    made.s3.client.put_object(Bucket=BUCKET, Key="spans/2026-11-24T04/junk", Body=b"")

    assert ["2023-11-14T22", "2026-11-24T02", "2026-11-24T04"] == list(made.objects.hours())
    assert names[2:] == [one.name for one in made.objects.listed("2026-11-24T04")]
    assert names[3:] == [one.name for one in made.objects.listed("2026-11-24T04", names[2])]
    assert [1] == [one.size for one in made.objects.listed("2026-11-24T04", names[2])]


def put(made: Made, executor: Any) -> None:
    """Put the object."""
    made.objects.put(made.span, made.encoded.data, executor)


def test_a_put_counts_only_with_s3_s_own_checksum(made: Made) -> None:
    """An ETag is no checksum under SSE-KMS, and an answer without one acknowledges nothing."""
    for answer in ({}, {"ETag": '"x"'}, {"ChecksumCRC32": "AAAA"}):
        made.s3.client.put_object = lambda found=answer, **_: found
        with pytest.raises(BucketUnavailableError, match="did not acknowledge"):
            put(made, InlineExecutor())


def test_a_failed_put_is_tried_once_more(made: Made) -> None:
    """Writing the same object twice does no harm. A bucket that refuses a put, a deletion or a listing is unavailable."""
    made.s3.calls.clear()
    made.s3.after["put_object"] = once(lose_answer)
    put(made, InlineExecutor())
    assert ["put_object"] * 2 == made.s3.calls
    made.s3.after.clear()
    refused = Mock(side_effect=client_error("AccessDenied", "x", status=403))
    made.s3.before = dict.fromkeys(("put_object", "delete_object", "list_objects_v2"), refused)

    with pytest.raises(BucketUnavailableError):
        put(made, InlineExecutor())
    assert not made.objects.delete("x")
    with pytest.raises(BucketUnavailableError):
        list(made.objects.hours())


class Ordered:
    """Runs the jobs of these numbers whenever it is asked for a result, for None none in time; `waits` has for how many seconds it was asked."""

    def __init__(self, *order: int | None) -> None:
        self.waits: list[float] = []
        self._order = deque(order)
        self._jobs: list[Callable[[], Any]] = []

    def submit(self, job: Callable[[], Any]) -> None:
        """Take a job."""
        self._jobs.append(job)

    def wait(self, seconds: float) -> Any:
        """Return the next result."""
        self.waits.append(seconds)
        number = self._order.popleft()
        return None if number is None else self._jobs[number]()


def test_the_late_answer_to_another_put_acknowledges_nothing(made: Made) -> None:
    """An object was put twice, and its first put ends while the batch's next object is put, which S3 does not take."""
    executor = Ordered(None, 1, 0, 2, 3)
    put(made, executor)
    assert [0.5, 10.0] == executor.waits
    encoded = encode(CHUNKS[:1], INDEX, NOW)
    other = replace(made.span, object=encoded.ref)
    made.s3.before["put_object"] = lambda request: request["Key"] != name_of(other) or lose_answer()

    with pytest.raises(BucketUnavailableError):
        made.objects.put(other, encoded.data, executor)
