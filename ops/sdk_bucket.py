"""The browser SDK's scripts in the stack's bucket."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ops import browser_sdk
from ops.browser_sdk import Build
from ops.failure import Failure, if_there

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FOR_EVER = "public, max-age=31536000, immutable"
SHORTLY = "public, max-age=300"
"""For files that the next version overwrites. Everybody has the new ones within five minutes."""
_TYPES = {
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "html": "text/plain; charset=utf-8",  # a snippet to copy, not a page to display
    "json": "application/json",
    "ts": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class SdkFile:
    """An object in the bucket: its key, its content, and whether that never changes."""

    key: str
    body: bytes
    is_fixed: bool

    @property
    def headers(self) -> dict[str, str]:
        """The headers with which it is served."""
        kind = _TYPES[self.key.rpartition(".")[2]]
        return {"ContentType": kind, "CacheControl": FOR_EVER if self.is_fixed else SHORTLY}


def objects(build: Build) -> list[SdkFile]:
    """Return what to publish, in order: each script under its version and under `latest`, the manifest, and the snippet.

    The snippet comes last, so that the scripts that it names exist before anyone can read it.
    """
    return [
        *(SdkFile(path, build.read(name), is_fixed=True) for name, path in build.scripts.items()),
        SdkFile(f"{build.version}/sluice.d.ts", build.read("sluice.d.ts"), is_fixed=True),
        *(SdkFile(f"latest/{name}", build.read(name), is_fixed=False) for name in build.scripts),
        SdkFile("manifest.json", build.read("manifest.json"), is_fixed=False),
        SdkFile(browser_sdk.SNIPPET, build.read(browser_sdk.SNIPPET), is_fixed=False),
    ]


def publish(s3: "S3Client", bucket: str, made: list[SdkFile]) -> list[str]:
    """Put the objects that are missing or may change, and return their keys.

    Raises:
        Failure: a published version differs. The objects after it were not put.
    """
    put = []
    for one in made:
        existing = _existing(s3, bucket, one.key) if one.is_fixed else None
        if existing == one.body:
            continue
        if existing is not None:
            raise Failure(
                f"{one.key} is already published with different content, on which pages rely: "
                "raise the version in sdk/package.json, run `make sdk`, and publish again"
            )
        s3.put_object(Bucket=bucket, Key=one.key, Body=one.body, **one.headers)  # type: ignore[arg-type]  # S3's names of headers
        put.append(one.key)
    return put


def _existing(s3: "S3Client", bucket: str, key: str) -> bytes | None:
    found = if_there(s3.get_object, Bucket=bucket, Key=key)
    return found and found["Body"].read()
