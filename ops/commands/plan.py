"""`sluice plan`: makes tracking plans from the events that arrive, and compares plans with events."""

from pathlib import Path
from typing import Any

import click

from ops import accounts_file, known_accounts, screen
from ops.command_group import CommandGroup
from ops.failure import UNFINISHED, Failure
from ops.plans.arrived_events import events_since
from ops.plans.plan_profile import Drifts, Profile, changed_columns
from ops.plans.plan_text import inferred
from ops.selecting import since_option
from ops.stack import Stack, works_on_stack
from shared.tracking_plan import TrackingPlan

group = CommandGroup(
    "plan", help="Make tracking plans from the events that arrive, and compare plans with events."
)


@group.command("diff")
@click.argument("account")
@works_on_stack
@click.option(
    "--plan",
    "file",
    type=click.Path(path_type=Path),
    help="Compare with the plan in this file, before you apply it. Default: the account's plan.",
)
@since_option
@screen.json_option
def diff(stack: Stack, account: str, *, file: Path | None, since: float, as_json: bool) -> None:
    """Show how events of ACCOUNT differ from its plan: what, since when, how often, and from which pages.

    Exit code 3: some differ.
    """
    plan = _plan(stack, account) if file is None else accounts_file.read_plan(file)
    drifts = Drifts(plan, changed_columns(stack.parameters))
    for event in events_since(stack, account, since):
        drifts.add(event.table, event.row, event.at)
    if as_json:
        screen.show_json(_as_value(drifts))
    else:
        _show(drifts)
    raise click.exceptions.Exit(UNFINISHED if drifts.fitting < drifts.events else 0)


def _plan(stack: Stack, account: str) -> TrackingPlan:
    plan = known_accounts.one(stack, account).plan
    if plan is None:
        raise Failure(
            f"{account} has no tracking plan: write one with `sluice plan infer {account} {stack.option}`, name it in accounts.yaml, and run "
            f"`sluice accounts apply accounts.yaml {stack.option}`"
        )
    return plan


def _show(drifts: Drifts) -> None:
    """Print drifts as a table with a summary."""
    screen.show_table(
        ("table", "column", "differs", "found", "events", "since", "pages"),
        [
            (
                drift.table,
                drift.column,
                drift.code,
                drift.found,
                extent.events,
                screen.utc(int(extent.since)),
                ", ".join(page for page, _ in extent.pages.most_common(3)),
            )
            for drift, extent in drifts.sorted()
        ],
    )
    screen.say(drifts.summary())


def _as_value(drifts: Drifts) -> dict[str, Any]:
    """Return drifts as a JSON object."""
    return {
        "events": drifts.events,
        "fitting": drifts.fitting,
        "not_listed": drifts.missing,
        "drifts": [
            {
                **drift._asdict(),
                "events": extent.events,
                "since": screen.utc(int(extent.since)),
                "until": screen.utc(int(extent.until)),
                "pages": dict(extent.pages.most_common(10)),
            }
            for drift, extent in drifts.sorted()
        ],
    }


@group.command("infer")
@click.argument("account")
@works_on_stack
@since_option
@screen.output_option
def infer(stack: Stack, account: str, *, since: float, file: Path | None) -> None:
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
        screen.note(f"Note: `sluice accounts apply` refuses this plan until you shorten it: {error}")
