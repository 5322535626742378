"""`sluice redrive`: what is set aside goes out and disappears once it is delivered; what fails again stays."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import click

from ops import screen
from ops.failure import UNFINISHED
from ops.moment import MOMENT
from ops.set_aside import KINDS, NAMES, headers, listed
from ops.stack import Stack, works_on_stack
from worker.aside import Listed
from worker.span import Kind


@click.command("redrive")
@works_on_stack
@click.option(
    "--kind",
    "names",
    type=click.Choice(list(KINDS)),
    multiple=True,
    help="By default parked and doubt; may be repeated.",
)
@click.option("--account", help="Only this account's.")
@click.option("--table", help="Only this table's.")
@click.option("--reason", help="Only what is set aside for this reason, as `sluice status` shows it.")
@click.option("--since", type=MOMENT, help="Only what was set aside since then.")
@click.option(
    "--send",
    "decision",
    flag_value="send",
    help="Send what is in doubt, though Treasure Data may have it.",
)
@click.option("--drop", "decision", flag_value="drop", help="Forget what is in doubt: Treasure Data has it.")
@screen.dry_run_option
@screen.yes_option
@screen.json_option
@click.pass_context
def command(
    ctx: click.Context,
    stack: Stack,
    *,
    names: tuple[str, ...],
    account: str | None,
    table: str | None,
    reason: str | None,
    since: float | None,
    decision: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Send what is set aside; it disappears once it is delivered, and what fails again stays.

    Where Treasure Data cannot be asked about rows in doubt, --send or --drop decides.
    """
    if decision is not None and "dead" in names:
        raise click.UsageError(
            f"--{decision} decides about rows in doubt, and dead letters are not: leave --kind dead out"
        )
    kinds = tuple(KINDS[name] for name in names or ("parked", "doubt"))
    selected = _selected(stack, kinds, account, table, reason)
    if not as_json:
        count = screen.plural(sum(selected.values()), "row")
        screen.say(
            f"{count} set aside." if selected else "Nothing of this is set aside: there is nothing to send."
        )
        screen.show_table(
            ("kind", "account", "reason", "rows"),
            [(*place, rows) for place, rows in sorted(selected.items())],
        )
    if dry_run or not selected:
        if as_json:
            screen.show_json({"selected": sum(selected.values()), "delivered": 0, "kept": 0, "dead": 0})
        return
    if decision == "drop":
        screen.confirm("They will be gone from here. Does Treasure Data have them?", yes=yes or as_json)
    event: dict[str, Any] = {"kinds": list(kinds)}
    wanted = {"account": account, "table": table, "reason": reason, "since": since, "decision": decision}
    event |= {name: value for name, value in wanted.items() if value is not None}
    totals = _send(stack, event, hidden=as_json)
    if as_json:
        screen.show_json({"selected": sum(selected.values()), **totals})
    else:
        screen.say(
            f"{screen.plural(totals['delivered'], 'row')} delivered, {totals['kept']:,} kept, {totals['dead']:,} dead letters now."
        )
        if totals["kept"]:
            screen.say(f"`sluice status {stack.option}` says why they are kept.")
    ctx.exit(UNFINISHED if totals["kept"] or totals["dead"] else 0)


def _selected(
    stack: Stack, kinds: tuple[Kind, ...], account: str | None, table: str | None, reason: str | None
) -> Counter[tuple[str, str, str]]:
    objects: Iterator[Listed] = listed(stack, kinds, account, table)
    rows: Counter[tuple[str, str, str]] = Counter()
    for header in headers(stack, objects):
        if reason is None or header.reason in (reason, "?"):
            rows[NAMES[header.listed.kind], header.listed.account, header.reason] += header.listed.rows
    return rows


def _send(stack: Stack, event: dict[str, Any], *, hidden: bool) -> dict[str, int]:
    """Invoke the redrive until everything had its turn, or nothing moves any more."""
    totals = {"delivered": 0, "kept": 0, "dead": 0}
    with screen.console(stderr=True).status("sending") as status:
        if hidden:
            status.stop()
        while True:
            report = stack.invoke("RedriveFunction", event)
            totals["delivered"] += report["delivered"]
            totals["dead"] += report["dead"]
            totals["kept"] = report["kept"]
            status.update(f"sending: {totals['delivered']:,} rows delivered")
            if report["complete"] or not report["delivered"] + report["dead"]:
                return totals
