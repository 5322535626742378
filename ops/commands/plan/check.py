"""`sluice plan check`: compares events with the plan in a file."""

from pathlib import Path

import click

from ops import accounts_file, screen
from ops.commands.plan.drifts import as_value, exit_by, since_option
from ops.plans.arrived_events import events_since
from ops.plans.plan_profile import Drifts
from ops.stack import Stack, works_on_stack


@click.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@works_on_stack
@click.option("--account", required=True, help="Account whose events to compare.")
@since_option
@screen.json_option
def command(stack: Stack, file: Path, *, account: str, since: float, as_json: bool) -> None:
    """Compare events with the plan in FILE, before you apply it. Exit code 3: some differ."""
    drifts = Drifts(accounts_file.read_plan(file))
    for event in events_since(stack, account, since):
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
