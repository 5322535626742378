"""The edge policy in S3, for its two writers: commands write the accounts, the scaler writes the overflow.

Each writes only if nobody has written since it read, so neither undoes what the other did.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from shared import policy
from shared.errors import InvalidPolicyError, PolicyContestedError, error_code
from shared.policy import EdgePolicy

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ATTEMPTS = 5
_CONTESTED = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey")


class PublishedPolicy:
    """The document in one stack's bucket."""

    def __init__(self, s3: "S3Client", bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    def change(self, change: Callable[[EdgePolicy | None], bytes | None]) -> None:
        """Replace the document.

        Args:
            change: returns the new document, given the current one, which is None if there is none that can be read; None to
                change nothing. May be called several times.

        Raises:
            PolicyContestedError: others wrote it each time.
            what `aws_errors` names: S3 failed.
        """
        for _ in range(_ATTEMPTS):
            current, etag = self._read()
            data = change(current)
            if data is None:
                return
            try:
                if etag:
                    self._s3.put_object(Bucket=self._bucket, Key=policy.KEY, Body=data, IfMatch=etag)
                else:
                    self._s3.put_object(Bucket=self._bucket, Key=policy.KEY, Body=data, IfNoneMatch="*")
            except ClientError as error:
                if error_code(error) not in _CONTESTED:
                    raise
            else:
                return
        raise PolicyContestedError("Others are writing the edge policy. Try again.")

    def _read(self) -> tuple[EdgePolicy | None, str]:
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=policy.KEY)
        except ClientError as error:
            if error_code(error) not in policy.ABSENT:
                raise
            return None, ""
        try:
            return EdgePolicy.parse(answer["Body"].read()), answer["ETag"]
        except InvalidPolicyError:
            return None, answer["ETag"]
