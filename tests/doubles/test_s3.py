"""The in-memory S3 answers as moto's does."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from doubles.s3 import MemoryS3

Call = tuple[str, dict[str, Any]]
_VOLATILE = {"ResponseMetadata", "LastModified", "AcceptRanges", "ContentType", "CacheControl"}
_LISTING = {"Contents", "CommonPrefixes", "KeyCount", "IsTruncated"}


@pytest.fixture
def pair() -> Iterator[tuple[Any, MemoryS3]]:
    """Moto's client and ours, each with the bucket."""
    with mock_aws():
        yield _pair()


def _pair() -> tuple[Any, MemoryS3]:
    real = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    double = MemoryS3()
    for client in (real, double):
        client.create_bucket(Bucket="aside")
    return real, double


def _outcome(client: Any, call: Call) -> tuple[str, Any]:
    name, request = call
    try:
        answer = getattr(client, name)(Bucket="aside", **request)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    if name == "list_objects_v2":
        return "ok", {
            member: [
                {key: entry[key] for key in ("Key", "Size", "ETag", "Prefix") if key in entry}
                for entry in value
            ]
            if isinstance(value, list)
            else value
            for member, value in answer.items()
            if member in _LISTING
        }
    kept = (
        {"ETag", "ContentLength", "Metadata", "Body", "ContentEncoding"} if name != "delete_object" else set()
    )
    return "ok", {
        member: value.read() if member == "Body" else value
        for member, value in answer.items()
        if member in kept - _VOLATILE
    }


_KEYS = st.sampled_from(["a", "a/1", "a/2", "a/b/3", "b/1", "parked/x.y"])
_CALLS = st.one_of(
    st.builds(
        lambda key, body, metadata, only_new: (
            "put_object",
            {
                "Key": key,
                "Body": body,
                "Metadata": metadata,
                **({"IfNoneMatch": "*"} if only_new else {}),
            },
        ),
        _KEYS,
        st.binary(max_size=20),
        st.dictionaries(st.sampled_from(["reason", "Account"]), st.sampled_from(["parked", "x y"])),
        st.booleans(),
    ),
    _KEYS.map(lambda key: ("get_object", {"Key": key})),
    _KEYS.map(lambda key: ("head_object", {"Key": key})),
    _KEYS.map(lambda key: ("delete_object", {"Key": key})),
    st.builds(
        lambda prefix, delimiter, after: (
            "list_objects_v2",
            {"Prefix": prefix, **delimiter, **after},
        ),
        st.sampled_from(["", "a", "a/", "c"]),
        st.sampled_from([{}, {"Delimiter": "/"}]),
        st.sampled_from([{}, {"StartAfter": "a/1"}]),
    ),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(_CALLS, max_size=20))
def test_any_sequence_answers_the_same(calls: list[Call]) -> None:
    """Whatever is done in whatever order, answers and error codes are moto's."""
    with mock_aws():
        real, double = _pair()
        for call in calls:
            assert _outcome(double, call) == _outcome(real, call), call


def test_a_paginator_yields_every_key_once() -> None:
    """Pages add up to the whole listing, in order."""
    double = MemoryS3(page_keys=3)
    double.create_bucket(Bucket="aside")
    keys = [f"parked/{i:02}" for i in range(10)]
    for key in reversed(keys):
        double.put_object(Bucket="aside", Key=key, Body=b"x")
    pages = double.get_paginator("list_objects_v2").paginate(Bucket="aside", Prefix="parked/")
    assert [entry["Key"] for page in pages for entry in page.get("Contents", [])] == keys


def test_a_copy_replaces_metadata_where_told_to(pair: tuple[Any, MemoryS3]) -> None:
    """A copy keeps the bytes, and the metadata unless the directive is REPLACE."""
    for client in pair:
        client.put_object(Bucket="aside", Key="a", Body=b"rows", Metadata={"reason": "parked"})
        source = {"Bucket": "aside", "Key": "a"}
        client.copy_object(Bucket="aside", Key="b", CopySource=source)
        client.copy_object(
            Bucket="aside",
            Key="a",
            CopySource=source,
            Metadata={"reason": "dead"},
            MetadataDirective="REPLACE",
        )
        reasons = [client.head_object(Bucket="aside", Key=key)["Metadata"]["reason"] for key in ("a", "b")]
        assert reasons == ["dead", "parked"]
