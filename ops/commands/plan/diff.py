"""`sluice plan diff`: compares events with the plan in use."""

import click

from ops import screen
from ops.commands.plan.drifts import as_value, exit_by, show, since_option
from ops.failure import Failure
from ops.known_accounts import one
from ops.plans.arrived_events import events_since
from ops.plans.plan_profile import Drifts
from ops.stack import Stack, works_on_stack


@click.command("diff")
@click.argument("account")
@works_on_stack
@since_option
@screen.json_option
def command(stack: Stack, account: str, *, since: float, as_json: bool) -> None:
    """Show how events of ACCOUNT differ from its plan: what, since when, how often, and from which pages.

    Exit code 3: some differ.
    """
    plan = one(stack, account).plan
    if plan is None:
        raise Failure(
            f"{account} has no tracking plan: write one with `sluice plan infer {account}`, name it in accounts.yaml, and run "
            "`sluice accounts apply accounts.yaml`"
        )
    drifts = Drifts(plan)
    for event in events_since(stack, account, since):
        drifts.add(event.table, event.row, event.at)
    if as_json:
        screen.show_json(as_value(drifts))
    else:
        show(drifts)
    exit_by(drifts)
