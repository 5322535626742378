"""`sluice plan check`: compares events with the plan in a file."""

from pathlib import Path

import click

from ops import accounts_file, screen
from ops.commands.plan.drifts import as_value, exit_by, since_option
from ops.failure import Failure
from ops.plans.arrived_events import events_since, saved_events
from ops.plans.plan_profile import Drifts
from ops.stack import Stack, works_on_stack


@click.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@works_on_stack
@click.option("--account", help="Account whose events to compare. Required unless --events names a file.")
@click.option(
    "--events",
    "recorded",
    type=click.Path(path_type=Path),
    help="Compare the events in this file, written by `sluice record`.",
)
@since_option
@screen.json_option
def command(
    stack: Stack,
    file: Path,
    *,
    account: str | None,
    recorded: Path | None,
    since: float,
    as_json: bool,
) -> None:
    """Compare events with the plan in FILE, before you apply it. Exit code 3: some differ."""
    drifts = Drifts(accounts_file.read_plan(file))
    if recorded is not None:
        events = saved_events(recorded)
    elif account is not None:
        events = events_since(stack, account, since)
    else:
        raise Failure("select events: --account, or --events with a file that `sluice record` wrote")
    for event in events:
        if account in (None, event.account):
            drifts.add(event.table, event.row, event.at)
    if as_json:
        screen.show_json(as_value(drifts))
    else:
        counts = sorted(drifts.codes().items())
        screen.show_table(
            ("table", "code", "events"), [(table, code, count) for (table, code), count in counts]
        )
        screen.say(drifts.summary())
    exit_by(drifts)
