"""The in-memory S3 responds as moto does."""

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from moto import mock_aws

from doubles.s3 import MemoryS3

Call = tuple[str, dict[str, Any]]
_COMPARED = {"ETag", "ContentLength", "Body", "ContentType", "CacheControl"}
_LISTED = {"Contents", "CommonPrefixes", "KeyCount", "IsTruncated"}
_ONE_HAS = ("LastModified", "StorageClass", "ChecksumAlgorithm", "ChecksumType")


def _outcome(client: Any, call: Call) -> tuple[str, Any]:
    name, request = call
    try:
        answer = getattr(client, name)(Bucket="aside", **request)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    compared = {"list_objects_v2": _LISTED, "delete_object": set()}.get(name, _COMPARED)
    answer = {member: answer[member] for member in compared & answer.keys()}
    for entry in answer.get("Contents", []):
        for member in _ONE_HAS:
            entry.pop(member, None)
    return "ok", answer | ({"Body": answer["Body"].read()} if "Body" in answer else {})


def _call(name: str, **members: Any) -> st.SearchStrategy[Call]:
    return st.tuples(st.just(name), st.fixed_dictionaries({}, optional=members))


_KEY = {"Key": st.sampled_from(["a", "a/1", "a/2", "a/b/3", "b/1", "parked/x.y"])}
_CALLS = st.one_of(
    _call("put_object", Body=st.binary(max_size=20), CacheControl=st.just("no-cache")),
    _call("get_object", Range=st.sampled_from(["bytes=0-2", "bytes=2-3", "bytes=4-99", "bytes=30-31"])),
    _call("delete_object"),
).flatmap(lambda call: _KEY["Key"].map(lambda key: (call[0], call[1] | {"Key": key})))
_PREFIXES = st.sampled_from(["a", "a/", "c"])
_LISTS = _call("list_objects_v2", Prefix=_PREFIXES, Delimiter=st.just("/"), MaxKeys=st.just(2))
_PARTS = [("get_object", {"Key": "a", "Range": f"bytes={part}"}) for part in ("2-3", "4-99", "6-7")]


@settings(max_examples=15, deadline=None)
@given(st.lists(_CALLS | _LISTS, max_size=20))
@example([("put_object", {"Key": "a", "Body": b"abcdef"}), *_PARTS])
def test_any_sequence_of_calls_matches_moto(calls: list[Call]) -> None:
    """For any calls in any order, responses and error codes are moto's."""
    with mock_aws():
        real: Any = boto3.client("s3", "us-east-1")
        double = MemoryS3()
        for client in (real, double):
            client.create_bucket(Bucket="aside")
        for name, request in calls:
            call = name, request | ({"ContentType": "x/y"} if name == "put_object" else {})
            assert _outcome(real, call) == _outcome(double, call), call


@pytest.fixture
def double() -> MemoryS3:
    """Ten objects in pages of three."""
    made = MemoryS3(page_keys=3)
    made.create_bucket(Bucket="aside")
    for i in reversed(range(10)):
        made.put_object(Bucket="aside", Key=f"parked/{i // 4}/{i}", Body=b"x")
    return made


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"Prefix": "parked/"}, [f"parked/{i // 4}/{i}" for i in range(10)]),
        ({"Prefix": "parked/", "Delimiter": "/", "MaxKeys": 1}, ["parked/0/", "parked/1/", "parked/2/"]),
    ],
)
def test_pages_add_up_to_the_whole(double: MemoryS3, options: dict[str, Any], expected: list[str]) -> None:
    """The pages of a listing contain every key or folder once, in order."""
    found: list[str] = []
    more: dict[str, Any] = {}
    while not found or more:
        page = double.list_objects_v2(Bucket="aside", **options, **more)
        found += [entry["Key"] for entry in page.get("Contents", [])]
        found += [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        more = {"ContinuationToken": page["NextContinuationToken"]} if page["IsTruncated"] else {}

    assert expected == found


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (("put_object", {"Key": "k" * 1025}), "KeyTooLongError"),
        (("list_objects_v2", {"ContinuationToken": "parked/0/1"}), "InvalidArgument"),
    ],
)
def test_invalid_requests_are_rejected(double: MemoryS3, call: Call, code: str) -> None:
    """Requests that S3 documents as invalid are rejected with its error codes."""
    assert code == _outcome(double, call)[0]
