"""`sluice keys issue`: issues a write key."""

import json

import click

from ops import browser_sdk, known_accounts, screen
from ops.browser_sdk import Build
from ops.failure import Failure
from ops.signing_secrets import signing_secrets
from ops.stack import Stack, works_on_stack
from shared import names, write_key

_ELSEWHERE = "https://YOUR-HOST"


@click.command("issue")
@click.argument("account")
@works_on_stack
@click.option(
    "--serial",
    type=click.IntRange(0, 9999),
    help="Serial number, to issue another key under the same secret.",
)
@click.option("--secret", "secret_id", metavar="ID", help="Sign with this secret. Default: the newest.")
@click.option("--table", default="pageviews", show_default=True, help="Table to use in the code to paste.")
@screen.json_option
def command(
    stack: Stack, account: str, *, serial: int | None, secret_id: str | None, table: str, as_json: bool
) -> None:
    """Print a write key for ACCOUNT, with code to paste.

    The same account, secret and serial number always give the same key. Nothing is stored.
    """
    if not names.is_account(account):
        raise Failure(f"{account!r} is not a valid account name: use 3 to 64 characters of a-z, 0-9 and _")
    if not names.is_table(table):
        raise Failure(f"{table!r} is not a valid table name: use 3 to 128 characters of a-z, 0-9 and _")
    signing = signing_secrets(stack)
    secret_id = secret_id or next(reversed(signing))
    if secret_id not in signing:
        raise Failure(f"there is no secret {secret_id}: the valid ones are {', '.join(signing)}")
    key_id = secret_id if serial is None else f"{secret_id}-{serial}"
    key = write_key.sign(account, key_id, signing[secret_id])
    script, about_script = _script(stack, key, table)
    remark = "\n".join(filter(None, (_remark(stack, account, key_id), about_script)))
    lines = _lines(stack.outputs["ApiUrl"], key, table, script)
    if as_json:
        screen.show_json({"key": key, "account": account, "key_id": key_id, "remark": remark, **lines})
        return
    if remark:
        click.echo(f"{remark}\n", err=True)
    screen.say(key)
    for name, line in lines.items():
        if line:
            screen.say(f"\n{name}\n{line}")


def _remark(stack: Stack, account: str, key_id: str) -> str:
    """Return why rows sent with this key would not be delivered; empty if they would."""
    try:
        found = known_accounts.one(stack, account)
    except Failure as failure:
        return f"Note: {failure.message}."
    if found.status != "active":
        return f"Note: the account is disabled. Enable it with `sluice accounts enable {account}`."
    if key_id in found.revoked_key_ids:
        return f"Note: the key id {key_id} is revoked. Issue another key with --serial."
    return ""


def _script(stack: Stack, key: str, table: str) -> tuple[str, str]:
    """Return the browser SDK's snippet for a key, and a note about what it still needs to work; either may be empty."""
    host, remark = stack.outputs.get("SdkUrl"), ""
    template = browser_sdk.published(host) if host and not stack.is_local else None
    if template is None:
        try:
            template = Build().read(browser_sdk.SNIPPET).decode()
        except Failure as failure:
            return "", f"Note: the script's snippet is missing: {failure.message}."
        if host is None:
            remark = f"Note: this stack does not host scripts. Host the files of sdk/dist, and replace {_ELSEWHERE} with their URL."
        elif not stack.is_local:
            remark = (
                f"Note: the script is not published yet. Publish it with `sluice sdk publish {stack.option}`."
            )
    endpoint = stack.outputs["ApiUrl"]
    return browser_sdk.snippet(
        template, endpoint=endpoint, key=key, host=host or _ELSEWHERE, table=table
    ), remark


def _lines(url: str, key: str, table: str, script: str) -> dict[str, str]:
    body = json.dumps({"events": [{"table": table, "page": "/"}]})
    return {
        "pixel": f'<img src="{url}/pixel.gif?k={key}&t={table}&page=home" width="1" height="1" alt="">',
        "script": script,
        "curl": f"curl {url}/v1/events -H 'x-write-key: {key}' -d '{body}'",
    }
