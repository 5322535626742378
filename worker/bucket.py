"""The S3 bucket of set-aside chunks and the archive. Objects are written once and never change."""

from collections.abc import Iterator, Mapping
from hashlib import md5
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from shared.errors import BucketUnavailableError, error_code

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_GONE = ("NoSuchKey", "404")
_EXISTS = "PreconditionFailed"


class Bucket:
    """Reads and writes objects. Every method but `delete` raises BucketUnavailableError if S3 cannot be reached."""

    def __init__(self, s3: "S3Client", name: str) -> None:
        self._s3 = s3
        self._name = name

    def put(self, name: str, body: bytes, *, is_new: bool = False) -> bool:
        """Write an object. With `is_new`, return False if S3 says that an object of this name exists.

        Raises:
            BucketUnavailableError: S3 did not acknowledge it.
        """
        condition: Any = {"IfNoneMatch": "*"} if is_new else {}
        try:
            answer = self._s3.put_object(
                Bucket=self._name, Key=name, Body=body, ContentType="application/gzip", **condition
            )
        except (ClientError, BotoCoreError) as error:
            if is_new and error_code(error) == _EXISTS:
                return False
            raise BucketUnavailableError(str(error)) from error
        if not self._is_acknowledged(answer, body):
            raise BucketUnavailableError(f"S3 did not acknowledge {name}")
        return True

    def _is_acknowledged(self, answer: Mapping[str, Any], body: bytes) -> bool:
        """Return whether the answer proves that S3 has these bytes. With SSE-S3, the ETag of an object put in one piece is their MD5."""
        return bool(answer.get("ETag") == f'"{md5(body, usedforsecurity=False).hexdigest()}"')

    def get(self, name: str) -> bytes | None:
        """Return an object's bytes; None if there is no such object."""
        try:
            return self._s3.get_object(Bucket=self._name, Key=name)["Body"].read()
        except (ClientError, BotoCoreError) as error:
            if error_code(error) in _GONE:
                return None
            raise BucketUnavailableError(str(error)) from error

    def delete(self, name: str) -> bool:
        """Delete an object; return whether S3 did."""
        try:
            self._s3.delete_object(Bucket=self._name, Key=name)
        except (ClientError, BotoCoreError):
            return False
        return True

    def pages(self, prefix: str, **request: Any) -> Iterator[Any]:
        """Yield the pages of a listing."""
        while True:
            try:
                page = self._s3.list_objects_v2(Bucket=self._name, Prefix=prefix, **request)
            except (ClientError, BotoCoreError) as error:
                raise BucketUnavailableError(str(error)) from error
            yield page
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]
