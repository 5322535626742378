"""`sluice redrive`: what is set aside goes out and disappears once it is delivered; what fails again stays."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import click

from ops import screen
from ops.edit import Letter, letters_of
from ops.edit import edit as edit_letters
from ops.failure import UNFINISHED, Failure
from ops.moment import MOMENT
from ops.set_aside import KINDS, NAMES, Header, aside, headers, listed
from ops.stack import Stack, works_on_stack
from worker.aside import SetAside
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
@click.option(
    "--edit", is_flag=True, help="Open the rows of dead letters in $EDITOR, and send what was changed."
)
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
    edit: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Send what is set aside; it disappears once it is delivered, and what fails again stays.

    Where Treasure Data cannot be asked about rows in doubt, --send or --drop decides. With --edit the rows of dead letters
    are opened in an editor; what was changed is checked and sent, and the original rows are kept until it is delivered.
    """
    kinds = _kinds(names, decision, edits=edit, as_json=as_json)
    selected: Counter[tuple[str, str, str]] = Counter()
    opened: list[Header] = []
    for header in headers(stack, listed(stack, kinds, account, table)):
        if header.may_be(reason, since):
            selected[NAMES[header.listed.kind], header.listed.account, header.reason] += header.listed.rows
            opened += [header] if edit else []
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
    if edit:
        ctx.exit(_edit(stack, letters_of(_chunks(stack, opened, reason, since)), yes=yes))
    if decision == "drop":
        screen.confirm("They will be gone from here. Does Treasure Data have them?", yes=yes or as_json)
    event: dict[str, Any] = {"kinds": list(kinds)}
    wanted = {"account": account, "table": table, "reason": reason, "since": since, "decision": decision}
    event |= {name: value for name, value in wanted.items() if value is not None}
    totals = _send(stack, event, hidden=as_json)
    if as_json:
        screen.show_json({"selected": sum(selected.values()), **totals})
        ctx.exit(_code(totals))
    ctx.exit(_report(stack, totals))


def _kinds(names: tuple[str, ...], decision: str | None, *, edits: bool, as_json: bool) -> tuple[Kind, ...]:
    """Return what is redriven.

    Raises:
        click.UsageError: the options do not go together.
    """
    if edits and (decision is not None or as_json or any(name != "dead" for name in names)):
        raise click.UsageError(
            "--edit is for dead letters and a person: leave other kinds, --send, --drop and --json out"
        )
    if decision is not None and "dead" in names:
        raise click.UsageError(
            f"--{decision} decides about rows in doubt, and dead letters are not: leave --kind dead out"
        )
    return tuple(KINDS[name] for name in names or (("dead",) if edits else ("parked", "doubt")))


def _report(stack: Stack, totals: dict[str, int]) -> int:
    screen.say(
        f"{screen.plural(totals['delivered'], 'row')} delivered, {totals['kept']:,} kept, {totals['dead']:,} dead letters now."
    )
    if totals["kept"]:
        screen.say(f"`sluice status {stack.option}` says why they are kept.")
    return _code(totals)


def _code(totals: dict[str, int]) -> int:
    return UNFINISHED if totals["kept"] or totals["dead"] else 0


def _chunks(
    stack: Stack, opened: Iterable[Header], reason: str | None, since: float | None
) -> Iterator[SetAside]:
    """Yield what stands in objects, where it is what was asked for."""
    bucket = aside(stack)
    for header in opened:
        chunk = bucket.get(header.listed.name)
        if chunk is not None:
            known = Header(header.listed, chunk.reason, chunk.database, chunk.set_aside_at)
            if known.may_be(reason, since):
                yield chunk


def _edit(stack: Stack, letters: list[Letter], *, yes: bool) -> int:
    """Have a person edit dead letters and send those that were changed; return the exit code."""
    if not letters:
        raise Failure(
            "none of these holds rows that could be edited: what never became rows stays as it came"
        )
    edited = edit_letters(letters, _editor, _again)
    if not edited:
        screen.say("Nothing was changed, and nothing is sent.")
        return 0
    screen.confirm(f"Send {screen.plural(sum(one.rows for one in edited), 'row')}?", yes=yes)
    totals = Counter(delivered=0, kept=0, dead=0)
    for one in edited:
        report = stack.invoke("RedriveFunction", one.event)
        if "error" in report:
            click.echo(f"{one.name}: {report['message']}", err=True)
            totals["kept"] += one.rows
        else:
            totals.update({name: report[name] for name in ("delivered", "kept", "dead")})
    return _report(stack, dict(totals))


def _editor(text: str) -> str | None:
    return click.edit(text, extension=".jsonl")


def _again(mistake: str) -> bool:
    click.echo(mistake, err=True)
    return click.confirm("Edit again?", default=True, err=True)


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
