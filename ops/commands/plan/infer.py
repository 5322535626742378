"""`sluice plan infer`: writes a plan that fits the events of an account."""

from pathlib import Path

import click

from ops import known_accounts, screen
from ops.failure import Failure
from ops.plans.arrived_events import events_since
from ops.plans.plan_profile import Profile
from ops.plans.plan_text import inferred
from ops.selecting import since_option
from ops.stack import Stack, works_on_stack
from shared.tracking_plan import TrackingPlan


@click.command("infer")
@click.argument("account")
@works_on_stack
@since_option
@screen.output_option
def command(stack: Stack, account: str, *, since: float, file: Path | None) -> None:
    """Write a plan that fits the events of ACCOUNT, with frequencies and examples as comments.

    Examples never show possible personal data. Review the plan, correct it, and name it in accounts.yaml. A file that exists is not
    overwritten.
    """
    if file is not None and file.is_file():
        raise Failure(f"{file} exists, and may have been edited: use another name, or remove it")
    profile = Profile()
    for event in events_since(stack, account, since):
        profile.add(event.table, event.row)
    if not profile.tables:
        known_accounts.check(stack, account)
        raise Failure(f"no events of {account} were found: use an earlier --since")
    said = f"{screen.plural(len(profile.tables), 'table')} of {account} in {file}."
    screen.put(inferred(profile), file, said)
    try:
        TrackingPlan.parse(profile.plan().to_value())
    except ValueError as error:
        click.echo(f"Note: `sluice accounts apply` refuses this plan until you shorten it: {error}", err=True)
