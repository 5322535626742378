"""S3 in memory: the boto3 calls that the product makes, without network, faults or delay."""

import base64
import hashlib
import io
import itertools
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from doubles.aws_errors import check_members, client_error

_MAX_KEYS = 1000
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_MAX_KEY_BYTES = 1024
_HEADERS: tuple[str, ...] = ("ContentType", "ContentEncoding", "CacheControl")


@dataclass(frozen=True)
class StoredObject:
    """One object: its bytes, its headers and when it was put, in UNIX seconds."""

    body: bytes
    headers: dict[str, str]
    modified: float

    @cached_property
    def etag(self) -> str:
        """S3's ETag of an object put in one piece: the quoted MD5."""
        return f'"{hashlib.md5(self.body, usedforsecurity=False).hexdigest()}"'

    def described(self) -> dict[str, Any]:
        """Return its description in every response."""
        return {"ETag": self.etag, "LastModified": datetime.fromtimestamp(self.modified, UTC)}


class MemoryS3:
    """A boto3-shaped S3 client and its buckets.

    Args:
        now: returns UNIX seconds, for `LastModified`.
        page_keys: the maximum number of keys in one listing response.
    """

    def __init__(self, now: Callable[[], float] = lambda: 0.0, page_keys: int = 100) -> None:
        self._now = now
        self._page_keys = page_keys
        self._buckets: dict[str, dict[str, StoredObject]] = {}
        self._old: dict[str, dict[str, list[tuple[str, StoredObject]]]] = {}  # versions, of versioned buckets
        self._numbers = itertools.count()
        self._superseded: dict[tuple[str, str], float] = {}  # when a version stopped being the current one

    def create_bucket(self, *, Bucket: str) -> dict[str, Any]:  # noqa: N803 -- boto3's name
        """Create a bucket."""
        self._buckets.setdefault(Bucket, {})
        return {"Location": f"/{Bucket}"}

    def put_bucket_versioning(self, **request: Any) -> dict[str, Any]:
        """Keep the versions of a bucket's objects from now on."""
        check_members("PutBucketVersioning", request, {"Bucket", "VersioningConfiguration"})
        if request["VersioningConfiguration"] != {"Status": "Enabled"}:
            raise NotImplementedError("the S3 double only enables versioning")
        self._old.setdefault(request["Bucket"], {})
        return {}

    def head_bucket(self, **request: Any) -> dict[str, Any]:
        """Say that a bucket exists."""
        self._bucket("HeadBucket", request)
        return {}

    def put_object(self, **request: Any) -> dict[str, Any]:
        """Put an object; with `IfNoneMatch`, only if there is none of that name; with `IfMatch`, only if it has that ETag."""
        conditions = ("IfNoneMatch", "IfMatch", "ChecksumAlgorithm", "ChecksumCRC32")
        bucket = self._bucket("PutObject", request, "Body", *conditions, *_HEADERS)
        key, body = request["Key"], bytes(request.get("Body", b""))
        checksum = base64.b64encode(zlib.crc32(body).to_bytes(4)).decode()
        if request.get("IfNoneMatch", "*") != "*":
            raise NotImplementedError("the S3 double supports only If-None-Match: *, as S3 does")
        if "IfMatch" in request and key not in bucket:
            raise client_error("NoSuchKey", "PutObject", "The specified key does not exist.", 404)
        etag = bucket[key].etag if key in bucket else ""
        if ("IfNoneMatch" in request and etag) or request.get("IfMatch", etag) != etag:
            message = "At least one of the pre-conditions you specified did not hold"
            raise client_error("PreconditionFailed", "PutObject", message, 412)
        if len(key.encode()) > _MAX_KEY_BYTES:
            raise client_error("KeyTooLongError", "PutObject", "Your key is too long")
        headers = {name: str(request[name]) for name in _HEADERS if name in request}
        bucket[key] = StoredObject(body, headers, self._now())
        if request["Bucket"] in self._old:
            versions = self._old[request["Bucket"]].setdefault(key, [])
            self._supersede(key, versions)
            versions.append((f"v{next(self._numbers)}", bucket[key]))
        answer: dict[str, Any] = {"ETag": bucket[key].etag}
        return answer | ({"ChecksumCRC32": checksum} if "ChecksumCRC32" in request else {})

    def get_object(self, **request: Any) -> dict[str, Any]:
        """Return an object, its bytes as a stream in `Body`; with `IfNoneMatch`, only if its ETag differs; with `Range`, a part."""
        stored = self._bucket("GetObject", request, "IfNoneMatch", "Range").get(request["Key"])
        if stored is None:
            raise client_error("NoSuchKey", "GetObject", "The specified key does not exist.", 404)
        if request.get("IfNoneMatch") == stored.etag:
            raise client_error("304", "GetObject", "Not Modified", 304)
        body = _part(stored.body, request["Range"]) if "Range" in request else stored.body
        told = stored.described() | stored.headers | {"ContentLength": len(body)}
        return told | {"Body": io.BytesIO(body)}

    def delete_object(self, **request: Any) -> dict[str, Any]:
        """Delete an object, whether it exists or not; with `VersionId`, one version of it."""
        bucket = self._bucket("DeleteObject", request, "VersionId")
        versions = self._old.get(request["Bucket"], {}).get(request["Key"], [])
        if "VersionId" not in request:
            self._supersede(request["Key"], versions)
        else:
            versions[:] = [one for one in versions if one[0] != request["VersionId"]]
        if "VersionId" not in request or not versions:
            bucket.pop(request["Key"], None)
        return {}

    def _supersede(self, key: str, versions: list[tuple[str, StoredObject]]) -> None:
        if versions:
            self._superseded.setdefault((key, versions[-1][0]), self._now())

    def expire_versions(self, bucket: str, seconds: float) -> None:
        """Delete versions so long after they stopped being current, as a lifecycle rule does. Not an S3 operation."""
        for key, versions in self._old[bucket].items():
            versions[:] = [
                one
                for one in versions
                if self._now() - self._superseded.get((key, one[0]), self._now()) < seconds
            ]

    def list_object_versions(self, **request: Any) -> dict[str, Any]:
        """Return the versions of the objects whose keys have a prefix, in one page; without versioning, each has one, called null."""
        bucket = self._bucket("ListObjectVersions", request, "Prefix")
        old = self._old.get(request["Bucket"])
        found = (
            [(key, "null") for key in sorted(bucket)]
            if old is None
            else [(key, version) for key in sorted(old) for version, _ in old[key]]
        )
        matching = [one for one in found if one[0].startswith(request.get("Prefix", ""))]
        last = {key: (key, version) for key, version in matching}
        if len(matching) > _MAX_KEYS:
            raise NotImplementedError("the S3 double lists at most one page of versions")
        return {"IsTruncated": False} | (
            {
                "Versions": [
                    {"Key": key, "VersionId": version, "IsLatest": (key, version) == last[key]}
                    for key, version in matching
                ]
            }
            if matching
            else {}
        )

    def versions(self, bucket: str) -> list[bytes]:
        """Return the bytes of every version of every object of a versioned bucket. Not an S3 operation."""
        return [one.body for versions in self._old[bucket].values() for _, one in versions]

    def list_objects_v2(self, **request: Any) -> dict[str, Any]:
        """Return one page of keys with a prefix, in order; with `Delimiter`, folders in `CommonPrefixes`."""
        bucket = self._bucket(
            "ListObjectsV2", request, "Prefix", "Delimiter", "MaxKeys", "ContinuationToken", "StartAfter"
        )
        prefix, delimiter = request.get("Prefix", ""), request.get("Delimiter", "")
        token = request.get("ContinuationToken")
        after = request.get("StartAfter", "") if token is None else _key_of(token)
        most = min(request.get("MaxKeys", _MAX_KEYS), _MAX_KEYS, self._page_keys)
        # each listed key or folder, with the last key that it stands for
        listed: dict[str, str] = {}
        for key in sorted(bucket):
            if key.startswith(prefix) and key > after:
                listed[_folder(key, prefix, delimiter) or key] = key
        page = dict(list(listed.items())[:most])
        contents = [
            {"Key": name, "Size": len(bucket[key].body), **bucket[key].described()}
            for name, key in page.items()
            if name == key
        ]
        folders = [{"Prefix": name} for name, key in page.items() if name != key]
        answer: dict[str, Any] = {"KeyCount": len(page), "IsTruncated": len(page) < len(listed)}
        answer |= {"Contents": contents} if contents else {}
        answer |= {"CommonPrefixes": folders} if folders else {}
        if answer["IsTruncated"]:  # encode the token, so that callers cannot use it as a key
            answer["NextContinuationToken"] = base64.b64encode(list(page.values())[-1].encode()).decode()
        return answer

    def objects(self, bucket: str) -> dict[str, StoredObject]:
        """Return every object of a bucket by key. Not an S3 operation."""
        return dict(self._buckets[bucket])

    def _bucket(self, operation: str, request: dict[str, Any], *known: str) -> dict[str, StoredObject]:
        check_members(operation, request, {"Bucket", "Key", *known})
        bucket = self._buckets.get(request["Bucket"])
        if bucket is None:
            raise client_error("NoSuchBucket", operation, "The specified bucket does not exist", 404)
        return bucket


def _part(body: bytes, wanted: str) -> bytes:
    """Return the bytes that a Range header of one range asks for."""
    match = _RANGE.fullmatch(wanted)
    if match is None:
        raise NotImplementedError(f"the S3 double does not support the range {wanted}")
    first, last = int(match[1]), int(match[2])
    if first >= len(body):
        raise client_error("InvalidRange", "GetObject", "The requested range is not satisfiable", 416)
    return body[first : last + 1]


def _folder(key: str, prefix: str, delimiter: str) -> str:
    """Return the folder that a listing shows instead of a key, or an empty string if it shows the key."""
    head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
    return prefix + head + found if found else ""


def _key_of(token: str) -> str:
    try:
        return base64.b64decode(token, validate=True).decode()
    except ValueError:
        message = "The continuation token provided is incorrect"
        raise client_error("InvalidArgument", "ListObjectsV2", message) from None
