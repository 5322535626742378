"""`sluice keys`: write keys, and the secrets that sign them."""

import json
import secrets
from dataclasses import replace

import click
from botocore.exceptions import ClientError

from ops import accounts, browser_sdk, screen
from ops.browser_sdk import Build
from ops.command_group import CommandGroup
from ops.failure import Failure
from ops.stack import Stack, works_on_stack
from shared import names, write_key
from shared.errors import InvalidKeyError

_SECRET_BYTES = 48
_ELSEWHERE = "https://YOUR-HOST"
_NOTICED = "This takes effect within five minutes."


@click.group("keys", cls=CommandGroup)
def group() -> None:
    """Issue, verify and revoke write keys, and rotate the secrets that sign them."""


def signing_secrets(stack: Stack) -> dict[str, str]:
    """Return the valid signing secrets, by id, newest last.

    Raises:
        Failure: the stack's secret has none.
    """
    return _signing(_members(stack))


def _members(stack: Stack) -> dict[str, str]:
    """Return the content of the stack's secret: the signing secrets and, if any, the key for hashed columns."""
    client = stack.client("secretsmanager")
    text = client.get_secret_value(SecretId=stack.outputs["WriteKeySecret"])["SecretString"]
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _signing(members: dict[str, str]) -> dict[str, str]:
    signing = {secret_id: text for secret_id, text in members.items() if secret_id != write_key.HASH_KEY}
    if not signing:
        raise Failure(
            'The secret WriteKeySecret has no signing secret. Store JSON such as {"k1": "…"} in it.'
        )
    return signing


@group.command()
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
def issue(
    stack: Stack, account: str, *, serial: int | None, secret_id: str | None, table: str, as_json: bool
) -> None:
    """Print a write key for ACCOUNT, with code to paste.

    The same account, secret and serial number always give the same key. Nothing is stored.
    """
    if not names.is_account(account):
        raise Failure(f"{account!r} is not a valid account name: use 3 to 64 characters of a-z, 0-9 and _")
    signing = signing_secrets(stack)
    secret_id = secret_id or next(reversed(signing))
    if secret_id not in signing:
        raise Failure(f"there is no secret {secret_id}: the valid ones are {', '.join(signing)}")
    key_id = secret_id if serial is None else f"{secret_id}-{serial}"
    key = write_key.sign(account, key_id, signing[secret_id])
    script, about_script = _script(stack, key, table)
    remark = " ".join(filter(None, (_remark(stack, account, key_id), about_script)))
    lines = _lines(stack.outputs["ApiUrl"], key, table, script)
    if as_json:
        screen.show_json({"key": key, "account": account, "key_id": key_id, "remark": remark, **lines})
        return
    screen.say(key)
    for name, line in lines.items():
        if line:
            screen.say(f"\n{name}\n{line}")
    if remark:
        click.echo(f"\n{remark}", err=True)


def _remark(stack: Stack, account: str, key_id: str) -> str:
    """Return why rows sent with this key would not be delivered; empty if they would."""
    try:
        found = accounts.one(stack, account)
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


@group.command()
@click.argument("key")
@works_on_stack
@screen.json_option
def verify(stack: Stack, key: str, *, as_json: bool) -> None:
    """Check a key: its signature, its account, and whether it is revoked."""
    try:
        found = write_key.verify(key, signing_secrets(stack))
    except InvalidKeyError as error:
        raise Failure(f"invalid key: {error}") from error
    account = accounts.one(stack, found.account)
    if account.status != "active":
        raise Failure(
            f"the signature is valid, but the account {found.account} is disabled: its events are refused"
        )
    if found.key_id in account.revoked_key_ids:
        raise Failure(
            f"the signature is valid, but the key id {found.key_id} is revoked: its events are refused"
        )
    if as_json:
        screen.show_json({"account": found.account, "key_id": found.key_id, "database": account.database})
        return
    screen.say(
        f"Valid: account {found.account}, key id {found.key_id}. Rows go to the database {account.database}."
    )


@group.command()
@click.argument("account")
@click.argument("key_id")
@works_on_stack
@screen.dry_run_option
def revoke(stack: Stack, account: str, key_id: str, *, dry_run: bool) -> None:
    """Revoke a key: within a minute its events are refused; rows already accepted are set aside. Issue a new key first, with --serial."""
    if not names.is_key_id(key_id):
        raise Failure(f"{key_id!r} is not a valid key id: use the middle part of the key, such as k1 or k1-2")
    current = accounts.one(stack, account)
    revoked = replace(current, revoked_key_ids=current.revoked_key_ids | {key_id})
    accounts.update(stack, account, revoked, dry_run=dry_run)


@group.command()
@works_on_stack
@click.option(
    "--retire",
    metavar="ID",
    help="Instead of adding a secret, remove this one. Keys signed with it become invalid.",
)
@screen.dry_run_option
@screen.yes_option
def rotate(stack: Stack, *, retire: str | None, dry_run: bool, yes: bool) -> None:
    """Add a signing secret for new keys. Old secrets stay valid until they are retired."""
    members = _members(stack)
    signing = _signing(members)
    if retire is None:
        added = _next_id(signing)
        screen.say(f"Adding the secret {added}. Still valid: {', '.join(signing)}.")
        if not dry_run:
            _store(stack, members | {added: secrets.token_urlsafe(_SECRET_BYTES)})
            screen.say(
                f"{_NOTICED} Then issue new keys. Once no page uses the old ones, run `sluice keys rotate --retire ID`."
            )
        return
    if retire not in signing:
        raise Failure(f"there is no secret {retire}: the valid ones are {', '.join(signing)}")
    rest = [secret_id for secret_id in signing if secret_id != retire]
    if not rest:
        raise Failure(
            f"{retire} is the only secret, so all keys would become invalid. Add another first: `sluice keys rotate`"
        )
    screen.say(
        f"Retiring the secret {retire}: all keys signed with it become invalid. Still valid: {', '.join(rest)}."
    )
    if not dry_run:
        screen.confirm("Retire it?", yes=yes)
        _store(stack, {name: text for name, text in members.items() if name != retire})
        screen.say(_NOTICED)


def _next_id(signing: dict[str, str]) -> str:
    number = len(signing) + 1
    while f"k{number}" in signing:
        number += 1
    return f"k{number}"


def _store(stack: Stack, members: dict[str, str]) -> None:
    client = stack.client("secretsmanager")
    try:
        client.put_secret_value(SecretId=stack.outputs["WriteKeySecret"], SecretString=json.dumps(members))
    except ClientError as error:
        if error.response["Error"]["Code"] == "InvalidRequestException":
            raise Failure(
                "the secret is scheduled for deletion: restore it with `aws secretsmanager restore-secret`"
            ) from error
        raise
