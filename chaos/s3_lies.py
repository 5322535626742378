"""Responses of S3 that are well-formed and wrong. Each replaces the response to one call."""

import io
import random
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgpack

from chaos.trouble import Kind, Trouble
from doubles.aws_errors import client_error
from doubles.s3 import MemoryS3
from shared import policy

_PAGE = b"<!doctype html><title>Sign in to the network</title>"
_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

Call = Callable[[], Any]


class S3Lies:
    """Replaces S3's responses while trouble lasts.

    Args:
        s3: gives the true responses.
        trouble: decides when to lie.
    """

    def __init__(self, s3: MemoryS3, trouble: Trouble) -> None:
        self._s3 = s3
        self._trouble = trouble
        self._deleted: list[str] = []
        self._policies: list[bytes] = []  # as they were read

    def about(self, operation: str, request: dict[str, Any], truth: Call) -> Call:
        """Return a function that answers a call: `truth`, or a lie."""
        if operation == "delete_object":
            self._deleted.append(request["Key"])
        if operation != "list_objects_v2" and self._trouble.strike(Kind.S3_FOREIGN_PAGE):
            return lambda: {"Body": io.BytesIO(_PAGE)}
        lies: dict[str, Callable[[dict[str, Any], Call], Call | None]] = {
            "get_object": self._get,
            "delete_object": self._delete,
            "list_objects_v2": self._list,
        }
        lie = lies.get(operation)
        return (lie and lie(request, truth)) or truth

    def _get(self, request: dict[str, Any], truth: Call) -> Call | None:
        objects = self._s3.objects(request["Bucket"])
        if request["Key"] == policy.KEY and policy.KEY in objects:
            self._policies.append(objects[policy.KEY].body)
        stored, others = objects.pop(request["Key"], None), sorted(objects)
        if stored is None:
            return None
        if request["Key"] == policy.KEY and (chances := self._trouble.strike(Kind.S3_POLICY)):
            return partial(self._wrong_policy, chances, stored.body)
        if others and (chances := self._trouble.strike(Kind.S3_OTHER_OBJECT)):
            other = objects[chances.choice(others)]
            return lambda: truth() | other.described() | {"Body": io.BytesIO(other.body)}
        if chances := self._trouble.strike(Kind.S3_TRUNCATED):
            part = stored.body[: chances.randrange(len(stored.body))]
            return lambda: truth() | {"Body": io.BytesIO(part)}
        return None

    def _wrong_policy(self, chances: random.Random, document: bytes) -> dict[str, Any]:
        """Return a wrong document in place of the edge policy.

        Raises:
            ClientError: the lie is that there is no edge policy.
        """
        others = [
            document[: chances.randrange(len(document))],
            msgpack.packb([policy.VERSION + 1, {"anything": "new"}]),
            self._policies[0],
            b"",
        ]
        body = chances.choice([*others, None])
        if body is None:
            raise client_error("NoSuchKey", "GetObject", status=404)
        return {"Body": io.BytesIO(body), "ETag": '"wrong"'}

    def _delete(self, _request: dict[str, Any], _truth: Call) -> Call | None:
        if not self._trouble.strike(Kind.S3_DELETE_REFUSED):
            return None
        return partial(_raise, client_error("AccessDenied", "DeleteObject", status=403))

    def _list(self, request: dict[str, Any], _truth: Call) -> Call | None:
        chances = self._trouble.strike(Kind.S3_STALE_LISTING)
        if chances is None:
            return None

        def listing() -> dict[str, Any]:
            answer = self._s3.list_objects_v2(**request, MaxKeys=chances.randint(1, 3))
            shown = [one for one in answer.get("Contents", []) if chances.random() < 0.8]
            gone = chances.sample(self._deleted, min(2, len(self._deleted)))
            shown += [{"Key": name, "Size": 1, "LastModified": _LONG_AGO} for name in gone]
            return answer | {"Contents": shown, "KeyCount": len(shown)}

        return listing


def _raise(error: Exception) -> None:
    raise error
