"""How `sluice plan check` and `diff` print drifts, and which events they compare."""

from typing import Any

import click

from ops import screen
from ops.moment import MOMENT
from ops.plans.plan_profile import Drifts

DRIFTS = 3
"""Exit code: events differ from their plan."""


since_option = click.option(
    "--since",
    type=MOMENT,
    default="1d",
    show_default="a day ago",
    help="Begin at this time, such as 3d. S3 has the rows of ArchiveDays.",
)
"""The option that selects events."""


def show(drifts: Drifts) -> None:
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


def as_value(drifts: Drifts) -> dict[str, Any]:
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


def exit_by(drifts: Drifts) -> None:
    """End the command with exit code 3 if there are drifts."""
    if drifts.fitting < drifts.events:
        raise click.exceptions.Exit(DRIFTS)
