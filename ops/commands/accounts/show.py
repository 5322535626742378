"""`sluice accounts show`: shows one account."""

import time
from dataclasses import asdict

import click

from ops import screen
from ops.known_accounts import one, shown_fields
from ops.stack import Stack, works_on_stack


@click.command("show")
@click.argument("account")
@works_on_stack
@screen.json_option
def command(stack: Stack, account: str, *, as_json: bool) -> None:
    """Show one account, and what it spends of its budget."""
    found = one(stack, account)
    limits, use = found.limits, stack.spending().of(account, time.time())
    if as_json:
        budget = {"bytes_per_hour": limits.bytes_per_hour, "events_per_hour": limits.events_per_hour}
        screen.show_json({"account": account, **found.to_fields(), "budget": budget | asdict(use)})
        return
    fields = shown_fields(found)
    screen.show_table(("account", *fields), [(account, *fields.values())])
    screen.say(
        f"\nBudget: {limits.bytes_per_hour:,} bytes and {limits.events_per_hour:,} events an hour, of which it spent "
        f"{use.spent:.0%} in the last minute. Refused in the last day, at least: "
        f"{screen.plural(use.refused_requests, 'request')} with {screen.plural(use.refused_events, 'event')}."
    )
