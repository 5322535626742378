"""`sluice sdk`: publishes the browser SDK's scripts to the stack's bucket."""

from pathlib import Path

import click

from ops import browser_sdk, screen, sdk_bucket
from ops.browser_sdk import Build
from ops.command_group import CommandGroup
from ops.failure import Failure
from ops.stack import Stack, works_on_deployed_stack

group = CommandGroup("sdk", help="Publish the browser SDK.")


@group.command("publish")
@works_on_deployed_stack
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=browser_sdk.FOLDER,
    help="Folder with the built SDK. Default: where `make sdk` puts it.",
)
@screen.dry_run_option
@screen.json_option
def publish(stack: Stack, *, folder: Path, dry_run: bool, as_json: bool) -> None:
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
    made = sdk_bucket.objects(build)
    put = [] if dry_run else sdk_bucket.publish(stack.client("s3"), stack.outputs["SdkBucket"], made)
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
                "dry_run": dry_run,
            }
        )
        return
    for one in made:
        done = "would be published" if dry_run else "published" if one.key in put else "already published"
        screen.say(f"{one.key}  {done}")
    if dry_run:
        screen.say(screen.DRY_RUN)
    screen.say(
        f"\nVersion {build.version}. Paste this into pages, with a key from `sluice keys issue ACCOUNT {stack.option}`:\n{text}"
    )
