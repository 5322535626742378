"""`sluice accounts apply`: makes Redis match accounts.yaml."""

from pathlib import Path

import click

from ops import accounts_file, screen
from ops.known_accounts import differences, known
from ops.stack import Stack, works_on_stack


@click.command("apply")
@click.argument("file", type=click.Path(path_type=Path))
@works_on_stack
@screen.dry_run_option
@screen.yes_option
@screen.json_option
def command(stack: Stack, file: Path, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Make Redis match FILE exactly, after showing the changes.

    This also restores a Redis that has lost its data, and publishes the edge policy. The worker and the ingest see changes
    within a minute.
    """
    wanted = accounts_file.read(file)
    current, applied_at = known(stack)
    changes = list(differences(current, wanted))
    if as_json:
        show = {
            "changes": [{"change": sign, "account": name, "what": what} for sign, name, what in changes],
            "restores": applied_at is None,
            "applied": not dry_run,
        }
        screen.show_json(show)
    else:
        if applied_at is None:
            screen.say("Redis is empty. The worker holds until accounts are applied.")
        for sign, name, what in changes:
            screen.say(f"{sign} {name}  {what}")
        if not changes and applied_at is not None:
            screen.say("No changes.")
    if dry_run:
        return
    if not changes and applied_at is not None:
        stack.administer(do="publish")  # an older version of Sluice may not have published the edge policy
        return
    screen.confirm("Apply these changes?", yes=yes or as_json)
    stack.administer(do="apply", accounts={name: account.to_fields() for name, account in wanted.items()})
    if not as_json:
        screen.say(f"Applied: {screen.plural(len(wanted), 'account')}.")
