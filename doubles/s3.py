"""S3 in memory: the calls of a boto3 client that set-aside chunks need, without network, faults or delay."""

import hashlib
import io
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from doubles.aws_errors import Exceptions, client_error

_MAX_KEYS = 1000


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object: its bytes and what was said about them."""

    body: bytes
    metadata: dict[str, str]
    headers: dict[str, str]
    modified: float

    @property
    def etag(self) -> str:
        """The quoted MD5, as S3 gives it for an object put at once."""
        return f'"{hashlib.md5(self.body, usedforsecurity=False).hexdigest()}"'


class MemoryS3:
    """A boto3-shaped S3 client and its buckets.

    Args:
        now: tells UNIX seconds, for `LastModified`.
        page_keys: keys that one listing returns, at most.
    """

    exceptions = Exceptions()

    def __init__(self, now: Callable[[], float] = lambda: 0.0, page_keys: int = 100) -> None:
        self._now = now
        self._page_keys = page_keys
        self._buckets: dict[str, dict[str, StoredObject]] = {}
        self._keys: dict[str, list[str]] = {}

    def create_bucket(self, *, Bucket: str, **_ignored: Any) -> dict[str, Any]:  # noqa: N803 -- boto3's names
        """Make a bucket."""
        self._buckets.setdefault(Bucket, {})
        self._keys.setdefault(Bucket, [])
        return {"Location": f"/{Bucket}"}

    def put_object(self, **request: Any) -> dict[str, Any]:
        """Put an object; `IfNoneMatch="*"` only where there is none."""
        bucket, key = self._bucket(request, "PutObject"), request["Key"]
        if request.get("IfNoneMatch") == "*" and key in bucket:
            raise client_error("PreconditionFailed", "PutObject", status=412)
        body = request.get("Body", b"")
        if isinstance(body, str):
            body = body.encode()
        data = bytes(body if isinstance(body, bytes | bytearray | memoryview) else body.read())
        metadata = {name.lower(): value for name, value in (request.get("Metadata") or {}).items()}
        for value in metadata.values():
            value.encode("ascii")  # S3 takes metadata as HTTP headers
        headers = {
            name: request[name]
            for name in ("ContentType", "ContentEncoding", "CacheControl", "StorageClass")
            if name in request
        }
        if key not in bucket:
            insort(self._keys[request["Bucket"]], key)
        stored = bucket[key] = StoredObject(data, metadata, headers, self._now())
        return {"ETag": stored.etag}

    def get_object(self, **request: Any) -> dict[str, Any]:
        """Return an object, its bytes as a stream in `Body`."""
        stored = self._bucket(request, "GetObject").get(request["Key"])
        if stored is None:
            raise client_error("NoSuchKey", "GetObject", "The specified key does not exist.", 404)
        return {**self._described(stored), "Body": io.BytesIO(stored.body)}

    def head_object(self, **request: Any) -> dict[str, Any]:
        """Return what is known of an object."""
        stored = self._bucket(request, "HeadObject").get(request["Key"])
        if stored is None:
            raise client_error("404", "HeadObject", "Not Found", 404)
        return self._described(stored)

    def delete_object(self, **request: Any) -> dict[str, Any]:
        """Delete an object, whether it is there or not."""
        bucket = self._bucket(request, "DeleteObject")
        if bucket.pop(request["Key"], None) is not None:
            keys = self._keys[request["Bucket"]]
            del keys[bisect_left(keys, request["Key"])]
        return {}

    def delete_objects(self, **request: Any) -> dict[str, Any]:
        """Delete many objects."""
        for entry in request["Delete"]["Objects"]:
            self.delete_object(Bucket=request["Bucket"], Key=entry["Key"])
        return {"Deleted": list(request["Delete"]["Objects"])}

    def copy_object(self, **request: Any) -> dict[str, Any]:
        """Copy an object, with new metadata where `MetadataDirective` is REPLACE."""
        source = request["CopySource"]
        if isinstance(source, str):
            name, _, key = source.lstrip("/").partition("/")
            source = {"Bucket": name, "Key": key}
        stored = self._bucket(source, "CopyObject").get(source["Key"])
        if stored is None:
            raise client_error("NoSuchKey", "CopyObject", "The specified key does not exist.", 404)
        replaced = request.get("MetadataDirective") == "REPLACE"
        metadata = request.get("Metadata", {}) if replaced else stored.metadata
        put = {"Bucket": request["Bucket"], "Key": request["Key"], "Body": stored.body}
        answer = self.put_object(**put, **stored.headers, Metadata=metadata)
        return {"CopyObjectResult": answer}

    def list_objects_v2(self, **request: Any) -> dict[str, Any]:
        """Return one page of keys with a prefix, in order; with `Delimiter`, folders in `CommonPrefixes`."""
        bucket, keys = self._bucket(request, "ListObjectsV2"), self._keys[request["Bucket"]]
        prefix, after = (
            request.get("Prefix", ""),
            request.get("ContinuationToken") or request.get("StartAfter", ""),
        )
        start = max(bisect_left(keys, prefix), bisect_right(keys, after))
        most = min(request.get("MaxKeys", _MAX_KEYS), self._page_keys)
        found: dict[str, str] = {}  # what is listed, a key or a folder, and the last key that it stands for
        truncated = False
        for key in keys[start:]:
            if not key.startswith(prefix):
                break
            name = _folder(key, prefix, request.get("Delimiter", "")) or key
            if name not in found and len(found) == most:
                truncated = True
                break
            if not (name.endswith("/") and after.startswith(name)):
                found[name] = key
        contents = [{"Key": name, **self._listed(bucket[name])} for name, key in found.items() if name == key]
        folders = [{"Prefix": name} for name, key in found.items() if name != key]
        answer: dict[str, Any] = {"KeyCount": len(found), "IsTruncated": truncated}
        answer |= {"Contents": contents} if contents else {}
        answer |= {"CommonPrefixes": folders} if folders else {}
        return answer | ({"NextContinuationToken": [*found.values()][-1]} if truncated else {})

    def get_paginator(self, operation: str) -> "_Paginator":
        """Return what follows continuation tokens by itself."""
        if operation != "list_objects_v2":
            raise ValueError(operation)
        return _Paginator(self.list_objects_v2)

    def objects(self, bucket: str) -> dict[str, StoredObject]:
        """Return every object of a bucket by key; not a call of S3's."""
        return dict(self._buckets[bucket])

    def _bucket(self, request: dict[str, Any], operation: str) -> dict[str, StoredObject]:
        bucket = self._buckets.get(request["Bucket"])
        if bucket is None:
            raise client_error("NoSuchBucket", operation, "The specified bucket does not exist", 404)
        return bucket

    @staticmethod
    def _listed(stored: StoredObject) -> dict[str, Any]:
        modified = datetime.fromtimestamp(stored.modified, UTC)
        return {"Size": len(stored.body), "ETag": stored.etag, "LastModified": modified}

    @staticmethod
    def _described(stored: StoredObject) -> dict[str, Any]:
        return {
            "ContentLength": len(stored.body),
            "ETag": stored.etag,
            "LastModified": datetime.fromtimestamp(stored.modified, UTC),
            "Metadata": dict(stored.metadata),
            **stored.headers,
        }


class _Paginator:
    def __init__(self, call: Callable[..., dict[str, Any]]) -> None:
        self._call = call

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        """Yield the pages."""
        while True:
            page = self._call(**request)
            yield page
            if not page["IsTruncated"]:
                return
            request["ContinuationToken"] = page["NextContinuationToken"]


def _folder(key: str, prefix: str, delimiter: str) -> str:
    """Return the folder that a listing shows instead of the key, nothing where it shows the key."""
    head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
    return prefix + head + found if found else ""
