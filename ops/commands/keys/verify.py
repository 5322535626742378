"""`sluice keys verify`: says whether a write key is valid."""

import click

from ops import known_accounts, screen
from ops.failure import Failure
from ops.signing_secrets import signing_secrets
from ops.stack import Stack, works_on_stack
from shared import write_key
from shared.errors import InvalidKeyError


@click.command("verify")
@click.argument("key")
@works_on_stack
@screen.json_option
def command(stack: Stack, key: str, *, as_json: bool) -> None:
    """Check a key: its signature, its account, and whether it is revoked."""
    try:
        found = write_key.verify(key, signing_secrets(stack))
    except InvalidKeyError as error:
        raise Failure(f"invalid key: {error}") from error
    account = known_accounts.one(stack, found.account)
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
