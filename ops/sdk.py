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
"""For what is overwritten by the next version; within five minutes everybody has it."""

_TYPES = {
    "js": "text/javascript; charset=utf-8",
    "mjs": "text/javascript; charset=utf-8",
    "html": "text/plain; charset=utf-8",  # to be read, not to be shown as a page
    "json": "application/json",
    "ts": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class Object:
    """What is put: the key, the bytes, and whether they never change."""

    key: str
    body: bytes
    is_fixed: bool

    @property
    def headers(self) -> dict[str, str]:
        """How it is served."""
        kind = _TYPES[self.key.rpartition(".")[2]]
        return {"ContentType": kind, "CacheControl": FOR_EVER if self.is_fixed else SHORTLY}


def objects(build: Build) -> list[Object]:
    """Return what is published: each script under its version for ever, and under `latest`; then what tells of them.

    The snippet comes last: who reads it finds the scripts that it names.
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
    """Put what is not there yet and return its keys.

    Raises:
        Failure: a version stands there that differs; nothing after it was put.
        ClientError: S3 refuses.
    """
    put = []
    for one in made:
        if one.is_fixed:
            standing = _standing(s3, bucket, one.key)
            if standing is not None and standing != one.body:
                raise Failure(
                    f"{one.key} is published already and differs, and pages rely on it: "
                    "raise the version in sdk/package.json, `make sdk`, and publish that"
                )
            if standing is not None:
                continue
        s3.put_object(Bucket=bucket, Key=one.key, Body=one.body, **one.headers)  # type: ignore[arg-type]  # S3's names of headers
        put.append(one.key)
    return put


def _standing(s3: "S3Client", bucket: str, key: str) -> bytes | None:
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
        raise click.UsageError("the local site serves sdk/dist as it is: there is nothing to publish")
    missing = [output for output in ("SdkBucket", "SdkUrl") if output not in stack.outputs]
    if missing:
        raise Failure(
            f"the stack {stack.name} hosts no SDK (it lacks the output {missing[0]}): deploy it with hosting, "
            "or put the files of sdk/dist where you like, as docs/sdk.md says"
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
        done = "would be put" if dry_run else "put" if one.key in put else "is there already"
        screen.say(f"{one.key}  {done}")
    screen.say(f"\nVersion {build.version}; into a page, with a key of `sluice keys issue ACCOUNT`:\n{text}")
