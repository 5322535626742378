"""`sluice keys verify`: says whether a write key is valid."""

import click

from ops import screen
from ops.failure import FORESEEN, UNFINISHED, Failure, explained
from ops.known_accounts import found_in, known
from ops.signing_secrets import signing_secrets
from ops.stack import Stack, works_on_stack
from shared import write_key
from shared.errors import InvalidKeyError


@click.command("verify")
@click.argument("key")
@works_on_stack
@screen.json_option
def command(stack: Stack, key: str, *, as_json: bool) -> None:
    """Check a key: its signature, its account, and whether it is revoked.

    If Redis does not answer, only the signature is checked (exit code 3).
    """
    try:
        found = write_key.verify(key, signing_secrets(stack))
    except InvalidKeyError as error:
        raise Failure(f"invalid key: {error}") from error
    shown = {"account": found.account, "key_id": found.key_id}
    try:
        accounts = known(stack)
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
    account = found_in(stack, accounts, found.account)
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
