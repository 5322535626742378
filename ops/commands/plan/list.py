"""`sluice plan list`: lists the accounts' plans."""

import click

from ops import screen
from ops.known_accounts import known
from ops.stack import Stack, works_on_stack


@click.command("list")
@works_on_stack
@screen.json_option
def command(stack: Stack, *, as_json: bool) -> None:
    """List the applied tracking plans."""
    plans = {name: account.plan for name, account in known(stack)[0].items() if account.plan}
    if as_json:
        screen.show_json({name: plan.to_value() for name, plan in plans.items()})
        return
    if not plans:
        screen.say("No account has a tracking plan: write one with `sluice plan infer ACCOUNT`.")
    screen.show_table(
        ("account", "table", "mode", "columns"),
        [
            (name, table, plan.mode_of(table), len(planned.columns))
            for name, plan in plans.items()
            for table, planned in plan.tables.items()
        ],
    )
