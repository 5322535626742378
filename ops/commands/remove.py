"""`sluice remove`: removes a stack and its data, and checks that nothing retained is left."""

from functools import partial

import click

from ops import screen
from ops.deploy.removal import Removal
from ops.failure import UNFINISHED, Failure
from ops.stack import Stack, works_on_deployed_stack
from shared.clock import SystemClock

_POLL_SECONDS = 10.0


@click.command("remove")
@partial(works_on_deployed_stack, or_deleted=True)
@screen.yes_option
@screen.json_option
def command(stack: Stack, *, yes: bool, as_json: bool) -> None:
    """Remove a stack and its data, whatever its stage, and check that nothing retained is left.

    It stops the functions, deletes the stack, and then empties and deletes the buckets and whatever else the stack retains. It
    looks for these, not for what CloudFormation reports as deleted. If CloudFormation does not delete the stack, no bucket is emptied.
    Secrets can be restored for 30 days. If it was interrupted, run it again.
    """
    if stack.is_local:
        raise Failure("`sluice remove` needs a deployed stack. Ctrl-C ends the local one")
    what = f"what the deleted stack {stack.name} has left" if stack.deleted else stack.name
    screen.confirm(
        f"This removes {what}, with every event that Treasure Data does not have yet, its rows in S3 and its ledger. Continue?",
        yes=yes,
    )
    clock = SystemClock()
    removed = Removal(stack, clock, _POLL_SECONDS).run()
    rest = removed.left | removed.unseen
    if as_json:
        screen.show_json({"resources": removed.total, "left": removed.left, "unchecked": removed.unseen})
    elif rest:
        screen.say(f"{screen.plural(len(rest), 'resource')} may be left:")
        screen.show_table(("resource", "id, or why it was not checked"), list(rest.items()))
    else:
        screen.say(f"{screen.plural(removed.total, 'resource')} removed. Nothing is left.")
    raise click.exceptions.Exit(UNFINISHED if rest else 0)
