"""`sluice sdk`: publishes the browser SDK's scripts to the stack's bucket."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from botocore.exceptions import ClientError

from ops import browser_sdk, screen
from ops.browser_sdk import Build
from ops.command_group import CommandGroup
from ops.failure import Failure
from ops.stack import Stack, works_on_stack

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
class Object:
    """An object in the bucket: its key, its content, and whether that never changes."""

    key: str
    body: bytes
    is_fixed: bool

    @property
    def headers(self) -> dict[str, str]:
        """The headers with which it is served."""
        kind = _TYPES[self.key.rpartition(".")[2]]
        return {"ContentType": kind, "CacheControl": FOR_EVER if self.is_fixed else SHORTLY}


def objects(build: Build) -> list[Object]:
    """Return what to publish, in order: each script under its version and under `latest`, the manifest, and the snippet.

    The snippet comes last, so that the scripts that it names exist before anyone can read it.
    """
    scripts = [(script, build.read(script.name)) for script in build.scripts]
    return [
        *(Object(script.path, body, is_fixed=True) for script, body in scripts),
        Object(f"{build.version}/sluice.d.ts", build.read("sluice.d.ts"), is_fixed=True),
        *(Object(f"latest/{script.name}", body, is_fixed=False) for script, body in scripts),
        Object("manifest.json", build.read("manifest.json"), is_fixed=False),
        Object(browser_sdk.SNIPPET, build.read(browser_sdk.SNIPPET), is_fixed=False),
    ]


def publish(s3: "S3Client", bucket: str, made: list[Object]) -> list[str]:
    """Put the objects that are missing or may change, and return their keys.

    Raises:
        Failure: a published version differs. The objects after it were not put.
        ClientError: S3 rejects a call.
    """
    put = []
    for one in made:
        if one.is_fixed:
            existing = _existing(s3, bucket, one.key)
            if existing is not None and existing != one.body:
                raise Failure(
                    f"{one.key} is already published with different content, on which pages rely: "
                    "raise the version in sdk/package.json, run `make sdk`, and publish again"
                )
            if existing is not None:
                continue
        s3.put_object(Bucket=bucket, Key=one.key, Body=one.body, **one.headers)  # type: ignore[arg-type]  # S3's names of headers
        put.append(one.key)
    return put


def _existing(s3: "S3Client", bucket: str, key: str) -> bytes | None:
    try:
        body: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            return None
        raise
    return body


@click.group("sdk", cls=CommandGroup)
def group() -> None:
    """Publish the browser SDK."""


@group.command("publish")
@works_on_stack
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=browser_sdk.FOLDER,
    help="Folder with the built SDK. Default: where `make sdk` puts it.",
)
@screen.dry_run_option
@screen.json_option
def publish_command(stack: Stack, *, folder: Path, dry_run: bool, as_json: bool) -> None:
    """Publish the built browser SDK to the stack's bucket, and print the snippet for pages.

    A published version never changes. `latest` and the snippet refer to the newest version.
    """
    if stack.is_local:
        raise click.UsageError("there is nothing to publish: the local stack serves sdk/dist directly")
    missing = [output for output in ("SdkBucket", "SdkUrl") if output not in stack.outputs]
    if missing:
        raise Failure(
            f"the stack {stack.name} does not host the SDK (it lacks the output {missing[0]}): deploy it with SdkHosting=on, "
            "or host the files of sdk/dist elsewhere (docs/sdk.md)"
        )
    build = Build(folder)
    made = objects(build)
    put = [] if dry_run else publish(stack.client("s3"), stack.outputs["SdkBucket"], made)
    text = browser_sdk.snippet(
        build.read(browser_sdk.SNIPPET).decode(),
        endpoint=stack.outputs["ApiUrl"],
        key="YOUR-KEY",
        host=stack.outputs["SdkUrl"],
    )
    if as_json:
        screen.show_json(
            {
                "version": build.version,
                "url": stack.outputs["SdkUrl"],
                "put": put,
                "objects": [one.key for one in made],
                "snippet": text,
            }
        )
        return
    for one in made:
        done = "would be published" if dry_run else "published" if one.key in put else "already published"
        screen.say(f"{one.key}  {done}")
    screen.say(
        f"\nVersion {build.version}. Paste this into pages, with a key from `sluice keys issue ACCOUNT`:\n{text}"
    )
