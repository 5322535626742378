"""`sluice keys`: write keys, and the secrets that sign them."""

import json
import secrets
import time
from collections.abc import Mapping

import click

from ops import browser_sdk, known_accounts, screen
from ops.browser_sdk import Build
from ops.command_group import CommandGroup
from ops.failure import FORESEEN, UNFINISHED, Failure, explained
from ops.signing_secrets import (
    TAKES_EFFECT,
    next_secret_id,
    secret_members,
    signing_of,
    signing_secrets,
    store_members,
)
from ops.stack import Stack, works_on_stack
from shared import names, write_key
from shared.errors import InvalidKeyError

_ELSEWHERE = "https://YOUR-HOST"
_SECRET_BYTES = 48


group = CommandGroup(
    "keys", help="Issue, verify and revoke write keys, and rotate the secrets that sign them."
)


@group.command("issue")
@click.argument("account")
@works_on_stack
@click.option(
    "--serial",
    type=click.IntRange(0, 9999),
    help="Serial number, to issue another key under the same secret.",
)
@click.option("--table", default="pageviews", show_default=True, help="Table to use in the code to paste.")
@screen.json_option
def issue(stack: Stack, account: str, *, serial: int | None, table: str, as_json: bool) -> None:
    """Print a write key for ACCOUNT, with code to paste.

    The newest secret signs it. The same account, secret and serial number always give the same key. Nothing is stored.
    """
    if said := known_accounts.misnamed(account, table):
        raise Failure(said)
    signing = signing_secrets(stack)
    secret_id = next(reversed(signing))
    key_id = secret_id if serial is None else f"{secret_id}-{serial}"
    key = write_key.sign(account, key_id, signing[secret_id])
    script, about_script = _script(stack, key, table)
    remark = "\n".join(filter(None, (_remark(stack, account, key_id), about_script)))
    lines = _lines(stack.outputs["ApiUrl"], key, table, script)
    if as_json:
        screen.show_json({"key": key, "account": account, "key_id": key_id, "remark": remark, **lines})
        return
    if remark:
        screen.note(f"{remark}\n")
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
        return f"Note: the account is disabled. Enable it with `sluice accounts enable {account} {stack.option}`."
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


@group.command("revoke")
@click.argument("account")
@click.argument("key_id")
@works_on_stack
@screen.dry_run_option
@screen.yes_option
def revoke(stack: Stack, account: str, key_id: str, *, dry_run: bool, yes: bool) -> None:
    """Revoke a key: within a minute its events are refused, and accepted ones still on the stream become dead. Issue a new key first, with --serial.

    Rows whose account could not be looked up yet become dead too; those already in a span with a known account are delivered.
    """
    if not names.is_key_id(key_id):
        raise Failure(f"{key_id!r} is not a valid key id: use the middle part of the key, such as k1 or k1-2")
    current = known_accounts.one(stack, account)
    signing = signing_secrets(stack)
    if write_key.secret_id(key_id) not in signing:
        raise Failure(
            f"no signing secret has the id {write_key.secret_id(key_id)}: the valid ones are {', '.join(signing)}. "
            "Keys of a retired secret are invalid already"
        )
    revoked = current.revoked_key_ids | {key_id}
    if revoked != current.revoked_key_ids and not dry_run:
        screen.confirm(
            f"Refuse events with {key_id}, and have rows on the stream with it become dead?", yes=yes
        )
    known_accounts.update(stack, account, current, dry_run=dry_run, revoked_key_ids=revoked)


@group.command("rotate")
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
    members = secret_members(stack)
    if retire is None:
        signing = signing_of(members)
        added = next_secret_id(signing, time.time())
        result = members | {added: secrets.token_urlsafe(_SECRET_BYTES)}
        valid, said = list(signing), f"Adding the secret {added}."
        then = f" Then issue new keys. Once no page uses the old ones, run `sluice keys rotate {stack.option} --retire ID`."
    else:
        result, valid = _without(stack, members, retire)
        said, then = f"Retiring the secret {retire}: all keys signed with it become invalid.", ""
    screen.say(f"{said} Still valid: {', '.join(valid)}.")
    if dry_run:
        screen.say(screen.DRY_RUN)
        return
    if retire is not None:
        screen.confirm("Retire it?", yes=yes)
        result, _ = _without(stack, secret_members(stack), retire)  # others may have added members meanwhile
    store_members(stack, result)
    screen.say(f"{TAKES_EFFECT}{then}")


def _without(stack: Stack, members: Mapping[str, str], retire: str) -> tuple[dict[str, str], list[str]]:
    """Return the members but a signing secret, and the ids of the others.

    Raises:
        Failure: there is no such secret, or no other.
    """
    signing = signing_of(members)
    if retire not in signing:
        raise Failure(f"there is no secret {retire}: the valid ones are {', '.join(signing)}")
    valid = [secret_id for secret_id in signing if secret_id != retire]
    if not valid:
        raise Failure(
            f"{retire} is the only secret, so all keys would become invalid. Add another first: `sluice keys rotate {stack.option}`"
        )
    return {name: text for name, text in members.items() if name != retire}, valid


@group.command("verify")
@click.argument("key")
@works_on_stack
@screen.json_option
def verify(stack: Stack, key: str, *, as_json: bool) -> None:
    """Check a key: its signature, its account, and whether it is revoked.

    If Redis does not answer, only the signature is checked (exit code 3).
    """
    try:
        found = write_key.verify(key, signing_secrets(stack))
    except InvalidKeyError as error:
        raise Failure(f"invalid key: {error}") from error
    shown = {"account": found.account, "key_id": found.key_id}
    try:
        accounts = known_accounts.known(stack)
    except (Failure, *FORESEEN) as error:
        why = explained(error).message
        if as_json:
            screen.show_json(shown | {"database": None, "not_checked": why})
        else:
            screen.say(
                f"The signature is valid: account {found.account}, key id {found.key_id}. Whether the account is active, and the key not "
                f"revoked, could not be checked: {why}"
            )
        raise click.exceptions.Exit(UNFINISHED) from None
    account = known_accounts.found_in(stack, accounts, found.account)
    if account.status != "active":
        raise Failure(
            f"the signature is valid, but the account {found.account} is disabled: its events are refused"
        )
    if found.key_id in account.revoked_key_ids:
        raise Failure(
            f"the signature is valid, but the key id {found.key_id} is revoked: its events are refused"
        )
    if as_json:
        screen.show_json(shown | {"database": account.database, "not_checked": ""})
        return
    screen.say(
        f"Valid: account {found.account}, key id {found.key_id}. Rows go to the database {account.database}."
    )
