"""Chunks that are set aside in S3: complete, so that they can be understood and sent without anything else.

    aside/<kind>/<account>/<table>/<rows>-<object id>.gz

The object's id follows from the chunk, so that writing it twice leaves one object, and what is counted by kind,
account and table stands in the name: a listing alone tells how many rows are where. An object is gzip of one line
of JSON that says everything about the chunk, and then its rows as MessagePack maps one after another. What could not
become rows (`payload` is `original`) stands there as MessagePack byte strings, one per record or event. Where a person
has edited the rows, the line ends with the original ones, in Base64.
"""

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from shared.errors import SetAsideUnavailableError
from worker.chunk import compress
from worker.record import Number
from worker.span import Kind

_PREFIX = "aside"


class AsideUnavailableError(SetAsideUnavailableError):
    """S3 cannot be reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """One chunk that is set aside.

    Attributes:
        kind: parked, in doubt or dead letter.
        reason: one word.
        account: whose rows they are; `-` where no account could be read.
        table: their table; `-` and a reason for what could not become rows.
        database: where they were to go, empty where that was not known.
        rows: how many.
        payload_form: `rows`, or `original` for what could not become rows.
        shard: where they came from.
        sequence_numbers: of the records that they came in.
        first_seen: UNIX milliseconds at which the first of these records arrived.
        last_seen: UNIX milliseconds at which the last one arrived.
        set_aside_at: UNIX milliseconds.
        unique_id: under which they travelled, or would have.
        object_id: names the object.
        chain: the span's chain.
        after: the span's place in it.
        chunk: the chunk's key in the span.
        payload: the rows.
        original: the rows as they were before a person edited them; empty where nobody did.
    """

    kind: Kind
    reason: str
    account: str
    table: str
    database: str
    rows: int
    payload_form: str
    shard: str
    sequence_numbers: tuple[str, ...]
    first_seen: int
    last_seen: int
    set_aside_at: int
    unique_id: str
    object_id: str
    chain: str
    after: Number
    chunk: str
    payload: bytes
    original: bytes = b""

    @property
    def name(self) -> str:
        """The object's key."""
        return f"{_PREFIX}/{self.kind}/{self.account}/{self.table}/{self.rows}-{self.object_id}.gz"

    def with_kind(self, kind: Kind, reason: str) -> "SetAside":
        """Return the same chunk, set aside for another reason."""
        return replace(self, kind=kind, reason=reason)

    def encode(self) -> bytes:
        """Return the object's bytes."""
        header = asdict(self)
        payload: bytes = header.pop("payload")
        if original := header.pop("original"):
            header["original"] = b64encode(original).decode()
        return compress(json.dumps(header).encode() + b"\n" + payload)


@dataclass(frozen=True, slots=True)
class Listed:
    """What an object's name says."""

    name: str
    kind: Kind
    account: str
    table: str
    rows: int


def decode(data: bytes) -> SetAside:
    """Return the chunk that `SetAside.encode` made these bytes of."""
    header, _, payload = zlib.decompress(data, wbits=zlib.MAX_WBITS | 16).partition(b"\n")
    members: dict[str, Any] = json.loads(header)
    members["kind"] = Kind(members["kind"])
    members["sequence_numbers"] = tuple(members["sequence_numbers"])
    members["original"] = b64decode(members.get("original", ""))
    return SetAside(**members, payload=payload)


class Aside:
    """The bucket.

    Args:
        s3: a boto3 client.
        bucket: its name.
    """

    def __init__(self, s3: Any, bucket: str) -> None:
        self._s3 = s3
        self._bucket = bucket

    def put(self, chunk: SetAside) -> None:
        """Write the chunk's object.

        Raises:
            AsideUnavailableError: S3 did not acknowledge it.
        """
        self._call(self._s3.put_object, Key=chunk.name, Body=chunk.encode(), ContentType="application/gzip")

    def get(self, name: str) -> SetAside | None:
        """Return a chunk; None when its object has gone.

        Raises:
            AsideUnavailableError: S3 cannot be reached.
        """
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=name)
            return decode(answer["Body"].read())
        except ClientError as error:
            if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
                return None
            raise AsideUnavailableError(str(error)) from error
        except BotoCoreError as error:
            raise AsideUnavailableError(str(error)) from error

    def delete(self, name: str) -> None:
        """Remove an object.

        Raises:
            AsideUnavailableError: S3 cannot be reached.
        """
        self._call(self._s3.delete_object, Key=name)

    def accounts(self, kind: Kind) -> list[str]:
        """Return the accounts of which chunks of this kind are set aside."""
        prefix = f"{_PREFIX}/{kind}/"
        return [
            item["Prefix"].removeprefix(prefix).rstrip("/")
            for page in self._pages(prefix, "/")
            for item in page.get("CommonPrefixes", [])
        ]

    def listed(self, kind: Kind, account: str | None = None, table: str | None = None) -> Iterator[Listed]:
        """Yield what is set aside, of one account and one table if they are given."""
        prefix = f"{_PREFIX}/{kind}/"
        if account is not None:
            prefix += f"{account}/"
            if table is not None:
                prefix += f"{table}/"
        for page in self._pages(prefix):
            for item in page.get("Contents", []):
                _, _, of_account, of_table, name = item["Key"].split("/")
                if table is None or of_table == table:
                    yield Listed(item["Key"], kind, of_account, of_table, int(name.partition("-")[0]))

    def _pages(self, prefix: str, delimiter: str = "") -> Iterator[Any]:
        more: dict[str, str] = {"Delimiter": delimiter} if delimiter else {}
        while True:
            page = self._call(self._s3.list_objects_v2, Prefix=prefix, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def _call(self, call: Any, **arguments: Any) -> Any:
        try:
            return call(Bucket=self._bucket, **arguments)
        except (ClientError, BotoCoreError) as error:
            raise AsideUnavailableError(str(error)) from error
