"""The S3 bucket of span objects and rejected events.

Objects are written once and never change. The sweep, forgetting, and S3's lifecycle rules delete them.
"""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isal import isal_zlib

from shared.errors import BucketUnavailableError, aws_errors, error_code

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_GONE = ("NoSuchKey", "404")
_TOO_SHORT = "InvalidRange"


@dataclass(eq=False)
class Bucket:
    """Reads and writes objects. Every method but `delete` raises BucketUnavailableError if S3 cannot be reached."""

    _s3: "S3Client"
    _name: str

    def put(self, name: str, body: bytes) -> None:
        """Write an object. Writing the same object twice does no harm.

        This raises BucketUnavailableError unless S3 acknowledges these bytes with the checksum that it computed itself: with SSE-KMS, an
        ETag is not an MD5.
        """
        checksum = b64encode(isal_zlib.crc32(body).to_bytes(4)).decode()
        try:
            answer = self._s3.put_object(
                Bucket=self._name,
                Key=name,
                Body=body,
                ContentType="application/gzip",
                ChecksumAlgorithm="CRC32",
                ChecksumCRC32=checksum,
            )
        except aws_errors() as error:
            raise BucketUnavailableError(str(error)) from error
        if answer.get("ChecksumCRC32") != checksum:
            raise BucketUnavailableError(f"S3 did not acknowledge {name}")

    def get(self, name: str, part: tuple[int, int] | None = None) -> bytes | None:
        """Return an object's bytes, or those of a part, given its offset and length; None if there is no such object.

        Of an object that ends earlier, a part is shorter or empty.
        """
        request: Any = {} if part is None else {"Range": f"bytes={part[0]}-{part[0] + part[1] - 1}"}
        try:
            return self._s3.get_object(Bucket=self._name, Key=name, **request)["Body"].read()
        except aws_errors() as error:
            if error_code(error) in _GONE:
                return None
            if error_code(error) == _TOO_SHORT:
                return b""
            raise BucketUnavailableError(str(error)) from error

    def delete(self, name: str) -> bool:
        """Delete an object; return whether S3 did."""
        try:
            self._s3.delete_object(Bucket=self._name, Key=name)
        except aws_errors():
            return False
        return True

    def erase(self, name: str, *, but_latest: bool = False) -> None:
        """Delete an object with all its versions, or only its older versions."""
        try:
            versions = self._s3.list_object_versions(Bucket=self._name, Prefix=name)
            for one in (*versions.get("Versions", ()), *versions.get("DeleteMarkers", ())):
                if one["Key"] == name and not (but_latest and one["IsLatest"]):
                    self._s3.delete_object(Bucket=self._name, Key=name, VersionId=one["VersionId"])
        except aws_errors() as error:
            raise BucketUnavailableError(str(error)) from error

    def names(self, prefix: str, after: str = "") -> Iterator[str]:
        """Yield the names of objects, in order, behind the name `after`."""
        for page in self.pages(prefix, **({"StartAfter": after} if after else {})):
            for item in page.get("Contents", ()):
                yield item["Key"]

    def pages(self, prefix: str, **request: Any) -> Iterator[Any]:
        """Yield the pages of a listing."""
        while True:
            try:
                page = self._s3.list_objects_v2(Bucket=self._name, Prefix=prefix, **request)
            except aws_errors() as error:
                raise BucketUnavailableError(str(error)) from error
            yield page
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]
