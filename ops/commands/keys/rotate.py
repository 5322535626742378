"""`sluice keys rotate`: adds a signing secret, or retires one."""

import secrets
import time
from collections.abc import Mapping

import click

from ops import screen
from ops.failure import Failure
from ops.signing_secrets import TAKES_EFFECT, next_secret_id, secret_members, signing_of, store_members
from ops.stack import Stack, works_on_stack

_SECRET_BYTES = 48


@click.command("rotate")
@works_on_stack
@click.option(
    "--retire",
    metavar="ID",
    help="Instead of adding a secret, remove this one. Keys signed with it become invalid.",
)
@screen.dry_run_option
@screen.yes_option
def command(stack: Stack, *, retire: str | None, dry_run: bool, yes: bool) -> None:
    """Add a signing secret for new keys. Old secrets stay valid until they are retired."""
    members = secret_members(stack)
    if retire is None:
        signing = signing_of(members)
        added = next_secret_id(signing, time.time())
        result = members | {added: secrets.token_urlsafe(_SECRET_BYTES)}
        valid, said = list(signing), f"Adding the secret {added}."
        then = " Then issue new keys. Once no page uses the old ones, run `sluice keys rotate --retire ID`."
    else:
        result, valid = _without(members, retire)
        said, then = f"Retiring the secret {retire}: all keys signed with it become invalid.", ""
    screen.say(f"{said} Still valid: {', '.join(valid)}.")
    if dry_run:
        screen.say(screen.DRY_RUN)
        return
    if retire is not None:
        screen.confirm("Retire it?", yes=yes)
        result, _ = _without(secret_members(stack), retire)  # others may have added members meanwhile
    store_members(stack, result)
    screen.say(f"{TAKES_EFFECT}{then}")


def _without(members: Mapping[str, str], retire: str) -> tuple[dict[str, str], list[str]]:
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
            f"{retire} is the only secret, so all keys would become invalid. Add another first: `sluice keys rotate`"
        )
    return {name: text for name, text in members.items() if name != retire}, valid
