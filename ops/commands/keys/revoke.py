"""`sluice keys revoke`: revokes a write key."""

import click

from ops import known_accounts, screen
from ops.failure import Failure
from ops.signing_secrets import signing_secrets
from ops.stack import Stack, works_on_stack
from shared import names, write_key


@click.command("revoke")
@click.argument("account")
@click.argument("key_id")
@works_on_stack
@screen.dry_run_option
@screen.yes_option
def command(stack: Stack, account: str, key_id: str, *, dry_run: bool, yes: bool) -> None:
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
